//! A request body that its client holds back until it is asked for: `Expect: 100-continue`.
//!
//! The expectation goes on to the service, whose 100 is the client's: hyper says it when the body is first read, so not
//! reading is all that is to be done here. A service that answers at once has the body neither sent nor kept, and the
//! request can be made anew elsewhere. One that says nothing for a while is taken to ignore expectations, as many do.
//!
//! The body follows its connection to another worker, and this with it. RFC 9110 §10.1.1.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::StatusCode;
use tokio::time::{Sleep, sleep};

/// What has become of one attempt's expectation.
#[derive(Debug)]
enum State {
    /// The waker is that of who wants to send the body.
    Open(Option<Waker>),
    Met,
    /// There was a final answer, and whoever could ask for the body has gone.
    Missed,
}

/// Between who waits for the service's word and who sends the body.
#[derive(Debug)]
pub(crate) struct Expectation(Mutex<State>);

impl Expectation {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(State::Open(None))))
    }

    /// Ready when the body may be read, or never may.
    pub(crate) fn poll(&self, cx: &Context<'_>) -> Poll<Result<(), Missed>> {
        match &mut *self.state() {
            State::Open(waker) => {
                *waker = Some(cx.waker().clone());
                Poll::Pending
            }
            State::Met => Poll::Ready(Ok(())),
            State::Missed => Poll::Ready(Err(Missed)),
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        matches!(*self.state(), State::Open(_))
    }

    fn settle(&self, settled: State) {
        let before = {
            let mut state = self.state();
            if !matches!(*state, State::Open(_)) {
                return;
            }
            std::mem::replace(&mut *state, settled)
        };
        if let State::Open(Some(waker)) = before {
            waker.wake();
        }
    }

    /// The body is wanted.
    pub(crate) fn meet(&self) {
        self.settle(State::Met);
    }

    /// Nobody will ask any more.
    pub(crate) fn miss(&self) {
        self.settle(State::Missed);
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The body was not asked for.
#[derive(Debug)]
pub(crate) struct Missed;

/// One attempt that waits for the service's word.
pub(crate) struct Asking {
    expectation: Arc<Expectation>,
    patience: Pin<Box<Sleep>>,
}

impl Asking {
    pub(crate) fn new(expectation: Arc<Expectation>) -> Self {
        Self { expectation, patience: Box::pin(sleep(PATIENCE)) }
    }

    pub(crate) fn expectation(&self) -> &Arc<Expectation> {
        &self.expectation
    }

    /// Whether the service may still say something. After a while without a word the body is sent all the same.
    pub(crate) fn is_open(&mut self, cx: &mut Context<'_>) -> bool {
        if self.expectation.is_open() && self.patience.as_mut().poll(cx).is_ready() {
            self.expectation.meet();
        }
        self.expectation.is_open()
    }

    /// The service has answered in part.
    pub(crate) fn informed(&self, status: StatusCode) {
        if status == StatusCode::CONTINUE {
            self.expectation.meet();
        }
    }

    /// The service has answered for good. If it is no refusal it may want the body all the same.
    pub(crate) fn answered(&self, status: StatusCode) {
        if !status.is_client_error() && !status.is_server_error() {
            self.expectation.meet();
        }
    }
}

/// How long a service may say nothing before it is sent the body: as long as curl waits.
const PATIENCE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn poll(expectation: &Expectation) -> Poll<bool> {
        expectation.poll(&Context::from_waker(Waker::noop())).map(|settled| settled.is_ok())
    }

    #[test]
    fn what_comes_first_decides() {
        let (met, missed) = (Expectation::new(), Expectation::new());
        assert_eq!((poll(&met), poll(&missed)), (Poll::Pending, Poll::Pending));
        met.meet();
        missed.miss();
        met.miss();
        missed.meet();
        assert_eq!((poll(&met), poll(&missed)), (Poll::Ready(true), Poll::Ready(false)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_hundred_continues_and_other_interim_answers_do_not() {
        let asking = Asking::new(Expectation::new());
        asking.informed(StatusCode::PROCESSING);
        assert!(asking.expectation().is_open());
        asking.informed(StatusCode::CONTINUE);
        assert_eq!(poll(asking.expectation()), Poll::Ready(true));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_leaves_the_body_where_it_is_and_any_other_answer_does_not() {
        for (status, is_open) in [(401, true), (413, true), (503, true), (200, false), (303, false)] {
            let asking = Asking::new(Expectation::new());
            asking.answered(StatusCode::from_u16(status).unwrap());
            assert_eq!(asking.expectation().is_open(), is_open, "{status}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_without_a_word_is_sent_the_body_after_a_second() {
        let mut asking = Asking::new(Expectation::new());
        let mut cx = Context::from_waker(Waker::noop());
        tokio::time::advance(Duration::from_millis(990)).await;
        assert!(asking.is_open(&mut cx));
        tokio::time::advance(Duration::from_millis(20)).await;
        assert!(!asking.is_open(&mut cx));
    }
}
