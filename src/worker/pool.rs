//! The HTTP/2 connections of one worker to one endpoint: packing, growth and the queue.
//!
//! bb8 owns the life of connections (dialling, the maximum, the idle time); requests see only the list of live
//! connections here. A connection is checked out of bb8 for as long as it carries streams and given back
//! when it has been idle for a moment. Requests fill the first connections up to a mark, so that few connections
//! carry much and each write to the socket carries many requests; the pool grows when all are above the mark
//! or a request has to wait. Waiting is bounded, and clients take turns.
//!
//! Streams that live long or carry bulk keep to connections of their own as far as there are any, so that short
//! requests find room, and are not written behind megabytes. A stream cannot move: where it shows late that one is
//! long, it is the short ones that go elsewhere.
//!
//! Lives on one worker. Does not know what a request is.

mod tasks;

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::dial::Dialer;
use super::dial_failure::DialFailures;
use super::lane::Lane;
use super::mux::{Link, Mux, Room, StreamPermit};
use super::queue::{Queue, Waiting};
use super::share::EndpointShared;
use crate::error::{Fault, ProxyFault, UpstreamFault};
use crate::metrics::EndpointMetrics;
use crate::translate::ClientAddress;

/// A connection without streams for this long goes back to bb8, whose idle timeout then counts.
const IDLE_BEFORE_RETURN: Duration = Duration::from_secs(1);

type Lease = bb8::PooledConnection<'static, Dialer>;

/// One worker's connections to one HTTP/2 endpoint.
pub(crate) struct Pool {
    shared: Arc<EndpointShared>,
    worker: usize,
    /// Connections that this worker may have; zero means that it borrows.
    share: u32,
    bb8: bb8::Pool<Dialer>,
    failures: DialFailures,
    live: RefCell<Vec<Live>>,
    queue: Rc<Queue>,
    is_growing: Cell<bool>,
    is_sweeping: Cell<bool>,
    is_relieving: Cell<bool>,
    /// What the gauges hold of this pool: active, idle, stream limit.
    shown: Cell<[i64; 3]>,
    /// Told when a place may have become free or a connection has ended on another task or worker.
    changed: Arc<Notify>,
    pub(crate) metrics: Arc<EndpointMetrics>,
    me: Weak<Pool>,
}

struct Live {
    mux: Rc<Mux>,
    /// `None` for a borrowed connection. Held only to be given back.
    lease: Option<Lease>,
    is_hungry: Cell<bool>,
}

impl Pool {
    /// Must be called on the worker's runtime: tasks are spawned.
    pub(crate) fn new(shared: Arc<EndpointShared>, worker: usize, metrics: Arc<EndpointMetrics>) -> Rc<Self> {
        let share = shared.share(worker);
        let failures = DialFailures::new();
        let dialer = Dialer { target: shared.target.clone(), failures: failures.clone(), metrics: metrics.clone() };
        let bb8 = bb8::Pool::builder()
            .max_size(share.max(1))
            .idle_timeout(Some(shared.pool.idle_timeout))
            .max_lifetime(None)
            .reaper_rate(shared.pool.idle_timeout.clamp(Duration::from_millis(100), Duration::from_secs(10)))
            // The dial has its own timeout; this one only bounds a check-out that nobody answers.
            .connection_timeout(shared.target.connect_timeout * 4 + Duration::from_secs(1))
            // Retries and their pace are decided here, where it is known whether anyone still waits.
            .retry_connection(false)
            .test_on_check_out(true)
            .build_unchecked(dialer);
        let changed = Arc::new(Notify::new());
        let pool = Rc::new_cyclic(|me| Self {
            share,
            bb8,
            failures,
            live: RefCell::default(),
            queue: Rc::default(),
            is_growing: Cell::new(false),
            is_sweeping: Cell::new(false),
            is_relieving: Cell::new(false),
            shown: Cell::default(),
            changed: changed.clone(),
            metrics,
            me: me.clone(),
            shared: shared.clone(),
            worker,
        });
        tokio::task::spawn_local(tasks::follow_changes(Rc::downgrade(&pool), changed.clone()));
        shared.discovery.watchers.add(&changed);
        let lender = shared.lender(worker);
        if share == 0 {
            let board = shared.board(lender);
            board.borrowers.add(&changed);
        } else {
            tokio::task::spawn_local(tasks::answer_borrowers(Rc::downgrade(&pool), shared.clone(), worker));
            if shared.minimum(worker) > 0 {
                pool.grow("minimum");
            } else if worker == 0 {
                // One connection tells at once whether the service is there and what it allows.
                pool.grow("startup");
            }
        }
        pool
    }

    /// A place on a live connection, without waiting: no lock, no await, no allocation.
    ///
    /// `None` when there is none, or when others wait already.
    pub(crate) fn try_acquire(&self, lane: Lane) -> Option<StreamPermit> {
        if !self.queue.is_empty() {
            return None;
        }
        let live = self.live.borrow();
        if let Some(mux) = pick(&live, lane) {
            let permit = mux.permit();
            if mux.long() > 0 && lane == Lane::Short {
                drop(live);
                self.part_lanes();
            }
            return permit;
        }
        let emptiest = live.iter().filter(|live| live.mux.has_room()).min_by_key(|live| live.mux.in_flight());
        let permit = emptiest.and_then(|live| live.mux.permit());
        drop(live);
        if permit.is_some() {
            self.grow("streams");
        }
        permit
    }

    /// As [`Pool::try_acquire`], and on another connection than this one if one has room.
    pub(crate) fn try_acquire_beside(&self, connection_id: u64) -> Option<StreamPermit> {
        if !self.queue.is_empty() {
            return None;
        }
        let live = self.live.borrow();
        let other = live.iter().filter(|live| live.mux.state.id != connection_id).find_map(|live| live.mux.permit());
        drop(live);
        other.or_else(|| self.try_acquire(Lane::Short))
    }

    /// Joins the queue for a place.
    ///
    /// # Errors
    /// [`ProxyFault::PoolFull`] when `max_pending` requests wait, at once, or later in favour of a client with fewer of
    /// them; [`ProxyFault::NoHealthyEndpoint`] when the endpoint has been down for a while. Another endpoint may be tried.
    ///
    /// # Cancel safety
    /// Dropping [`Waiting`] gives its place to the next one; a dial in progress goes on and is pooled.
    pub(crate) fn wait(&self, client: ClientAddress) -> Result<Waiting, Fault> {
        if self.shared.health.is_down() {
            self.metrics.rejected.increment("unavailable");
            return Err(ProxyFault::NoHealthyEndpoint.into());
        }
        let pending = if let Some(pending) = self.shared.enter_queue() {
            pending
        } else {
            // Somebody is sent away: this request, or another one.
            self.metrics.rejected.increment("full");
            let full = ProxyFault::PoolFull.into();
            self.queue.give_way(client, full).ok_or(full)?
        };
        let waiting = self.queue.join(client, pending, self.metrics.clone());
        if let Some(pool) = self.me.upgrade() {
            pool.feed();
        }
        Ok(waiting)
    }

    /// Why a request that has waited too long got no place: the endpoint's absence, or a lack of room.
    pub(crate) fn wait_fault(&self) -> Fault {
        self.shared.health.fault().map_or(Fault::Proxy(ProxyFault::PoolWaitTimeout), Fault::Upstream)
    }

    /// Its last dial failed: other endpoints come first.
    pub(crate) fn is_failing(&self) -> bool {
        self.shared.health.is_failing()
    }

    pub(crate) fn shared(&self) -> &Arc<EndpointShared> {
        &self.shared
    }

    /// Forgets ended connections, serves the queue, and grows if some still wait.
    fn feed(self: &Rc<Self>) {
        let has_lost_a_busy_one = self.prune();
        if self.share == 0 {
            self.borrow_links();
        }
        if self.shared.health.is_down() {
            self.fail_waiters();
            return;
        }
        if self.shared.discovery.is_http1() {
            // Those who wait go on to an HTTP/1.1 connection.
            self.queue.fail(UpstreamFault::NotHttp2.into());
            self.show();
            return;
        }
        let live: Vec<Rc<Mux>> = self.live.borrow().iter().map(|live| live.mux.clone()).collect();
        for mux in &live {
            self.queue.serve(|| mux.permit());
        }
        if self.sharers() > 1 && self.tell_hunger() {
            // A place may have become free before the others could know that this worker waits.
            for mux in &live {
                self.queue.serve(|| mux.permit());
            }
            self.tell_hunger();
        }
        if !self.queue.is_empty() {
            if live.iter().any(|mux| mux.is_abandoned()) && !self.is_relieving.replace(true) {
                tokio::task::spawn_local(tasks::relieve(self.me.clone()));
            }
            self.grow("waiting");
        } else if self.share > 0 && live.len() < self.shared.minimum(self.worker) as usize {
            self.grow("minimum");
        } else if has_lost_a_busy_one {
            // Where there were streams, more will come: they need not wait for a dial.
            self.grow("replacement");
        }
        self.show();
    }

    /// Workers that use the connections of this one or of its lender.
    fn sharers(&self) -> u32 {
        self.shared.sharers(self.shared.lender(self.worker))
    }

    /// Says on each connection whether somebody waits here; true if somebody does.
    fn tell_hunger(&self) -> bool {
        let is_starving = !self.queue.is_empty();
        for live in &*self.live.borrow() {
            if live.is_hungry.replace(is_starving) != is_starving {
                live.mux.set_hungry(is_starving);
            }
        }
        is_starving
    }

    /// Opens a connection for the short streams if long ones take more than an eighth of each.
    fn part_lanes(&self) {
        let live = self.live.borrow();
        let is_taken = |mux: &Mux| mux.long() > mux.limit() / 8;
        let are_all_taken = !live.is_empty() && live.iter().all(|live| is_taken(&live.mux));
        drop(live);
        if are_all_taken && self.share > 0 {
            self.grow("long_lane");
        }
    }

    fn fail_waiters(&self) {
        let fault = self.shared.health.fault().map_or(Fault::Proxy(ProxyFault::NoHealthyEndpoint), Fault::Upstream);
        for _ in 0..self.queue.fail(fault) {
            self.metrics.rejected.increment("unavailable");
        }
    }

    /// Lets go of connections that take no more streams; those that run on them go on. True if there are any.
    fn prune(&self) -> bool {
        let mut ended = Vec::new();
        self.live.borrow_mut().retain_mut(|live| {
            let is_open = live.mux.state.is_open();
            if !is_open {
                ended.push((live.mux.clone(), live.lease.take(), live.is_hungry.get()));
            }
            is_open
        });
        let mut is_any_busy = false;
        for (mux, lease, is_hungry) in ended {
            is_any_busy |= mux.state.in_flight() > 0;
            if mux.state.is_http1_wanted() {
                self.shared.discovery.found_http1(&self.shared.target, "it ends connections with HTTP_1_1_REQUIRED");
            }
            self.part_from(&mux, is_hungry);
            // A borrowed connection is its owner's to count.
            if lease.is_some() && mux.state.in_flight() > 0 {
                mux.drain();
            }
            // bb8 sees that the connection is closed, and counts it no more.
            drop(lease);
        }
        is_any_busy
    }

    fn part_from(&self, mux: &Rc<Mux>, is_hungry: bool) {
        if is_hungry {
            mux.set_hungry(false);
        }
        mux.state.watchers.remove(&self.changed);
        if self.share > 0 {
            self.shared.board(self.worker).withdraw(mux.state.id);
            self.shared.health.link_ended();
        }
    }

    /// Asks a service that speaks HTTP/1.1 for HTTP/2, by one dial.
    pub(crate) fn ask_again(&self) {
        if self.shared.discovery.is_http1() {
            self.grow("discovery");
        }
    }

    /// Opens one more connection, if the share allows; one dial at a time.
    fn grow(&self, reason: &'static str) {
        if self.share == 0 {
            self.shared.board(self.shared.lender(self.worker)).wanted.notify_one();
            return;
        }
        if self.is_growing.get() || self.live.borrow().len() >= self.share as usize {
            return;
        }
        self.is_growing.set(true);
        tokio::task::spawn_local(tasks::dial(self.me.clone(), reason));
    }

    /// Puts a checked-out connection to use.
    fn adopt(self: &Rc<Self>, lease: Lease) {
        let link = lease.0.clone();
        let sharers = self.shared.sharers(self.worker);
        if sharers > 1 {
            self.shared.board(self.worker).publish(link.clone());
        }
        self.add(link, Some(lease), sharers);
    }

    fn add(self: &Rc<Self>, link: Link, lease: Option<Lease>, sharers: u32) {
        link.state.watchers.add(&self.changed);
        if lease.is_some() {
            self.shared.health.link_began();
        }
        let room: Weak<Self> = Rc::downgrade(self);
        let mux = Mux::new(link, self.shared.target.streams_max, sharers, room, self.metrics.clone());
        self.live.borrow_mut().push(Live { mux, lease, is_hungry: Cell::new(false) });
        if !self.is_sweeping.replace(true) {
            tokio::task::spawn_local(tasks::sweep(self.me.clone()));
        }
    }

    /// Takes up what the lender has on its board.
    fn borrow_links(self: &Rc<Self>) {
        let lender = self.shared.lender(self.worker);
        let links = self.shared.board(lender).links.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for link in links {
            let is_known = self.live.borrow().iter().any(|live| live.mux.state.id == link.state.id);
            if !is_known && link.state.is_open() {
                self.add(link, None, self.shared.sharers(lender));
            }
        }
    }

    /// Lets no new stream on where streams that nobody waits for hold the places, if somebody waits for those. What runs
    /// there goes on, beside a successor.
    fn relieve(&self) {
        self.is_relieving.set(false);
        if !self.queue.is_empty() {
            // A service in trouble shall not be given more connections for it than it would have anyway, twice.
            let more = i64::from(self.share) - self.metrics.draining.value();
            let live = self.live.borrow();
            let crowded = live.iter().filter(|live| live.mux.is_abandoned());
            crowded.take(usize::try_from(more).unwrap_or(0)).for_each(|live| _ = live.mux.state.close());
        }
    }

    /// Gives connections back that have been idle for a moment.
    fn return_idle(&self) {
        let keep = self.shared.minimum(self.worker) as usize;
        let is_lent = self.share > 0 && self.shared.sharers(self.worker) > 1;
        // bb8 must not close a connection that a borrower has begun to use again: a lent one is kept until its idle
        // time is over, and then closed here.
        let idle_max = if is_lent { self.shared.pool.idle_timeout } else { IDLE_BEFORE_RETURN };
        let mut idle = Vec::new();
        let mut live = self.live.borrow_mut();
        let mut index = live.len();
        while index > 0 && live.len() > keep {
            index -= 1;
            let mux = &live[index].mux;
            if mux.state.in_flight() > 0 {
                mux.touch();
            } else if mux.idle_since().is_some_and(|since| since.elapsed() >= idle_max) {
                idle.push(live.remove(index));
            }
        }
        drop(live);
        for live in idle {
            self.part_from(&live.mux, live.is_hungry.get());
            if is_lent {
                live.mux.state.close();
            }
            drop(live);
        }
    }

    /// A turn for the streams: some are long from now on.
    fn age(&self) {
        for live in &*self.live.borrow() {
            live.mux.age();
        }
    }

    /// Puts the gauges right.
    fn show(&self) {
        if self.share > 0 {
            let live = self.live.borrow();
            let limit = live.iter().map(|live| i64::from(live.mux.limit())).sum();
            self.show_as([live.len() as i64, i64::from(self.bb8.state().idle_connections), limit]);
        }
    }

    /// Moves the gauges by what has changed: the pool before a reload may still be counting on the same ones.
    fn show_as(&self, now: [i64; 3]) {
        let before = self.shown.replace(now);
        let gauges = [&self.metrics.active, &self.metrics.idle, &self.metrics.stream_limit];
        for ((gauge, now), before) in gauges.into_iter().zip(now).zip(before) {
            // The pool of HTTP/1.1 connections to the same endpoint counts on the first of them.
            gauge.add_shared(now - before);
        }
    }
}

impl Room for Pool {
    fn on_release(&self, mux: &Rc<Mux>) {
        if !self.queue.is_empty() {
            self.queue.serve(|| mux.permit());
        }
    }

    fn on_long(&self) {
        if self.live.borrow().len() == 1 && self.share > 0 {
            self.grow("long_lane");
        } else {
            self.part_lanes();
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        for live in self.live.take() {
            self.part_from(&live.mux, live.is_hungry.get());
        }
        self.show_as([0; 3]);
        // The tasks that wait for a word find the pool gone.
        self.changed.notify_one();
        self.shared.board(self.worker).wanted.notify_one();
    }
}

/// The connection below the mark that suits best: for a short stream the first without long ones, or with the
/// fewest; for a long one that with the most, or else the last.
fn pick(live: &[Live], lane: Lane) -> Option<&Rc<Mux>> {
    let mut below_mark = live.iter().map(|live| &live.mux).filter(|mux| mux.has_room_below_mark());
    match lane {
        Lane::Short => {
            let first = below_mark.next()?;
            if first.long() == 0 { Some(first) } else { below_mark.chain([first]).min_by_key(|mux| mux.long()) }
        }
        Lane::Long => below_mark.max_by_key(|mux| mux.long()),
    }
}
