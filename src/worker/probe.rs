//! What a look at one endpoint tells, without a request.
//!
//! Dials as a worker dials, so that what is found is what a worker will find. Nothing is left behind: the connection
//! is closed when the report is made.
//!
//! Runs wherever it is called, on any tokio runtime. RFC 9113 §6.5.2, RFC 8441 §3.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::dial::Target;
use super::dial_failure::DialFailure;
use super::share::hint;
use crate::config::{Endpoint, Protocol};
use crate::error::{Fault, UpstreamFault};
use crate::metrics::EndpointMetrics;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeReport {
    /// Until the connection could have carried a request.
    pub took: Duration,
    /// What the endpoint speaks: [`Protocol::H2c`], [`Protocol::H2Tls`] or [`Protocol::Http1`]. For `http1://` it may be h2c
    /// as well, and then requests could be multiplexed.
    pub speaks: Protocol,
    /// The peer's SETTINGS; `None` for HTTP/1.1.
    pub settings: Option<PeerSettings>,
}

/// What the peer's first SETTINGS say that concerns a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerSettings {
    /// `None`: no limit is stated.
    pub max_concurrent_streams: Option<u32>,
    /// Extended CONNECT is allowed: WebSocket can be carried on a stream.
    pub has_extended_connect: bool,
}

/// Why an endpoint cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeFailure {
    pub fault: UpstreamFault,
    /// One sentence for the operator, with what to change if it is known.
    pub why: String,
}

impl Target {
    /// Dials once, within the connect timeout.
    ///
    /// # Errors
    /// Whatever a worker's dial would have ended with.
    pub async fn probe(&self) -> Result<ProbeReport, ProbeFailure> {
        let failed = |failure: DialFailure| ProbeFailure { fault: failure.fault, why: why(self, &failure) };
        let mut start = Instant::now();
        let protocol = self.endpoint.protocol;
        if protocol != Protocol::Http1 {
            match settings(self).await {
                Ok(settings) => {
                    let speaks = if protocol.is_tls() { Protocol::H2Tls } else { Protocol::H2c };
                    return Ok(ProbeReport { took: start.elapsed(), speaks, settings: Some(settings) });
                }
                Err(failure) if protocol.is_discovered() && failure.tells_http1() => {}
                Err(failure) => return Err(failed(failure)),
            }
            start = Instant::now();
        }
        self.try_http1().await.map_err(failed)?;
        let took = start.elapsed();
        if protocol != Protocol::Http1 {
            return Ok(ProbeReport { took, speaks: Protocol::Http1, settings: None });
        }
        // A service behind `http1://` may well speak HTTP/2: then one word in the URL saves all but a few connections.
        let h2c = Self {
            upstream: self.upstream.clone(),
            endpoint: Endpoint { protocol: Protocol::H2c, ..self.endpoint.clone() },
            connect_timeout: self.connect_timeout,
            stream_window_bytes: self.stream_window_bytes,
            streams_max: self.streams_max,
            requests_max: self.requests_max,
            max_age: None,
            ping: self.ping.clone(),
            tls: None,
        };
        let settings = settings(&h2c).await.ok();
        let speaks = if settings.is_some() { Protocol::H2c } else { Protocol::Http1 };
        Ok(ProbeReport { took, speaks, settings })
    }
}

async fn settings(target: &Target) -> Result<PeerSettings, DialFailure> {
    let link = target.dial_http2(&Arc::new(EndpointMetrics::default())).await?;
    Ok(PeerSettings {
        max_concurrent_streams: link.0.state.peer_limit(),
        has_extended_connect: link.0.has_extended_connect(),
    })
}

fn why(target: &Target, failure: &DialFailure) -> String {
    let hint = hint(target, failure);
    let limit = format!("within {:?} (upstreams.{}.timeouts.connect)", target.connect_timeout, target.upstream);
    match failure.fault {
        UpstreamFault::ConnectTimeout if !hint.is_empty() => format!("{} {limit}", hint.trim_start_matches(": ")),
        _ if !hint.is_empty() => hint.trim_start_matches(": ").to_owned(),
        UpstreamFault::ConnectRefused => "nobody accepts connections there: is the service running?".to_owned(),
        UpstreamFault::ConnectTimeout => format!("not connected {limit}"),
        UpstreamFault::ConnectionLost => "it closed the connection before it sent its SETTINGS".to_owned(),
        UpstreamFault::MalformedResponse => {
            "it answered the HTTP/2 preface with something else: if it speaks HTTP/1.1, write http1://".to_owned()
        }
        fault => Fault::from(fault).reason().replace('_', " "),
    }
}
