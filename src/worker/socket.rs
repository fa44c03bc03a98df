//! A client's socket, which tells its [`Client`] what moves.
//!
//! [`ClientSocket`] is all that a parked connection holds; [`ClientIo`] is the same socket in hyper's hands.
//!
//! Lives on one worker. Knows no HTTP.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::client::Client;

/// The connection itself; dropping it closes it.
pub(crate) struct ClientSocket {
    stream: TcpStream,
    client: Rc<Client>,
}

impl ClientSocket {
    pub(crate) fn new(stream: TcpStream, client: Rc<Client>) -> Self {
        Self { stream, client }
    }

    /// Ready when bytes, the end or an error wait to be read: whoever reads next learns which. Takes nothing away from
    /// the runtime's knowledge of the socket, which only a read that finds nothing may do.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream.poll_read_ready(cx).map(drop)
    }

    /// Writes as much as the socket takes at once.
    pub(crate) fn write_some(&self, bytes: &[u8]) {
        let _ = self.stream.try_write(bytes);
    }
}

impl Drop for ClientSocket {
    fn drop(&mut self) {
        if self.client.is_ended_by_close() {
            // An orderly end would make a cut answer a complete one. Fails only for a socket that is gone.
            let _ = self.stream.set_zero_linger();
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

    fn stream(&mut self) -> Pin<&mut TcpStream> {
        Pin::new(&mut self.socket.stream)
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
        let mut next = [0];
        match self.stream().poll_peek(cx, &mut ReadBuf::new(&mut next)) {
            Poll::Ready(Ok(0)) => Err(io::ErrorKind::UnexpectedEof.into()),
            Poll::Ready(Err(error)) => Err(error),
            Poll::Ready(Ok(_)) | Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.unread.is_empty() {
            let length = self.unread.len().min(buf.remaining());
            buf.put_slice(&self.unread[..length]);
            self.unread.advance(length);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let polled = self.stream().poll_read(cx, buf);
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
        let polled = self.stream().poll_write(cx, buf);
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
        let polled = self.stream().poll_write_vectored(cx, bufs);
        self.client().written(&polled);
        if polled.is_pending() {
            self.look_for_end(cx)?;
        }
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = self.stream().poll_flush(cx);
        if polled.is_ready() {
            self.client().flushed();
        }
        self.look_for_end(cx)?;
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.client().is_being_parked() {
            // It is hyper that ends here, not the connection.
            return Poll::Ready(Ok(()));
        }
        self.stream().poll_shutdown(cx)
    }
}
