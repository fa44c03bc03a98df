//! One client connection: hyper's HTTP/1.1 server with our limits, timeouts and rules for closing.
//!
//! Lives on one worker. RFC 9112 §9.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::admission::{ConnectionPermit, ListenerShared};
use super::client::{Client, Expiry};
use super::exchange::Exchange;
use super::local::{Load, Local};
use crate::error::DownstreamFault;

/// Serves one client connection to its end.
pub(crate) async fn serve(
    local: Rc<Local>,
    listener: Arc<ListenerShared>,
    stream: TcpStream,
    peer: SocketAddr,
    // Held for as long as the connection counts. The gauge goes down before the place is free for another.
    _places: (Load, ConnectionPermit),
) {
    let client = Rc::new(Client::new(local.clone(), listener, peer));
    let _registration = local.register(&client.timer);
    let settings = &client.listener.settings;
    let io = ClientIo { stream, client: client.clone(), is_begun: false };
    let service = service_fn({
        let client = client.clone();
        move |request| super::forward::forward(client.clone(), request)
    });
    let mut server = http1::Builder::new();
    if settings.headers_max != HYPER_HEADERS_MAX {
        server.max_headers(settings.headers_max);
    }
    // Not `pipeline_flush`: with it hyper takes an answer without bound, however slowly the client reads.
    let mut connection = server
        .keep_alive(true)
        // [`ClientIo`] finds out who has left. Left to hyper, that would cost a fresh read buffer for each request: the
        // fields of its head still occupy the last one.
        .half_close(true)
        .header_read_timeout(None)
        .max_header_size(settings.header_bytes_max)
        .max_buf_size(settings.header_bytes_max.max(BUFFER_BYTES))
        .auto_date_header(false)
        .serve_connection(TokioIo::new(io), service);
    let mut is_closing = false;
    let ended = poll_fn(|cx| {
        client.timer.register(cx);
        let mut polled = Pin::new(&mut connection).poll(cx);
        if polled.is_pending() && client.is_closing() && !is_closing && !client.lingers() {
            is_closing = true;
            // The answer, if one is to come, says `Connection: close`.
            Pin::new(&mut connection).graceful_shutdown();
            polled = Pin::new(&mut connection).poll(cx);
        }
        match polled {
            Poll::Ready(result) => Poll::Ready(Ok(result)),
            Poll::Pending if client.timer.is_expired() => Poll::Ready(Err(client.expiry())),
            Poll::Pending => Poll::Pending,
        }
    })
    .await;
    match ended {
        Ok(Ok(())) | Err(Expiry::Idle) => {}
        Ok(Err(error)) => head_fault(&client, &error),
        Err(Expiry::Stalled) => client.ended.set(Some(DownstreamFault::WriteStalled)),
        Err(Expiry::Head) => {
            let io = connection.into_parts().io.into_inner();
            if io.is_begun {
                tell_fault(&client, DownstreamFault::HeadTimeout);
                // One try: a client that is slow to write may be slow to read.
                let _ = io.stream.try_write(HEAD_TIMEOUT_ANSWER);
            }
        }
    }
}

/// hyper has answered a head that it could not read; the record is made here.
fn head_fault(client: &Client, error: &hyper::Error) {
    if error.is_parse_too_large() {
        // 414 or 431: hyper tells them apart only in its words.
        let is_target = error.to_string().contains("URI");
        tell_fault(client, if is_target { DownstreamFault::UriTooLong } else { DownstreamFault::HeadTooLarge });
    } else if error.is_parse() {
        tell_fault(client, DownstreamFault::MalformedHead);
    } else {
        tracing::debug!(peer = %client.peer, %error, "client connection ended");
    }
}

fn tell_fault(client: &Client, fault: DownstreamFault) {
    let mut exchange = Exchange::begin(client.local.clone(), client.peer.ip(), Instant::now());
    exchange.fault = Some(fault.into());
}

/// A client's socket, which tells its [`Client`] what moves.
struct ClientIo {
    stream: TcpStream,
    client: Rc<Client>,
    is_begun: bool,
}

impl ClientIo {
    /// While a request runs: wakes the task when the client leaves, and fails once it has left.
    ///
    /// A client that has already sent its next request is not seen to leave before that one's turn.
    fn look_for_end(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if !self.client.is_in_exchange() {
            return Ok(());
        }
        let mut next = [0];
        match self.stream.poll_peek(cx, &mut ReadBuf::new(&mut next)) {
            Poll::Ready(Ok(0)) => Err(io::ErrorKind::UnexpectedEof.into()),
            Poll::Ready(Err(error)) => Err(error),
            Poll::Ready(Ok(_)) | Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        match &polled {
            Poll::Ready(Ok(())) => {
                self.is_begun = true;
                self.client.received(buf.filled().len() - before);
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.client.waits_for_more(),
        }
        polled
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.client.written(&polled);
        if polled.is_pending() {
            self.look_for_end(cx)?;
        }
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.client.written(&polled);
        if polled.is_pending() {
            self.look_for_end(cx)?;
        }
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        if polled.is_ready() {
            self.client.flushed();
        }
        self.look_for_end(cx)?;
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Drop for ClientIo {
    fn drop(&mut self) {
        if self.client.is_ended_by_close() {
            // An orderly end would make a cut answer a complete one. Fails only for a socket that is gone.
            let _ = self.stream.set_zero_linger();
        }
    }
}

/// hyper has no part in this answer, so it is spelt out.
const HEAD_TIMEOUT_ANSWER: &[u8] = b"HTTP/1.1 408 Request Timeout\r\n\
    proxy-status: trunkline; error=http_request_error\r\n\
    connection: close\r\n\
    content-length: 0\r\n\r\n";

/// hyper holds at most this much of an answer for the socket before it asks for more.
const BUFFER_BYTES: usize = 64 * 1024;
/// hyper's own limit of fields in a head. While it holds, hyper keeps the fields on the stack; any other limit costs
/// two allocations for each head.
const HYPER_HEADERS_MAX: usize = 100;
