//! A connection to an endpoint, from the name to the peer's first SETTINGS.
//!
//! [`Dialer`] is what bb8 calls. It answers only when the peer has proved that it speaks HTTP/2 and has told its
//! limits, so that no request is put on a connection before it is known how many it takes.
//!
//! Runs on one worker; what it makes may be used from others. Knows no requests. RFC 9113 §3.3, §3.4.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Connection, SendRequest};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::dial_failure::{DialFailure, DialFailures};
use super::mux::{Link, LinkState};
use super::upstream_io::UpstreamIo;
use super::vigil::Vigil;
use crate::config::{self, Endpoint, Location, Protocol};
use crate::error::UpstreamFault;
use crate::metrics::EndpointMetrics;
use crate::tls;

/// Stands for "the peer's SETTINGS have not come yet": no peer sends this very value, which is above 2^32.
const LIMIT_UNKNOWN: usize = usize::MAX - 1;
/// Response heads larger than this are refused, in bytes as RFC 9113 §6.5.2 counts them.
const RESPONSE_HEAD_BYTES_MAX: u32 = 64 * 1024;
/// Streams that may be reset and forgotten at once: clients that leave in a storm must not look like an attack of the peer.
const RESET_STREAMS_MAX: usize = 10_000;

/// After the first try to connect; doubled after each.
const CONNECT_PAUSE: Duration = Duration::from_millis(200);
/// Between two tries at a Unix socket whose queue is full: the kernel does not tell when it no longer is.
const QUEUE_PAUSE: Duration = Duration::from_millis(5);

/// How HTTP/1.1 answers begin.
const HTTP1_ANSWER: &[u8; 6] = b"HTTP/1";

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
    /// Present for `h2://` and `https://`.
    pub tls: Option<TargetTls>,
}

/// How TLS is spoken to an endpoint.
#[derive(Clone)]
pub struct TargetTls {
    /// Offers `h2`, and `http/1.1` if the endpoint may choose.
    pub http2: TlsConnector,
    /// Offers `http/1.1` only.
    pub http1: TlsConnector,
    /// The name to verify and to send.
    pub name: ServerName<'static>,
}

impl Target {
    /// The addresses of the endpoint's host, within the connect timeout.
    async fn resolve(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, UpstreamFault> {
        match tokio::time::timeout(self.connect_timeout, tokio::net::lookup_host((host, port))).await {
            Ok(Ok(addresses)) => Ok(addresses.collect()),
            Ok(Err(error)) => {
                tracing::debug!(endpoint = %self.endpoint, %error, "name does not resolve");
                Err(UpstreamFault::DnsFailed)
            }
            Err(_) => Err(UpstreamFault::DnsTimeout),
        }
    }

    /// A TCP connection to the first address that accepts.
    async fn connect(&self, addresses: Vec<SocketAddr>) -> Result<TcpStream, UpstreamFault> {
        let mut last = UpstreamFault::DnsFailed;
        for address in addresses {
            match connect_insistently(address).await {
                Ok(tcp) => {
                    // The h2 connection and hyper flush whole turns; the kernel must not hold them back.
                    tcp.set_nodelay(true).map_err(|_| UpstreamFault::ConnectionLost)?;
                    return Ok(tcp);
                }
                Err(error) => {
                    tracing::debug!(%address, %error, "connect failed");
                    last = connect_fault(&error);
                }
            }
        }
        Err(last)
    }

    async fn secure(
        &self,
        tcp: TcpStream,
        connector: &TlsConnector,
        name: &ServerName<'static>,
    ) -> Result<TlsStream<TcpStream>, DialFailure> {
        connector.connect(name.clone(), tcp).await.map_err(|error| {
            tracing::debug!(endpoint = %self.endpoint, %error, "TLS handshake failed");
            let (fault, cause) = tls::handshake_fault(&error);
            DialFailure { cause, ..DialFailure::from(fault) }
        })
    }

    /// A connection to a Unix socket. One whose queue is full has an owner, who may come to it.
    async fn connect_unix(&self, path: &Path) -> Result<UnixStream, DialFailure> {
        loop {
            match UnixStream::connect(path).await {
                Ok(stream) => return Ok(stream),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(QUEUE_PAUSE).await,
                Err(error) => {
                    tracing::debug!(path = %path.display(), %error, "connect failed");
                    let cause = match error.kind() {
                        io::ErrorKind::NotFound => "there is no such socket: is the service running?",
                        io::ErrorKind::PermissionDenied => "the socket's mode or its folder's does not let us connect",
                        _ => return Err(connect_fault(&error).into()),
                    };
                    return Err(DialFailure::because(UpstreamFault::ConnectRefused, cause));
                }
            }
        }
    }

    /// Resolves, then within the connect timeout, whose end is returned too, connects TCP and TLS, or a Unix socket.
    async fn open(&self, is_http2: bool) -> Result<(UpstreamIo, Instant), DialFailure> {
        let addresses = match &self.endpoint.location {
            Location::Host { host, port } => self.resolve(host, *port).await?,
            Location::Unix(path) => {
                let end = Instant::now() + self.connect_timeout;
                let late = |_| Err(UpstreamFault::ConnectTimeout.into());
                let stream = timeout_at(end, self.connect_unix(path)).await.unwrap_or_else(late)?;
                return Ok((UpstreamIo::unix(stream, is_http2), end));
            }
        };
        let end = Instant::now() + self.connect_timeout;
        let late = |_| Err(UpstreamFault::ConnectTimeout);
        let tcp = timeout_at(end, self.connect(addresses)).await.unwrap_or_else(late)?;
        let Some(TargetTls { http2, http1, name }) = &self.tls else {
            return Ok((UpstreamIo::tcp(tcp, is_http2), end));
        };
        let late = |_| Err(DialFailure::because(UpstreamFault::ConnectTimeout, "it does not finish the TLS handshake"));
        let securing = self.secure(tcp, if is_http2 { http2 } else { http1 }, name);
        let tls = timeout_at(end, securing).await.unwrap_or_else(late)?;
        if is_http2 && tls.get_ref().1.alpn_protocol() != Some(tls::HTTP2) {
            return Err(UpstreamFault::NoHttp2ByAlpn.into());
        }
        Ok((UpstreamIo::tls(tls, is_http2), end))
    }

    /// Resolves, then within the connect timeout connects and speaks HTTP/2 until the peer's first SETTINGS.
    ///
    /// Some HTTP/1.1 services say nothing to the preface, or no HTTP (HTML, as Python's own server): under `http://` they
    /// are then asked in HTTP/1.1.
    pub async fn dial_http2(&self, metrics: &Arc<EndpointMetrics>) -> Result<PooledLink, DialFailure> {
        let (io, end) = self.open(true).await?;
        let shaken = timeout_at(end, self.handshake(io, metrics)).await;
        let failure = match shaken.unwrap_or(Err(UpstreamFault::ConnectTimeout.into())) {
            Ok(link) => return Ok(link),
            Err(failure) => failure,
        };
        let fault = failure.fault;
        if fault != UpstreamFault::NotHttp2 && self.endpoint.protocol == Protocol::Http && self.answers_http1().await {
            let cause = "it does not understand the HTTP/2 preface, and answers HTTP/1.1".to_owned();
            return Err(DialFailure { fault: UpstreamFault::NotHttp2, cause: Some(cause), ..failure });
        }
        Err(failure)
    }

    /// Whether the service answers a request that asks for nothing (RFC 9110 §9.3.7), within the connect timeout.
    async fn answers_http1(&self) -> bool {
        let Ok((io, end)) = self.open(false).await else { return false };
        matches!(self.ask_http1(io, end).await, Ok(true))
    }

    /// As [`Target::dial_http1`], and asks: what TLS 1.3 refuses is only seen then.
    pub(crate) async fn try_http1(&self) -> Result<(), DialFailure> {
        let io = self.dial_http1().await?;
        if self.tls.is_some()
            && let Err(error) = self.ask_http1(io, Instant::now() + self.connect_timeout).await
            && let Some(cause) = tls::refusal_in(&error)
        {
            return Err(DialFailure::because(UpstreamFault::TlsFailed, cause));
        }
        Ok(())
    }

    async fn ask_http1(&self, mut io: UpstreamIo, end: Instant) -> io::Result<bool> {
        let request = format!("OPTIONS * HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.endpoint.authority());
        let mut answer = [0; HTTP1_ANSWER.len()];
        let asking = async {
            io.write_all(request.as_bytes()).await?;
            io.read_exact(&mut answer).await
        };
        timeout_at(end, asking).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
        Ok(answer == *HTTP1_ANSWER)
    }

    /// Resolves, then connects within the connect timeout.
    pub async fn dial_http1(&self) -> Result<UpstreamIo, DialFailure> {
        let opened = self.open(false).await;
        opened.map(|(io, _)| io).map_err(|failure| match failure.fault {
            UpstreamFault::NoHttp2ByAlpn => {
                DialFailure::because(UpstreamFault::TlsFailed, "it does not offer http/1.1 by ALPN")
            }
            _ => failure,
        })
    }

    async fn handshake(&self, io: UpstreamIo, metrics: &Arc<EndpointMetrics>) -> Result<PooledLink, DialFailure> {
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
        let is_http1 = || seen.lock().unwrap_or_else(PoisonError::into_inner).starts_with(HTTP1_ANSWER);
        let not_http2 = |error: &h2::Error| {
            tracing::debug!(endpoint = %self.endpoint, %error, "no HTTP/2 handshake");
            if is_http1() {
                UpstreamFault::NotHttp2.into()
            } else if let Some(cause) = error.get_io().and_then(tls::refusal_in) {
                DialFailure::because(UpstreamFault::TlsFailed, cause)
            } else if error.is_io() {
                UpstreamFault::ConnectionLost.into()
            } else {
                UpstreamFault::MalformedResponse.into()
            }
        };
        let (handle, mut connection): (SendRequest<Bytes>, Connection<UpstreamIo, Bytes>) =
            handshake.await.map_err(|error| not_http2(&error))?;
        let state = LinkState::new(traffic, self.requests_max);
        poll_fn(|cx| match Pin::new(&mut connection).poll(cx) {
            Poll::Ready(Ok(())) if is_http1() => Poll::Ready(Err(UpstreamFault::NotHttp2.into())),
            Poll::Ready(Ok(())) => Poll::Ready(Err(UpstreamFault::ConnectionLost.into())),
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

/// Connects by the first of several tries that is answered.
///
/// The kernel of a service whose queue is full drops what asks for a connection, and ours would ask again after a
/// second only, when the connect timeout may have passed: a crowd of new WebSockets is enough for that.
async fn connect_insistently(address: SocketAddr) -> io::Result<TcpStream> {
    let mut tries = JoinSet::new();
    let mut pause = CONNECT_PAUSE;
    loop {
        tries.spawn(TcpStream::connect(address));
        let start = Instant::now();
        while let Ok(ended) = timeout_at(start + pause, tries.join_next()).await {
            let ended = ended.expect("a try is running").expect("a try neither panics nor is aborted");
            match ended {
                // That there is no descriptor left for another try says nothing about the first.
                Err(error) if !tries.is_empty() && error.kind() != io::ErrorKind::ConnectionRefused => {}
                ended => return ended,
            }
        }
        pause *= 2;
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
        if let Err(error) = &result {
            self.state.heed(error);
        }
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

/// Dials HTTP/2 connections to one endpoint for bb8.
pub(crate) struct Dialer {
    pub(crate) target: Arc<Target>,
    pub(crate) failures: DialFailures,
    pub(crate) metrics: Arc<EndpointMetrics>,
}

impl bb8::ManageConnection for Dialer {
    type Connection = PooledLink;
    type Error = DialFailure;

    async fn connect(&self) -> Result<PooledLink, DialFailure> {
        self.target.dial_http2(&self.metrics).await.inspect_err(|failure| self.failures.tell(failure))
    }

    async fn is_valid(&self, link: &mut PooledLink) -> Result<(), DialFailure> {
        if link.0.state.is_open() { Ok(()) } else { Err(UpstreamFault::ConnectionLost.into()) }
    }

    fn has_broken(&self, link: &mut PooledLink) -> bool {
        !link.0.state.is_open()
    }
}
