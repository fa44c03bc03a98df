//! The right to one stream: how it is opened, and what its end says.
//!
//! Lives on one worker. RFC 9113 §5.4, §8.7.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::SendStream;
use h2::client::ResponseFuture;
use http::Request;
use tokio::time::Instant;

use super::{LinkState, Mux};
use crate::error::{Proof, UpstreamFault};

/// The right to one stream; dropping it frees the place.
#[must_use]
pub(crate) struct StreamPermit {
    mux: Rc<Mux>,
    /// The turn of the sweep in which it was given; `None` once the stream is known to be long.
    turn: Cell<Option<u32>>,
    /// The connection's writes before it was given the head.
    writes_before: Cell<u64>,
}

/// A stream that is counted among those that nobody waits for.
pub(crate) struct Abandoned(Arc<LinkState>);

impl Drop for Abandoned {
    fn drop(&mut self) {
        self.0.abandoned.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Failure {
    pub(crate) fault: UpstreamFault,
    /// Present if the request was not processed.
    pub(crate) proof: Option<Proof>,
}

impl StreamPermit {
    pub(super) fn new(mux: Rc<Mux>) -> Self {
        Self { turn: Cell::new(Some(mux.turn.get())), mux, writes_before: Cell::new(0) }
    }

    /// Sends a request head. `is_end` says that neither body nor trailers follow.
    ///
    /// # Errors
    /// With [`Proof::Unwritten`] when the connection has gone since the permit was given.
    pub(crate) fn open(&self, request: Request<()>, is_end: bool) -> Result<Opened, Failure> {
        let mut handle = self.mux.handle.borrow_mut();
        match handle.poll_ready(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => {
                drop(handle);
                self.close_after(&error);
                return Err(Failure { fault: fault(&error), proof: Some(Proof::Unwritten) });
            }
            // A stream of ours waits in h2 behind one that was reset and whose RST_STREAM is not written yet. This
            // handle would refuse the next one; a clone lets it wait as well, and permits bound how many do.
            Poll::Pending => {
                drop(handle);
                self.mux.renew_handle();
                handle = self.mux.handle.borrow_mut();
            }
        }
        self.writes_before.set(self.mux.state.traffic.writes());
        match handle.send_request(request, is_end) {
            Ok((response, body)) => {
                let state = &self.mux.state;
                state.set_unwritten();
                if response.stream_id().as_u32() + 2 >= state.end_stream_id && state.close() {
                    tracing::debug!(connection = state.id, "connection has carried its requests");
                }
                Ok((response, body))
            }
            // The head itself is at fault, or the connection has gone this very moment, by another thread's driver. h2
            // keeps the request.
            Err(error) => {
                drop(handle);
                self.close_after(&error);
                let has_gone = error.is_io() || error.is_go_away();
                Err(Failure { fault: fault(&error), proof: has_gone.then_some(Proof::Unwritten) })
            }
        }
    }

    fn close_after(&self, error: &h2::Error) {
        self.mux.state.heed(error);
        if self.mux.state.close() {
            tracing::debug!(connection = self.mux.state.id, %error, "connection takes no more streams");
            if let (true, Some(code)) = (error.is_go_away() && error.is_remote(), error.reason()) {
                self.mux.metrics.goaway_received.increment(crate::metrics::h2_code(code.into()));
            }
        }
    }

    /// The stream will live long or carry bulk.
    pub(crate) fn set_long(&self) {
        if let Some(count) = self.mux.young(self.turn.take()) {
            count.set(count.get() - 1);
            if let Some(room) = self.mux.room.upgrade() {
                room.on_long();
            }
        }
    }

    /// Whether the peer takes extended CONNECT (RFC 8441 §3).
    pub(crate) fn has_extended_connect(&self) -> bool {
        self.mux.handle.borrow().is_extended_connect_protocol_enabled()
    }

    /// The connection that the stream is on.
    pub(crate) fn link(&self) -> &Arc<LinkState> {
        &self.mux.state
    }

    pub(crate) fn connection_id(&self) -> u64 {
        self.mux.state.id
    }

    /// As [`StreamPermit::fault`], before an answer has come: and what that proves.
    pub(crate) fn failure(&self, error: &h2::Error) -> Failure {
        let is_unwritten = self.mux.state.traffic.writes() == self.writes_before.get();
        let proof = proof(error).or(is_unwritten.then_some(Proof::Unwritten));
        Failure { fault: self.fault(error), proof }
    }

    /// How long it is until the stream may be reset.
    pub(crate) fn take_reset_turn(&self) -> Duration {
        self.mux.state.resets.take_turn(self.mux.streams_max(), Instant::now())
    }

    /// The stream has ended before its turn.
    pub(crate) fn give_turn_back(&self) {
        self.mux.state.resets.give_back(self.mux.streams_max());
    }

    /// The stream waits for its turn while what this gives is held.
    pub(crate) fn abandon(&self) -> Abandoned {
        let state = &self.mux.state;
        state.abandoned.fetch_add(1, Ordering::AcqRel);
        // Somebody may wait for a place here that will not become free in time.
        state.watchers.notify();
        Abandoned(state.clone())
    }

    /// The stream is reset as soon as nobody holds it.
    ///
    /// h2's handle holds the one that has reached the peer's limit, until the next is opened.
    pub(crate) fn count_reset(&self, code: h2::Reason) {
        self.mux.renew_handle();
        self.mux.metrics.resets_sent.increment(crate::metrics::h2_code(code.into()));
    }

    /// Names the fault and counts a reset by its side and code.
    pub(crate) fn fault(&self, error: &h2::Error) -> UpstreamFault {
        if let (true, Some(reason)) = (error.is_reset(), error.reason()) {
            let side =
                if error.is_remote() { &self.mux.metrics.resets_received } else { &self.mux.metrics.resets_sent };
            side.increment(crate::metrics::h2_code(reason.into()));
        }
        if error.is_go_away() && error.is_remote() {
            self.close_after(error);
        }
        if self.mux.state.is_unresponsive.load(Ordering::Acquire) && error.is_io() {
            return UpstreamFault::PingTimeout;
        }
        fault(error)
    }
}

/// The answer to come, and where the body goes.
pub(crate) type Opened = (ResponseFuture, SendStream<Bytes>);

impl Drop for StreamPermit {
    fn drop(&mut self) {
        self.mux.release(self.turn.get());
    }
}

/// Whether an error of a stream proves that the request was not processed (RFC 9113 §8.7).
///
/// h2 tells of a remote GOAWAY only the streams above its last stream id (§6.8).
fn proof(error: &h2::Error) -> Option<Proof> {
    if !error.is_remote() {
        None
    } else if error.is_go_away() {
        Some(Proof::Goaway)
    } else {
        match error.reason() {
            Some(h2::Reason::REFUSED_STREAM) => Some(Proof::RefusedStream),
            Some(h2::Reason::HTTP_1_1_REQUIRED) => Some(Proof::Http11Required),
            _ => None,
        }
    }
}

/// What an error of a stream says about the request.
pub(crate) fn fault(error: &h2::Error) -> UpstreamFault {
    let reason = error.reason();
    if error.is_io() {
        UpstreamFault::ConnectionLost
    } else if matches!(proof(error), Some(Proof::Goaway | Proof::RefusedStream)) {
        UpstreamFault::StreamRefused
    } else if error.is_remote() {
        UpstreamFault::StreamReset
    } else if matches!(reason, Some(h2::Reason::ENHANCE_YOUR_CALM)) {
        UpstreamFault::ConnectionLost
    } else {
        UpstreamFault::MalformedResponse
    }
}
