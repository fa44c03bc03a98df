//! The requests that wait for a place on a connection: first in, first out.
//!
//! A place is handed over, not announced, so that no request that comes later can take it. The bound on the number that
//! wait is [`Pending`], which counts for the whole process.
//!
//! Lives on one worker. Knows neither connections nor why there is no place. May be re-entered: a place that nobody
//! wants any more frees itself, and comes back here.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio::time::Instant;

use super::mux::StreamPermit;
use super::share::Pending;
use crate::error::Fault;
use crate::metrics::EndpointMetrics;

/// Those that wait at one worker's pool.
#[derive(Default)]
pub(crate) struct Queue(RefCell<VecDeque<Rc<Waiter>>>);

#[derive(Default)]
struct Waiter {
    given: RefCell<Option<Result<StreamPermit, Fault>>>,
    waker: RefCell<Option<Waker>>,
    is_gone: Cell<bool>,
}

impl Queue {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// Joins at the end.
    ///
    /// # Cancel safety
    /// Dropping [`Waiting`] leaves the queue; a place that it was given goes to the next one.
    pub(crate) fn join(self: &Rc<Self>, pending: Pending, metrics: Arc<EndpointMetrics>) -> Waiting {
        let waiter = Rc::new(Waiter::default());
        self.0.borrow_mut().push_back(waiter.clone());
        metrics.pending.add(1);
        Waiting { waiter, since: Instant::now(), queue: self.clone(), metrics, _pending: pending }
    }

    /// Hands places on for as long as there are any and somebody waits.
    pub(crate) fn serve(&self, mut place: impl FnMut() -> Option<StreamPermit>) {
        loop {
            self.drop_gone();
            let Some(first) = self.0.borrow().front().cloned() else { return };
            let Some(permit) = place() else { return };
            self.0.borrow_mut().pop_front();
            first.give(Ok(permit));
        }
    }

    /// Sends everybody away; returns how many.
    pub(crate) fn fail(&self, fault: Fault) -> usize {
        let waiters = self.0.take();
        let waiting = waiters.into_iter().filter(|waiter| !waiter.is_gone.get());
        waiting.inspect(|waiter| waiter.give(Err(fault))).count()
    }

    /// Forgets those at the front that have left.
    pub(crate) fn drop_gone(&self) {
        let mut waiters = self.0.borrow_mut();
        while waiters.front().is_some_and(|waiter| waiter.is_gone.get()) {
            waiters.pop_front();
        }
    }
}

impl Waiter {
    fn give(&self, given: Result<StreamPermit, Fault>) {
        *self.given.borrow_mut() = Some(given);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

/// A request's place in the queue; dropping it leaves the queue.
#[must_use]
pub(crate) struct Waiting {
    waiter: Rc<Waiter>,
    since: Instant,
    queue: Rc<Queue>,
    metrics: Arc<EndpointMetrics>,
    _pending: Pending,
}

impl Waiting {
    /// Ready with a place, or with the reason why there will be none.
    pub(crate) fn poll(&mut self, cx: &Context<'_>) -> Poll<Result<StreamPermit, Fault>> {
        if let Some(given) = self.waiter.given.take() {
            return Poll::Ready(given);
        }
        *self.waiter.waker.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.metrics.pending.add(-1);
        self.metrics.wait.record(self.since.elapsed());
        self.waiter.is_gone.set(true);
        // Taken out first: what is dropped may come back to this queue.
        let given = self.waiter.given.take();
        drop(given);
        self.queue.drop_gone();
    }
}
