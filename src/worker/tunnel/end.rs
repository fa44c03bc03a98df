//! One end of a tunnel: a connection of HTTP/1.1 after its upgrade, or a stream of HTTP/2.
//!
//! Both are read piece by piece, written as far as they take it, and ended in one direction at a time. A stream's window
//! is given back only for what the other end has taken, and its capacity is reserved only for data in hand.
//!
//! Lives on one worker. Knows no WebSocket. RFC 9113 §5.2, RFC 8441 §5.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::error::{DownstreamFault, Fault, UpstreamFault};
use crate::worker::exclusive::ExclusivePermit;
use crate::worker::socket::ClientIo;
use crate::worker::stream::Stream;
use crate::worker::upstream_io::UpstreamIo;

/// Where bytes come from and go to.
pub(crate) enum End {
    /// The client's connection.
    Client(ClientIo),
    /// A stream of the client's connection.
    ClientStream { receiving: RecvStream, sending: SendStream<Bytes> },
    /// A connection to the service, which no other request will have.
    Connection {
        io: Box<UpstreamIo>,
        /// Read together with the head.
        unread: Bytes,
        _permit: ExclusivePermit,
    },
    /// A stream to the service.
    Stream { receiving: Stream, sending: SendStream<Bytes> },
}

impl End {
    /// The next bytes, or `None` at the end of this direction.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Fault>> {
        let lost = self.lost();
        match self {
            Self::Client(io) => poll_read(io, cx).map_err(|_| lost),
            Self::ClientStream { receiving, .. } => poll_data(receiving, cx).map_err(|_| lost),
            Self::Connection { unread, .. } if !unread.is_empty() => Poll::Ready(Ok(Some(std::mem::take(unread)))),
            Self::Connection { io, .. } => poll_read(&mut **io, cx).map_err(|_| lost),
            Self::Stream { receiving, .. } => {
                let Some(body) = receiving.body() else { return Poll::Ready(Ok(None)) };
                poll_data(body, cx).map_err(|error| {
                    receiving.fail(&error);
                    lost
                })
            }
        }
    }

    /// The other end has taken so many of the bytes that were read.
    pub(super) fn taken(&mut self, bytes: usize) {
        let body = match self {
            Self::Client(_) | Self::Connection { .. } => None,
            Self::ClientStream { receiving, .. } => Some(receiving),
            Self::Stream { receiving, .. } => receiving.body(),
        };
        if let Some(body) = body {
            // Fails only for a stream that is gone, which the next poll tells.
            _ = body.flow_control().release_capacity(bytes);
        }
    }

    /// Writes some of `chunk`; how much.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, chunk: &Bytes) -> Poll<Result<usize, Fault>> {
        let lost = self.lost();
        match self {
            Self::Client(io) => Pin::new(io).poll_write(cx, chunk).map_err(|_| lost),
            Self::ClientStream { sending, .. } => poll_send(sending, cx, chunk).map_err(|Unwanted| lost),
            Self::Connection { io, .. } => Pin::new(&mut **io).poll_write(cx, chunk).map_err(|_| lost),
            Self::Stream { receiving, sending } => {
                let taken = ready!(poll_send(sending, cx, chunk));
                receiving.permit().link().set_unwritten();
                Poll::Ready(taken.map_err(|Unwanted| lost))
            }
        }
    }

    /// Ready when what was written is on its way.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        let lost = self.lost();
        match self {
            Self::Client(io) => Pin::new(io).poll_flush(cx).map_err(|_| lost),
            Self::Connection { io, .. } => Pin::new(&mut **io).poll_flush(cx).map_err(|_| lost),
            Self::ClientStream { .. } | Self::Stream { .. } => Poll::Ready(Ok(())),
        }
    }

    /// Ends the direction towards this end. Not to be called again once it is ready.
    pub(super) fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        let lost = self.lost();
        match self {
            Self::Client(io) => return Pin::new(io).poll_shutdown(cx).map_err(|_| lost),
            Self::Connection { io, .. } => return Pin::new(&mut **io).poll_shutdown(cx).map_err(|_| lost),
            Self::ClientStream { sending, .. } => finish(sending),
            Self::Stream { receiving, sending } => {
                receiving.permit().link().set_unwritten();
                finish(sending);
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Ready when this end takes nothing any more, though nobody has tried to give it something.
    pub(super) fn poll_refusal(&mut self, cx: &mut Context<'_>) -> Poll<Fault> {
        let lost = self.lost();
        let (Self::ClientStream { sending, .. } | Self::Stream { sending, .. }) = self else { return Poll::Pending };
        match ready!(sending.poll_reset(cx)) {
            // What it still has to say can be read.
            Ok(Reason::NO_ERROR) => Poll::Pending,
            Ok(_) | Err(_) => Poll::Ready(lost),
        }
    }

    /// Says that both directions are over as they should be.
    pub(super) fn end(&mut self) {
        // All others do so when they are dropped.
        if let Self::ClientStream { sending, .. } = self {
            finish(sending);
        }
    }

    /// Has it end with a reset, so that nobody takes the end for an orderly one.
    pub(super) fn reset(&mut self) {
        match self {
            Self::Client(io) => io.socket.set_reset_on_drop(),
            // RFC 8441 §5.
            Self::ClientStream { sending, .. } => sending.send_reset(Reason::CANCEL),
            Self::Connection { io, .. } => io.set_reset_on_drop(),
            // It does so when it is dropped.
            Self::Stream { .. } => {}
        }
    }

    /// What it means that this end is gone.
    fn lost(&self) -> Fault {
        match self {
            Self::Client(_) | Self::ClientStream { .. } => DownstreamFault::ClientGone.into(),
            Self::Connection { .. } | Self::Stream { .. } => UpstreamFault::BodyCut.into(),
        }
    }
}

/// The next bytes of a stream, or `None` at its end. Trailers mean nothing in a tunnel.
fn poll_data(body: &mut RecvStream, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, h2::Error>> {
    loop {
        match ready!(body.poll_data(cx)) {
            Some(Ok(data)) if data.is_empty() => {}
            // The peer wants no more, and has said all.
            Some(Err(error)) if error.is_reset() && error.reason() == Some(Reason::NO_ERROR) => {
                return Poll::Ready(Ok(None));
            }
            data => return Poll::Ready(data.transpose()),
        }
    }
}

/// A stream takes nothing any more.
struct Unwanted;

/// Hands a stream as much of `chunk` as its window has room for; how much that was.
fn poll_send(sending: &mut SendStream<Bytes>, cx: &mut Context<'_>, chunk: &Bytes) -> Poll<Result<usize, Unwanted>> {
    sending.reserve_capacity(chunk.len());
    let capacity = loop {
        match sending.capacity() {
            0 => match ready!(sending.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Poll::Ready(drop_unwanted(sending, cx, chunk)),
            },
            capacity => break capacity,
        }
    };
    let part = chunk.slice(..capacity.min(chunk.len()));
    let bytes = part.len();
    let is_sent = sending.send_data(part, false).is_ok();
    Poll::Ready(if is_sent { Ok(bytes) } else { drop_unwanted(sending, cx, chunk) })
}

/// A stream does not take `chunk`: that is no fault if the peer has said that it wants no more (RFC 9113 §8.1).
fn drop_unwanted(sending: &mut SendStream<Bytes>, cx: &mut Context<'_>, chunk: &Bytes) -> Result<usize, Unwanted> {
    match sending.poll_reset(cx) {
        Poll::Ready(Ok(Reason::NO_ERROR)) => Ok(chunk.len()),
        _ => Err(Unwanted),
    }
}

fn finish(sending: &mut SendStream<Bytes>) {
    // Fails for a stream that has ended, or whose peer wants no more.
    _ = sending.send_data(Bytes::new(), true);
}

/// Reads what is there. It is copied: a short message on a stream that is not read must cost no more than its bytes.
fn poll_read(io: &mut (impl AsyncRead + Unpin), cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
    let mut space = [const { MaybeUninit::uninit() }; CHUNK_BYTES];
    let mut read = ReadBuf::uninit(&mut space);
    ready!(Pin::new(io).poll_read(cx, &mut read))?;
    let bytes = read.filled();
    Poll::Ready(Ok((!bytes.is_empty()).then(|| Bytes::copy_from_slice(bytes))))
}

/// As much is held in each direction of a tunnel, and only while the other end does not take it.
const CHUNK_BYTES: usize = 16 * 1024;
