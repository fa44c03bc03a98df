//! What `check --probe` finds at each endpoint, and what the windows can cost.
//!
//! A connection's window is what all its streams may hold together (RFC 9113 §5.2). If it is smaller than the windows
//! of its streams, a few clients that do not read can take it all and stall everybody else on the connection; the
//! derived window rules that out, and the figure here proves it from the numbers in use.

use std::fmt::Write as _;

use serde_json::{Value, json};
use trunkline::config::{Config, Protocol};
use trunkline::control;
use trunkline::worker::{ProbeFailure, ProbeReport, Target};

use super::super::Failure;
use super::super::text::{size, time};

/// One endpoint, and what came of dialling it.
pub(super) struct Found {
    target: Target,
    /// Of the whole process.
    connections_max: u32,
    pub(super) report: Result<ProbeReport, ProbeFailure>,
}

/// Dials every endpoint, all at once.
///
/// # Errors
/// No runtime, or no usable TLS roots; never because of an endpoint.
pub(super) fn probe_all(config: &Config) -> Result<Vec<Found>, Failure> {
    let targets = control::targets(config).map_err(|error| Failure::Runtime(error.to_string()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Runtime(format!("cannot start a runtime: {error}")))?;
    let found = runtime.block_on(async {
        let probes: Vec<_> = targets
            .into_iter()
            .map(|target| {
                tokio::spawn(async move {
                    let report = target.probe().await;
                    (target, report)
                })
            })
            .collect();
        let mut found = Vec::new();
        for probe in probes {
            let (target, report) = probe.await.map_err(|error| Failure::Runtime(error.to_string()))?;
            let upstream = config.upstreams.iter().find(|upstream| upstream.name == target.upstream);
            let connections_max = upstream.map_or(0, |upstream| upstream.pool.max_connections);
            found.push(Found { target, connections_max, report });
        }
        Ok(found)
    });
    // A resolver that hangs must not hold us: its thread cannot be stopped.
    runtime.shutdown_background();
    found
}

impl Found {
    /// Lines for people; an error if the endpoint cannot be used.
    pub(super) fn text(&self) -> Result<String, String> {
        let Target { upstream, endpoint, stream_window_bytes, .. } = &self.target;
        let report = match &self.report {
            Ok(report) => report,
            Err(failure) => return Err(format!("error: upstreams.{upstream}: {endpoint}: {}\n", failure.why)),
        };
        let mut out = format!(
            "upstreams.{upstream}: {endpoint}: reachable in {}, speaks {}\n",
            time(report.took),
            protocol(report.speaks)
        );
        if endpoint.protocol == Protocol::Http1 && report.speaks == Protocol::H2c {
            let _ = writeln!(out, "  it speaks HTTP/2: write h2c:// to multiplex");
        } else if endpoint.protocol.is_discovered() && report.speaks == Protocol::Http1 {
            let _ = writeln!(out, "  each request takes a connection: enable HTTP/2 in the service to multiplex");
        }
        let Some(settings) = report.settings.filter(|_| endpoint.protocol != Protocol::Http1) else { return Ok(out) };
        let streams = self.streams();
        let offered = settings.max_concurrent_streams.map_or("no limit".to_owned(), |limit| limit.to_string());
        let extended = if settings.has_extended_connect { "offered" } else { "not offered" };
        let stream_window = size(u64::from(*stream_window_bytes));
        let _ = writeln!(
            out,
            "  streams on a connection: {streams} (it allows: {offered}, max_streams_per_connection: {})",
            self.target.streams_max
        );
        let _ = writeln!(out, "  extended CONNECT (WebSocket over HTTP/2): {extended}");
        let _ = writeln!(
            out,
            "  stalled readers that can block a connection: {} (its window of {} holds {} stream windows of {stream_window})",
            self.blocking_readers(),
            size(self.connection_window()),
            self.connection_window() / u64::from(*stream_window_bytes),
        );
        let _ = writeln!(
            out,
            "  windows at worst: {} ({} connections x {streams} streams x {stream_window})",
            size(self.windows()),
            self.connections_max,
        );
        Ok(out)
    }

    /// The same for programs; the fields are there whether the endpoint can be used or not.
    pub(super) fn to_json(&self) -> Value {
        let report = self.report.as_ref().ok();
        let settings = report.and_then(|report| report.settings);
        let is_http2 = self.target.endpoint.protocol != Protocol::Http1;
        let derived = |figure: u64| json!(settings.filter(|_| is_http2).map(|_| figure));
        json!({
            "upstream": self.target.upstream,
            "endpoint": self.target.endpoint.to_string(),
            "reachable": report.is_some(),
            "reason": self.report.as_ref().err().map(|failure| trunkline::error::Fault::from(failure.fault).reason()),
            "message": self.report.as_ref().err().map(|failure| &failure.why),
            "took_ms": report.map(|report| report.took.as_secs_f64() * 1e3),
            "speaks": report.map(|report| report.speaks.scheme()),
            "max_concurrent_streams": settings.and_then(|settings| settings.max_concurrent_streams),
            "extended_connect": settings.map(|settings| settings.has_extended_connect),
            "blocking_readers": derived(self.blocking_readers()),
            "connection_window_bytes": derived(self.connection_window()),
            "windows_bytes_max": derived(self.windows()),
        })
    }

    /// The streams that one connection will carry: the smaller of both limits.
    fn streams(&self) -> u64 {
        let settings = self.report.as_ref().ok().and_then(|report| report.settings);
        let theirs = settings.and_then(|settings| settings.max_concurrent_streams).unwrap_or(u32::MAX);
        u64::from(theirs.min(self.target.streams_max))
    }

    /// As the workers derive it: room for every stream's window, up to the protocol's 2 GiB.
    fn connection_window(&self) -> u64 {
        (u64::from(self.target.streams_max) * u64::from(self.target.stream_window_bytes)).min((1 << 31) - 1)
    }

    /// How many clients that do not read would fill the connection's window; 0 if even all of them cannot.
    fn blocking_readers(&self) -> u64 {
        let filling = self.connection_window().div_ceil(u64::from(self.target.stream_window_bytes));
        if filling >= self.streams() { 0 } else { filling }
    }

    /// Bytes that the service may have sent and no client taken, on all connections to the endpoint.
    fn windows(&self) -> u64 {
        u64::from(self.connections_max) * self.streams() * u64::from(self.target.stream_window_bytes)
    }
}

fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::H2c => "HTTP/2 in the clear (h2c)",
        Protocol::H2Tls => "HTTP/2 over TLS (h2 by ALPN)",
        // What a probe finds is one of the three.
        Protocol::Http1 | Protocol::Http | Protocol::Https => "only HTTP/1.1",
    }
}
