//! Which HTTP the service at an endpoint speaks, as far as its dials have told: one knowledge for all workers.
//!
//! An `http://` or `https://` endpoint is dialled as HTTP/2 until the service says otherwise: it answers HTTP/1.1 to the
//! preface, or after silence to a question in HTTP/1.1, or does not choose `h2` by ALPN. From then on its requests take
//! HTTP/1.1 connections, and it is asked again every minute, and before the first connection after an absence, because
//! what comes back may be another program. A refused connection, a name that does not resolve, or a service that only
//! stays silent tells nothing.
//!
//! The other schemes say what is spoken; here it then never changes.
//!
//! Used by all workers, off the fast path but for one load. Knows dials, not requests. RFC 9113 §3.3, RFC 7301.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use super::dial::Target;
use super::dial_failure::DialFailure;
use super::watchers::Watchers;
use crate::config::Protocol;
use crate::error::UpstreamFault;
use crate::metrics::EndpointMetrics;

/// What is known of one endpoint.
pub(crate) struct Discovery {
    /// The URL leaves it open.
    is_open: bool,
    known: AtomicU8,
    /// An HTTP/1.1 dial has failed since the service was last asked.
    is_stale: AtomicBool,
    /// The service lets the preface run into the connect timeout: requests must not wait for that again.
    is_slow_to_tell: AtomicBool,
    /// One dial asks for all.
    asking: tokio::sync::Mutex<()>,
    /// The pools to tell when something is found.
    pub(crate) watchers: Watchers,
}

impl Discovery {
    pub(crate) fn new(protocol: Protocol) -> Arc<Self> {
        let known = match protocol {
            Protocol::Http | Protocol::Https => UNKNOWN,
            Protocol::H2c | Protocol::H2Tls => HTTP2,
            Protocol::Http1 => HTTP1,
        };
        Arc::new(Self {
            is_open: protocol.is_discovered(),
            known: AtomicU8::new(known),
            is_stale: AtomicBool::new(false),
            is_slow_to_tell: AtomicBool::new(false),
            asking: tokio::sync::Mutex::default(),
            watchers: Watchers::default(),
        })
    }

    /// Requests take HTTP/1.1 connections.
    pub(crate) fn is_http1(&self) -> bool {
        self.known.load(Ordering::Acquire) == HTTP1
    }

    /// An HTTP/2 dial has failed; whether requests take HTTP/1.1 connections now.
    pub(crate) fn http2_dial_failed(&self, target: &Target, failure: &DialFailure) -> bool {
        if self.is_open && failure.tells_http1() {
            self.is_slow_to_tell.store(failure.is_slow, Ordering::Release);
            let is_alpn = failure.fault == UpstreamFault::NoHttp2ByAlpn;
            let usual =
                if is_alpn { "it does not choose h2 by ALPN" } else { "it answers HTTP/1.1 to the HTTP/2 preface" };
            self.found_http1(target, failure.cause.as_deref().unwrap_or(usual));
        }
        self.is_http1()
    }

    /// The service speaks HTTP/1.1 only, or wants to.
    pub(crate) fn found_http1(&self, target: &Target, because: &str) {
        if self.is_open && self.known.swap(HTTP1, Ordering::AcqRel) != HTTP1 {
            tracing::info!(
                upstream = target.upstream,
                endpoint = %target.endpoint,
                because,
                "endpoint speaks HTTP/1.1 only: each request takes a connection; it is asked for HTTP/2 again every minute"
            );
            self.watchers.notify();
        }
    }

    /// The service has sent its HTTP/2 SETTINGS.
    pub(crate) fn found_http2(&self, target: &Target) {
        if self.is_open && self.known.swap(HTTP2, Ordering::AcqRel) != HTTP2 {
            self.is_stale.store(false, Ordering::Release);
            self.is_slow_to_tell.store(false, Ordering::Release);
            tracing::info!(
                upstream = target.upstream,
                endpoint = %target.endpoint,
                "endpoint speaks HTTP/2: requests share connections"
            );
            self.watchers.notify();
        }
    }

    /// An HTTP/1.1 dial has failed: whoever answers the next one may have learnt HTTP/2.
    pub(crate) fn http1_dial_failed(&self) {
        if self.is_open && self.is_http1() && !self.is_slow_to_tell.load(Ordering::Acquire) {
            self.is_stale.store(true, Ordering::Release);
        }
    }

    /// Before an HTTP/1.1 dial: asks for HTTP/2 first if the endpoint was away.
    ///
    /// # Errors
    /// The service cannot be reached, or it does speak HTTP/2.
    pub(crate) async fn ask_after_absence(
        &self,
        target: &Target,
        metrics: &Arc<EndpointMetrics>,
    ) -> Result<(), DialFailure> {
        if !self.is_stale.load(Ordering::Acquire) {
            return Ok(());
        }
        let _turn = self.asking.lock().await;
        if self.is_stale.load(Ordering::Acquire) {
            match target.dial_http2(metrics).await {
                // The connection is given up: it is the worker's pool that dials those which are used.
                Ok(_link) => {
                    metrics.opened.increment("discovery");
                    self.found_http2(target);
                }
                Err(failure) if failure.tells_http1() => {
                    self.is_slow_to_tell.store(failure.is_slow, Ordering::Release);
                    self.is_stale.store(false, Ordering::Release);
                }
                Err(failure) => return Err(failure),
            }
        }
        if self.is_http1() {
            Ok(())
        } else {
            Err(DialFailure::because(UpstreamFault::ConnectionLost, "it has learnt HTTP/2"))
        }
    }
}

const UNKNOWN: u8 = 0;
const HTTP2: u8 = 1;
const HTTP1: u8 = 2;
/// A deployment that brings HTTP/2 is noticed within a minute, and costs a service that never will a connection a minute.
pub(crate) const ASKED_AGAIN_AFTER: Duration = Duration::from_mins(1);
