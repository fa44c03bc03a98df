//! The requests that wait for a place on a connection: their clients take turns, and among those of one client it is first
//! in, first out. So a client's thousand requests delay each of another's by one, and where the queue is full the
//! longest line gives way. A client is an IP address; all those that come over Unix sockets are one.
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
use crate::translate::ClientAddress;

/// Those that wait at one worker's pool: a line for each client, the one whose turn it is in front. No line is empty, and
/// the first and the last in each still wait.
#[derive(Default)]
pub(crate) struct Queue(RefCell<VecDeque<Line>>);

struct Line {
    client: ClientAddress,
    waiters: VecDeque<Rc<Waiter>>,
}

struct Waiter {
    given: RefCell<Option<Result<StreamPermit, Fault>>>,
    waker: RefCell<Option<Waker>>,
    is_gone: Cell<bool>,
    /// Its place among the `max_pending`.
    pending: RefCell<Option<Pending>>,
}

impl Queue {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// Joins at the end of its client's line.
    ///
    /// # Cancel safety
    /// Dropping [`Waiting`] leaves the queue; a place that it was given goes to the next one.
    pub(crate) fn join(
        self: &Rc<Self>,
        client: ClientAddress,
        pending: Pending,
        metrics: Arc<EndpointMetrics>,
    ) -> Waiting {
        let waiter = Rc::new(Waiter {
            given: RefCell::default(),
            waker: RefCell::default(),
            is_gone: Cell::new(false),
            pending: RefCell::new(Some(pending)),
        });
        let mut lines = self.0.borrow_mut();
        match lines.iter_mut().find(|line| line.client == client) {
            Some(line) => line.waiters.push_back(waiter.clone()),
            None => lines.push_back(Line { client, waiters: [waiter.clone()].into() }),
        }
        metrics.pending.add(1);
        Waiting { client, waiter, since: Instant::now(), queue: self.clone(), metrics }
    }

    /// Makes room for one more of `client`: the longest line loses its last, who is sent away with `fault`.
    ///
    /// `None` if no line would be longer than the client's own.
    pub(crate) fn give_way(&self, client: ClientAddress, fault: Fault) -> Option<Pending> {
        let mut lines = self.0.borrow_mut();
        let own = lines.iter().find(|line| line.client == client).map_or(0, |line| line.waiters.len());
        let longest = lines.iter_mut().max_by_key(|line| line.waiters.len())?;
        if longest.waiters.len() <= own + 1 {
            return None;
        }
        let last = longest.waiters.pop_back()?;
        longest.drop_gone();
        last.give(Err(fault));
        last.pending.take()
    }

    /// Hands places on for as long as there are any and somebody waits: to each client in turn.
    pub(crate) fn serve(&self, mut place: impl FnMut() -> Option<StreamPermit>) {
        while !self.is_empty() {
            let Some(permit) = place() else { return };
            let first = self.next().expect("somebody waits, and nobody has left meanwhile");
            first.give(Ok(permit));
        }
    }

    /// Takes out whose turn it is; the client's next one comes after those of the others.
    fn next(&self) -> Option<Rc<Waiter>> {
        let mut lines = self.0.borrow_mut();
        let mut line = lines.pop_front()?;
        let first = line.waiters.pop_front();
        line.drop_gone();
        if !line.waiters.is_empty() {
            lines.push_back(line);
        }
        first
    }

    /// Sends everybody away; returns how many.
    pub(crate) fn fail(&self, fault: Fault) -> usize {
        let lines = self.0.take();
        let waiting = lines.into_iter().flat_map(|line| line.waiters).filter(|waiter| !waiter.is_gone.get());
        waiting.inspect(|waiter| waiter.give(Err(fault))).count()
    }

    /// Forgets those of `client` that have left.
    fn drop_gone(&self, client: ClientAddress) {
        let mut lines = self.0.borrow_mut();
        let Some(index) = lines.iter().position(|line| line.client == client) else { return };
        lines[index].drop_gone();
        if lines[index].waiters.is_empty() {
            lines.remove(index);
        }
    }
}

impl Line {
    /// Forgets those that have left, as far as nobody who waits is before or behind them.
    fn drop_gone(&mut self) {
        while self.waiters.front().is_some_and(|waiter| waiter.is_gone.get()) {
            self.waiters.pop_front();
        }
        while self.waiters.back().is_some_and(|waiter| waiter.is_gone.get()) {
            self.waiters.pop_back();
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
    client: ClientAddress,
    waiter: Rc<Waiter>,
    since: Instant,
    queue: Rc<Queue>,
    metrics: Arc<EndpointMetrics>,
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
        drop(self.waiter.pending.take());
        self.queue.drop_gone(self.client);
    }
}
