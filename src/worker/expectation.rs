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
    Open(Waiting),
    Met,
}

/// Who is to hear that it has been met. An HTTP/1.1 connection is driven by another task than its request.
#[derive(Debug, Default)]
struct Waiting {
    /// Sends the body.
    sender: Option<Waker>,
    /// Asks the client for it.
    asker: Option<Waker>,
}

/// Between who waits for the service's word and who sends the body.
#[derive(Debug)]
pub(crate) struct Expectation(Mutex<State>);

impl Expectation {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(State::Open(Waiting::default()))))
    }

    /// Ready when the body may be read.
    pub(crate) fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        self.poll_as(|waiting| waiting.sender = Some(cx.waker().clone()))
    }

    fn poll_as(&self, register: impl FnOnce(&mut Waiting)) -> Poll<()> {
        match &mut *self.state() {
            State::Open(waiting) => {
                register(waiting);
                Poll::Pending
            }
            State::Met => Poll::Ready(()),
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        matches!(*self.state(), State::Open(_))
    }

    /// The body is wanted.
    pub(crate) fn meet(&self) {
        let before = std::mem::replace(&mut *self.state(), State::Met);
        if let State::Open(Waiting { sender, asker }) = before {
            sender.into_iter().chain(asker).for_each(Waker::wake);
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

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
        if self.expectation.poll_as(|waiting| waiting.asker = Some(cx.waker().clone())).is_ready() {
            return false;
        }
        if self.patience.as_mut().poll(cx).is_ready() {
            self.expectation.meet();
            return false;
        }
        true
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
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::Wake;

    use super::*;

    fn poll(expectation: &Expectation) -> Poll<()> {
        expectation.poll(&Context::from_waker(Waker::noop()))
    }

    #[tokio::test]
    async fn who_sends_and_who_asks_both_hear_of_it() {
        struct Heard(AtomicBool);
        impl Wake for Heard {
            fn wake(self: Arc<Self>) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let mut asking = Asking::new(Expectation::new());
        let [sender, asker] = [(); 2].map(|()| Arc::new(Heard(AtomicBool::new(false))));
        assert!(asking.expectation().poll(&Context::from_waker(&sender.clone().into())).is_pending());
        assert!(asking.is_open(&mut Context::from_waker(&asker.clone().into())));
        asking.expectation().meet();
        assert!(sender.0.load(Ordering::Relaxed) && asker.0.load(Ordering::Relaxed));
        assert_eq!(poll(asking.expectation()), Poll::Ready(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_hundred_continues_and_other_interim_answers_do_not() {
        let asking = Asking::new(Expectation::new());
        asking.informed(StatusCode::PROCESSING);
        assert!(asking.expectation().is_open());
        asking.informed(StatusCode::CONTINUE);
        assert_eq!(poll(asking.expectation()), Poll::Ready(()));
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
