//! What the tasks of one worker share: the clock, the counters, the configuration, and who is connected.
//!
//! Lives on one worker.

use std::cell::{Cell, RefCell};
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use http::HeaderValue;
use slab::Slab;
use tokio::sync::Notify;

use super::crew::Crew;
use super::request_body::ReplayBudget;
use super::routing::Routing;
use super::snapshot::Snapshot;
use super::timer::{Timer, Wakes, Wheel};
use crate::access_log::{AccessLogger, FLUSH_INTERVAL, Outcome};
use crate::config;
use crate::metrics::WorkerMetrics;
use crate::translate::{ClientAddress, Hop};

/// A worker, as its own tasks see it.
pub(crate) struct Local {
    pub(crate) index: usize,
    pub(crate) crew: Arc<Crew>,
    pub(crate) wheel: Rc<Wheel>,
    pub(crate) metrics: Arc<WorkerMetrics>,
    /// For the request bodies of this worker's clients.
    pub(crate) replay: Arc<ReplayBudget>,
    /// For copies of request heads, to be used again.
    head_buffers: RefCell<Vec<Vec<u8>>>,
    access: AccessLogger,
    /// Told when the access log's buffer holds something that must be flushed.
    access_began: Notify,
    /// Told when a connection has given memory back.
    memory_freed: Notify,
    routing: RefCell<Rc<Routing>>,
    /// The client connections, to be woken.
    clients: RefCell<Slab<Wakes>>,
    next_request: Cell<u64>,
    is_draining: Cell<bool>,
    drain_timeout: Cell<Duration>,
    /// The last `Date` that was made, and until when it is right.
    date: RefCell<Option<(SystemTime, HeaderValue)>>,
}

impl Local {
    /// Must be called on the worker's runtime: pools spawn tasks.
    pub(crate) fn new(index: usize, crew: Arc<Crew>, snapshot: &Snapshot) -> Rc<Self> {
        let metrics = crew.registry.workers()[index].clone();
        Rc::new(Self {
            wheel: Wheel::new(),
            replay: Arc::default(),
            head_buffers: RefCell::default(),
            access: AccessLogger::new(snapshot.access.clone(), metrics.clone()),
            access_began: Notify::new(),
            memory_freed: Notify::new(),
            routing: RefCell::new(Rc::new(Routing::new(snapshot, index, &crew.registry, None))),
            clients: RefCell::default(),
            // Any start will do that another process is unlikely to have.
            next_request: Cell::new(RandomState::new().hash_one(index)),
            is_draining: Cell::new(false),
            drain_timeout: Cell::new(snapshot.drain_timeout),
            date: RefCell::default(),
            index,
            crew,
            metrics,
        })
    }

    /// Serves requests by `snapshot` from now on; those that run keep what they started with.
    pub(crate) fn apply(&self, snapshot: &Snapshot) {
        let before = self.routing();
        let routing = Routing::new(snapshot, self.index, &self.crew.registry, Some(&before));
        *self.routing.borrow_mut() = Rc::new(routing);
        self.drain_timeout.set(snapshot.drain_timeout);
        self.access.replace(snapshot.access.clone());
    }

    /// What requests that start now are served by.
    pub(crate) fn routing(&self) -> Rc<Routing> {
        self.routing.borrow().clone()
    }

    /// Connections close after the request that runs, idle ones at once.
    pub(crate) fn drain(&self) {
        self.is_draining.set(true);
        self.wake_clients();
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining.get()
    }

    /// How long a drain may take.
    pub(crate) fn drain_timeout(&self) -> Duration {
        self.drain_timeout.get()
    }

    /// Has every connection look again at whether it should close.
    pub(crate) fn wake_clients(&self) {
        for (_, client) in &*self.clients.borrow() {
            client.wake();
        }
    }

    /// Remembers a connection until the registration is dropped, so that it can be woken.
    pub(crate) fn register(self: &Rc<Self>, timer: &Timer) -> Registration {
        let key = self.clients.borrow_mut().insert(timer.wakes());
        Registration { local: self.clone(), key }
    }

    /// What this hop says about a peer of `listener`.
    pub(crate) fn hop(&self, peer: ClientAddress, listener: &config::Listener) -> Hop {
        Hop::of(&self.crew.identity, peer, &listener.trust_forwarded_from)
    }

    /// A buffer for a head; [`Local::give_back`] it.
    pub(crate) fn head_buffer(&self) -> Vec<u8> {
        self.head_buffers.borrow_mut().pop().unwrap_or_default()
    }

    /// Keeps a buffer for the next head, unless it is large or there are many.
    pub(crate) fn give_back(&self, buffer: Vec<u8>) {
        let mut buffers = self.head_buffers.borrow_mut();
        if buffers.len() < HEAD_BUFFERS_MAX && buffer.capacity() <= HEAD_BUFFER_BYTES_MAX {
            buffers.push(buffer);
        }
    }

    /// An id for a request that came without one.
    pub(crate) fn next_request_id(&self) -> String {
        let id = self.next_request.get().wrapping_add(1);
        self.next_request.set(id);
        format!("{id:016x}")
    }

    /// The `Date` of an answer that has none (RFC 9110 §6.6.1).
    pub(crate) fn date(&self) -> HeaderValue {
        let now = SystemTime::now();
        let mut date = self.date.borrow_mut();
        if let Some((made, value)) = &*date
            && now.duration_since(*made).is_ok_and(|age| age < Duration::from_secs(1))
        {
            return value.clone();
        }
        let value = HeaderValue::try_from(httpdate::fmt_http_date(now)).expect("a date is a valid field value");
        // From the second's beginning, so that the next one is not late.
        let fraction = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
        *date = Some((now - Duration::from_nanos(u64::from(fraction)), value.clone()));
        value
    }

    /// Whether a request's record may become a line.
    pub(crate) fn is_logging(&self) -> bool {
        self.access.is_active()
    }

    pub(crate) fn log(&self, outcome: &Outcome<'_>) {
        if self.access.record(outcome) {
            self.access_began.notify_one();
        }
    }

    /// Hands lines of the access log on when they have waited for a moment. One task per worker.
    pub(crate) async fn flush_log_lines(self: Rc<Self>) {
        loop {
            self.access_began.notified().await;
            tokio::time::sleep(FLUSH_INTERVAL).await;
            self.access.flush();
        }
    }

    /// A connection has given back what it held while its client was active.
    pub(crate) fn memory_freed(&self) {
        self.memory_freed.notify_one();
    }

    /// Has the allocator return to the system what connections have given back to it. One task per worker.
    ///
    /// mimalloc does so no sooner than a second after the memory was freed, and only when a page of it is taken or
    /// freed: a worker whose clients have all become idle would keep what they held. An allocation so large that it
    /// has pages of its own is such an event.
    pub(crate) async fn return_memory(self: Rc<Self>) {
        loop {
            self.memory_freed.notified().await;
            tokio::time::sleep(RETURN_AFTER).await;
            drop(std::hint::black_box(Vec::<u8>::with_capacity(1024 * 1024)));
        }
    }

    /// Hands on what has been logged, at the end.
    pub(crate) fn flush_log(&self) {
        self.access.flush();
    }
}

/// A connection that can be woken.
pub(crate) struct Registration {
    local: Rc<Local>,
    key: usize,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.local.clients.borrow_mut().remove(self.key);
    }
}

/// A connection that counts for this worker: in the crew's loads already, from now on in its metrics too.
pub(crate) struct Load(Rc<Local>);

impl Load {
    pub(crate) fn new(local: &Rc<Local>) -> Self {
        local.metrics.downstream_connections.add(1);
        Self(local.clone())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.metrics.downstream_connections.add(-1);
        self.0.crew.loads[self.0.index].fetch_sub(1, Ordering::AcqRel);
    }
}

/// As many heads as wait for their answers at once on a busy worker, and as long as they usually are: 1 MiB in all.
const HEAD_BUFFERS_MAX: usize = 256;
const HEAD_BUFFER_BYTES_MAX: usize = 4096;
/// Longer than the second for which mimalloc keeps freed memory in case that it is wanted again.
const RETURN_AFTER: Duration = Duration::from_secs(2);
