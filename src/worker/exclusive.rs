//! The HTTP/1.1 connections to one endpoint: each carries one request at a time.
//!
//! Here bb8's exclusive check-out is just right: a request takes a connection, and gives it back when the answer is
//! complete. The pool of a worker without a share is its lender's; such connections are driven by the
//! worker that dialled them.
//!
//! Does not know what a request is, beyond its body's type. RFC 9112 §9.3.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use tokio::time::Instant;

use super::dial_failure::next_failure;
use super::http1::{Http1Connection, Http1Lease, Http1Pool, UploadBody, UploadState, fault};
use super::share::{EndpointShared, TunnelPlace};
use crate::error::{Fault, ProxyFault, UpstreamFault};
use crate::metrics::EndpointMetrics;

/// Between a failed dial and the next one for the same request.
const BACKOFF: Duration = Duration::from_millis(50);
/// Between failed dials in the background.
const REDIAL: Duration = Duration::from_millis(250);
/// One worker's access to the connections.
pub(crate) struct Exclusive {
    shared: Arc<EndpointShared>,
    worker: usize,
    pub(crate) metrics: Arc<EndpointMetrics>,
    /// A task dials until the endpoint is reached.
    is_dialling: Cell<bool>,
    me: Weak<Exclusive>,
}

impl Exclusive {
    pub(crate) fn new(shared: Arc<EndpointShared>, worker: usize, metrics: Arc<EndpointMetrics>) -> Rc<Self> {
        let exclusive =
            Rc::new_cyclic(|me| Self { shared, worker, metrics, is_dialling: Cell::new(false), me: me.clone() });
        if worker == 0 && exclusive.is_spoken() {
            // One connection tells at once whether the service is there.
            exclusive.dial_until_reached();
        }
        exclusive
    }

    /// Its last dial failed: other endpoints come first.
    pub(crate) fn is_failing(&self) -> bool {
        self.shared.health.is_failing()
    }

    /// As far as is known the service speaks HTTP/1.1, and requests come here.
    pub(crate) fn is_spoken(&self) -> bool {
        self.shared.discovery.is_http1()
    }

    /// The service has answered in HTTP/2.
    pub(crate) fn found_http2(&self) {
        self.shared.discovery.found_http2(&self.shared.target);
    }

    fn pool(&self) -> &Http1Pool {
        self.shared.http1(self.worker, &self.metrics)
    }

    /// Waits for a connection, first in, first out, up to `pending_timeout`; dials if there may be another one.
    ///
    /// Only a request for which HTTP/1.1 `is_required` waits on when the service turns out to speak HTTP/2.
    ///
    /// # Errors
    /// [`ProxyFault::PoolFull`], [`ProxyFault::PoolWaitTimeout`], [`ProxyFault::NoHealthyEndpoint`], or why the dial
    /// failed. Another endpoint may be tried.
    ///
    /// # Cancel safety
    /// Dropping the future gives the place to the next one; a dial in progress goes on and is pooled.
    pub(crate) async fn acquire(&self, is_required: bool) -> Result<ExclusivePermit, Fault> {
        let health = &self.shared.health;
        if health.is_down() {
            self.metrics.rejected.increment("unavailable");
            return Err(ProxyFault::NoHealthyEndpoint.into());
        }
        let Some(_pending) = self.shared.enter_queue() else {
            self.metrics.rejected.increment("full");
            return Err(ProxyFault::PoolFull.into());
        };
        let start = Instant::now();
        let deadline = start + self.shared.pool.pending_timeout;
        let _waited = WaitRecord::new(&self.metrics, start);
        loop {
            let fault = match self.lease().await {
                Ok(lease) => {
                    self.metrics.streams.add(1);
                    self.metrics.requests.increment();
                    let (lease, metrics) = (Lease::Pooled(lease), self.metrics.clone());
                    return Ok(ExclusivePermit { lease, metrics, is_required, upload: None });
                }
                Err(fault) => fault,
            };
            if !is_required && !self.is_spoken() {
                // Who finds that out has reached the service.
                health.dial_succeeded(&self.shared.target);
                return Err(fault);
            }
            if health.is_down() || Instant::now() + BACKOFF >= deadline {
                self.metrics.rejected.increment(if health.is_failing() { "unavailable" } else { "timeout" });
                return Err(fault);
            }
            tokio::time::sleep(BACKOFF).await;
        }
    }

    /// One check-out: a connection that is free, or that becomes free or is dialled within `pending_timeout`.
    async fn lease(&self) -> Result<Http1Lease, Fault> {
        let health = &self.shared.health;
        let pool = self.pool();
        let mut failures = pool.failures.subscribe();
        tokio::select! {
            biased;
            lease = pool.bb8.get_owned() => match lease {
                Ok(lease) => {
                    if health.is_failing() {
                        health.dial_succeeded(&self.shared.target);
                    }
                    Ok(lease)
                }
                Err(_) => Err(health.fault().map_or(Fault::Proxy(ProxyFault::PoolWaitTimeout), Fault::Upstream)),
            },
            failure = next_failure(&mut failures) => {
                if self.is_spoken() {
                    health.dial_failed(&self.shared.target, &failure);
                    self.dial_until_reached();
                }
                Err(Fault::Upstream(failure.fault))
            }
        }
    }

    /// Dials in the background until the endpoint is there, so that finding out costs no request.
    fn dial_until_reached(&self) {
        if self.is_dialling.replace(true) {
            return;
        }
        let me = self.me.clone();
        tokio::task::spawn_local(async move {
            while let Some(exclusive) = me.upgrade() {
                let is_reached = exclusive.lease().await.is_ok();
                if !exclusive.is_spoken() {
                    exclusive.shared.health.dial_succeeded(&exclusive.shared.target);
                }
                if is_reached || !exclusive.is_spoken() {
                    exclusive.is_dialling.set(false);
                    return;
                }
                drop(exclusive);
                tokio::time::sleep(REDIAL).await;
            }
        });
    }
}

/// Dials a connection beside those of the pool, for one request after which it may carry another protocol.
///
/// Dialling is repeated for `pending_timeout` where that may help.
///
/// # Errors
/// [`ProxyFault::PoolFull`] when there are `max_tunnel_connections`, [`ProxyFault::NoHealthyEndpoint`], or why the dial
/// failed. Another endpoint may be tried.
pub(crate) async fn dial_own(
    shared: &Arc<EndpointShared>,
    metrics: &Arc<EndpointMetrics>,
) -> Result<ExclusivePermit, Fault> {
    if shared.health.is_down() {
        metrics.rejected.increment("unavailable");
        return Err(ProxyFault::NoHealthyEndpoint.into());
    }
    let Some(place) = shared.enter_tunnel() else {
        metrics.rejected.increment("full");
        return Err(ProxyFault::PoolFull.into());
    };
    let start = Instant::now();
    let _waited = WaitRecord::new(metrics, start);
    loop {
        let fault = match Http1Connection::dial_own(&shared.target, metrics).await {
            Ok(connection) => {
                metrics.active.add_shared(1);
                metrics.streams.add(1);
                metrics.requests.increment();
                let own = OwnConnection { connection, metrics: metrics.clone(), _place: place };
                let (lease, metrics) = (Lease::Own(Box::new(own)), metrics.clone());
                return Ok(ExclusivePermit { lease, metrics, is_required: true, upload: None });
            }
            Err(failure) => failure.fault,
        };
        metrics.dial_failures.increment(Fault::from(fault).reason());
        let may_pass = !matches!(fault, UpstreamFault::TlsFailed | UpstreamFault::CertificateRejected);
        if !may_pass || start.elapsed() + BACKOFF >= shared.pool.pending_timeout {
            return Err(fault.into());
        }
        tokio::time::sleep(BACKOFF).await;
    }
}

/// Counts the wait however it ends.
struct WaitRecord<'a> {
    metrics: &'a EndpointMetrics,
    start: Instant,
}

impl<'a> WaitRecord<'a> {
    fn new(metrics: &'a EndpointMetrics, start: Instant) -> Self {
        metrics.pending.add(1);
        Self { metrics, start }
    }
}

impl Drop for WaitRecord<'_> {
    fn drop(&mut self) {
        self.metrics.pending.add(-1);
        self.metrics.wait.record(self.start.elapsed());
    }
}

/// A connection for one exchange.
enum Lease {
    /// Goes back if the exchange leaves it clean.
    Pooled(Http1Lease),
    /// Ends with the exchange, or with the tunnel that comes of it.
    Own(Box<OwnConnection>),
}

/// A connection that is in no pool, counted for as long as it is held.
struct OwnConnection {
    connection: Http1Connection,
    metrics: Arc<EndpointMetrics>,
    _place: TunnelPlace,
}

impl Drop for OwnConnection {
    fn drop(&mut self) {
        self.metrics.active.add_shared(-1);
        self.metrics.closed.increment("retired");
    }
}

impl Deref for Lease {
    type Target = Http1Connection;

    fn deref(&self) -> &Http1Connection {
        match self {
            Self::Pooled(lease) => lease,
            Self::Own(own) => &own.connection,
        }
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut Http1Connection {
        match self {
            Self::Pooled(lease) => lease,
            Self::Own(own) => &mut own.connection,
        }
    }
}

/// The right to one exchange on one connection.
///
/// The connection is used again only after [`ExclusivePermit::complete`].
#[must_use]
pub(crate) struct ExclusivePermit {
    lease: Lease,
    metrics: Arc<EndpointMetrics>,
    /// The request may not be sent as HTTP/2.
    pub(crate) is_required: bool,
    /// The body of the request that is sent.
    upload: Option<Arc<UploadState>>,
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
        self.lease.begins();
        self.upload = Some(request.body().state());
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
        // A service that has not had all of the request still waits for the rest.
        self.lease.answered(self.upload.as_ref().is_none_or(|upload| upload.is_ended()));
    }

    pub(crate) fn connection_id(&self) -> u64 {
        self.lease.id
    }

    /// See [`Http1Connection::is_answered_in_http2`](super::http1::Http1Connection::is_answered_in_http2).
    pub(crate) fn is_answered_in_http2(&self) -> bool {
        self.lease.is_answered_in_http2()
    }
}

impl Drop for ExclusivePermit {
    fn drop(&mut self) {
        self.metrics.streams.add(-1);
    }
}
