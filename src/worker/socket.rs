//! A client's connection, which tells its [`Client`] what moves.
//!
//! [`ClientSocket`] is all that a parked connection holds; [`ClientIo`] is the same in hyper's hands.
//!
//! Lives on one worker. Knows no HTTP.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::client::Client;
use super::transport::Transport;

/// The connection itself; dropping it closes it.
pub(crate) struct ClientSocket {
    transport: Transport,
    client: Rc<Client>,
}

impl ClientSocket {
    pub(crate) fn new(transport: Transport, client: Rc<Client>) -> Self {
        Self { transport, client }
    }

    /// Ready when bytes, the end or an error wait to be read: whoever reads next learns which.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.transport.poll_readable(cx)
    }

    /// Has the connection end with a reset.
    pub(crate) fn set_reset_on_drop(&self) {
        self.transport.set_reset_on_drop();
    }

    /// See [`Transport::is_http2_agreed`].
    pub(crate) fn is_http2_agreed(&self) -> Option<bool> {
        self.transport.is_http2_agreed()
    }

    /// Writes as much as the socket takes at once.
    pub(crate) fn write_some(&mut self, bytes: &[u8]) {
        self.transport.write_some(bytes);
    }
}

impl Drop for ClientSocket {
    fn drop(&mut self) {
        if self.client.is_ended_by_close() {
            // An orderly end would make a cut answer a complete one.
            self.set_reset_on_drop();
        }
    }
}

/// The socket while hyper reads requests from it and writes answers to it.
pub(crate) struct ClientIo {
    pub(crate) socket: ClientSocket,
    /// Bytes that were read from the socket before, and count as such.
    unread: Bytes,
}

impl ClientIo {
    pub(crate) fn new(socket: ClientSocket, unread: Bytes) -> Self {
        Self { socket, unread }
    }

    /// Puts `read` before what is still to be read.
    pub(crate) fn put_back(&mut self, read: Bytes) {
        self.unread = if self.unread.is_empty() { read } else { [read, self.unread.clone()].concat().into() };
    }

    fn transport(&mut self) -> Pin<&mut Transport> {
        Pin::new(&mut self.socket.transport)
    }

    fn client(&self) -> &Client {
        &self.socket.client
    }

    /// While a request runs: wakes the task when the client leaves, and fails once it has left.
    ///
    /// A client that has already sent its next request is not seen to leave before that one's turn.
    fn look_for_end(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if !self.client().is_in_exchange() {
            return Ok(());
        }
        match self.socket.transport.poll_end(cx) {
            Poll::Ready(error) => Err(error),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.unread.is_empty() {
            let length = self.unread.len().min(buf.remaining());
            buf.put_slice(&self.unread[..length]);
            self.unread.advance(length);
            if self.unread.is_empty() {
                // An empty slice would keep its buffer.
                self.unread = Bytes::new();
            }
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let polled = self.transport().poll_read(cx, buf);
        match &polled {
            Poll::Ready(Ok(())) => self.client().received(buf.filled().len() - before),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.client().waits_for_more(),
        }
        polled
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = self.transport().poll_write(cx, buf);
        self.client().written(&polled);
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
        let polled = self.transport().poll_write_vectored(cx, bufs);
        self.client().written(&polled);
        if polled.is_pending() {
            self.look_for_end(cx)?;
        }
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.transport.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = self.transport().poll_flush(cx);
        match polled {
            Poll::Ready(_) => self.client().flushed(),
            // TLS takes more than its socket, which alone knows whether the client reads.
            Poll::Pending => {
                if self.socket.transport.has_moved() {
                    self.client().progress();
                }
                self.client().stalls();
            }
        }
        self.look_for_end(cx)?;
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.client().is_being_parked() {
            // It is hyper that ends here, not the connection.
            return Poll::Ready(Ok(()));
        }
        self.transport().poll_shutdown(cx)
    }
}
