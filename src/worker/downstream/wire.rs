//! The socket of an HTTP/2 client: h2 reads and writes here, and its driver sends what h2 has written.
//!
//! One read takes what is there, as on the upstream's side, and [`Frames`] is told of each frame; what says nothing is kept
//! from h2. A flush of h2's is put off: the driver's, at the end of its turn, sends the frames of all streams as one.
//!
//! Lives on one worker. Knows no streams.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::super::frame_filter::FrameFilter;
use super::super::gathered::Gathered;
use super::super::socket::ClientIo;
use super::frames::Frames;
use super::preface::PREFACE;

/// The socket in h2's hands.
pub(super) struct Wire {
    sender: Sender,
    frames: Rc<Frames>,
    filter: FrameFilter,
    /// Read, and not yet asked for. Holds no memory between turns, unless a frame's header has come in part.
    ahead: BytesMut,
}

/// The socket in its driver's hands.
#[derive(Clone)]
pub(super) struct Sender(Rc<RefCell<Outgoing>>);

struct Outgoing {
    io: ClientIo,
    gathered: Gathered,
    /// The socket has taken all that h2 has written.
    is_flushed: bool,
}

impl Wire {
    pub(super) fn new(io: ClientIo, frames: Rc<Frames>) -> Self {
        let outgoing = Outgoing { io, gathered: Gathered::default(), is_flushed: true };
        let sender = Sender(Rc::new(RefCell::new(outgoing)));
        Self { sender, frames, filter: FrameFilter::behind(PREFACE.len()), ahead: BytesMut::new() }
    }

    pub(super) fn sender(&self) -> Sender {
        self.sender.clone()
    }
}

impl Sender {
    /// Sends what h2 has written.
    pub(super) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outgoing = &mut *self.0.borrow_mut();
        if !outgoing.is_flushed {
            ready!(outgoing.poll_write_behind(cx, &[]))?;
            ready!(Pin::new(&mut outgoing.io).poll_flush(cx))?;
            outgoing.is_flushed = true;
        }
        Poll::Ready(Ok(()))
    }

    /// The socket has taken all that h2 has written.
    pub(super) fn is_flushed(&self) -> bool {
        self.0.borrow().is_flushed
    }
}

impl Outgoing {
    fn poll_write_behind(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let Self { io, gathered, .. } = self;
        gathered.poll_write_behind(cx, bufs, |cx, bufs| Pin::new(&mut *io).poll_write_vectored(cx, bufs))
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            let frames = &this.frames;
            let mut bytes = this.filter.passable_bytes(&mut this.ahead, buf.remaining(), |frame| frames.begin(frame));
            if bytes == 0 {
                let before = this.ahead.len();
                frames.pause(before > 0 || this.filter.is_in_frame());
                this.ahead.reserve(AHEAD_BYTES);
                let polled = pin!(this.sender.0.borrow_mut().io.read_buf(&mut this.ahead)).poll(cx);
                if before == 0 && !matches!(polled, Poll::Ready(Ok(1..))) {
                    this.ahead = BytesMut::new();
                }
                if ready!(polled)? > 0 {
                    frames.resume();
                    continue;
                }
                // The client's end, be it within a header: h2 is to see that it was cut.
                bytes = before.min(buf.remaining());
            }
            buf.put_slice(&this.ahead[..bytes]);
            this.ahead.advance(bytes);
            return Poll::Ready(Ok(()));
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outgoing = &mut *self.sender.0.borrow_mut();
        outgoing.is_flushed = false;
        match outgoing.gathered.take(bufs) {
            Some(taken) => Poll::Ready(Ok(taken)),
            None => outgoing.poll_write_behind(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.sender.poll_flush(cx))?;
        Pin::new(&mut self.sender.0.borrow_mut().io).poll_shutdown(cx)
    }
}

const AHEAD_BYTES: usize = 16 * 1024;
