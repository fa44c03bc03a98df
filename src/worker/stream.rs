//! One stream of ours on an upstream connection, from its head to its last frame, and the place that it takes.
//!
//! A stream that is dropped before its end is reset with CANCEL, which frees its place, but not just then. A service that
//! has not looked at it yet would count that as an attack (h2's server ends a connection for 21 such), and an answer
//! that is over in a moment needs no reset. And a connection bears only so many
//! ([`ResetBudget`](super::resets::ResetBudget)): what a storm of clients leaves behind beyond that is read and dropped
//! until it ends or its turn comes. It keeps its place for so long; a connection with many such makes room for a fresh
//! one when somebody has to wait.
//!
//! Lives on one worker. RFC 9113 §5.4.2, §7, §8.7.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use h2::client::ResponseFuture;
use h2::{Reason, RecvStream};
use http::StatusCode;
use http::response::Parts;
use tokio::time::timeout;

use super::mux::{Failure, StreamPermit};

/// A stream that has not ended as far as we know.
pub(crate) struct Stream {
    /// Dropped before the place that the stream takes.
    state: State,
    permit: Option<StreamPermit>,
}

enum State {
    Head(ResponseFuture),
    Body(RecvStream),
    Over,
}

impl Stream {
    pub(crate) fn new(response: ResponseFuture, permit: StreamPermit) -> Self {
        Self { state: State::Head(response), permit: Some(permit) }
    }

    pub(crate) fn permit(&self) -> &StreamPermit {
        self.permit.as_ref().expect("only the drop takes it")
    }

    /// Waits for the head of the answer. Not to be called after it has come.
    pub(crate) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Parts, Failure>> {
        let State::Head(response) = &mut self.state else { return Poll::Pending };
        let polled = ready!(Pin::new(response).poll(cx));
        let (head, state) = match polled {
            Ok(response) => {
                let (parts, body) = response.into_parts();
                (Ok(parts), State::Body(body))
            }
            Err(error) => {
                let failure = self.permit().failure(&error);
                tracing::debug!(connection = self.permit().connection_id(), %error, ?failure, "no response head");
                (Err(failure), State::Over)
            }
        };
        self.state = state;
        Poll::Ready(head)
    }

    /// The status of an interim answer, if one has come.
    pub(crate) fn poll_interim(&mut self, cx: &mut Context<'_>) -> Option<StatusCode> {
        let State::Head(response) = &mut self.state else { return None };
        match response.poll_informational(cx) {
            Poll::Ready(Some(Ok(interim))) => Some(interim.status()),
            // An error comes again with the next look for the head.
            Poll::Ready(Some(Err(_)) | None) | Poll::Pending => None,
        }
    }

    /// The body, once the head has come.
    pub(crate) fn body(&mut self) -> Option<&mut RecvStream> {
        match &mut self.state {
            State::Body(body) => Some(body),
            State::Head(_) | State::Over => None,
        }
    }

    /// The body has ended by `error`.
    pub(crate) fn fail(&mut self, error: &h2::Error) {
        self.state = State::Over;
        let fault = self.permit().fault(error);
        tracing::debug!(connection = self.permit().connection_id(), %error, ?fault, "response body was cut");
    }

    pub(crate) fn is_ended(&self) -> bool {
        match &self.state {
            State::Head(_) => false,
            State::Body(body) => body.is_end_stream(),
            State::Over => true,
        }
    }

    /// The answer is complete, and the service has a while to end the stream: dropped before its `END_STREAM` it would
    /// be reset, and the service told that nobody wanted its answer.
    pub(crate) fn finish(mut self) {
        if self.is_ended() {
            self.state = State::Over;
            return;
        }
        tokio::task::spawn_local(async move {
            let end = poll_fn(|cx| {
                let Some(body) = self.body() else { return Poll::Ready(()) };
                loop {
                    match ready!(body.poll_data(cx)) {
                        Some(Ok(data)) if data.is_empty() => {}
                        // The end; or trailers, which the client cannot take, or bytes beyond the promised ones.
                        _ => return Poll::Ready(()),
                    }
                }
            });
            _ = timeout(END_TIMEOUT, end).await;
        });
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let Some(permit) = self.permit.take() else { return };
        let state = std::mem::replace(&mut self.state, State::Over);
        let mut left = Left { state, dropped_bytes: 0, permit };
        if left.poll_over(&mut Context::from_waker(Waker::noop())).is_pending() {
            tokio::task::spawn_local(left.see_out());
        }
    }
}

/// A stream that nobody waits for any more. Reset when it is dropped, before its place is free.
struct Left {
    state: State,
    dropped_bytes: usize,
    permit: StreamPermit,
}

impl Left {
    /// Ends with the stream, or when it may be reset.
    async fn see_out(mut self) {
        if matches!(self.state, State::Head(_)) && self.ends_within(MOMENT).await {
            return;
        }
        let until_turn = self.permit.take_reset_turn();
        if !until_turn.is_zero() {
            let _abandoned = self.permit.abandon();
            if self.ends_within(until_turn).await {
                self.permit.give_turn_back();
                return;
            }
        }
        self.permit.count_reset(Reason::CANCEL);
    }

    async fn ends_within(&mut self, time: Duration) -> bool {
        timeout(time, poll_fn(|cx| self.poll_over(cx))).await.is_ok()
    }

    /// Takes what comes and drops it, until the stream is over. Beyond a bound the service gets no window back, and so
    /// stands still.
    fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match &mut self.state {
                State::Head(response) => match ready!(Pin::new(response).poll(cx)) {
                    Ok(response) => self.state = State::Body(response.into_body()),
                    Err(_) => return Poll::Ready(()),
                },
                State::Body(body) => match ready!(body.poll_data(cx)) {
                    Some(Ok(data)) => {
                        self.dropped_bytes += data.len();
                        if self.dropped_bytes <= DROPPED_BYTES_MAX {
                            // Fails only for a stream that is gone, which the next poll tells.
                            _ = body.flow_control().release_capacity(data.len());
                        }
                    }
                    // Trailers end a stream as well.
                    Some(Err(_)) | None => return Poll::Ready(()),
                },
                State::Over => return Poll::Ready(()),
            }
        }
    }
}

/// For an answer that may be on its way, and for the service to have taken the request up.
const MOMENT: Duration = Duration::from_millis(50);
/// How long a service may take to end a stream whose body is complete.
const END_TIMEOUT: Duration = Duration::from_secs(1);
/// Of an answer that nobody wants: more than most have, and less than a stream's window.
const DROPPED_BYTES_MAX: usize = 64 * 1024;
