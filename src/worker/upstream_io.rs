//! The socket to an endpoint: reads ahead, gathers writes for as long as its driver says so, and remembers the peer's
//! first bytes.
//!
//! h2 reads frame by frame, which would be a system call and an acknowledgement for each; here one read takes what is
//! there. While the driver gathers, a flush is put off; the driver's next poll sends all as one. Reads are
//! held back meanwhile, so that what waits to be written keeps its place before any answer to what comes.
//!
//! Runs on one worker. Knows bytes, and of frames only what its filter tells.

use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::frame_filter::{DATA, FrameFilter, HEADERS};
use super::gathered::Gathered;
use crate::tls;

/// Up to eight bytes with which a peer began.
pub(crate) type FirstBytes = Arc<Mutex<Vec<u8>>>;

/// A stream to an endpoint.
pub struct UpstreamIo {
    stream: Stream,
    /// How the peer began, so that a wrong protocol can be named.
    first_bytes: FirstBytes,
    is_begun: bool,
    /// The driver polls again at once: until then nothing is read, and what is written is gathered.
    gathers: Arc<AtomicBool>,
    /// Read, and not yet asked for. Holds no memory between turns, unless a frame's header has come in part.
    ahead: BytesMut,
    /// For frames. HTTP/1.1 passes as it is.
    filter: Option<FrameFilter>,
    gathered: Gathered,
}

/// The socket itself.
struct Stream {
    transport: Transport,
    traffic: Arc<Traffic>,
}

/// How often something has gone over a socket.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    writes: AtomicU64,
    reads: AtomicU64,
    messages: AtomicU64,
}

impl Traffic {
    /// The writes of which the peer may have seen something: what is given to the stream between two equal values has
    /// not been written.
    pub(crate) fn writes(&self) -> u64 {
        self.writes.load(Ordering::Acquire)
    }

    /// The reads that something has come with.
    pub(crate) fn reads(&self) -> u64 {
        self.reads.load(Ordering::Acquire)
    }

    /// The frames that have come with a part of an answer.
    pub(crate) fn messages(&self) -> u64 {
        self.messages.load(Ordering::Acquire)
    }
}

enum Transport {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

impl UpstreamIo {
    pub(crate) fn tcp(stream: TcpStream, is_http2: bool) -> Self {
        Self::new(Transport::Tcp(stream), is_http2)
    }

    pub(crate) fn unix(stream: UnixStream, is_http2: bool) -> Self {
        Self::new(Transport::Unix(stream), is_http2)
    }

    pub(crate) fn tls(stream: tokio_rustls::client::TlsStream<TcpStream>, is_http2: bool) -> Self {
        Self::new(Transport::Tls(Box::new(stream)), is_http2)
    }

    fn new(transport: Transport, is_http2: bool) -> Self {
        Self {
            stream: Stream { transport, traffic: Arc::default() },
            first_bytes: Arc::default(),
            is_begun: false,
            gathers: Arc::default(),
            ahead: BytesMut::new(),
            filter: is_http2.then(|| FrameFilter::behind(0)),
            gathered: Gathered::default(),
        }
    }

    pub(crate) fn first_bytes(&self) -> FirstBytes {
        self.first_bytes.clone()
    }

    /// Set while its holder gathers writes and wants no reads. Who sets it must poll again after clearing it.
    pub(crate) fn gathers(&self) -> Arc<AtomicBool> {
        self.gathers.clone()
    }

    /// Has the connection end with a reset.
    pub(crate) fn set_reset_on_drop(&self) {
        let stream = match &self.stream.transport {
            Transport::Tcp(stream) => stream,
            Transport::Tls(stream) => stream.get_ref().0,
            // It knows no resets.
            Transport::Unix(_) => return,
        };
        // Fails only for a socket that is gone.
        let _ = stream.set_zero_linger();
    }

    /// What has gone over the socket.
    pub(crate) fn traffic(&self) -> Arc<Traffic> {
        self.stream.traffic.clone()
    }

    /// Reads as much as is there, up to [`AHEAD_BYTES`]. Ready with nothing read at the peer's end.
    fn poll_read_ahead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let start = self.ahead.len();
        self.ahead.reserve(AHEAD_BYTES);
        let polled = pin!(self.stream.read_buf(&mut self.ahead)).poll(cx);
        if matches!(polled, Poll::Ready(Ok(_))) {
            self.stream.traffic.reads.fetch_add(1, Ordering::Release);
        }
        match &polled {
            Poll::Ready(Ok(_)) if !self.is_begun => {
                let mut first = self.first_bytes.lock().unwrap_or_else(PoisonError::into_inner);
                let wanted = FIRST_BYTES.saturating_sub(first.len());
                let come = &self.ahead[start..];
                first.extend_from_slice(&come[..come.len().min(wanted)]);
                self.is_begun = first.len() == FIRST_BYTES;
            }
            // Nothing more will come for a while.
            Poll::Ready(Err(_)) | Poll::Pending if start == 0 => self.ahead = BytesMut::new(),
            _ => {}
        }
        polled.map_ok(|_| ())
    }

    /// How many bytes of `ahead` may pass at once, `room` at most.
    fn passable_bytes(&mut self, room: usize) -> usize {
        match &mut self.filter {
            Some(filter) => {
                let mut messages = 0;
                let bytes = filter.passable_bytes(&mut self.ahead, room, |frame| {
                    messages += u64::from(matches!(frame.kind, DATA | HEADERS) && !frame.says_nothing());
                });
                if messages > 0 {
                    self.stream.traffic.messages.fetch_add(messages, Ordering::Release);
                }
                bytes
            }
            None => self.ahead.len().min(room),
        }
    }

    fn is_gathering(&self) -> bool {
        self.gathers.load(Ordering::Relaxed)
    }

    /// Writes what has been gathered, then `bufs`; ready with how much of `bufs` was taken.
    fn poll_write_behind(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let Self { gathered, stream, .. } = self;
        gathered.poll_write_behind(cx, bufs, |cx, bufs| stream.poll_write_vectored(cx, bufs))
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().transport {
            Transport::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Transport::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Transport::Tls(stream) => Pin::new(stream).poll_read(cx, buf).map_err(tls::explained),
        }
    }
}

impl Stream {
    fn poll_write_vectored(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let (polled, is_atomic) = match &mut self.transport {
            Transport::Tcp(stream) => (Pin::new(stream).poll_write_vectored(cx, bufs), true),
            Transport::Unix(stream) => (Pin::new(stream).poll_write_vectored(cx, bufs), true),
            Transport::Tls(stream) => {
                let polled = Pin::new(&mut *stream).poll_write_vectored(cx, bufs);
                (polled.map_err(|error| explained(stream, error)), false)
            }
        };
        // What a bare socket refuses has gone nowhere; TLS may have sent a first record of what it then fails to send whole.
        if matches!(polled, Poll::Ready(Ok(_))) || !is_atomic {
            self.traffic.writes.fetch_add(1, Ordering::Release);
        }
        polled
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Transport::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Transport::Tls(stream) => {
                let polled = Pin::new(&mut *stream).poll_flush(cx);
                polled.map_err(|error| explained(stream, error))
            }
        }
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// Why a write has failed: a peer that refuses us says so before it closes, and that waits to be read.
fn explained(stream: &mut tokio_rustls::client::TlsStream<TcpStream>, error: io::Error) -> io::Error {
    let (tcp, session) = stream.get_mut();
    // Asked directly, because the runtime may not have heard yet that something has come. What comes for h2 or hyper
    // stays in the session.
    let socket = SockRef::from(&*tcp);
    while let Ok(1..) = session.read_tls(&mut &*socket) {
        if let Err(alert) = session.process_new_packets() {
            let alert = tls::explained(io::Error::new(io::ErrorKind::InvalidData, alert));
            return if tls::refusal_in(&alert).is_some() { alert } else { error };
        }
    }
    error
}

impl AsyncRead for UpstreamIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.is_gathering() {
            return Poll::Pending;
        }
        loop {
            let mut bytes = self.passable_bytes(buf.remaining());
            if bytes == 0 {
                let before = self.ahead.len();
                ready!(self.poll_read_ahead(cx))?;
                if self.ahead.len() > before {
                    continue;
                }
                // The peer's end, be it within a header: h2 is to see that it was cut.
                bytes = before.min(buf.remaining());
            }
            buf.put_slice(&self.ahead[..bytes]);
            self.ahead.advance(bytes);
            return Poll::Ready(Ok(()));
        }
    }
}

impl AsyncWrite for UpstreamIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.is_gathering()
            && let Some(taken) = self.gathered.take(bufs)
        {
            return Poll::Ready(Ok(taken));
        }
        self.poll_write_behind(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_gathering() {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_write_behind(cx, &[]))?;
        self.stream.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write_behind(cx, &[]))?;
        self.stream.poll_shutdown(cx)
    }
}

/// h2 asks for a frame at a time, and each read of a socket costs a system call and an acknowledgement.
const AHEAD_BYTES: usize = 64 * 1024;
/// As much of the peer's beginning as tells the protocol.
const FIRST_BYTES: usize = 8;
