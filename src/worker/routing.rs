//! One worker's form of a configuration: the route table, and the endpoints with their pools.
//!
//! Made when a snapshot arrives; a request keeps what it started with. An endpoint that did not change keeps its
//! pool, and so its connections, over reloads.
//!
//! Lives on one worker.

use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use http::uri::{Authority, Scheme};
use tokio::time::Instant;

use super::discovery::ASKED_AGAIN_AFTER;
use super::exclusive::Exclusive;
use super::pool::Pool;
use super::retry::{Budget, Policy};
use super::share::EndpointShared;
use super::snapshot::Snapshot;
use crate::balance::Picker;
use crate::config::{HeaderEdits, Protocol, Reconnect, Retry, RetryBudget, RouteTimeouts};
use crate::metrics::{EndpointMetrics, Registry, RouteMetrics};
use crate::route::RouteTable;

/// What a worker knows of the configuration.
pub(crate) struct Routing {
    pub(crate) table: RouteTable<Rc<RouteEntry>>,
    upstreams: Vec<Rc<UpstreamEntry>>,
}

/// A route, as requests use it.
pub(crate) struct RouteEntry {
    pub(crate) name: String,
    pub(crate) upstream: Rc<UpstreamEntry>,
    pub(crate) timeouts: RouteTimeouts,
    pub(crate) heartbeat: Option<Duration>,
    /// Clients of event streams that a drain ends are told to come back within so long.
    pub(crate) reconnect_within: Option<Duration>,
    pub(crate) retry: Option<Rc<Policy>>,
    pub(crate) edits: HeaderEdits,
    /// The matched prefix and what takes its place.
    pub(crate) rewrite: Option<(String, String)>,
    pub(crate) metrics: Arc<RouteMetrics>,
}

/// An upstream, as requests use it.
pub(crate) struct UpstreamEntry {
    pub(crate) name: String,
    pub(crate) endpoints: Vec<Rc<EndpointEntry>>,
    picker: Picker,
    retry_budget: (RetryBudget, Rc<Budget>),
}

/// An endpoint with its connections.
pub(crate) struct EndpointEntry {
    /// As configured: `h2c://127.0.0.1:9000`.
    pub(crate) name: String,
    pub(crate) pool: EndpointPool,
    pub(crate) scheme: Scheme,
    /// For requests without Host.
    pub(crate) authority: Authority,
    pub(crate) shared: Arc<EndpointShared>,
}

pub(crate) enum EndpointPool {
    Http2(Rc<Pool>),
    Http1(Rc<Exclusive>),
    /// One or the other, by what is known of the service.
    Either(Rc<Pool>, Rc<Exclusive>),
}

/// Where requests go now.
pub(crate) enum Spoken<'a> {
    Http2(&'a Rc<Pool>),
    Http1(&'a Rc<Exclusive>),
}

impl Routing {
    /// Compiles `snapshot` for `worker`, taking over the pools and retry budgets of `before` that did not change.
    pub(crate) fn new(snapshot: &Snapshot, worker: usize, registry: &Registry, before: Option<&Self>) -> Self {
        let known_upstreams = || before.iter().flat_map(|before| &before.upstreams);
        let upstreams: Vec<Rc<UpstreamEntry>> = snapshot
            .upstreams
            .iter()
            .map(|upstream| {
                let entries: Vec<_> = upstream
                    .endpoints
                    .iter()
                    .map(|shared| {
                        let mut known = known_upstreams().flat_map(|upstream| &upstream.endpoints);
                        let known = known.find(|entry| Arc::ptr_eq(&entry.shared, shared)).cloned();
                        known.unwrap_or_else(|| Rc::new(EndpointEntry::new(shared, worker, registry)))
                    })
                    .collect();
                let settings = upstream.retry_budget;
                let known = known_upstreams()
                    .find(|known| known.name == upstream.name && known.retry_budget.0 == settings)
                    .map(|known| known.retry_budget.1.clone());
                let budget = known.unwrap_or_else(|| Budget::new(settings, registry.workers().len(), Instant::now()));
                let weights = upstream.endpoints.iter().map(|shared| shared.target.endpoint.weight);
                Rc::new(UpstreamEntry {
                    name: upstream.name.clone(),
                    picker: Picker::new(upstream.balance, weights),
                    endpoints: entries,
                    retry_budget: (settings, budget),
                })
            })
            .collect();
        let table = RouteTable::new(snapshot.routes.iter().map(|route| {
            let upstream = upstreams.iter().find(|upstream| upstream.name == route.upstream);
            let upstream = upstream.expect("a Config's routes name its upstreams").clone();
            let metrics = registry.route(worker, &route.name);
            let policy = |settings: &Retry| {
                let (budget, metrics) = (upstream.retry_budget.1.clone(), metrics.clone());
                Rc::new(Policy { settings: settings.clone(), budget, metrics })
            };
            let entry = RouteEntry {
                name: route.name.clone(),
                retry: route.retry.as_ref().map(policy),
                upstream,
                timeouts: route.timeouts.clone(),
                heartbeat: route.heartbeat,
                reconnect_within: (route.reconnect == Reconnect::Spread).then_some(snapshot.drain_timeout),
                edits: route.request_headers.clone(),
                rewrite: route
                    .rewrite_path_prefix
                    .clone()
                    .map(|to| (route.matches.path_prefix.clone().unwrap_or_else(|| "/".to_owned()), to)),
                metrics,
            };
            (route.matches.clone(), Rc::new(entry))
        }));
        Self { table, upstreams }
    }
}

impl UpstreamEntry {
    /// The endpoint for one more request, other than those in `tried`; one whose last dial failed only if all are so.
    pub(crate) fn pick(&self, tried: &[Rc<EndpointEntry>]) -> Option<&Rc<EndpointEntry>> {
        if let [only] = &self.endpoints[..] {
            return tried.is_empty().then_some(only);
        }
        let is_tried = |entry: &Rc<EndpointEntry>| tried.iter().any(|tried| Rc::ptr_eq(tried, entry));
        let candidate = |index: usize, is_failing_allowed: bool| {
            let entry = &self.endpoints[index];
            let is_out = is_tried(entry) || !is_failing_allowed && entry.pool.is_failing();
            (!is_out).then(|| entry.pool.in_flight())
        };
        let picked = self
            .picker
            .pick(|index| candidate(index, false))
            .or_else(|| self.picker.pick(|index| candidate(index, true)))?;
        self.endpoints.get(picked)
    }
}

impl EndpointEntry {
    fn new(shared: &Arc<EndpointShared>, worker: usize, registry: &Registry) -> Self {
        let endpoint = &shared.target.endpoint;
        let key = (shared.target.upstream.clone(), endpoint.to_string());
        let metrics = registry.endpoint(worker, &key);
        let pool = match endpoint.protocol {
            Protocol::H2c | Protocol::H2Tls => EndpointPool::Http2(Pool::new(shared.clone(), worker, metrics)),
            Protocol::Http1 => EndpointPool::Http1(Exclusive::new(shared.clone(), worker, metrics)),
            Protocol::Http | Protocol::Https => {
                let pool = Pool::new(shared.clone(), worker, metrics.clone());
                if worker == 0 {
                    tokio::task::spawn_local(ask_again(Rc::downgrade(&pool)));
                }
                EndpointPool::Either(pool, Exclusive::new(shared.clone(), worker, metrics))
            }
        };
        let scheme = if endpoint.protocol.is_tls() { Scheme::HTTPS } else { Scheme::HTTP };
        let authority = Authority::try_from(endpoint.authority()).expect("a Config's endpoint is a valid authority");
        Self { name: key.1, pool, scheme, authority, shared: shared.clone() }
    }
}

impl EndpointPool {
    /// What the service speaks, as far as is known.
    pub(crate) fn spoken(&self) -> Spoken<'_> {
        match self {
            Self::Http2(pool) => Spoken::Http2(pool),
            Self::Http1(pool) => Spoken::Http1(pool),
            Self::Either(_, http1) if http1.is_spoken() => Spoken::Http1(http1),
            Self::Either(http2, _) => Spoken::Http2(http2),
        }
    }

    pub(crate) fn is_http1(&self) -> bool {
        matches!(self.spoken(), Spoken::Http1(_))
    }

    /// Whether the service may come to speak the other HTTP.
    pub(crate) fn is_either(&self) -> bool {
        matches!(self, Self::Either(..))
    }

    fn is_failing(&self) -> bool {
        match self {
            Self::Http2(pool) | Self::Either(pool, _) => pool.is_failing(),
            Self::Http1(pool) => pool.is_failing(),
        }
    }

    pub(crate) fn metrics(&self) -> &Arc<EndpointMetrics> {
        match self {
            Self::Http2(pool) | Self::Either(pool, _) => &pool.metrics,
            Self::Http1(pool) => &pool.metrics,
        }
    }

    /// Requests of this worker that run or wait here.
    fn in_flight(&self) -> u32 {
        let metrics = self.metrics();
        u32::try_from(metrics.streams.value() + metrics.pending.value()).unwrap_or(0)
    }
}

/// Asks a service that speaks HTTP/1.1 for HTTP/2 now and then. One task per endpoint.
async fn ask_again(pool: Weak<Pool>) {
    loop {
        tokio::time::sleep(ASKED_AGAIN_AFTER).await;
        let Some(pool) = pool.upgrade() else { return };
        pool.ask_again();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access_log;
    use crate::worker::snapshot::UpstreamSnapshot;

    #[test]
    fn a_reload_gives_no_upstream_more_tries_unless_its_budget_is_another_one() {
        let (sink, _) = access_log::none();
        let registry = Registry::new(1);
        let routing = |percent: u32, before: Option<&Routing>| {
            let upstream = |name: &str, percent: u32| UpstreamSnapshot {
                name: name.to_owned(),
                balance: crate::config::Balance::default(),
                retry_budget: RetryBudget { percent, min_per_second: 3 },
                endpoints: Vec::new(),
            };
            let upstreams = vec![upstream("changed", percent), upstream("same", 20)];
            let snapshot =
                Snapshot { routes: Vec::new(), upstreams, drain_timeout: Duration::ZERO, access: sink.clone() };
            Routing::new(&snapshot, 0, &registry, before)
        };
        let before = routing(20, None);
        let after = routing(30, Some(&before));
        let kept = |at: usize| Rc::ptr_eq(&before.upstreams[at].retry_budget.1, &after.upstreams[at].retry_budget.1);
        assert_eq!((kept(0), kept(1)), (false, true));
    }
}
