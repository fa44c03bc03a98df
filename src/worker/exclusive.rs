//! The HTTP/1.1 connections to one endpoint: each carries one request at a time.
//!
//! Here bb8's exclusive check-out is just right: a request takes a connection, and gives it back when the answer is
//! complete. The pool of a worker without a share is its lender's; such connections are driven by the
//! worker that dialled them.
//!
//! Does not know what a request is, beyond its body's type. RFC 9112 §9.3.

use std::error::Error;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use super::dial::{DialFailures, Target, next_failure};
use super::share::EndpointShared;
use crate::error::{DownstreamFault, Fault, ProxyFault, UpstreamFault};
use crate::metrics::EndpointMetrics;

const BACKOFF: Duration = Duration::from_millis(50);
/// Response heads larger than this are refused.
const RESPONSE_HEAD_BYTES_MAX: usize = 64 * 1024;
const RESPONSE_FIELDS_MAX: usize = 256;

type Lease = bb8::PooledConnection<'static, Http1Dialer>;

/// The connections of one worker and of those that borrow from it.
pub(crate) struct Http1Pool {
    bb8: bb8::Pool<Http1Dialer>,
    failures: DialFailures,
}

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
        self.shared.http1(self.worker, |share| {
            let failures = DialFailures::new();
            let dialer = Http1Dialer { target: self.shared.target.clone(), metrics: self.metrics.clone() };
            let bb8 = bb8::Pool::builder()
                .max_size(share)
                .min_idle(None)
                .idle_timeout(Some(self.shared.pool.idle_timeout))
                .max_lifetime(None)
                .reaper_rate(self.shared.pool.idle_timeout.clamp(Duration::from_millis(100), Duration::from_secs(10)))
                .connection_timeout(self.shared.pool.pending_timeout)
                .retry_connection(false)
                .test_on_check_out(true)
                // The most recently used connection is the least likely to have been closed by the service.
                .queue_strategy(bb8::QueueStrategy::Lifo)
                .error_sink(Box::new(failures.clone()))
                .build_unchecked(dialer);
            Http1Pool { bb8, failures }
        })
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
    lease: Lease,
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
    ) -> Result<Result<http::Response<Incoming>, Fault>, Box<http::Request<UploadBody>>> {
        self.lease.is_clean.store(false, Ordering::Relaxed);
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
        self.lease.is_clean.store(true, Ordering::Relaxed);
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

/// What an error of the exchange says about the request.
pub(crate) fn fault(error: &hyper::Error) -> Fault {
    if let Some(upload) = error.source().and_then(|source| source.downcast_ref::<UploadError>()) {
        upload.0.into()
    } else if error.is_parse_too_large() {
        UpstreamFault::ResponseHeadTooLarge.into()
    } else if error.is_parse() {
        UpstreamFault::MalformedResponse.into()
    } else {
        UpstreamFault::ConnectionLost.into()
    }
}

/// Dials HTTP/1.1 connections to one endpoint for bb8.
pub(crate) struct Http1Dialer {
    target: Arc<Target>,
    metrics: Arc<EndpointMetrics>,
}

/// An HTTP/1.1 connection.
pub(crate) struct Http1Connection {
    id: u64,
    sender: http1::SendRequest<UploadBody>,
    /// No exchange is unfinished on it.
    is_clean: AtomicBool,
}

impl bb8::ManageConnection for Http1Dialer {
    type Connection = Http1Connection;
    type Error = UpstreamFault;

    async fn connect(&self) -> Result<Http1Connection, UpstreamFault> {
        let io = self.target.dial_http1().await.inspect_err(|fault| {
            self.metrics.dial_failures.increment(Fault::from(*fault).reason());
        })?;
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(RESPONSE_HEAD_BYTES_MAX)
            .max_headers(RESPONSE_FIELDS_MAX)
            .handshake(TokioIo::new(io))
            .await
            .map_err(|_| UpstreamFault::ConnectionLost)?;
        let metrics = self.metrics.clone();
        metrics.opened.increment("waiting");
        metrics.active.add(1);
        tokio::spawn(async move {
            let result = connection.await;
            metrics.active.add(-1);
            metrics.closed.increment(if result.is_ok() { "peer_closed" } else { "lost" });
        });
        Ok(Http1Connection { id: super::mux::next_connection_id(), sender, is_clean: AtomicBool::new(true) })
    }

    async fn is_valid(&self, connection: &mut Http1Connection) -> Result<(), UpstreamFault> {
        connection.sender.ready().await.map_err(|_| UpstreamFault::ConnectionLost)
    }

    fn has_broken(&self, connection: &mut Http1Connection) -> bool {
        !connection.is_clean.load(Ordering::Relaxed) || connection.sender.is_closed()
    }
}

/// A request body on its way to an HTTP/1.1 upstream; ends with an error when it is longer than allowed.
pub(crate) struct UploadBody {
    incoming: Incoming,
    left: u64,
}

/// The request body could not be sent on, and the service is not at fault.
#[derive(Debug)]
pub(crate) struct UploadError(DownstreamFault);

impl std::fmt::Display for UploadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(Fault::from(self.0).reason())
    }
}

impl Error for UploadError {}

impl UploadBody {
    pub(crate) fn new(incoming: Incoming, bytes_max: Option<u64>) -> Self {
        Self { incoming, left: bytes_max.unwrap_or(u64::MAX) }
    }
}

impl Body for UploadBody {
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = std::task::ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        if let Some(Ok(data)) =
            frame.as_ref().map(|frame| frame.as_ref().map(|frame| frame.data_ref().map_or(0, Bytes::len)))
        {
            let Some(left) = self.left.checked_sub(data as u64) else {
                return Poll::Ready(Some(Err(UploadError(DownstreamFault::BodyTooLarge))));
            };
            self.left = left;
        }
        Poll::Ready(frame.map(|frame| frame.map_err(|_| UploadError(DownstreamFault::BodyIncomplete))))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
