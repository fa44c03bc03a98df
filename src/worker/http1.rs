//! One HTTP/1.1 upstream connection, and the bb8 pool that keeps such connections.
//!
//! Made on one worker; a worker without a share of its own uses its lender's. RFC 9112 §9.3.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::dial::Target;
use super::dial_failure::{DialFailure, DialFailures};
use super::discovery::Discovery;
use super::request_body::{Piece, RequestBody};
use super::upstream_io::{FirstBytes, UpstreamIo};
use crate::config;
use crate::error::{DownstreamFault, Fault, UpstreamFault};
use crate::metrics::EndpointMetrics;

pub(crate) type Http1Lease = bb8::PooledConnection<'static, Http1Dialer>;

/// The connections of one worker and of those that borrow from it.
pub(crate) struct Http1Pool {
    pub(crate) bb8: bb8::Pool<Http1Dialer>,
    pub(crate) failures: DialFailures,
}

impl Http1Pool {
    pub(crate) fn new(
        target: &Arc<Target>,
        pool: &config::Pool,
        share: u32,
        metrics: &Arc<EndpointMetrics>,
        discovery: &Arc<Discovery>,
    ) -> Self {
        let failures = DialFailures::new();
        let dialer = Http1Dialer {
            target: target.clone(),
            failures: failures.clone(),
            metrics: metrics.clone(),
            discovery: discovery.clone(),
        };
        let bb8 = bb8::Pool::builder()
            .max_size(share)
            .idle_timeout(Some(pool.idle_timeout))
            .max_lifetime(None)
            .reaper_rate(pool.idle_timeout.clamp(Duration::from_millis(100), Duration::from_secs(10)))
            .connection_timeout(pool.pending_timeout)
            .retry_connection(false)
            .test_on_check_out(true)
            // The most recently used connection is the least likely to have been closed by the service.
            .queue_strategy(bb8::QueueStrategy::Lifo)
            .build_unchecked(dialer);
        Self { bb8, failures }
    }
}

/// What an error of the exchange says about the request.
pub(crate) fn fault(error: &hyper::Error) -> UpstreamFault {
    if error.is_parse_too_large() {
        UpstreamFault::ResponseHeadTooLarge
    } else if error.is_parse() {
        UpstreamFault::MalformedResponse
    } else {
        UpstreamFault::ConnectionLost
    }
}

/// Dials HTTP/1.1 connections to one endpoint for bb8.
pub(crate) struct Http1Dialer {
    target: Arc<Target>,
    failures: DialFailures,
    metrics: Arc<EndpointMetrics>,
    discovery: Arc<Discovery>,
}

impl Http1Dialer {
    async fn dial(&self) -> Result<UpstreamIo, DialFailure> {
        self.discovery.ask_after_absence(&self.target, &self.metrics).await?;
        self.target.dial_http1().await
    }
}

/// An HTTP/1.1 connection.
pub(crate) struct Http1Connection {
    pub(crate) id: u64,
    pub(crate) sender: http1::SendRequest<UploadBody>,
    /// No exchange is unfinished on it.
    is_clean: AtomicBool,
    /// The answer has come whole, before all of the request had gone.
    is_answered: AtomicBool,
    first_bytes: FirstBytes,
    driver: AbortHandle,
}

impl Drop for Http1Connection {
    fn drop(&mut self) {
        if self.is_clean.load(Ordering::Relaxed) {
            return;
        }
        // Left alone, hyper would wait for the rest of an unfinished request, for as long as its client keeps that back. A
        // client that still sends it is to see the answer, and not a connection that nobody reads any more.
        let driver = self.driver.clone();
        match Handle::try_current() {
            Ok(runtime) if self.is_answered.load(Ordering::Relaxed) => {
                runtime.spawn(async move {
                    tokio::time::sleep(LINGER).await;
                    driver.abort();
                });
            }
            _ => driver.abort(),
        }
    }
}

/// An HTTP/1.1 connection that nobody drives yet.
struct Undriven {
    sender: http1::SendRequest<UploadBody>,
    first_bytes: FirstBytes,
}

impl Undriven {
    fn driven(self, driver: impl Future<Output = ()> + Send + 'static) -> Http1Connection {
        let Self { sender, first_bytes } = self;
        let driver = tokio::spawn(driver).abort_handle();
        Http1Connection {
            id: super::mux::next_connection_id(),
            sender,
            is_clean: AtomicBool::new(true),
            is_answered: AtomicBool::new(false),
            first_bytes,
            driver,
        }
    }
}

impl Http1Connection {
    /// Dials a connection for one request, after which it may carry another protocol.
    pub(crate) async fn dial_own(target: &Target, metrics: &EndpointMetrics) -> Result<Self, DialFailure> {
        let io = target.dial_http1().await?;
        let (connection, driver) = Self::begin(io).await?;
        metrics.opened.increment("tunnel");
        // Whoever holds the connection counts its end: this one ends when it is handed over.
        Ok(connection.driven(async { _ = driver.with_upgrades().await }))
    }

    async fn begin(
        io: UpstreamIo,
    ) -> Result<(Undriven, http1::Connection<TokioIo<UpstreamIo>, UploadBody>), UpstreamFault> {
        let first_bytes = io.first_bytes();
        let (sender, driver) = http1::Builder::new()
            // The buffer alone would let a head of up to twice its size through.
            .max_header_size(RESPONSE_HEAD_BYTES_MAX)
            .max_buf_size(RESPONSE_HEAD_BYTES_MAX)
            .max_headers(RESPONSE_FIELDS_MAX)
            .handshake(TokioIo::new(io))
            .await
            .map_err(|_| UpstreamFault::ConnectionLost)?;
        Ok((Undriven { sender, first_bytes }, driver))
    }

    /// An exchange begins on it.
    pub(crate) fn begins(&self) {
        self.is_clean.store(false, Ordering::Relaxed);
        self.is_answered.store(false, Ordering::Relaxed);
    }

    /// The answer has come whole. Another exchange may follow if the request `is_sent` whole, too.
    pub(crate) fn answered(&self, is_sent: bool) {
        self.is_answered.store(true, Ordering::Relaxed);
        self.is_clean.store(is_sent, Ordering::Relaxed);
    }

    /// Whether the service began with the SETTINGS of an HTTP/2 connection. It then has read no request: what it takes
    /// for HTTP/2 must begin with the preface (RFC 9113 §3.4).
    pub(crate) fn is_answered_in_http2(&self) -> bool {
        let first = self.first_bytes.lock().unwrap_or_else(PoisonError::into_inner);
        // A length of up to 2^24, type 4, no flags, and the beginning of stream 0.
        matches!(first[..], [_, _, _, 4, 0, 0, 0, 0])
    }
}

impl bb8::ManageConnection for Http1Dialer {
    type Connection = Http1Connection;
    type Error = DialFailure;

    async fn connect(&self) -> Result<Http1Connection, DialFailure> {
        let io = self.dial().await.inspect_err(|failure| {
            self.metrics.dial_failures.increment(Fault::from(failure.fault).reason());
            self.discovery.http1_dial_failed();
            self.failures.tell(failure);
        })?;
        let (connection, driver) = Http1Connection::begin(io).await?;
        self.metrics.opened.increment("waiting");
        self.metrics.active.add_shared(1);
        let mut open = Open { metrics: self.metrics.clone(), end: "retired" };
        Ok(connection.driven(async move {
            let result = driver.await;
            open.set_end(if result.is_ok() { "peer_closed" } else { "lost" });
        }))
    }

    async fn is_valid(&self, connection: &mut Http1Connection) -> Result<(), DialFailure> {
        connection.sender.ready().await.map_err(|_| UpstreamFault::ConnectionLost.into())
    }

    fn has_broken(&self, connection: &mut Http1Connection) -> bool {
        !connection.is_clean.load(Ordering::Relaxed) || connection.sender.is_closed()
    }
}

/// A connection that counts, until whoever drives it ends or is stopped.
struct Open {
    metrics: Arc<EndpointMetrics>,
    end: &'static str,
}

impl Open {
    fn set_end(&mut self, end: &'static str) {
        self.end = end;
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.metrics.active.add_shared(-1);
        self.metrics.closed.increment(self.end);
    }
}

/// A request body on its way to an HTTP/1.1 upstream, without trailers that may not follow a body.
///
/// Polled by the task that drives the connection; the request that waits for its answer looks at the state.
pub(crate) struct UploadBody {
    /// `None` for a request without one.
    body: Option<RequestBody>,
    state: Arc<UploadState>,
}

/// How a request body is doing.
#[derive(Default)]
pub(crate) struct UploadState {
    received_bytes: Arc<AtomicU64>,
    /// The bytes that had come when somebody last asked.
    seen_bytes: AtomicU64,
    /// The connection would take more than the client has sent.
    is_starving: AtomicBool,
    is_ended: AtomicBool,
    refusal: OnceLock<DownstreamFault>,
    has_body: bool,
    /// The body, when the connection has let go of it and another try may follow.
    back: Mutex<Option<RequestBody>>,
    /// Told at the end of the body.
    waiting: Mutex<Option<Waker>>,
}

impl UploadState {
    /// Why the body was broken off, if it was.
    pub(crate) fn refusal(&self) -> Option<DownstreamFault> {
        self.refusal.get().copied()
    }

    /// Whether the service has it all, or will have no more.
    pub(crate) fn poll_ended(&self, cx: &Context<'_>) -> bool {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if !waiting.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waiting = Some(cx.waker().clone());
        }
        self.is_ended()
    }

    /// Whether the connection has let go of the body.
    pub(crate) fn is_ended(&self) -> bool {
        self.is_ended.load(Ordering::Acquire)
    }

    /// As [`UploadState::poll_ended`], for a connection that has failed and lets go of it in a moment, if not already:
    /// another worker may drive it.
    pub(crate) async fn wait_for_end(&self) {
        let ended = poll_fn(|cx| if self.poll_ended(cx) { Poll::Ready(()) } else { Poll::Pending });
        _ = tokio::time::timeout(END_TIMEOUT, ended).await;
    }

    /// Whether another attempt could send it too, now that it has ended.
    pub(crate) fn is_replayable(&self) -> bool {
        !self.has_body || self.back.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// What the next try would send, or `Err` if it could not have all of it.
    pub(crate) fn take_back(&self) -> Result<Option<RequestBody>, Gone> {
        let back = self.back.lock().unwrap_or_else(PoisonError::into_inner).take();
        if self.has_body && back.is_none() { Err(Gone) } else { Ok(back) }
    }

    /// Whether bytes have come since the last call.
    pub(crate) fn has_moved(&self) -> bool {
        let received = self.received_bytes.load(Ordering::Acquire);
        self.seen_bytes.swap(received, Ordering::Relaxed) != received
    }

    /// Whether it is the client that everybody waits for.
    pub(crate) fn is_starving(&self) -> bool {
        self.is_starving.load(Ordering::Acquire)
    }

    fn end(&self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_ended.store(true, Ordering::Release);
        if let Some(waker) = waiting.take() {
            waker.wake();
        }
    }

    fn refuse(&self, fault: DownstreamFault) -> Refused {
        self.refusal.get_or_init(|| fault);
        Refused(fault)
    }
}

impl UploadBody {
    pub(crate) fn new(body: Option<RequestBody>) -> Self {
        let state = UploadState {
            received_bytes: body.as_ref().map(|body| body.received_bytes().clone()).unwrap_or_default(),
            is_ended: AtomicBool::new(body.is_none()),
            has_body: body.is_some(),
            ..UploadState::default()
        };
        Self { body, state: Arc::new(state) }
    }

    pub(crate) fn state(&self) -> Arc<UploadState> {
        self.state.clone()
    }

    /// The body of a request that was not written.
    pub(crate) fn into_body(mut self) -> Option<RequestBody> {
        self.body.take()
    }
}

impl Drop for UploadBody {
    fn drop(&mut self) {
        *self.state.back.lock().unwrap_or_else(PoisonError::into_inner) =
            self.body.take().filter(RequestBody::is_replayable);
        self.state.end();
    }
}

/// The body, or a part of it, is no longer there.
pub(crate) struct Gone;

/// The body was broken off.
#[derive(Debug)]
pub(crate) struct Refused(DownstreamFault);

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(Fault::from(self.0).reason())
    }
}

impl std::error::Error for Refused {}

impl Body for UploadBody {
    type Data = Bytes;
    type Error = Refused;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Refused>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let polled = body.poll_piece(cx);
        self.state.is_starving.store(polled.is_pending(), Ordering::Release);
        Poll::Ready(match ready!(polled) {
            Ok(Piece::Data(data)) => Some(Ok(Frame::data(data))),
            Ok(Piece::Trailers(fields)) => Some(Ok(Frame::trailers(fields))),
            Ok(Piece::End) => None,
            Err(fault) => Some(Err(self.state.refuse(fault))),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(RequestBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or(SizeHint::with_exact(0), RequestBody::size_hint)
    }
}

/// So long the rest of a request may still come whose answer is complete.
const LINGER: Duration = Duration::from_secs(1);
/// A connection that holds on to a request body for longer keeps it.
const END_TIMEOUT: Duration = Duration::from_millis(100);
/// Response heads larger than this are refused.
const RESPONSE_HEAD_BYTES_MAX: usize = 64 * 1024;
const RESPONSE_FIELDS_MAX: usize = 256;
