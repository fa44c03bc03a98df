//! What carries the bytes of one client connection: a TCP or a Unix socket, with TLS on it or without.
//!
//! [`Accepted`] is the bare socket on its way to the worker that serves it: TLS begins there.
//!
//! Lives on one worker. Knows no HTTP, and not whose connection it is.

use std::io;
use std::mem::MaybeUninit;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

/// A socket that belongs to no runtime, of which nothing has been read.
pub enum Accepted {
    Tcp(std::net::TcpStream),
    Unix(StdUnixStream),
}

/// One connection; dropping it closes it.
pub(crate) enum Transport {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<Tls>),
    Begun(Box<Begun>),
}

/// One of the others, of which the first bytes have been read already. They come first.
pub(crate) struct Begun {
    unread: Bytes,
    below: Transport,
}

/// TLS over one of the others, whose memory only those connections need that use it.
pub(crate) struct Tls {
    stream: TlsStream<Transport>,
    /// The first byte of what comes next, read while looking whether the client is still there.
    ahead: Option<u8>,
    /// The socket has taken some of what TLS still held.
    has_moved: bool,
}

impl Transport {
    pub(crate) fn tls(stream: TlsStream<Self>) -> Self {
        Self::Tls(Box::new(Tls { stream, ahead: None, has_moved: false }))
    }

    /// The same, with bytes that were read from it to be read once more.
    pub(crate) fn begun(self, unread: Bytes) -> Self {
        Self::Begun(Box::new(Begun { unread, below: self }))
    }

    /// Takes the socket into this thread's runtime.
    pub(crate) fn from_accepted(accepted: Accepted) -> io::Result<Self> {
        match accepted {
            Accepted::Tcp(stream) => TcpStream::from_std(stream).map(Self::Tcp),
            Accepted::Unix(stream) => UnixStream::from_std(stream).map(Self::Unix),
        }
    }

    /// Takes the bare socket out of this thread's runtime. A connection that has begun stays where it is: it is closed.
    pub(crate) fn into_accepted(self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(stream) => stream.into_std().map(Accepted::Tcp),
            Self::Unix(stream) => stream.into_std().map(Accepted::Unix),
            Self::Tls(_) | Self::Begun(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Has what is written go out at once: answers are written whole, and waiting for more would only delay them.
    pub(crate) fn set_nodelay(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_nodelay(true),
            Self::Unix(_) => Ok(()),
            Self::Tls(tls) => tls.stream.get_ref().0.set_nodelay(),
            Self::Begun(begun) => begun.below.set_nodelay(),
        }
    }

    /// Ready when bytes, the end or an error wait to be read: whoever reads next learns which. Takes nothing away from
    /// the runtime's knowledge of the socket, which only a read that finds nothing may do.
    ///
    /// Of TLS it may be ready although nothing comes of it for HTTP: that is for the reader to find out too.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(cx).map(drop),
            Self::Unix(stream) => stream.poll_read_ready(cx).map(drop),
            Self::Tls(tls) => {
                let (below, session) = tls.stream.get_ref();
                // rustls wants no more while it has plaintext for us.
                if tls.ahead.is_some() || !session.wants_read() { Poll::Ready(()) } else { below.poll_readable(cx) }
            }
            Self::Begun(begun) if begun.unread.is_empty() => begun.below.poll_readable(cx),
            Self::Begun(_) => Poll::Ready(()),
        }
    }

    /// Looks at the first byte that waits to be read, and leaves it there; `None` at the end. Not for TLS, whose first
    /// bytes are its own.
    pub(crate) fn poll_first(&self, cx: &mut Context<'_>) -> Poll<io::Result<Option<u8>>> {
        let mut next = [0];
        let mut next = ReadBuf::new(&mut next);
        match self {
            Self::Tcp(stream) => ready!(stream.poll_peek(cx, &mut next)).map(drop),
            Self::Unix(stream) => ready!(poll_peek_unix(stream, cx, &mut next)),
            Self::Tls(_) => Err(io::ErrorKind::Unsupported.into()),
            Self::Begun(begun) => {
                let Some(first) = begun.unread.first() else { return begun.below.poll_first(cx) };
                return Poll::Ready(Ok(Some(*first)));
            }
        }?;
        Poll::Ready(Ok(next.filled().first().copied()))
    }

    /// Whether HTTP/2 may be spoken, and nothing else: over TLS that has been agreed on (RFC 9113 §3.2). `None` in the clear,
    /// where the first bytes tell.
    pub(crate) fn is_http2_agreed(&self) -> Option<bool> {
        match self {
            Self::Tcp(_) | Self::Unix(_) => None,
            Self::Tls(tls) => Some(tls.stream.get_ref().1.alpn_protocol() == Some(b"h2")),
            Self::Begun(begun) => begun.below.is_http2_agreed(),
        }
    }

    /// Whether TLS has sent some of what it held, since this was asked last.
    pub(crate) fn has_moved(&mut self) -> bool {
        match self {
            Self::Tcp(_) | Self::Unix(_) => false,
            Self::Tls(tls) => std::mem::take(&mut tls.has_moved),
            Self::Begun(begun) => begun.below.has_moved(),
        }
    }

    /// Fails once the peer has ended the connection, and otherwise wakes the task when it does.
    ///
    /// A peer that has already sent more is not seen to end before that has been read.
    pub(crate) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let first = match self {
            Self::Tcp(_) | Self::Unix(_) => self.poll_first(cx),
            Self::Tls(tls) => tls.poll_ahead(cx),
            Self::Begun(begun) if begun.unread.is_empty() => return begun.below.poll_end(cx),
            Self::Begun(_) => return Poll::Pending,
        };
        match ready!(first) {
            Err(error) => Poll::Ready(error),
            Ok(None) => Poll::Ready(io::ErrorKind::UnexpectedEof.into()),
            Ok(Some(_)) => Poll::Pending,
        }
    }

    /// Writes as much as the socket takes at once.
    pub(crate) fn write_some(&mut self, bytes: &[u8]) {
        let mut cx = Context::from_waker(Waker::noop());
        if let Poll::Ready(Ok(_)) = Pin::new(&mut *self).poll_write(&mut cx, bytes) {
            let _ = Pin::new(self).poll_flush(&mut cx);
        }
    }

    /// Has the connection end with a reset when it is dropped, where the socket knows resets. Over TLS the end is no
    /// orderly one in any case: nobody says `close_notify`.
    pub(crate) fn set_reset_on_drop(&self) {
        match self {
            // Fails only for a socket that is gone.
            Self::Tcp(stream) => drop(stream.set_zero_linger()),
            Self::Unix(_) => {}
            Self::Tls(tls) => tls.stream.get_ref().0.set_reset_on_drop(),
            Self::Begun(begun) => begun.below.set_reset_on_drop(),
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(tls) => tls.poll_read(cx, buf),
            Self::Begun(begun) => begun.poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(tls) => Pin::new(&mut tls.stream).poll_write(cx, buf),
            Self::Begun(begun) => Pin::new(&mut begun.below).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(tls) => Pin::new(&mut tls.stream).poll_write_vectored(cx, bufs),
            Self::Begun(begun) => Pin::new(&mut begun.below).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Unix(stream) => stream.is_write_vectored(),
            Self::Tls(tls) => tls.stream.is_write_vectored(),
            Self::Begun(begun) => begun.below.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(tls) => tls.poll_flush(cx),
            Self::Begun(begun) => Pin::new(&mut begun.below).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(&mut tls.stream).poll_shutdown(cx),
            Self::Begun(begun) => Pin::new(&mut begun.below).poll_shutdown(cx),
        }
    }
}

impl Tls {
    /// The first byte of what comes next, kept for whoever reads it: the socket's next bytes may be TLS's own, a
    /// `close_notify` among them, so that only reading tells.
    fn poll_ahead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<u8>>> {
        if self.ahead.is_none() {
            let mut next = [0];
            let mut next = ReadBuf::new(&mut next);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut next))?;
            self.ahead = next.filled().first().copied();
        }
        Poll::Ready(Ok(self.ahead))
    }

    /// As the stream's own, step by step, to see whether anything moves: a slow reader takes long for what TLS holds.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (below, session) = self.stream.get_mut();
        while session.wants_write() {
            let mut below = Blocking { transport: below, cx };
            match session.write_tls(&mut below) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(_) => self.has_moved = true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let Some(first) = self.ahead.take() else { return Pin::new(&mut self.stream).poll_read(cx, buf) };
        buf.put_slice(&[first]);
        // With what follows it, as a rule the rest of a head. An end or an error can wait: both are told again.
        let _ = Pin::new(&mut self.stream).poll_read(cx, buf);
        Poll::Ready(Ok(()))
    }
}

/// A transport as rustls wants it.
struct Blocking<'t, 'cx, 'w> {
    transport: &'t mut Transport,
    cx: &'cx mut Context<'w>,
}

impl Blocking<'_, '_, '_> {
    fn done<T>(polled: Poll<io::Result<T>>) -> io::Result<T> {
        match polled {
            Poll::Ready(result) => result,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl io::Write for Blocking<'_, '_, '_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        Self::done(Pin::new(&mut *self.transport).poll_write(self.cx, buf))
    }

    fn write_vectored(&mut self, bufs: &[io::IoSlice<'_>]) -> io::Result<usize> {
        Self::done(Pin::new(&mut *self.transport).poll_write_vectored(self.cx, bufs))
    }

    fn flush(&mut self) -> io::Result<()> {
        Self::done(Pin::new(&mut *self.transport).poll_flush(self.cx))
    }
}

impl Begun {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.unread.is_empty() {
            return Pin::new(&mut self.below).poll_read(cx, buf);
        }
        let length = self.unread.len().min(buf.remaining());
        buf.put_slice(&self.unread[..length]);
        self.unread.advance(length);
        if buf.remaining() > 0 {
            // With what follows. An end or an error can wait: both are told again.
            let _ = Pin::new(&mut self.below).poll_read(cx, buf);
        }
        Poll::Ready(Ok(()))
    }
}

/// What tokio has for TCP only.
fn poll_peek_unix(stream: &UnixStream, cx: &mut Context<'_>, next: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
    loop {
        ready!(stream.poll_read_ready(cx))?;
        let peek = || SockRef::from(stream).peek(&mut [MaybeUninit::uninit()]);
        match stream.try_io(Interest::READABLE, peek) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // That there is a byte is all that is asked.
            peeked => return Poll::Ready(peeked.map(|length| next.put_slice(&[0][..length]))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_unix_peer_that_leaves_is_noticed_and_one_that_has_sent_more_is_not() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut transport = Transport::Unix(ours);
        theirs.write_all(b"x").await.unwrap();
        poll_fn(|cx| transport.poll_readable(cx)).await;
        assert!(poll_fn(|cx| Poll::Ready(transport.poll_end(cx).is_pending())).await);
        drop(theirs);
        assert_eq!(transport.read_u8().await.unwrap(), b'x');
        let end = poll_fn(|cx| transport.poll_end(cx)).await;
        assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn what_was_read_before_comes_first_and_the_end_after_what_follows() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut transport = Transport::Unix(ours).begun(Bytes::from_static(b"ab"));
        poll_fn(|cx| transport.poll_readable(cx)).await;
        theirs.write_all(b"c").await.unwrap();
        drop(theirs);
        let mut all = Vec::new();
        assert!(poll_fn(|cx| Poll::Ready(transport.poll_end(cx).is_pending())).await);
        transport.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"abc");
        let end = poll_fn(|cx| transport.poll_end(cx)).await;
        assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
    }
}
