//! Counters, gauges and histograms, one copy per worker, added up when someone looks.
//!
//! Each copy has a single writer, so that counting is a plain load and store without a locked instruction or a
//! shared cache line; readers on other threads may see a value that is a moment old, never a torn one.
//! Labels come only from configured names and closed sets, so memory is bounded.

pub mod exposition;
pub mod figures;
pub mod latency;
pub mod process;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::error::{Fault, Proof};
use crate::tls::HANDSHAKE_FAILURES;

/// Goes up only. Written by one thread.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn increment(&self) {
        self.add(1);
    }

    pub fn add(&self, count: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }

    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Goes up and down. Written by one thread.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    pub fn add(&self, change: i64) {
        self.0.store(self.0.load(Ordering::Relaxed) + change, Ordering::Relaxed);
    }

    /// Like [`Gauge::add`], from any thread.
    pub fn add_shared(&self, change: i64) {
        self.0.fetch_add(change, Ordering::Relaxed);
    }

    pub fn set(&self, value: i64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub fn value(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Upper bounds in nanoseconds: OpenTelemetry's for HTTP durations, and five below them for a proxy on loopback.
pub const BUCKETS_NS: [u64; 19] = [
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    75_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    750_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    7_500_000_000,
    10_000_000_000,
];

/// Durations in buckets. Written by one thread.
#[derive(Debug, Default)]
pub struct Histogram {
    /// The last one holds what is above every bound.
    buckets: [Counter; BUCKETS_NS.len() + 1],
    sum_ns: Counter,
}

impl Histogram {
    pub fn record(&self, duration: Duration) {
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[BUCKETS_NS.partition_point(|bound| *bound < ns)].increment();
        self.sum_ns.add(ns);
    }
}

/// Counters that share a name and differ in one label with a closed set of values. They count what is rare, from any
/// thread.
#[derive(Debug)]
pub struct Labelled {
    names: &'static [&'static str],
    counters: Vec<Counter>,
}

impl Labelled {
    fn new(names: &'static [&'static str]) -> Self {
        Self { names, counters: names.iter().map(|_| Counter::default()).collect() }
    }

    /// Counts under `name`, or under the last name of the set when it is not in it.
    pub fn increment(&self, name: &str) {
        let index = self.names.iter().position(|known| *known == name).unwrap_or(self.names.len() - 1);
        self.counters[index].0.fetch_add(1, Ordering::Relaxed);
    }

    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.names.iter().copied().zip(self.counters.iter().map(Counter::value))
    }
}

/// What is spoken on upgraded connections.
pub const TUNNELS: [&str; 2] = ["websocket", "other"];

/// What one worker counts for itself.
#[derive(Debug)]
pub struct WorkerMetrics {
    pub downstream_connections: Gauge,
    /// Of those, the ones that hold a socket and no buffers.
    pub downstream_parked: Gauge,
    pub downstream_accepted: Counter,
    /// Accepted here, served by a less loaded worker.
    pub downstream_handed_over: Counter,
    pub downstream_received_bytes: Counter,
    pub downstream_sent_bytes: Counter,
    /// GOAWAY frames sent to HTTP/2 clients.
    pub downstream_goaway: Labelled,
    /// By [`PROXY_PROTOCOL_FAILURES`].
    pub proxy_protocol_failures: Labelled,
    pub requests_in_flight: Gauge,
    /// Upgraded connections, by [`TUNNELS`].
    pub tunnels: [Gauge; TUNNELS.len()],
    pub faults: Labelled,
    pub panics: Counter,
    pub access_log_dropped: Counter,
    /// Clients that did not come as far as a request.
    pub tls_handshake_failures: Labelled,
}

impl Default for WorkerMetrics {
    fn default() -> Self {
        Self {
            downstream_connections: Gauge::default(),
            downstream_parked: Gauge::default(),
            downstream_accepted: Counter::default(),
            downstream_handed_over: Counter::default(),
            downstream_received_bytes: Counter::default(),
            downstream_sent_bytes: Counter::default(),
            downstream_goaway: Labelled::new(&H2_CODES),
            proxy_protocol_failures: Labelled::new(&PROXY_PROTOCOL_FAILURES),
            requests_in_flight: Gauge::default(),
            tunnels: Default::default(),
            faults: Labelled::new(&Fault::REASONS),
            panics: Counter::default(),
            access_log_dropped: Counter::default(),
            tls_handshake_failures: Labelled::new(&HANDSHAKE_FAILURES),
        }
    }
}

/// Why a PROXY header was of no use. `truncated`: the client left within it; `untrusted`: its sender is not in
/// `trust_forwarded_from`.
pub const PROXY_PROTOCOL_FAILURES: [&str; 6] =
    ["missing", "malformed", "too_long", "timeout", "truncated", "untrusted"];

/// The classes of final statuses (`1xx`: a tunnel that has ended), as `http_response_status_code` shows them.
pub const STATUS_CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "none"];

/// Why a request was tried again because its route says so.
pub const RETRIED: [&str; 4] = ["connect_failure", "reset", "per_try_timeout", "status"];

/// What one worker counts for one route.
#[derive(Debug)]
pub struct RouteMetrics {
    /// Durations from the head to the last byte, by [`STATUS_CLASSES`].
    durations: [Histogram; STATUS_CLASSES.len()],
    /// Further tries, by what they followed.
    pub retries: Labelled,
    /// Further tries that the upstream's budget did not allow.
    pub retry_budget_exhausted: Counter,
}

impl Default for RouteMetrics {
    fn default() -> Self {
        Self {
            durations: Default::default(),
            retries: Labelled::new(&RETRIED),
            retry_budget_exhausted: Counter::default(),
        }
    }
}

impl RouteMetrics {
    /// `status` is `None` when the client got no answer.
    pub fn record(&self, status: Option<u16>, duration: Duration) {
        let class = match status {
            Some(101) => 0,
            Some(200..300) => 1,
            Some(300..400) => 2,
            Some(400..500) => 3,
            Some(500..600) => 4,
            _ => 5,
        };
        self.durations[class].record(duration);
    }

    pub fn durations(&self) -> impl Iterator<Item = (&'static str, &Histogram)> {
        STATUS_CLASSES.into_iter().zip(&self.durations)
    }
}

/// Why an upstream connection was opened. `discovery`: to ask a service that speaks HTTP/1.1 for HTTP/2. `tunnel`: for an
/// upgrade alone.
pub const OPENED: [&str; 8] =
    ["startup", "minimum", "streams", "long_lane", "replacement", "discovery", "tunnel", "waiting"];
/// Why an upstream connection ended.
/// `retired`: by us when idle, or after its GOAWAY; `peer_closed`: without a GOAWAY that a request met; `unresponsive`: by
/// us, when a PING was not answered.
pub const CLOSED: [&str; 5] = ["retired", "peer_closed", "protocol_error", "unresponsive", "lost"];
/// HTTP/2 error codes (RFC 9113 §7), in the order of their numbers, then any other.
pub const H2_CODES: [&str; 15] = [
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
    "other",
];
/// Why a request was not let into the queue, or left it without a stream.
pub const REJECTED: [&str; 3] = ["full", "timeout", "unavailable"];

/// The name of an HTTP/2 error code.
pub fn h2_code(code: u32) -> &'static str {
    H2_CODES[(code as usize).min(H2_CODES.len() - 1)]
}

/// What one worker counts for one endpoint.
#[derive(Debug)]
pub struct EndpointMetrics {
    /// Connections that take new streams.
    pub active: Gauge,
    /// Open without a stream, kept by the pool.
    pub idle: Gauge,
    /// Finishing their streams after GOAWAY.
    pub draining: Gauge,
    pub streams: Gauge,
    /// Streams that the active connections allow together.
    pub stream_limit: Gauge,
    pub requests: Counter,
    pub opened: Labelled,
    pub closed: Labelled,
    pub dial_failures: Labelled,
    pub goaway_received: Labelled,
    pub resets_received: Labelled,
    pub resets_sent: Labelled,
    pub pending: Gauge,
    pub wait: Histogram,
    pub rejected: Labelled,
    /// Requests that were provably not processed here and were sent again, by the proof.
    pub retries: Labelled,
}

impl Default for EndpointMetrics {
    fn default() -> Self {
        Self {
            active: Gauge::default(),
            idle: Gauge::default(),
            draining: Gauge::default(),
            streams: Gauge::default(),
            stream_limit: Gauge::default(),
            requests: Counter::default(),
            opened: Labelled::new(&OPENED),
            closed: Labelled::new(&CLOSED),
            dial_failures: Labelled::new(&Fault::REASONS),
            goaway_received: Labelled::new(&H2_CODES),
            resets_received: Labelled::new(&H2_CODES),
            resets_sent: Labelled::new(&H2_CODES),
            pending: Gauge::default(),
            wait: Histogram::default(),
            rejected: Labelled::new(&REJECTED),
            retries: Labelled::new(&Proof::NAMES),
        }
    }
}

/// Upstream and endpoint, as configured.
pub type EndpointKey = (String, String);

/// Every copy of every metric. Workers take their own when a configuration arrives; readers add them up.
///
/// A name that has left the configuration keeps its counters, so that none ever goes backwards.
#[derive(Debug)]
pub struct Registry {
    workers: Vec<Arc<WorkerMetrics>>,
    routes: Mutex<BTreeMap<String, Vec<Arc<RouteMetrics>>>>,
    endpoints: Mutex<BTreeMap<EndpointKey, Vec<Arc<EndpointMetrics>>>>,
}

impl Registry {
    pub fn new(workers: usize) -> Self {
        Self {
            workers: (0..workers).map(|_| Arc::default()).collect(),
            routes: Mutex::default(),
            endpoints: Mutex::default(),
        }
    }

    /// All copies, by worker.
    pub fn workers(&self) -> &[Arc<WorkerMetrics>] {
        &self.workers
    }

    /// The copy of `worker` for the route `name`, made if need be.
    pub fn route(&self, worker: usize, name: &str) -> Arc<RouteMetrics> {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        let copies =
            routes.entry(name.to_owned()).or_insert_with(|| self.workers.iter().map(|_| Arc::default()).collect());
        copies[worker].clone()
    }

    /// The copy of `worker` for an endpoint, made if need be.
    pub fn endpoint(&self, worker: usize, key: &EndpointKey) -> Arc<EndpointMetrics> {
        let mut endpoints = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        let copies =
            endpoints.entry(key.clone()).or_insert_with(|| self.workers.iter().map(|_| Arc::default()).collect());
        copies[worker].clone()
    }

    /// Every route with its copies, sorted by name.
    pub fn routes(&self) -> Vec<(String, Vec<Arc<RouteMetrics>>)> {
        let routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        routes.iter().map(|(name, copies)| (name.clone(), copies.clone())).collect()
    }

    /// Every endpoint with its copies, sorted by name.
    pub fn endpoints(&self) -> Vec<(EndpointKey, Vec<Arc<EndpointMetrics>>)> {
        let endpoints = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        endpoints.iter().map(|(key, copies)| (key.clone(), copies.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::latency::HistogramSum;
    use super::*;

    #[test]
    fn a_duration_on_a_bound_belongs_to_the_bucket_below_it() {
        let histogram = Histogram::default();
        histogram.record(Duration::from_micros(100));
        histogram.record(Duration::from_nanos(100_001));
        histogram.record(Duration::from_hours(1));
        let mut sum = HistogramSum::default();
        sum.add(&histogram);
        assert_eq!((sum.buckets[0], sum.buckets[1], sum.buckets[BUCKETS_NS.len()], sum.count()), (1, 1, 1, 3));
    }

    #[test]
    fn an_unknown_label_is_counted_under_the_last_name() {
        let codes = Labelled::new(&H2_CODES);
        codes.increment(h2_code(8));
        codes.increment(h2_code(4711));
        let counted: Vec<_> = codes.iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counted, [("CANCEL", 1), ("other", 1)]);
    }

    #[test]
    fn a_name_keeps_its_counters_over_reloads() {
        let registry = Registry::new(2);
        registry.route(1, "api").record(Some(204), Duration::from_millis(1));
        registry.route(1, "api").record(None, Duration::from_millis(1));
        let (_, copies) = registry.routes().remove(0);
        let counts: Vec<u64> = copies[1]
            .durations()
            .map(|(_, histogram)| {
                let mut sum = HistogramSum::default();
                sum.add(histogram);
                sum.count()
            })
            .collect();
        assert_eq!(counts, [0, 1, 0, 0, 0, 1]);
    }
}
