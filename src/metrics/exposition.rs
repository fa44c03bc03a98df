//! The figures as text for Prometheus: `OpenMetrics` 1.0, which the 0.0.4 parsers of other scrapers read as well.
//!
//! Written at each scrape from one [`Figures`] through prometheus-client's encoder; nothing is registered, and nothing
//! is counted here. All that is known about one endpoint carries `upstream` and `endpoint`.
//!
//! `side` is who sent it, in the words of the access log: `upstream` or `proxy`.
//!
//! Runs on control. Knows names and helps; does not know where the figures come from.

use std::borrow::Cow;
use std::env::consts::{ARCH, OS};
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeLabelSet, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::BUCKETS_NS;
use super::figures::{EndpointFigures, Figures, Tally};
use super::latency::HistogramSum;

/// The media type of [`text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Writes every metric.
pub fn text(figures: Figures) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape(figures)));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).expect("writing to a string cannot fail");
    text
}

#[derive(Debug)]
struct Scrape(Figures);

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut sheet = Sheet(encoder);
        sheet.requests(&self.0)?;
        sheet.downstream(&self.0)?;
        sheet.upstream(&self.0)?;
        sheet.pool(&self.0)?;
        sheet.standing(&self.0)?;
        sheet.process(&self.0)
    }
}

/// Where the families go, one after the other. One without samples is left out.
struct Sheet<'e>(DescriptorEncoder<'e>);

impl Sheet<'_> {
    fn requests(&mut self, figures: &Figures) -> fmt::Result {
        let durations = figures.routes.iter().flat_map(|route| {
            route.durations.iter().map(|(class, durations)| {
                ([("http_route", &*route.route), ("http_response_status_code", class)], durations)
            })
        });
        self.histograms(
            "http_server_request_duration_seconds",
            "From the request head to the last byte of the answer, by route and class of status.",
            durations,
        )?;
        self.counters(
            "trunkline_route_retries",
            "Further tries of requests, by what their route wants them to follow; those with a proof are not among them.",
            figures.routes.iter().flat_map(|route| {
                let count = |(reason, count)| ([("http_route", &*route.route), ("reason", reason)], count);
                route.retries.iter().map(|(reason, tries)| (&**reason, *tries)).map(count)
            }),
        )?;
        self.counters(
            "trunkline_retry_budget_exhausted",
            "Further tries that the budget of the route's upstream did not allow.",
            figures.routes.iter().map(|route| ([("http_route", &*route.route)], route.retry_budget_exhausted)),
        )?;
        self.gauge("trunkline_requests_in_flight", "Requests that are not answered yet.", &figures.requests_in_flight)?;
        self.gauges(
            "trunkline_tunnels",
            "Upgraded connections, by what is spoken on them.",
            figures.tunnels.iter().map(|(protocol, count)| ([("protocol", &**protocol)], *count)),
        )?;
        self.counters(
            "trunkline_faults",
            "Requests that did not go as the client asked.",
            figures.faults.iter().map(|(reason, count)| ([("reason", &**reason)], *count)),
        )?;
        self.counter("trunkline_panics", "Requests that were ended by a bug of the proxy.", figures.panics)?;
        self.counter(
            "trunkline_access_log_dropped",
            "Lines of the access log that were dropped because the output was too slow.",
            figures.access_log_dropped,
        )
    }

    fn downstream(&mut self, figures: &Figures) -> fmt::Result {
        let downstream = &figures.downstream;
        self.gauge("trunkline_downstream_connections", "Open client connections.", &downstream.connections)?;
        self.gauge(
            "trunkline_downstream_parked",
            "Open client connections that hold no buffers, because nothing has come from them for a while.",
            &downstream.parked,
        )?;
        self.counter("trunkline_downstream_accepted", "Client connections accepted.", downstream.accepted)?;
        self.counter(
            "trunkline_downstream_handed_over",
            "Client connections accepted by one worker and served by another.",
            downstream.handed_over,
        )?;
        self.counters(
            "trunkline_downstream_goaway",
            "GOAWAY frames sent to HTTP/2 clients.",
            downstream.goaway.iter().map(|(code, count)| ([("code", &**code)], *count)),
        )?;
        self.counter(
            "trunkline_downstream_received_bytes",
            "Bytes received from clients, heads included.",
            downstream.received_bytes,
        )?;
        self.counter(
            "trunkline_downstream_sent_bytes",
            "Bytes sent to clients, heads included.",
            downstream.sent_bytes,
        )?;
        self.counters(
            "trunkline_tls_handshake_failures",
            "TLS handshakes with clients that came to nothing.",
            downstream.tls_handshake_failures.iter().map(|(reason, count)| ([("reason", &**reason)], *count)),
        )?;
        self.counters(
            "trunkline_proxy_protocol_failures",
            "Connections whose PROXY header was missing or of no use.",
            downstream.proxy_protocol_failures.iter().map(|(reason, count)| ([("reason", &**reason)], *count)),
        )
    }

    fn upstream(&mut self, figures: &Figures) -> fmt::Result {
        let all = &figures.endpoints;
        self.gauges(
            "trunkline_upstream_connections",
            "Open connections: active take new streams, idle carry none, draining only finish theirs.",
            all.iter().flat_map(|it| {
                [("active", it.active), ("idle", it.idle), ("draining", it.draining)]
                    .map(|(state, count)| (labels(it, "state", state), count))
            }),
        )?;
        if let Some(ratio) = figures.fan_in_ratio {
            self.gauge("trunkline_fan_in_ratio", "Client connections per upstream connection.", &ratio)?;
        }
        self.gauges("trunkline_upstream_streams", "Open streams.", all.iter().map(|it| (name(it), it.streams)))?;
        self.gauges(
            "trunkline_upstream_stream_limit",
            "Streams that the active connections allow together.",
            all.iter().map(|it| (name(it), it.stream_limit)),
        )?;
        self.counters(
            "trunkline_upstream_requests",
            "Requests that were given a stream, retries included.",
            all.iter().map(|it| (name(it), it.requests)),
        )?;
        self.counters(
            "trunkline_retries",
            "Requests that were provably not processed here and were sent again, by the proof.",
            all.iter().flat_map(|it| each(it, "proof", &it.retries)),
        )?;
        self.counters(
            "trunkline_upstream_opened",
            "Connections opened, by what asked for one.",
            all.iter().flat_map(|it| each(it, "reason", &it.opened)),
        )?;
        self.counters(
            "trunkline_upstream_closed",
            "Connections that have ended.",
            all.iter().flat_map(|it| each(it, "reason", &it.closed)),
        )?;
        self.counters(
            "trunkline_dial_failures",
            "Connections that could not be made.",
            all.iter().flat_map(|it| each(it, "reason", &it.dial_failures)),
        )?;
        self.counters(
            "trunkline_goaway",
            "GOAWAY frames, by who sent them.",
            all.iter().flat_map(|it| sided(it, "upstream", &it.goaway_received)),
        )?;
        self.counters(
            "trunkline_resets",
            "Streams ended by RST_STREAM, by who sent it.",
            all.iter()
                .flat_map(|it| sided(it, "upstream", &it.resets_received).chain(sided(it, "proxy", &it.resets_sent))),
        )
    }

    fn pool(&mut self, figures: &Figures) -> fmt::Result {
        let all = &figures.endpoints;
        self.histograms(
            "trunkline_pool_wait_seconds",
            "How long requests waited that found no free stream.",
            all.iter().map(|it| (name(it), &it.wait)),
        )?;
        self.gauges(
            "trunkline_pool_pending",
            "Requests that wait for a stream.",
            all.iter().map(|it| (name(it), it.pending)),
        )?;
        self.counters(
            "trunkline_pool_rejected",
            "Requests that were given no stream.",
            all.iter().flat_map(|it| each(it, "reason", &it.rejected)),
        )
    }

    fn standing(&mut self, figures: &Figures) -> fmt::Result {
        let standing = &figures.standing;
        self.gauge(
            "trunkline_config_last_reload_success",
            "1 if the latest reload was taken (or none was asked for), 0 if the old configuration was kept.",
            &i64::from(standing.is_reloaded),
        )?;
        self.gauge(
            "trunkline_config_generation",
            "The number of configurations taken since the start.",
            &standing.config_generation,
        )?;
        self.gauges(
            "trunkline_tls_certificate_not_after_seconds",
            "When a certificate ends that is shown to clients or services, since 1970.",
            standing.certificates.iter().map(|it| ([(&*it.side, &*it.owner), ("name", &*it.name)], it.not_after)),
        )?;
        self.gauge(
            "trunkline_tls_renewal_refused",
            "Listeners and upstreams whose changed certificates, keys or CAs cannot be used: the old ones are.",
            &standing.renewals_refused,
        )?;
        let build = [("version", &*standing.version), ("os", OS), ("arch", ARCH)];
        // A gauge rather than OpenMetrics' info: 0.0.4 parsers refuse the type.
        self.gauges("trunkline_build_info", "What runs here; always 1.", [(build, 1_i64)])
    }

    fn process(&mut self, figures: &Figures) -> fmt::Result {
        let process = &figures.process;
        if let Some(seconds) = process.cpu_seconds {
            self.family("process_cpu_seconds", "User and system CPU time.", MetricType::Counter)?
                .encode_counter::<[(&str, &str); 0], f64, f64>(&seconds, None)?;
        }
        let gauges = [
            ("process_resident_memory_bytes", "Memory in RAM.", process.resident_memory_bytes),
            ("process_virtual_memory_bytes", "Address space.", process.virtual_memory_bytes),
            ("process_open_fds", "Open file descriptors.", process.open_fds),
            ("process_max_fds", "File descriptors allowed.", process.max_fds),
            ("process_threads", "Threads.", process.threads),
        ];
        for (name, help, value) in gauges {
            if let Some(value) = value {
                self.gauge(name, help, &value)?;
            }
        }
        if let Some(seconds) = process.start_time_seconds {
            self.gauge("process_start_time_seconds", "When the process started, since 1970.", &seconds)?;
        }
        Ok(())
    }

    fn family<'s>(&'s mut self, name: &'s str, help: &str, kind: MetricType) -> Result<MetricEncoder<'s>, fmt::Error> {
        self.0.encode_descriptor(name, help, None, kind)
    }

    fn gauge(&mut self, name: &str, help: &str, value: &impl EncodeGaugeValue) -> fmt::Result {
        self.family(name, help, MetricType::Gauge)?.encode_gauge(value)
    }

    fn gauges<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (L, i64)>,
    ) -> fmt::Result {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return Ok(());
        }
        let mut family = self.family(name, help, MetricType::Gauge)?;
        samples.try_for_each(|(labels, value)| family.encode_family(&labels)?.encode_gauge(&value))
    }

    /// The encoder adds `_total` to `name`.
    fn counter(&mut self, name: &str, help: &str, count: u64) -> fmt::Result {
        let mut family = self.family(name, help, MetricType::Counter)?;
        family.encode_counter::<[(&str, &str); 0], u64, f64>(&count, None)
    }

    /// The encoder adds `_total` to `name`.
    fn counters<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return Ok(());
        }
        let mut family = self.family(name, help, MetricType::Counter)?;
        samples.try_for_each(|(labels, count)| {
            family.encode_family(&labels)?.encode_counter::<[(&str, &str); 0], u64, f64>(&count, None)
        })
    }

    fn histograms<'f, L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (L, &'f HistogramSum)>,
    ) -> fmt::Result {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return Ok(());
        }
        let mut family = self.family(name, help, MetricType::Histogram)?;
        let bounds = || BUCKETS_NS.into_iter().map(|ns| ns as f64 / 1e9).chain([f64::INFINITY]);
        samples.try_for_each(|(labels, sum)| {
            let buckets: Vec<(f64, u64)> = bounds().zip(sum.buckets).collect();
            let mut family = family.encode_family(&labels)?;
            family.encode_histogram::<[(&str, &str); 0]>(sum.sum_seconds(), sum.count(), &buckets, None)
        })
    }
}

type Label<'f> = (&'static str, &'f str);

fn name(endpoint: &EndpointFigures) -> [Label<'_>; 2] {
    [("upstream", &endpoint.upstream), ("endpoint", &endpoint.endpoint)]
}

fn labels<'f>(endpoint: &'f EndpointFigures, label: &'static str, value: &'f str) -> [Label<'f>; 3] {
    let [upstream, endpoint] = name(endpoint);
    [upstream, endpoint, (label, value)]
}

/// Every value of a set.
fn each<'f>(
    endpoint: &'f EndpointFigures,
    label: &'static str,
    tally: &'f Tally,
) -> impl Iterator<Item = ([Label<'f>; 3], u64)> {
    tally.iter().map(move |(value, count)| (labels(endpoint, label, value), *count))
}

/// Every HTTP/2 code that `side` has sent.
fn sided<'f>(
    endpoint: &'f EndpointFigures,
    side: &'static str,
    tally: &'f Tally,
) -> impl Iterator<Item = ([Label<'f>; 4], u64)> {
    let [upstream, endpoint] = name(endpoint);
    tally
        .iter()
        .map(move |(code, count): (&Cow<'_, str>, _)| ([upstream, endpoint, ("side", side), ("code", &**code)], *count))
}

#[cfg(test)]
mod tests;
