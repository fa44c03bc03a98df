//! All figures of the process at one moment, as plain numbers.
//!
//! The workers' copies are added up here and nowhere else. The Prometheus text, `/stats.json`, the demo's live view and
//! `top` are all printed from one [`Figures`], so that they cannot disagree. Two of them, a moment apart, give rates:
//! counters by subtraction, latencies by [`HistogramSum::since`].
//!
//! Pure: asks neither clock nor file; what others know (stage, process, health) is handed in.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::latency::HistogramSum;
use super::process::ProcessFigures;
use super::{EndpointKey, EndpointMetrics, Gauge, Labelled, Registry, RouteMetrics, TUNNELS};

/// What the process has done and holds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    pub standing: Standing,
    pub process: ProcessFigures,
    pub workers: usize,
    pub downstream: DownstreamFigures,
    pub requests_in_flight: i64,
    /// Upgraded connections, by what is spoken on them: `websocket` or `other`.
    pub tunnels: BTreeMap<Cow<'static, str>, i64>,
    /// Client connections per upstream connection; absent while there is no upstream connection.
    pub fan_in_ratio: Option<f64>,
    /// By name; a route that has left the configuration keeps its counters.
    pub routes: Vec<RouteFigures>,
    /// By upstream and endpoint; one that has left the configuration keeps its counters.
    pub endpoints: Vec<EndpointFigures>,
    pub faults: Tally,
    pub panics: u64,
    pub access_log_dropped: u64,
}

/// How often each value of a closed set was counted.
///
/// A set that is short, or whose every value an alert may wait for (`faults`), is complete, so that the first event is
/// a step from 0 and not the birth of a series. The long sets of each endpoint (reasons of failed dials, HTTP/2 codes)
/// hold only what has happened.
pub type Tally = BTreeMap<Cow<'static, str>, u64>;

/// What control knows about itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    pub version: Cow<'static, str>,
    /// `starting`, `serving` or `draining`.
    pub stage: Cow<'static, str>,
    pub uptime_seconds: f64,
    /// The number of configurations that have been taken.
    pub config_generation: u64,
    /// Whether the latest attempt to reload succeeded; true before the first.
    pub is_reloaded: bool,
    /// Those shown to clients and to services.
    pub certificates: Vec<CertificateFigures>,
    /// Listeners and upstreams whose changed files cannot be used: the old ones are.
    pub renewals_refused: u64,
}

/// When a certificate ends.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CertificateFigures {
    /// Who shows it: `listener` to clients, or `upstream` to its service; and the name of that.
    pub side: Cow<'static, str>,
    pub owner: String,
    /// The first name in it.
    pub name: String,
    /// Seconds since 1970.
    pub not_after: i64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DownstreamFigures {
    pub connections: i64,
    /// Of those, the ones that hold a socket and no buffers.
    pub parked: i64,
    pub accepted: u64,
    /// Accepted by one worker, served by another.
    pub handed_over: u64,
    pub received_bytes: u64,
    pub sent_bytes: u64,
    /// GOAWAY frames sent to HTTP/2 clients, by code.
    pub goaway: Tally,
    /// By reason; complete.
    pub tls_handshake_failures: Tally,
    /// PROXY headers that were of no use, by why.
    pub proxy_protocol_failures: Tally,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RouteFigures {
    pub route: String,
    /// By class of the final status: `2xx` to `5xx`, `1xx` for a tunnel, or `none` for no answer.
    pub durations: BTreeMap<Cow<'static, str>, HistogramSum>,
    /// Tries that followed others because the route says so, by what they followed.
    pub retries: Tally,
    /// Such tries that the upstream's budget did not allow.
    pub retry_budget_exhausted: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EndpointFigures {
    pub upstream: String,
    /// As configured: `h2c://127.0.0.1:9000`.
    pub endpoint: String,
    pub state: EndpointState,
    /// Connections that take new streams.
    pub active: i64,
    pub idle: i64,
    /// Connections that only finish their streams.
    pub draining: i64,
    pub streams: i64,
    /// Streams that the active connections allow together.
    pub stream_limit: i64,
    /// Requests that wait for a stream.
    pub pending: i64,
    pub requests: u64,
    pub opened: Tally,
    pub closed: Tally,
    pub dial_failures: Tally,
    pub goaway_received: Tally,
    pub resets_received: Tally,
    pub resets_sent: Tally,
    pub rejected: Tally,
    /// Requests that were provably not processed and were sent again, by the proof.
    pub retries: Tally,
    /// How long those that had to wait have waited.
    pub wait: HistogramSum,
}

/// Whether an endpoint can be reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndpointState {
    /// Not known to be down.
    #[default]
    Up,
    /// Absent for longer than a restart takes.
    Down,
    /// No longer configured; connections may still finish their streams.
    Removed,
}

impl EndpointState {
    pub const fn word(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Removed => "removed",
        }
    }
}

impl Figures {
    /// Adds up the copies of every worker.
    pub fn merge(
        registry: &Registry,
        standing: Standing,
        process: ProcessFigures,
        state: impl Fn(&EndpointKey) -> EndpointState,
    ) -> Self {
        let workers = registry.workers();
        let mut figures = Self { standing, process, workers: workers.len(), ..Self::default() };
        for worker in workers {
            let downstream = &mut figures.downstream;
            downstream.connections += worker.downstream_connections.value();
            downstream.parked += worker.downstream_parked.value();
            downstream.accepted += worker.downstream_accepted.value();
            downstream.handed_over += worker.downstream_handed_over.value();
            downstream.received_bytes += worker.downstream_received_bytes.value();
            downstream.sent_bytes += worker.downstream_sent_bytes.value();
            figures.requests_in_flight += worker.requests_in_flight.value();
            for (protocol, gauge) in TUNNELS.into_iter().zip(&worker.tunnels) {
                *figures.tunnels.entry(protocol.into()).or_default() += gauge.value();
            }
            figures.panics += worker.panics.value();
            figures.access_log_dropped += worker.access_log_dropped.value();
        }
        figures.downstream.goaway = seen(tally(workers.iter().map(|worker| &worker.downstream_goaway)));
        figures.downstream.tls_handshake_failures = tally(workers.iter().map(|worker| &worker.tls_handshake_failures));
        figures.downstream.proxy_protocol_failures =
            tally(workers.iter().map(|worker| &worker.proxy_protocol_failures));
        figures.faults = tally(workers.iter().map(|worker| &worker.faults));
        figures.routes = registry.routes().into_iter().map(|(name, copies)| route(name, &copies)).collect();
        let endpoints = registry.endpoints().into_iter();
        figures.endpoints = endpoints.map(|(key, copies)| endpoint(state(&key), key, &copies)).collect();
        let upstream = figures.upstream_connections();
        figures.fan_in_ratio = (upstream > 0).then(|| figures.downstream.connections as f64 / upstream as f64);
        figures
    }

    /// Open connections to all endpoints, whatever they do.
    pub fn upstream_connections(&self) -> i64 {
        self.endpoints.iter().map(EndpointFigures::connections).sum()
    }

    /// Every request that has ended on a route.
    pub fn durations(&self) -> HistogramSum {
        HistogramSum::of(self.routes.iter().flat_map(|route| route.durations.values()))
    }
}

impl RouteFigures {
    /// Whatever the status was.
    pub fn total(&self) -> HistogramSum {
        HistogramSum::of(self.durations.values())
    }
}

impl EndpointFigures {
    pub fn connections(&self) -> i64 {
        self.active + self.idle + self.draining
    }
}

fn route(name: String, copies: &[impl AsRef<RouteMetrics>]) -> RouteFigures {
    let mut durations: BTreeMap<Cow<'static, str>, HistogramSum> = BTreeMap::new();
    for (class, histogram) in copies.iter().flat_map(|copy| copy.as_ref().durations()) {
        durations.entry(class.into()).or_default().add(histogram);
    }
    RouteFigures {
        route: name,
        durations,
        retries: tally(copies.iter().map(|copy| &copy.as_ref().retries)),
        retry_budget_exhausted: copies.iter().map(|copy| copy.as_ref().retry_budget_exhausted.value()).sum(),
    }
}

fn endpoint(
    state: EndpointState,
    (upstream, endpoint): EndpointKey,
    copies: &[impl AsRef<EndpointMetrics>],
) -> EndpointFigures {
    let gauge =
        |pick: fn(&EndpointMetrics) -> &Gauge| copies.iter().map(|copy| pick(copy.as_ref()).value()).sum::<i64>();
    let counts = |pick: fn(&EndpointMetrics) -> &Labelled| tally(copies.iter().map(|copy| pick(copy.as_ref())));
    let mut wait = HistogramSum::default();
    for copy in copies {
        wait.add(&copy.as_ref().wait);
    }
    EndpointFigures {
        upstream,
        endpoint,
        state,
        active: gauge(|it| &it.active),
        idle: gauge(|it| &it.idle),
        draining: gauge(|it| &it.draining),
        streams: gauge(|it| &it.streams),
        stream_limit: gauge(|it| &it.stream_limit),
        pending: gauge(|it| &it.pending),
        requests: copies.iter().map(|copy| copy.as_ref().requests.value()).sum(),
        opened: counts(|it| &it.opened),
        closed: counts(|it| &it.closed),
        dial_failures: seen(counts(|it| &it.dial_failures)),
        goaway_received: seen(counts(|it| &it.goaway_received)),
        resets_received: seen(counts(|it| &it.resets_received)),
        resets_sent: seen(counts(|it| &it.resets_sent)),
        rejected: counts(|it| &it.rejected),
        retries: counts(|it| &it.retries),
        wait,
    }
}

fn tally<'a>(copies: impl Iterator<Item = &'a Labelled>) -> Tally {
    let mut tally = Tally::new();
    for (name, count) in copies.flat_map(Labelled::iter) {
        *tally.entry(name.into()).or_default() += count;
    }
    tally
}

fn seen(mut tally: Tally) -> Tally {
    tally.retain(|_, count| *count > 0);
    tally
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn merged(registry: &Registry) -> Figures {
        Figures::merge(registry, Standing::default(), ProcessFigures::default(), |_| EndpointState::Up)
    }

    #[test]
    fn copies_of_all_workers_are_added_up() {
        let registry = Registry::new(3);
        let key = ("api".to_owned(), "h2c://127.0.0.1:9000".to_owned());
        for worker in 0..3 {
            registry.workers()[worker].downstream_connections.add(8);
            registry.workers()[worker].faults.increment("pool_full");
            registry.route(worker, "reads").record(Some(200), ms(3));
            let endpoint = registry.endpoint(worker, &key);
            endpoint.active.set(1);
            endpoint.opened.increment("streams");
            endpoint.wait.record(ms(1));
        }
        registry.endpoint(0, &key).idle.set(1);
        registry.route(1, "reads").record(None, ms(3));

        let figures = merged(&registry);
        assert_eq!((figures.workers, figures.downstream.connections, figures.upstream_connections()), (3, 24, 4));
        assert_eq!(figures.fan_in_ratio, Some(6.0));
        assert_eq!((figures.faults["pool_full"], figures.faults["no_route"]), (3, 0));
        assert_eq!((figures.routes[0].durations["2xx"].count(), figures.routes[0].durations["none"].count()), (3, 1));
        assert_eq!(figures.durations().count(), 4);
        let endpoint = &figures.endpoints[0];
        assert_eq!((endpoint.opened["streams"], endpoint.opened["waiting"], endpoint.wait.count()), (3, 0, 3));
    }

    #[test]
    fn without_upstream_connections_there_is_no_ratio() {
        let registry = Registry::new(1);
        registry.workers()[0].downstream_connections.add(8);
        assert_eq!(merged(&registry).fan_in_ratio, None);
    }

    #[test]
    fn json_gives_the_same_figures_again() {
        let registry = Registry::new(1);
        registry.route(0, "reads").record(Some(200), ms(3));
        registry.endpoint(0, &("api".to_owned(), "h2c://127.0.0.1:9000".to_owned())).rejected.increment("full");
        let figures = merged(&registry);
        let json = serde_json::to_string(&figures).unwrap();
        assert_eq!(serde_json::from_str::<Figures>(&json).unwrap(), figures);
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["routes"][0]["durations"]["2xx"]["count"], 1);
        assert_eq!(value["endpoints"][0]["state"], "up");
    }
}
