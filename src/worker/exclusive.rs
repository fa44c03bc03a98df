//! The HTTP/1.1 connections to one endpoint: each carries one request at a time.
//!
//! Here bb8's exclusive check-out is just right: a request takes a connection, and gives it back when the answer is
//! complete. The pool of a worker without a share is its lender's; such connections are driven by the
//! worker that dialled them.
//!
//! Does not know what a request is, beyond its body's type. RFC 9112 §9.3.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use tokio::time::Instant;

use super::dial::next_failure;
use super::http1::{Http1Lease, Http1Pool, UploadBody, fault};
use super::share::EndpointShared;
use crate::error::{Fault, ProxyFault, UpstreamFault};
use crate::metrics::EndpointMetrics;

const BACKOFF: Duration = Duration::from_millis(50);
/// One worker's access to the connections.
pub(crate) struct Exclusive {
    shared: Arc<EndpointShared>,
    worker: usize,
    pub(crate) metrics: Arc<EndpointMetrics>,
}

impl Exclusive {
    pub(crate) fn new(shared: Arc<EndpointShared>, worker: usize, metrics: Arc<EndpointMetrics>) -> Rc<Self> {
        let exclusive = Rc::new(Self { shared, worker, metrics });
        if worker == 0 {
            // One connection tells at once whether the service is there.
            let eager = exclusive.clone();
            tokio::task::spawn_local(async move {
                if let Err(fault) = eager.acquire().await {
                    tracing::debug!(fault = fault.reason(), "no connection at start");
                }
            });
        }
        exclusive
    }

    pub(crate) fn is_down(&self) -> bool {
        self.shared.health.is_down()
    }

    fn pool(&self) -> &Http1Pool {
        self.shared.http1(self.worker, &self.metrics)
    }

    /// Waits for a connection, first in, first out, up to `pending_timeout`; dials if there may be another one.
    ///
    /// # Errors
    /// [`ProxyFault::PoolFull`], [`ProxyFault::PoolWaitTimeout`], [`ProxyFault::NoHealthyEndpoint`], or why the dial
    /// failed. Another endpoint may be tried.
    ///
    /// # Cancel safety
    /// Dropping the future gives the place to the next one; a dial in progress goes on and is pooled.
    pub(crate) async fn acquire(&self) -> Result<ExclusivePermit, Fault> {
        let health = &self.shared.health;
        if health.is_down() && !health.may_probe() {
            self.metrics.rejected.increment("unavailable");
            return Err(ProxyFault::NoHealthyEndpoint.into());
        }
        let Some(_pending) = self.shared.enter_queue() else {
            self.metrics.rejected.increment("full");
            return Err(ProxyFault::PoolFull.into());
        };
        let start = Instant::now();
        let deadline = start + self.shared.pool.pending_timeout;
        self.metrics.pending.add(1);
        let waited = WaitRecord { metrics: &self.metrics, start };
        let pool = self.pool();
        let lease = loop {
            let mut failures = pool.failures.subscribe();
            let fault = tokio::select! {
                biased;
                lease = pool.bb8.get_owned() => match lease {
                    Ok(lease) => break lease,
                    Err(_) => health.fault().map_or(Fault::Proxy(ProxyFault::PoolWaitTimeout), Fault::Upstream),
                },
                fault = next_failure(&mut failures) => {
                    health.dial_failed(&self.shared.target, fault);
                    Fault::Upstream(fault)
                }
            };
            if health.is_down() || Instant::now() + BACKOFF >= deadline {
                self.metrics.rejected.increment(if health.fault().is_some() { "unavailable" } else { "timeout" });
                return Err(fault);
            }
            tokio::time::sleep(BACKOFF).await;
        };
        drop(waited);
        if health.fault().is_some() {
            health.dial_succeeded(&self.shared.target);
        }
        self.metrics.streams.add(1);
        self.metrics.requests.increment();
        Ok(ExclusivePermit { lease, metrics: self.metrics.clone() })
    }
}

/// Counts the wait however it ends.
struct WaitRecord<'a> {
    metrics: &'a EndpointMetrics,
    start: Instant,
}

impl Drop for WaitRecord<'_> {
    fn drop(&mut self) {
        self.metrics.pending.add(-1);
        self.metrics.wait.record(self.start.elapsed());
    }
}

/// The right to one exchange on one connection.
///
/// The connection is used again only after [`ExclusivePermit::complete`].
#[must_use]
pub(crate) struct ExclusivePermit {
    lease: Http1Lease,
    metrics: Arc<EndpointMetrics>,
}

impl ExclusivePermit {
    /// Sends a request and waits for the response head.
    ///
    /// # Errors
    /// The request itself when nothing of it was written, because the connection was closed while idle.
    pub(crate) async fn send(
        &mut self,
        request: http::Request<UploadBody>,
    ) -> Result<Result<http::Response<Incoming>, UpstreamFault>, Box<http::Request<UploadBody>>> {
        self.lease.set_clean(false);
        match self.lease.sender.try_send_request(request).await {
            Ok(response) => Ok(Ok(response)),
            Err(mut error) => match error.take_message() {
                Some(request) => Err(Box::new(request)),
                None => Ok(Err(fault(error.error()))),
            },
        }
    }

    /// The answer has been read to its end.
    pub(crate) fn complete(&self) {
        self.lease.set_clean(true);
    }

    pub(crate) fn connection_id(&self) -> u64 {
        self.lease.id
    }
}

impl Drop for ExclusivePermit {
    fn drop(&mut self) {
        self.metrics.streams.add(-1);
    }
}
