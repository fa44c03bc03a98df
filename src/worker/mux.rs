//! The streams of one upstream HTTP/2 connection.
//!
//! [`Mux`] answers one question for the pool: may another stream be opened here now? The limit is the
//! smaller of ours and the peer's latest SETTINGS, and zero after GOAWAY. A [`StreamPermit`] is the right
//! to one stream; dropping it frees the place. A stream is long when its head says so or when it has lived for some
//! turns of the pool's sweep; which connections carry such, the pool asks here.
//!
//! A [`Link`] is the part that crosses threads: bb8 keeps it, and a worker without a connection of its own
//! borrows it. A [`Mux`] lives on one worker. Knows streams and permits, not routes, waiters or HTTP/1.
//! RFC 9113 §5.1.2, §6.8, §8.7.

mod permit;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use bytes::Bytes;
use h2::client::SendRequest;
use tokio::time::Instant;

pub(crate) use self::permit::{Failure, StreamPermit, fault};
use super::resets::ResetBudget;
use super::upstream_io::Traffic;
use super::watchers::Watchers;
use crate::metrics::EndpointMetrics;

/// An id that no other upstream connection of the process has.
pub(crate) fn next_connection_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// One connection, as every holder sees it.
#[derive(Clone)]
pub(crate) struct Link {
    handle: SendRequest<Bytes>,
    pub(crate) state: Arc<LinkState>,
}

/// What the holders of a connection share.
pub(crate) struct LinkState {
    /// Unique in the process.
    pub(crate) id: u64,
    /// Has been put to use.
    is_used: AtomicBool,
    /// May carry new streams: neither closed, nor going away, nor given up by the pool.
    is_open: AtomicBool,
    /// The first stream id that is not used (RFC 9113 §5.1.1): odd, and in order.
    end_stream_id: u32,
    /// The peer's latest `SETTINGS_MAX_CONCURRENT_STREAMS`.
    peer_limit: AtomicU32,
    /// Streams of all workers.
    in_flight: AtomicU32,
    /// Heads or bodies may wait in h2 to be written.
    has_unwritten: AtomicBool,
    /// What has gone over the socket.
    pub(crate) traffic: Arc<Traffic>,
    /// The peer has ended it because it wants HTTP/1.1.
    is_http1_wanted: AtomicBool,
    /// Given up, because its peer has gone silent.
    is_unresponsive: AtomicBool,
    /// For the streams that are given up.
    resets: ResetBudget,
    /// Streams that nobody waits for any more, and whose reset must wait for its turn.
    abandoned: AtomicU32,
    /// Pools of other workers that wait for a place here.
    hungry: AtomicU32,
    /// Pools to tell when a place may have become free or the connection has ended.
    pub(crate) watchers: Watchers,
}

impl LinkState {
    pub(crate) fn new(traffic: Arc<Traffic>, requests_max: u32) -> Arc<Self> {
        Arc::new(Self {
            id: next_connection_id(),
            is_used: AtomicBool::new(false),
            is_open: AtomicBool::new(true),
            end_stream_id: 2 * requests_max + 1,
            peer_limit: AtomicU32::new(0),
            in_flight: AtomicU32::new(0),
            has_unwritten: AtomicBool::new(false),
            traffic,
            is_http1_wanted: AtomicBool::new(false),
            is_unresponsive: AtomicBool::new(false),
            resets: ResetBudget::new(Instant::now()),
            abandoned: AtomicU32::new(0),
            hungry: AtomicU32::new(0),
            watchers: Watchers::default(),
        })
    }

    /// True for the first who asks.
    pub(crate) fn is_first_use(&self) -> bool {
        !self.is_used.swap(true, Ordering::AcqRel)
    }

    pub(crate) fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Acquire)
    }

    /// Lets no new stream on; those that run go on. True for the call that did it.
    pub(crate) fn close(&self) -> bool {
        let is_first = self.is_open.swap(false, Ordering::AcqRel);
        if is_first {
            self.watchers.notify();
        }
        is_first
    }

    /// Remembers what an error that ends the connection says about it.
    pub(crate) fn heed(&self, error: &h2::Error) {
        if error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::HTTP_1_1_REQUIRED) {
            self.is_http1_wanted.store(true, Ordering::Release);
        }
    }

    /// Whether the peer has ended it because it wants HTTP/1.1 (RFC 9113 §7).
    pub(crate) fn is_http1_wanted(&self) -> bool {
        self.is_http1_wanted.load(Ordering::Acquire)
    }

    /// As [`LinkState::close`], because the peer has gone silent.
    pub(crate) fn give_up(&self) {
        self.is_unresponsive.store(true, Ordering::Release);
        self.close();
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Acquire)
    }

    /// A stream is reset that cannot wait for its turn.
    pub(crate) fn charge_reset(&self) {
        self.resets.take_turn(self.peer_limit.load(Ordering::Acquire), Instant::now());
    }

    /// Something has been given to h2.
    pub(crate) fn set_unwritten(&self) {
        self.has_unwritten.store(true, Ordering::Release);
    }

    /// Whether something has been given to h2 since the last call.
    pub(crate) fn take_unwritten(&self) -> bool {
        self.has_unwritten.swap(false, Ordering::AcqRel)
    }

    /// Follows the peer's SETTINGS.
    pub(crate) fn follow(&self, peer_limit: usize) {
        let limit = u32::try_from(peer_limit).unwrap_or(u32::MAX);
        let before = self.peer_limit.load(Ordering::Relaxed);
        if before != limit {
            self.peer_limit.store(limit, Ordering::Release);
            if limit > before {
                self.watchers.notify();
            }
        }
    }

    /// The streams that the peer allows; `None` if it states no limit (RFC 9113 §6.5.2).
    pub(crate) fn peer_limit(&self) -> Option<u32> {
        Some(self.peer_limit.load(Ordering::Acquire)).filter(|limit| *limit != u32::MAX)
    }
}

impl Link {
    pub(crate) fn new(handle: SendRequest<Bytes>, state: Arc<LinkState>) -> Self {
        Self { handle, state }
    }

    /// Whether the peer's SETTINGS allow extended CONNECT (RFC 8441 §3).
    pub(crate) fn has_extended_connect(&self) -> bool {
        self.handle.is_extended_connect_protocol_enabled()
    }
}

/// Where a freed place goes first.
pub(crate) trait Room {
    /// Called when a stream of `mux` has ended.
    fn on_release(&self, mux: &Rc<Mux>);
    /// Called when a stream turns out to be long.
    fn on_long(&self);
}

/// One worker's view of a connection.
pub(crate) struct Mux {
    handle: RefCell<SendRequest<Bytes>>,
    pub(crate) state: Arc<LinkState>,
    /// Our own limit beside the peer's.
    streams_max: u32,
    /// Streams of this worker.
    in_flight: Cell<u32>,
    /// Those of them that are not long, by age: opened in this turn of the sweep, and in the last one.
    young: [Cell<u32>; 2],
    /// The turns of the sweep so far.
    turn: Cell<u32>,
    /// Workers that share the connection, this one included.
    sharers: u32,
    idle_since: Cell<Option<Instant>>,
    room: std::rc::Weak<dyn Room>,
    is_draining: Cell<bool>,
    metrics: Arc<EndpointMetrics>,
}

impl Mux {
    pub(crate) fn new(
        link: Link,
        streams_max: u32,
        sharers: u32,
        room: std::rc::Weak<dyn Room>,
        metrics: Arc<EndpointMetrics>,
    ) -> Rc<Self> {
        Rc::new(Self {
            handle: RefCell::new(link.handle),
            state: link.state,
            streams_max,
            in_flight: Cell::new(0),
            young: Default::default(),
            turn: Cell::new(0),
            sharers: sharers.max(1),
            idle_since: Cell::new(Some(Instant::now())),
            room,
            is_draining: Cell::new(false),
            metrics,
        })
    }

    /// The streams that the connection may carry now, of all workers together.
    pub(crate) fn limit(&self) -> u32 {
        if self.state.is_open() { self.streams_max() } else { 0 }
    }

    fn streams_max(&self) -> u32 {
        self.streams_max.min(self.state.peer_limit.load(Ordering::Acquire))
    }

    pub(crate) fn has_room(&self) -> bool {
        self.state.in_flight() < self.limit()
    }

    /// Below the mark up to which connections are filled before another one is opened: three quarters.
    pub(crate) fn has_room_below_mark(&self) -> bool {
        let limit = self.limit();
        self.state.in_flight() < limit - limit / 4
    }

    /// Half of the places or more are held by streams that nobody waits for.
    pub(crate) fn is_abandoned(&self) -> bool {
        2 * self.state.abandoned.load(Ordering::Acquire) >= self.limit().max(1)
    }

    /// Takes a place, if there is one.
    pub(crate) fn permit(self: &Rc<Self>) -> Option<StreamPermit> {
        let limit = self.limit();
        // Never above the limit, even for a moment: another worker would find the last place taken and give up.
        let one_more = |in_flight: u32| (in_flight < limit).then_some(in_flight + 1);
        self.state.in_flight.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).ok()?;
        self.in_flight.set(self.in_flight.get() + 1);
        self.young[0].set(self.young[0].get() + 1);
        self.metrics.streams.add(1);
        self.metrics.requests.increment();
        Some(StreamPermit::new(self.clone()))
    }

    /// Streams of this worker that live long or carry bulk.
    pub(crate) fn long(&self) -> u32 {
        self.in_flight.get() - self.young[0].get() - self.young[1].get()
    }

    /// A turn of the sweep: streams of the turn before the last one are long from now on.
    pub(crate) fn age(&self) {
        self.turn.set(self.turn.get().wrapping_add(1));
        self.young[1].set(self.young[0].replace(0));
    }

    /// The count that a stream is in which was opened in `turn`; none if it is long.
    fn young(&self, turn: Option<u32>) -> Option<&Cell<u32>> {
        self.young.get(self.turn.get().wrapping_sub(turn?) as usize)
    }

    /// Since when this worker has had no stream here; `None` while it has.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        if self.in_flight.get() == 0 { self.idle_since.get() } else { None }
    }

    /// Some worker uses the connection: its idle time starts anew.
    pub(crate) fn touch(&self) {
        self.idle_since.set(Some(Instant::now()));
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.get()
    }

    /// Counts this worker among those that wait for a place here, or takes it out again.
    pub(crate) fn set_hungry(&self, is_hungry: bool) {
        if is_hungry {
            self.state.hungry.fetch_add(1, Ordering::AcqRel);
        } else {
            self.state.hungry.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Only finishes what runs on it.
    pub(crate) fn drain(&self) {
        if !self.is_draining.replace(true) {
            self.metrics.draining.add(1);
        }
    }

    /// A clone of the handle holds no stream.
    fn renew_handle(&self) {
        let fresh = self.handle.borrow().clone();
        drop(self.handle.replace(fresh));
    }

    fn release(self: &Rc<Self>, turn: Option<u32>) {
        let mine = self.in_flight.get() - 1;
        self.in_flight.set(mine);
        if let Some(count) = self.young(turn) {
            count.set(count.get() - 1);
        }
        self.metrics.streams.add(-1);
        self.state.in_flight.fetch_sub(1, Ordering::AcqRel);
        if mine == 0 {
            // The sweep that reads this is far coarser than a stream: the moment need not be exact, so a
            // clock is read only here, and not for each of many overlapping streams.
            self.idle_since.set(Some(Instant::now()));
        }
        if self.state.hungry.load(Ordering::Acquire) > 0 && mine >= self.limit() / self.sharers {
            // Another worker waits, and this one has had its share.
            self.state.watchers.notify();
            return;
        }
        if let Some(room) = self.room.upgrade() {
            room.on_release(self);
        }
        if self.state.hungry.load(Ordering::Acquire) > 0 && self.has_room() {
            self.state.watchers.notify();
        }
    }
}

impl Drop for Mux {
    fn drop(&mut self) {
        if self.is_draining.get() {
            self.metrics.draining.add(-1);
        }
    }
}
