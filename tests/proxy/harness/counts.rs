//! The proxy's own counters, added up over its workers, as a test compares them.

use std::collections::BTreeMap;

use trunkline::metrics::latency::HistogramSum;
use trunkline::metrics::{EndpointMetrics, Labelled, Registry};

/// All counters at one moment. Gauges of a proxy at rest are zero.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    pub downstream_connections: i64,
    pub downstream_parked: i64,
    pub downstream_accepted: u64,
    pub downstream_received_bytes: u64,
    pub downstream_sent_bytes: u64,
    pub requests_in_flight: i64,
    /// By reason; only those that have occurred.
    pub proxy_protocol_failures: BTreeMap<&'static str, u64>,
    pub access_log_dropped: u64,
    pub panics: u64,
    /// By reason; only those that have occurred.
    pub faults: BTreeMap<&'static str, u64>,
    /// By reason; only those that have occurred.
    pub tls_handshake_failures: BTreeMap<&'static str, u64>,
    /// Finished requests that had a route, by the class of their status.
    pub finished: BTreeMap<&'static str, u64>,
    pub active: i64,
    pub draining: i64,
    pub streams: i64,
    pub pending: i64,
    /// Places taken at endpoints, by worker.
    pub upstream_requests: Vec<u64>,
    /// By reason; only those that have occurred.
    pub opened: BTreeMap<&'static str, u64>,
    pub closed: BTreeMap<&'static str, u64>,
    pub rejected: BTreeMap<&'static str, u64>,
    pub goaway_received: BTreeMap<&'static str, u64>,
    /// By proof.
    pub retries: BTreeMap<&'static str, u64>,
    /// By what the tries followed; only reasons that have occurred.
    pub route_retries: BTreeMap<&'static str, u64>,
    pub retry_budget_exhausted: u64,
    /// By code; only those that have occurred.
    pub resets_sent: BTreeMap<&'static str, u64>,
}

impl Counts {
    pub fn of(registry: &Registry) -> Self {
        let mut counts = Self::default();
        for worker in registry.workers() {
            counts.downstream_connections += worker.downstream_connections.value();
            counts.downstream_parked += worker.downstream_parked.value();
            counts.downstream_accepted += worker.downstream_accepted.value();
            counts.downstream_received_bytes += worker.downstream_received_bytes.value();
            counts.downstream_sent_bytes += worker.downstream_sent_bytes.value();
            counts.requests_in_flight += worker.requests_in_flight.value();
            counts.access_log_dropped += worker.access_log_dropped.value();
            counts.panics += worker.panics.value();
            add(&mut counts.faults, &worker.faults);
            add(&mut counts.tls_handshake_failures, &worker.tls_handshake_failures);
            add(&mut counts.proxy_protocol_failures, &worker.proxy_protocol_failures);
            counts.upstream_requests.push(0);
        }
        for (class, histogram) in
            registry.routes().iter().flat_map(|(_, copies)| copies).flat_map(|copy| copy.durations())
        {
            let mut sum = HistogramSum::default();
            sum.add(histogram);
            if sum.count() > 0 {
                *counts.finished.entry(class).or_default() += sum.count();
            }
        }
        for route in registry.routes().iter().flat_map(|(_, copies)| copies) {
            add(&mut counts.route_retries, &route.retries);
            counts.retry_budget_exhausted += route.retry_budget_exhausted.value();
        }
        for (_, copies) in registry.endpoints() {
            for (worker, endpoint) in copies.iter().enumerate() {
                counts.upstream_requests[worker] += endpoint.requests.value();
                counts.add_endpoint(endpoint);
            }
        }
        counts
    }

    fn add_endpoint(&mut self, endpoint: &EndpointMetrics) {
        self.active += endpoint.active.value();
        self.draining += endpoint.draining.value();
        self.streams += endpoint.streams.value();
        self.pending += endpoint.pending.value();
        add(&mut self.opened, &endpoint.opened);
        add(&mut self.closed, &endpoint.closed);
        add(&mut self.rejected, &endpoint.rejected);
        add(&mut self.goaway_received, &endpoint.goaway_received);
        add(&mut self.retries, &endpoint.retries);
        add(&mut self.resets_sent, &endpoint.resets_sent);
    }

    /// Faults of every reason.
    pub fn faults_total(&self) -> u64 {
        self.faults.values().sum()
    }

    /// Upstream connections that have ended, for whatever reason.
    pub fn closed_total(&self) -> u64 {
        self.closed.values().sum()
    }
}

fn add(sums: &mut BTreeMap<&'static str, u64>, counters: &Labelled) {
    for (name, count) in counters.iter().filter(|(_, count)| *count > 0) {
        *sums.entry(name).or_default() += count;
    }
}
