//! What the workers share about one endpoint: the split of its limits, lent connections, and its health.
//!
//! `max_connections` counts the whole process, so each worker has a share of it. A worker whose share is zero
//! borrows the connections of a lender, which is slower (two threads meet at h2's mutex) and still correct.
//!
//! Used by all workers, only off the fast path. Knows no requests.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::dial::Target;
use super::dial_failure::DialFailure;
use super::discovery::Discovery;
use super::http1::Http1Pool;
use super::mux::Link;
use super::watchers::Watchers;
use crate::config::{self, Endpoint, Location};
use crate::error::UpstreamFault;
use crate::metrics::EndpointMetrics;

/// An endpoint that cannot be dialled for longer than this answers at once with 503 until a dial succeeds.
/// Below it requests wait, each up to `pending_timeout`: a service that restarts loses nothing.
const ABSENCE_TOLERATED: Duration = Duration::from_secs(3);

/// One endpoint in the whole process.
pub struct EndpointShared {
    pub target: Arc<Target>,
    pub pool: config::Pool,
    /// Requests that wait, of all workers.
    pending: AtomicU32,
    /// Connections for one upgrade each, of all workers; those that were made for an earlier form of the endpoint count.
    tunnels: Arc<AtomicU32>,
    /// Whether it has been said that the service takes no upgrade.
    is_refusal_said: AtomicBool,
    pub(crate) health: Health,
    /// See [`EndpointShared::is_warm`].
    is_warm: AtomicBool,
    pub(crate) discovery: Arc<Discovery>,
    /// What each worker lends, by worker.
    boards: Vec<Board>,
    /// The HTTP/1.1 connections of each worker; a borrower takes its lender's.
    http1: Vec<OnceLock<Http1Pool>>,
}

/// The connections that one worker lends.
#[derive(Default)]
pub(crate) struct Board {
    pub(crate) links: Mutex<Vec<Link>>,
    /// Tells the lender that a borrower waits for a connection.
    pub(crate) wanted: Notify,
    /// To tell of a new connection, and of the endpoint's health.
    pub(crate) borrowers: Watchers,
}

impl EndpointShared {
    /// `before` is what the endpoint was until now, under other settings or with other certificates.
    pub fn new(target: Arc<Target>, pool: config::Pool, workers: usize, before: Option<&Self>) -> Arc<Self> {
        Arc::new(Self {
            discovery: Discovery::new(target.endpoint.protocol),
            target,
            pool,
            pending: AtomicU32::new(0),
            tunnels: before.map_or_else(Arc::default, |before| before.tunnels.clone()),
            is_refusal_said: AtomicBool::new(false),
            health: Health::default(),
            is_warm: AtomicBool::new(false),
            boards: (0..workers).map(|_| Board::default()).collect(),
            http1: (0..workers).map(|_| OnceLock::new()).collect(),
        })
    }

    /// Absent for longer than a restart takes.
    pub fn is_down(&self) -> bool {
        self.health.is_down()
    }

    /// Its `min_connections` have been open once, or there is no hope for them: it speaks HTTP/1.1, cannot be reached, or
    /// wants no more connections than it has.
    pub fn is_warm(&self) -> bool {
        let is_warm = self.is_warm.load(Ordering::Acquire)
            || self.health.links() >= self.pool.min_connections
            || self.health.is_failing()
            || self.discovery.is_http1();
        self.is_warm.fetch_or(is_warm, Ordering::AcqRel);
        is_warm
    }

    pub(crate) fn set_warm(&self) {
        self.is_warm.store(true, Ordering::Release);
    }

    fn workers(&self) -> u32 {
        self.boards.len() as u32
    }

    /// The part of `total` that falls to `worker`; the parts add up to `total`.
    fn split(&self, total: u32, worker: usize) -> u32 {
        total / self.workers() + u32::from((worker as u32) < total % self.workers())
    }

    /// Connections that `worker` may have.
    pub(crate) fn share(&self, worker: usize) -> u32 {
        self.split(self.pool.max_connections, worker)
    }

    /// Connections that `worker` keeps open although idle.
    pub(crate) fn minimum(&self, worker: usize) -> u32 {
        self.split(self.pool.min_connections, worker)
    }

    /// The worker whose connections `worker` uses: itself if it has a share.
    pub(crate) fn lender(&self, worker: usize) -> usize {
        self.lender_of(self.pool.max_connections, worker)
    }

    fn lender_of(&self, total: u32, worker: usize) -> usize {
        if self.split(total, worker) > 0 { worker } else { worker % total as usize }
    }

    /// Workers that use the connections of `lender`, itself included.
    pub(crate) fn sharers(&self, lender: usize) -> u32 {
        (0..self.boards.len()).filter(|worker| self.lender(*worker) == lender).count() as u32
    }

    pub(crate) fn board(&self, lender: usize) -> &Board {
        &self.boards[lender]
    }

    /// The HTTP/1.1 connections that `worker` uses; made by whoever comes first.
    pub(crate) fn http1(&self, worker: usize, metrics: &Arc<EndpointMetrics>) -> &Http1Pool {
        let total = self.pool.max_http1_connections;
        let lender = self.lender_of(total, worker);
        let make = || Http1Pool::new(&self.target, &self.pool, self.split(total, lender), metrics, &self.discovery);
        self.http1[lender].get_or_init(make)
    }

    /// Lets one more request wait, unless `max_pending` already do.
    pub(crate) fn enter_queue(self: &Arc<Self>) -> Option<Pending> {
        if self.pending.fetch_add(1, Ordering::AcqRel) < self.pool.max_pending {
            Some(Pending(self.clone()))
        } else {
            self.pending.fetch_sub(1, Ordering::AcqRel);
            None
        }
    }

    /// Lets one more connection be dialled for an upgrade, unless there are `max_tunnel_connections`.
    pub(crate) fn enter_tunnel(&self) -> Option<TunnelPlace> {
        let max = self.pool.max_tunnel_connections;
        let one_more = |tunnels: u32| (tunnels < max).then_some(tunnels + 1);
        self.tunnels.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).ok()?;
        Some(TunnelPlace(self.tunnels.clone()))
    }

    /// Says once, until one succeeds, that the service takes no upgrade.
    pub(crate) fn upgrade_refused(&self) {
        if !self.is_refusal_said.swap(true, Ordering::AcqRel) {
            let Target { upstream, endpoint, .. } = &*self.target;
            tracing::warn!(upstream, %endpoint, "endpoint takes no upgrades: it offers no extended CONNECT (RFC 8441) in HTTP/2, and does not answer in HTTP/1.1");
        }
    }

    pub(crate) fn upgrade_taken(&self) {
        self.is_refusal_said.store(false, Ordering::Release);
    }
}

/// A place among the connections for upgrades; dropping it frees the place.
pub(crate) struct TunnelPlace(Arc<AtomicU32>);

impl Drop for TunnelPlace {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A place in the queue; dropping it frees the place.
pub(crate) struct Pending(Arc<EndpointShared>);

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.pending.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Board {
    pub(crate) fn publish(&self, link: Link) {
        self.links.lock().unwrap_or_else(PoisonError::into_inner).push(link);
        self.borrowers.notify();
    }

    pub(crate) fn withdraw(&self, id: u64) {
        self.links.lock().unwrap_or_else(PoisonError::into_inner).retain(|link| link.state.id != id);
    }
}

/// Whether an endpoint can be dialled, by what the last dials of all workers said.
#[derive(Default)]
pub(crate) struct Health {
    is_failing: AtomicBool,
    is_down: AtomicBool,
    /// Connections in use, of all workers. While there is one, a dial that fails means a service that wants no more
    /// connections, and not one that is away.
    links: AtomicU32,
    outage: Mutex<Option<Outage>>,
}

struct Outage {
    since: Instant,
    fault: UpstreamFault,
}

impl Health {
    /// Absent for longer than a restart takes: requests are answered at once.
    pub(crate) fn is_down(&self) -> bool {
        self.is_down.load(Ordering::Acquire)
    }

    /// Why the last dial failed, unless one has succeeded since.
    pub(crate) fn fault(&self) -> Option<UpstreamFault> {
        self.outage.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|outage| outage.fault)
    }

    pub(crate) fn has_links(&self) -> bool {
        self.links() > 0
    }

    fn links(&self) -> u32 {
        self.links.load(Ordering::Acquire)
    }

    pub(crate) fn link_began(&self) {
        self.links.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn link_ended(&self) {
        self.links.fetch_sub(1, Ordering::AcqRel);
    }

    /// Whether the last dial failed.
    pub(crate) fn is_failing(&self) -> bool {
        self.is_failing.load(Ordering::Acquire)
    }

    pub(crate) fn dial_failed(&self, target: &Target, failure: &DialFailure) {
        let fault = failure.fault;
        let mut outage = self.outage.lock().unwrap_or_else(PoisonError::into_inner);
        let reason = crate::error::Fault::from(fault).reason();
        let hint = hint(target, failure);
        self.is_failing.store(true, Ordering::Release);
        match outage.as_mut() {
            None => {
                tracing::warn!(upstream = target.upstream, endpoint = %target.endpoint, reason, "endpoint cannot be reached{hint}");
                *outage = Some(Outage { since: Instant::now(), fault });
            }
            Some(known) => {
                known.fault = fault;
                if known.since.elapsed() >= ABSENCE_TOLERATED && !self.is_down.swap(true, Ordering::AcqRel) {
                    tracing::warn!(upstream = target.upstream, endpoint = %target.endpoint, reason, "endpoint is down: requests are answered 503 until it can be reached{hint}");
                }
            }
        }
    }

    pub(crate) fn dial_succeeded(&self, target: &Target) {
        let outage = self.outage.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.is_failing.store(false, Ordering::Release);
        self.is_down.store(false, Ordering::Release);
        if let Some(outage) = outage {
            let absent_seconds = outage.since.elapsed().as_secs_f32();
            tracing::info!(upstream = target.upstream, endpoint = %target.endpoint, absent_seconds, "endpoint can be reached again");
        }
    }
}

/// What the operator most likely has to change.
pub(super) fn hint(target: &Target, failure: &DialFailure) -> String {
    if let Some(cause) = &failure.cause {
        return format!(": {cause}");
    }
    match failure.fault {
        UpstreamFault::NotHttp2 => {
            let Endpoint { location, .. } = &target.endpoint;
            let scheme = if matches!(location, Location::Unix(_)) { "http1+unix:" } else { "http1://" };
            format!(": {location} answered HTTP/1.1 to the HTTP/2 preface: write {scheme} or enable h2c in the service")
        }
        UpstreamFault::NoHttp2ByAlpn => {
            ": it does not offer h2 by ALPN: write https:// or enable HTTP/2 in the service".to_owned()
        }
        UpstreamFault::DnsFailed => {
            format!(": the name {} does not resolve", target.endpoint.host().unwrap_or_default())
        }
        _ => String::new(),
    }
}
