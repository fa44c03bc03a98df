//! One client connection: HTTP/1.1 by hyper's server, with our limits, timeouts and rules for closing, or [`http2`].
//!
//! hyper is there only while the client is active. A connection that has been idle for a while, or has sent nothing yet,
//! is parked: only its socket and what the worker knows of it are kept, and hyper begins anew when something comes.
//!
//! Lives on one worker. RFC 9112 §9, RFC 9113 §3.3.

mod frames;
mod http2;
mod preface;
mod stream;
mod wire;

use std::cell::Cell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONNECTION, EXPECT};
use http::{HeaderValue, Request, StatusCode, Version};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use super::admission::{ConnectionPermit, ListenerShared};
use super::client::{Client, Expiry};
use super::exchange::Exchange;
use super::handshake;
use super::local::{Load, Local, Registration};
use super::peer::Peer;
use super::request_body::ClientBody;
use super::socket::{ClientIo, ClientSocket};
use super::transport::Transport;
use super::tunnel::{self, Tunnel};
use crate::error::DownstreamFault;
use crate::metrics::Gauge;
use preface::Spoken;

/// Serves one client connection, accepted at `since`, to its end.
pub(crate) fn serve(
    local: &Rc<Local>,
    listener: Arc<ListenerShared>,
    transport: Transport,
    peer: Peer,
    since: Instant,
    places: (Load, ConnectionPermit),
) -> impl Future<Output = ()> + use<> {
    let client = Rc::new(Client::new(local.clone(), listener, peer, since));
    let mut connection = Connection {
        held: match client.listener.tls {
            Some(_) => Held::Fresh(transport),
            None => Held::Parked(ClientSocket::new(transport, client.clone())),
        },
        _registration: local.register(&client.timer),
        client,
        _places: places,
    };
    // This future is most of what a parked connection costs: it is small because what only an active client needs has a
    // box of its own.
    async move {
        let connection = &mut connection;
        while connection.is_active_again().await {
            let client = &connection.client;
            connection.held = match std::mem::replace(&mut connection.held, Held::Nothing) {
                Held::Nothing => return,
                Held::Fresh(transport) => Box::pin(begin(client.clone(), transport)).await,
                Held::Parked(socket) => Box::pin(serve_active(client.clone(), socket)).await,
            };
            client.local.memory_freed();
        }
    }
}

/// What a connection is for as long as it lasts.
struct Connection {
    held: Held,
    client: Rc<Client>,
    _registration: Registration,
    /// Held for as long as the connection counts. The gauge goes down before the place is free for another.
    _places: (Load, ConnectionPermit),
}

/// What a connection holds while nothing comes from its client.
enum Held {
    /// It has been closed, or is being served.
    Nothing,
    /// TLS is to begin with the first byte.
    Fresh(Transport),
    Parked(ClientSocket),
}

impl Held {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Nothing => Poll::Pending,
            // The runtime takes accepted sockets to be readable, and a handshake is no small thing to begin.
            Self::Fresh(transport) => transport.poll_first(cx).map(drop),
            Self::Parked(socket) => socket.poll_readable(cx),
        }
    }
}

impl Connection {
    /// Waits until a parked connection has something to read, its end included; `false` if it is to be closed first, or
    /// has been.
    async fn is_active_again(&self) -> bool {
        let Self { held, client, .. } = self;
        if matches!(held, Held::Nothing) {
            return false;
        }
        let _counted = Parked::new(&client.local.metrics.downstream_parked);
        poll_fn(|cx| {
            client.timer.register(cx);
            if held.poll_readable(cx).is_ready() {
                return Poll::Ready(true);
            }
            // Nobody is owed an answer here: neither at the end of the idle time, nor before the first byte.
            if client.is_closing() && !client.lingers() {
                return Poll::Ready(false);
            }
            if !client.is_expired() {
                return Poll::Pending;
            }
            if matches!(held, Held::Fresh(_)) {
                handshake::timed_out(client);
            }
            Poll::Ready(false)
        })
        .await
    }
}

/// Has TLS begin.
async fn begin(client: Rc<Client>, transport: Transport) -> Held {
    let listener = client.listener.clone();
    let Some(tls) = &listener.tls else { return Held::Nothing };
    match handshake::handshake(client.clone(), transport, tls).await {
        Some(transport) => Held::Parked(ClientSocket::new(transport, client)),
        None => Held::Nothing,
    }
}

/// Serves requests until the connection ends, or is to be parked: then its socket comes back.
async fn serve_active(client: Rc<Client>, mut socket: ClientSocket) -> Held {
    let mut unread = Bytes::new();
    if client.is_fresh() {
        let mut io = ClientIo::new(socket, unread);
        match preface::detect(&client, &mut io).await {
            Ok(Spoken::Http1(bytes)) => (socket, unread) = (io.socket, bytes),
            Ok(Spoken::Http2(bytes)) => {
                Box::pin(http2::serve(client, ClientIo::new(io.socket, bytes))).await;
                return Held::Nothing;
            }
            Ok(Spoken::Nothing) => return Held::Parked(io.socket),
            // In whatever protocol it were answered, it might not be understood.
            Ok(Spoken::Unexpected) => {
                tell_fault(&client, DownstreamFault::MalformedHead);
                return Held::Nothing;
            }
            Ok(Spoken::Late) => {
                late_head(&client, &mut io.socket);
                return Held::Nothing;
            }
            Err(error) => {
                tracing::debug!(peer = %client.peer, %error, "client connection ended");
                return Held::Nothing;
            }
        }
    }
    let tunnel: Rc<Cell<Option<Box<Tunnel>>>> = Rc::default();
    let service = service_fn({
        let (client, tunnel) = (client.clone(), tunnel.clone());
        move |request| {
            client.set_reusable(is_reusable_after(&request));
            let (client, tunnel) = (client.clone(), tunnel.clone());
            async move {
                let request = with_body(&client, request);
                let mut answer = super::forward::forward(client, request).await;
                if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
                    tunnel.set(answer.body_mut().take_tunnel());
                }
                Ok::<_, Infallible>(answer)
            }
        }
    });
    let settings = &client.listener.settings;
    let mut server = http1::Builder::new();
    if settings.headers_max != HYPER_HEADERS_MAX {
        server.max_headers(settings.headers_max);
    }
    // Not `pipeline_flush`: with it hyper takes an answer without bound, however slowly the client reads.
    server
        .keep_alive(true)
        // [`ClientIo`] finds out who has left. Left to hyper, that would cost a fresh read buffer for each request: the
        // fields of its head still occupy the last one.
        .half_close(true)
        .header_read_timeout(None)
        .max_header_size(settings.header_bytes_max)
        .max_buf_size(settings.header_bytes_max.max(BUFFER_BYTES))
        .auto_date_header(false);
    loop {
        let io = TokioIo::new(ClientIo::new(socket, unread));
        let mut connection = server.serve_connection(io, &service);
        let mut is_closing = false;
        let end = poll_fn(|cx| {
            client.timer.register(cx);
            let mut polled = Pin::new(&mut connection).poll(cx);
            if polled.is_pending() && client.is_closing() && !is_closing && !client.lingers() {
                is_closing = true;
                // The answer, if one is to come, says `Connection: close`.
                Pin::new(&mut connection).graceful_shutdown();
                polled = Pin::new(&mut connection).poll(cx);
            }
            let expiry = match polled {
                Poll::Ready(result) => return Poll::Ready(End::Closed(result)),
                Poll::Pending if client.timer.is_expired() => client.expiry(),
                Poll::Pending => return Poll::Pending,
            };
            if expiry != Expiry::Park {
                return Poll::Ready(End::Expired(expiry));
            }
            // hyper alone knows whether it is between two messages: then it ends at once. If it does not, it takes no further
            // request; that is so only while a body is on its way that an early answer has left behind.
            client.set_being_parked(true);
            Pin::new(&mut connection).graceful_shutdown();
            let polled = Pin::new(&mut connection).poll(cx);
            client.set_being_parked(false);
            polled.map(|result| result.map_or_else(|error| End::Closed(Err(error)), |()| End::Parked))
        })
        .await;
        match end {
            End::Parked => {
                let parts = connection.into_parts();
                socket = parts.io.into_inner().socket;
                unread = parts.read_buf;
                if unread.is_empty() {
                    return Held::Parked(socket);
                }
                // A part of a head came behind the last request: hyper has to keep that anyway.
                continue;
            }
            End::Closed(Ok(())) if let Some(tunnel) = tunnel.take() => {
                // The head that says so has been written.
                let parts = connection.into_parts();
                let mut io = parts.io.into_inner();
                io.put_back(parts.read_buf);
                // What cut it is in its record.
                _ = Box::pin(tunnel.run(client.clone(), tunnel::End::Client(io))).await;
            }
            End::Closed(Ok(())) | End::Expired(Expiry::Idle | Expiry::Park) => {}
            End::Closed(Err(error)) => head_fault(&client, &error),
            End::Expired(Expiry::Stalled) => client.ended.set(Some(client.stall_fault())),
            End::Expired(Expiry::Head) => {
                late_head(&client, &mut connection.into_parts().io.into_inner().socket);
            }
        }
        return Held::Nothing;
    }
}

/// A parked connection, in the gauge.
struct Parked<'a>(&'a Gauge);

impl<'a> Parked<'a> {
    fn new(gauge: &'a Gauge) -> Self {
        gauge.add(1);
        Self(gauge)
    }
}

impl Drop for Parked<'_> {
    fn drop(&mut self) {
        self.0.add(-1);
    }
}

/// How hyper's part of a connection ends.
enum End {
    /// The connection has ended.
    Closed(hyper::Result<()>),
    /// It is to be closed, because something took too long.
    Expired(Expiry),
    /// hyper has given it back.
    Parked,
}

/// Whether hyper, asked to end after this request, is sure to end at once only if the connection takes another one.
///
/// While a body is on its way behind an early answer, hyper ends at once for the opposite reason too: it has answered for
/// good. So a request with a body must have said nothing about its connection, except that it stays.
fn is_reusable_after(request: &Request<Incoming>) -> bool {
    let is_kept = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"keep-alive");
    request.body().is_end_stream()
        || (request.version() == Version::HTTP_11 && request.headers().get_all(CONNECTION).iter().all(is_kept))
}

/// The request with what it says of its body.
fn with_body(client: &Client, request: Request<Incoming>) -> Request<ClientBody> {
    if request.body().is_end_stream() {
        return request.map(|_empty| ClientBody::None);
    }
    let is_unasked = request.headers().contains_key(EXPECT);
    request.map(|incoming| ClientBody::http1(incoming, is_unasked, client.body_comes()))
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

/// A part of a head has come, and the rest has not.
fn late_head(client: &Client, socket: &mut ClientSocket) {
    tell_fault(client, DownstreamFault::HeadTimeout);
    if socket.is_http2_agreed() != Some(true) {
        // One try: a client that is slow to write may be slow to read.
        socket.write_some(HEAD_TIMEOUT_ANSWER);
    }
}

fn tell_fault(client: &Client, fault: DownstreamFault) {
    let mut exchange = Exchange::begin(client.local.clone(), client.hop.peer, Instant::now());
    exchange.fault = Some(fault.into());
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
