//! A connection to an endpoint, from the name to the peer's first SETTINGS.
//!
//! [`Dialer`] is what bb8 calls. It answers only when the peer has proved that it speaks HTTP/2 and has told its
//! limits, so that no request is put on a connection before it is known how many it takes.
//!
//! Runs on one worker; what it makes may be used from others. Knows no requests. RFC 9113 §3.3, §3.4.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Connection, SendRequest};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;

use super::mux::{Link, LinkState};
use super::upstream_io::UpstreamIo;
use super::vigil::Vigil;
use crate::config::{self, Endpoint};
use crate::error::UpstreamFault;
use crate::metrics::EndpointMetrics;

/// Stands for "the peer's SETTINGS have not come yet": no peer sends this very value, which is above 2^32.
const LIMIT_UNKNOWN: usize = usize::MAX - 1;
/// Response heads larger than this are refused, in bytes as RFC 9113 §6.5.2 counts them.
const RESPONSE_HEAD_BYTES_MAX: u32 = 64 * 1024;
/// Streams that may be reset and forgotten at once: clients that leave in a storm must not look like an attack of the peer.
const RESET_STREAMS_MAX: usize = 10_000;

/// How to reach one endpoint; immutable, shared by all workers.
pub struct Target {
    pub upstream: String,
    pub endpoint: Endpoint,
    pub connect_timeout: Duration,
    pub stream_window_bytes: u32,
    pub streams_max: u32,
    /// Streams that a connection may carry in its life.
    pub requests_max: u32,
    /// How long a connection takes new streams.
    pub max_age: Option<Duration>,
    pub ping: config::Ping,
    /// Present for `h2://`.
    pub tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Target {
    /// The addresses of the endpoint's host, within the connect timeout.
    async fn resolve(&self) -> Result<Vec<SocketAddr>, UpstreamFault> {
        let address = (self.endpoint.host.as_str(), self.endpoint.port);
        match tokio::time::timeout(self.connect_timeout, tokio::net::lookup_host(address)).await {
            Ok(Ok(addresses)) => Ok(addresses.collect()),
            Ok(Err(error)) => {
                tracing::debug!(endpoint = %self.endpoint, %error, "name does not resolve");
                Err(UpstreamFault::DnsFailed)
            }
            Err(_) => Err(UpstreamFault::DnsTimeout),
        }
    }

    /// Connects TCP and TLS to the first address that accepts.
    async fn connect(&self, addresses: Vec<SocketAddr>) -> Result<UpstreamIo, UpstreamFault> {
        let mut last = UpstreamFault::DnsFailed;
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(tcp) => return self.secure(tcp).await,
                Err(error) => {
                    tracing::debug!(%address, %error, "connect failed");
                    last = connect_fault(&error);
                }
            }
        }
        Err(last)
    }

    async fn secure(&self, tcp: TcpStream) -> Result<UpstreamIo, UpstreamFault> {
        // The h2 connection and hyper flush whole turns; the kernel must not hold them back.
        tcp.set_nodelay(true).map_err(|_| UpstreamFault::ConnectionLost)?;
        let Some((connector, name)) = &self.tls else { return Ok(UpstreamIo::tcp(tcp)) };
        let stream = connector.connect(name.clone(), tcp).await.map_err(|error| {
            tracing::debug!(endpoint = %self.endpoint, %error, "TLS handshake failed");
            crate::tls::handshake_fault(&error)
        })?;
        if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err(UpstreamFault::NoHttp2ByAlpn);
        }
        Ok(UpstreamIo::tls(stream))
    }

    /// Resolves, then within the connect timeout connects and speaks HTTP/2 until the peer's first SETTINGS.
    pub async fn dial_http2(&self, metrics: &Arc<EndpointMetrics>) -> Result<PooledLink, UpstreamFault> {
        let addresses = self.resolve().await?;
        let dialling = async { self.handshake(self.connect(addresses).await?, metrics).await };
        tokio::time::timeout(self.connect_timeout, dialling).await.unwrap_or(Err(UpstreamFault::ConnectTimeout))
    }

    /// Resolves, then connects within the connect timeout.
    pub async fn dial_http1(&self) -> Result<UpstreamIo, UpstreamFault> {
        let addresses = self.resolve().await?;
        let dialling = self.connect(addresses);
        tokio::time::timeout(self.connect_timeout, dialling).await.unwrap_or(Err(UpstreamFault::ConnectTimeout))
    }

    async fn handshake(&self, io: UpstreamIo, metrics: &Arc<EndpointMetrics>) -> Result<PooledLink, UpstreamFault> {
        let seen = io.first_bytes();
        let (gathers, traffic) = (io.gathers(), io.traffic());
        let connection_window = u64::from(self.streams_max) * u64::from(self.stream_window_bytes);
        let handshake = h2::client::Builder::new()
            .initial_window_size(self.stream_window_bytes)
            .initial_connection_window_size(connection_window.min((1 << 31) - 1) as u32)
            .max_concurrent_reset_streams(RESET_STREAMS_MAX)
            .max_local_error_reset_streams(None)
            .max_header_list_size(RESPONSE_HEAD_BYTES_MAX)
            .initial_max_send_streams(LIMIT_UNKNOWN)
            .enable_push(false)
            .handshake::<_, Bytes>(io);
        let is_http1 = || seen.lock().unwrap_or_else(PoisonError::into_inner).starts_with(b"HTTP/1");
        let not_http2 = |error: &h2::Error| {
            tracing::debug!(endpoint = %self.endpoint, %error, "no HTTP/2 handshake");
            if is_http1() {
                UpstreamFault::NotHttp2
            } else if error.is_io() {
                UpstreamFault::ConnectionLost
            } else {
                UpstreamFault::MalformedResponse
            }
        };
        let (handle, mut connection): (SendRequest<Bytes>, Connection<UpstreamIo, Bytes>) =
            handshake.await.map_err(|error| not_http2(&error))?;
        let state = LinkState::new(traffic, self.requests_max);
        poll_fn(|cx| match Pin::new(&mut connection).poll(cx) {
            Poll::Ready(Ok(())) if is_http1() => Poll::Ready(Err(UpstreamFault::NotHttp2)),
            Poll::Ready(Ok(())) => Poll::Ready(Err(UpstreamFault::ConnectionLost)),
            Poll::Ready(Err(error)) => Poll::Ready(Err(not_http2(&error))),
            Poll::Pending if connection.max_concurrent_send_streams() != LIMIT_UNKNOWN => Poll::Ready(Ok(())),
            Poll::Pending => Poll::Pending,
        })
        .await?;
        state.follow(connection.max_concurrent_send_streams());
        tracing::debug!(endpoint = %self.endpoint, connection = state.id, "connection opened");
        let pings = connection.ping_pong();
        let driver = Driver { connection, gathers, state: state.clone(), metrics: metrics.clone() };
        let driver = tokio::spawn(driver.run());
        let pings = pings.expect("nobody has asked for them before");
        let vigil = Vigil { pings, state: state.clone(), ping: self.ping.clone(), max_age: self.max_age };
        tokio::spawn(vigil.keep(driver, metrics.clone()));
        Ok(PooledLink(Link::new(handle, state)))
    }
}

/// Tells a refusal from a host that is not there.
fn connect_fault(error: &io::Error) -> UpstreamFault {
    match error.kind() {
        io::ErrorKind::TimedOut => UpstreamFault::ConnectTimeout,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable | io::ErrorKind::AddrNotAvailable => {
            UpstreamFault::Unroutable
        }
        _ => UpstreamFault::ConnectRefused,
    }
}

/// Moves the frames of one connection until it ends.
struct Driver {
    connection: Connection<UpstreamIo, Bytes>,
    gathers: Arc<AtomicBool>,
    state: Arc<LinkState>,
    metrics: Arc<EndpointMetrics>,
}

impl Driver {
    async fn run(mut self) {
        let result = poll_fn(|cx| {
            // h2 reads before it writes, so a graceful GOAWAY and the PING behind it would be answered before the heads
            // that wait. The peer would then take those for streams opened after its GOAWAY and refuse them, or end
            // the connection under their bytes. So what waits is gathered first, and goes out with the second poll.
            if self.state.take_unwritten() {
                self.gathers.store(true, Ordering::Relaxed);
                let polled = Pin::new(&mut self.connection).poll(cx);
                self.gathers.store(false, Ordering::Relaxed);
                if polled.is_ready() {
                    return polled;
                }
            }
            let polled = Pin::new(&mut self.connection).poll(cx);
            self.state.follow(self.connection.max_concurrent_send_streams());
            polled
        })
        .await;
        let reason = match &result {
            Err(error) if error.is_io() => "lost",
            Err(error) if !(error.is_go_away() && error.is_remote()) => "protocol_error",
            // Closed before it ended: by GOAWAY, which a request has met and counted, or by the pool.
            _ if !self.state.close() => "retired",
            _ => "peer_closed",
        };
        self.state.close();
        self.metrics.closed.increment(reason);
        tracing::debug!(connection = self.state.id, reason, error = ?result.err(), "connection ended");
    }
}

/// A connection as bb8 holds it. When bb8 lets go of it (idle, or broken), it takes no new streams.
pub struct PooledLink(pub(crate) Link);

impl Drop for PooledLink {
    fn drop(&mut self) {
        self.0.state.close();
    }
}

/// Where failed dials are told, because bb8 keeps them to itself. (Its error sink also tells of idle connections that have
/// ended, which is no failure.)
#[derive(Debug, Clone)]
pub(crate) struct DialFailures(watch::Sender<Option<UpstreamFault>>);

impl DialFailures {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(None))
    }

    pub(crate) fn tell(&self, fault: UpstreamFault) {
        self.0.send_replace(Some(fault));
    }

    /// Sees the failures from now on.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Option<UpstreamFault>> {
        self.0.subscribe()
    }
}

/// The next failure that `failures` sees.
pub(crate) async fn next_failure(failures: &mut watch::Receiver<Option<UpstreamFault>>) -> UpstreamFault {
    // The sender lives as long as the pool that is asked for a connection at the same time.
    let _ = failures.changed().await;
    failures.borrow_and_update().unwrap_or(UpstreamFault::ConnectionLost)
}

/// Dials HTTP/2 connections to one endpoint for bb8.
pub(crate) struct Dialer {
    pub(crate) target: Arc<Target>,
    pub(crate) failures: DialFailures,
    pub(crate) metrics: Arc<EndpointMetrics>,
}

impl bb8::ManageConnection for Dialer {
    type Connection = PooledLink;
    type Error = UpstreamFault;

    async fn connect(&self) -> Result<PooledLink, UpstreamFault> {
        self.target.dial_http2(&self.metrics).await.inspect_err(|fault| self.failures.tell(*fault))
    }

    async fn is_valid(&self, link: &mut PooledLink) -> Result<(), UpstreamFault> {
        if link.0.state.is_open() { Ok(()) } else { Err(UpstreamFault::ConnectionLost) }
    }

    fn has_broken(&self, link: &mut PooledLink) -> bool {
        !link.0.state.is_open()
    }
}
