//! A request body as it comes from its client, kept for as long as it may have to be sent once more.
//!
//! A request that was provably not processed goes to another connection (RFC 9113 §8.7), and what of its body has been
//! sent must go there too. So it is kept, up to a bound for each request and for each worker. A body that is
//! longer is let go of, and its request has one attempt.
//!
//! Follows its connection, to another worker too. RFC 9110 §6.4, §6.5.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::expectation::{Asking, Expectation};
use crate::error::DownstreamFault;
use crate::translate;

/// A request body, piece by piece.
pub(crate) struct RequestBody {
    incoming: ClientBody,
    /// Bytes that may still come.
    left: u64,
    received_bytes: Arc<AtomicU64>,
    /// All that has come; `None` if it is no longer kept.
    kept: Option<Kept>,
    /// Pieces of `kept` that the present attempt has had.
    taken: usize,
    trailers: Option<Box<HeaderMap>>,
    /// All has come.
    is_ended: bool,
    /// The present attempt has had the trailers.
    are_trailers_taken: bool,
    is_last_attempt: bool,
    /// The client has not been asked to send it yet.
    held_back: Option<Arc<Expectation>>,
}

/// What a client sends behind a head.
///
/// Many a client looks at its answer only when it has sent all. A connection that is closed before that, or a stream that is
/// reset, `NO_ERROR` or not, is a failure to it, which may even destroy the answer on its way (RFC 9112 §9.6). So the rest of
/// a body that nobody wants any more is still taken for a while.
pub(crate) enum ClientBody {
    Http1(MessageBody),
    Http2(StreamBody),
    /// Nothing, or what follows a head for another protocol.
    None,
}

impl ClientBody {
    /// `is_unasked` says whether the client waits to be asked for it; `due` is held until it has come.
    pub(crate) fn http1(incoming: Incoming, is_unasked: bool, due: Arc<()>) -> Self {
        Self::Http1(MessageBody { rest: Some((incoming, due)), is_unasked })
    }

    /// `length` is what the head says of it.
    pub(crate) fn http2(stream: RecvStream, length: Option<u64>) -> Self {
        let hint = match length {
            _ if stream.is_end_stream() => SizeHint::with_exact(0),
            Some(length) => SizeHint::with_exact(length),
            None => SizeHint::default(),
        };
        Self::Http2(StreamBody { stream: Some(stream), hint })
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self.get_mut() {
            Self::Http1(body) => body.poll_frame(cx),
            Self::Http2(body) => body.poll_frame(cx),
            Self::None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(body) => body.rest.is_none(),
            Self::Http2(body) => body.stream.as_ref().is_none_or(RecvStream::is_end_stream),
            Self::None => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(body) => {
                body.rest.as_ref().map_or_else(|| SizeHint::with_exact(0), |(rest, _)| rest.size_hint())
            }
            Self::Http2(body) => body.hint,
            Self::None => SizeHint::with_exact(0),
        }
    }
}

/// What comes behind a head of HTTP/1.1.
pub(crate) struct MessageBody {
    /// `None` when all has come. What is held with it tells the connection that more is due.
    rest: Option<(Incoming, Arc<()>)>,
    /// The client waits to be asked for it; hyper asks as soon as it is polled.
    is_unasked: bool,
}

impl MessageBody {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let Some((incoming, _due)) = &mut self.rest else { return Poll::Ready(None) };
        self.is_unasked = false;
        let frame = ready!(Pin::new(&mut *incoming).poll_frame(cx));
        if frame.is_none() || incoming.is_end_stream() {
            self.rest = None;
        }
        Poll::Ready(frame.map(|frame| frame.map_err(|_| Broken)))
    }
}

impl Drop for MessageBody {
    fn drop(&mut self) {
        if let Some((mut incoming, due)) = self.rest.take().filter(|_| !self.is_unasked) {
            linger(async move {
                while let Some(Ok(_)) = incoming.frame().await {}
                drop((incoming, due));
            });
        }
    }
}

/// What comes on a stream.
pub(crate) struct StreamBody {
    /// Taken by the drop alone.
    stream: Option<RecvStream>,
    hint: SizeHint,
}

impl StreamBody {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(None) };
        loop {
            let frame = match ready!(stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    // Asked for only when the last piece has gone on, so the window follows who takes it. Fails for a
                    // stream that is gone, which the next poll tells.
                    _ = stream.flow_control().release_capacity(data.len());
                    if data.is_empty() && !stream.is_end_stream() {
                        continue;
                    }
                    if let Some(left) = self.hint.exact() {
                        self.hint = SizeHint::with_exact(left.saturating_sub(data.len() as u64));
                    }
                    Some(Ok(Frame::data(data)))
                }
                Some(Err(_)) => Some(Err(Broken)),
                None => ready!(stream.poll_trailers(cx))
                    .map(|fields| fields.map(Frame::trailers))
                    .map_err(|_| Broken)
                    .transpose(),
            };
            return Poll::Ready(frame);
        }
    }
}

impl Drop for StreamBody {
    fn drop(&mut self) {
        if let Some(mut stream) = self.stream.take()
            && !stream.is_end_stream()
        {
            linger(async move {
                while let Some(Ok(data)) = stream.data().await {
                    _ = stream.flow_control().release_capacity(data.len());
                }
            });
        }
    }
}

/// Has the rest taken for as long as a client may go on sending it.
fn linger(taking: impl Future<Output = ()> + Send + 'static) {
    // At the end of a worker nothing is waited for.
    if let Ok(runtime) = Handle::try_current() {
        runtime.spawn(timeout(LINGER, taking));
    }
}

/// The client has broken its body off.
#[derive(Debug)]
pub(crate) struct Broken;

/// What comes next.
#[derive(Debug)]
pub(crate) enum Piece {
    Data(Bytes),
    /// Never empty. The end comes next.
    Trailers(HeaderMap),
    End,
}

impl RequestBody {
    /// At most `bytes_max` bytes may come.
    pub(crate) fn new(incoming: ClientBody, bytes_max: Option<u64>, budget: &Arc<ReplayBudget>) -> Self {
        let may_fit = incoming.size_hint().lower() <= KEPT_BYTES_MAX as u64;
        Self {
            incoming,
            left: bytes_max.unwrap_or(u64::MAX),
            received_bytes: Arc::default(),
            kept: may_fit.then(|| Kept { pieces: Vec::new(), bytes: 0, budget: budget.clone() }),
            taken: 0,
            trailers: None,
            is_ended: false,
            are_trailers_taken: false,
            is_last_attempt: false,
            held_back: None,
        }
    }

    /// The client waits to be asked for it.
    pub(crate) fn hold_back(&mut self) {
        self.held_back = Some(Expectation::new());
    }

    /// Begins to wait for the service's word, if the client waits to be asked.
    pub(crate) fn ask(&mut self) -> Option<Box<Asking>> {
        let held_back = self.held_back.as_mut()?;
        // That of an attempt before has been met, or is somebody else's.
        *held_back = Expectation::new();
        Some(Box::new(Asking::new(held_back.clone())))
    }

    /// Whether the client has still to be asked.
    pub(crate) fn is_held_back(&self) -> bool {
        self.held_back.as_ref().is_some_and(|expectation| expectation.is_open())
    }

    /// The bytes that have come from the client, as they come.
    pub(crate) fn received_bytes(&self) -> &Arc<AtomicU64> {
        &self.received_bytes
    }

    /// The next piece of the present attempt.
    ///
    /// # Errors
    /// [`DownstreamFault::BodyIncomplete`] if the client breaks off, [`DownstreamFault::BodyTooLarge`] above `bytes_max`.
    pub(crate) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, DownstreamFault>> {
        if let Some(piece) = self.kept.as_ref().and_then(|kept| kept.pieces.get(self.taken)) {
            self.taken += 1;
            return Poll::Ready(Ok(Piece::Data(piece.clone())));
        }
        if let Some(expectation) = &self.held_back {
            ready!(expectation.poll(cx));
            self.held_back = None;
        }
        if !self.is_ended {
            match ready!(Pin::new(&mut self.incoming).poll_frame(cx)).map(|frame| frame.map(Frame::into_data)) {
                Some(Err(_)) => return Poll::Ready(Err(DownstreamFault::BodyIncomplete)),
                Some(Ok(Ok(data))) => return Poll::Ready(self.receive(data)),
                Some(Ok(Err(frame))) => {
                    let fields = frame.into_trailers().map(translate::trailers).unwrap_or_default();
                    self.trailers = (!fields.is_empty()).then(|| Box::new(fields));
                }
                None => {}
            }
            self.is_ended = true;
        }
        let trailers = self.trailers.as_ref().filter(|_| !self.are_trailers_taken);
        let piece = trailers.map_or(Piece::End, |fields| Piece::Trailers(HeaderMap::clone(fields)));
        self.are_trailers_taken = true;
        Poll::Ready(Ok(piece))
    }

    fn receive(&mut self, data: Bytes) -> Result<Piece, DownstreamFault> {
        let length = data.len() as u64;
        self.received_bytes.fetch_add(length, Ordering::AcqRel);
        self.left = self.left.checked_sub(length).ok_or(DownstreamFault::BodyTooLarge)?;
        if let Some(kept) = &mut self.kept {
            if !self.is_last_attempt && kept.keep(&data) {
                self.taken = kept.pieces.len();
            } else {
                self.kept = None;
            }
        }
        Ok(Piece::Data(data))
    }

    fn is_replaying(&self) -> bool {
        self.kept.as_ref().is_some_and(|kept| self.taken < kept.pieces.len())
    }

    /// Nothing follows what the present attempt has had.
    pub(crate) fn is_end_stream(&self) -> bool {
        !self.is_replaying() && self.trailers.is_none() && (self.is_ended || self.incoming.is_end_stream())
    }

    /// The bytes that follow what the present attempt has had.
    pub(crate) fn size_hint(&self) -> SizeHint {
        if self.is_replaying() { SizeHint::default() } else { self.incoming.size_hint() }
    }

    /// Whether another attempt would have all of it.
    pub(crate) fn is_replayable(&self) -> bool {
        self.kept.is_some() || self.received_bytes.load(Ordering::Acquire) == 0
    }

    /// Another attempt starts. Only if [`RequestBody::is_replayable`].
    pub(crate) fn rewind(&mut self) {
        self.taken = 0;
        self.are_trailers_taken = false;
    }

    /// There will be no other attempt.
    pub(crate) fn release(&mut self) {
        self.is_last_attempt = true;
        if !self.is_replaying() {
            self.kept = None;
        }
    }
}

/// The pieces of a body that have come.
struct Kept {
    pieces: Vec<Bytes>,
    bytes: usize,
    budget: Arc<ReplayBudget>,
}

impl Kept {
    /// Whether there is room for one more piece.
    fn keep(&mut self, data: &Bytes) -> bool {
        let is_small = self.pieces.len() < PIECES_MAX && self.bytes + data.len() <= KEPT_BYTES_MAX;
        if !is_small || !self.budget.take(data.len()) {
            return false;
        }
        self.bytes += data.len();
        // A short slice would keep the whole read buffer that it is part of.
        let is_shared = data.len() >= SHARED_BYTES_MIN;
        self.pieces.push(if is_shared { data.clone() } else { Bytes::copy_from_slice(data) });
        true
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}

/// The bytes of request bodies that one worker may keep, for all of its requests together.
#[derive(Debug, Default)]
pub(crate) struct ReplayBudget {
    used: AtomicUsize,
}

impl ReplayBudget {
    fn take(&self, bytes: usize) -> bool {
        let used = self.used.fetch_add(bytes, Ordering::Relaxed);
        let has_room = used + bytes <= WORKER_BYTES_MAX;
        if !has_room {
            self.give_back(bytes);
        }
        has_room
    }

    fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// A longer body is sent once.
const KEPT_BYTES_MAX: usize = 64 * 1024;
/// So is one that comes in more pieces, each of which has a cost of its own.
const PIECES_MAX: usize = 1024;
/// Above it, the bodies that come are sent once until others are through.
const WORKER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// So long a client may go on sending what nobody wants.
pub(crate) const LINGER: Duration = Duration::from_secs(1);
/// hyper reads at least 8 KiB at a time.
const SHARED_BYTES_MIN: usize = 2 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(budget: &Arc<ReplayBudget>) -> Kept {
        Kept { pieces: Vec::new(), bytes: 0, budget: budget.clone() }
    }

    #[test]
    fn sixty_four_kibibytes_are_kept_and_no_byte_more() {
        let budget = Arc::default();
        let mut kept = kept(&budget);
        assert!((0..16).all(|_| kept.keep(&Bytes::from_static(&[0; 4096]))));
        assert!(!kept.keep(&Bytes::from_static(b"x")));
        assert_eq!((kept.bytes, budget.used.load(Ordering::Relaxed)), (KEPT_BYTES_MAX, KEPT_BYTES_MAX));
    }

    #[test]
    fn a_body_in_tiny_pieces_is_kept_up_to_a_number_of_them() {
        let mut kept = kept(&Arc::default());
        let count =
            std::iter::repeat_with(|| kept.keep(&Bytes::from_static(b"x"))).take_while(|is_kept| *is_kept).count();
        assert_eq!(count, PIECES_MAX);
    }

    #[test]
    fn a_worker_keeps_so_much_and_has_it_back_when_bodies_are_through() {
        let budget = Arc::default();
        let piece = Bytes::from(vec![0; KEPT_BYTES_MAX]);
        let mut bodies: Vec<Kept> = std::iter::repeat_with(|| kept(&budget)).take(256).collect();
        assert!(bodies.iter_mut().all(|kept| kept.keep(&piece)));
        let mut other = kept(&budget);
        assert!(!other.keep(&Bytes::from_static(b"x")));
        bodies.pop();
        assert!(other.keep(&Bytes::from_static(b"x")));
        drop((bodies, other));
        assert_eq!(budget.used.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_short_piece_does_not_hold_the_buffer_that_it_came_in() {
        let mut kept = kept(&Arc::default());
        let read = Bytes::from(vec![0; 8192]);
        kept.keep(&read.slice(..100));
        assert!(read.is_unique());
        kept.keep(&read.slice(..4096));
        assert!(!read.is_unique());
    }
}
