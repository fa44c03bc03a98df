//! The validated configuration: what every value means, its unit, its default and why.
//!
//! A [`Config`] is valid by construction: [`load`] builds it from YAML, [`from_flags`] from the flags of `trunkline
//! proxy`, and both refuse everything that the data plane could not serve. The environment is the caller's
//! function; the only files read are the configuration itself ([`Source::read`]) and the certificates that it names.
//!
//! From text to [`Config`]: `source` (the text), `yaml` (a tree with positions), `keys` (what may be written, declared
//! by `section`, read by `decode` with `rules`, `collections`, `parse` and `expand`), `schema` (the order of the steps),
//! `assemble` (put together), `check` (fits together). And back: `print` (the effective configuration), `outline`
//! (defaults and JSON Schema).
//!
//! Pure: no tokio, no hyper.

mod addresses;
mod assemble;
pub mod certificates;
mod check;
mod collections;
mod decode;
pub mod diagnostic;
mod expand;
mod flags;
mod keys;
mod outline;
mod parse;
mod print;
mod rules;
mod schema;
mod section;
mod source;
mod trust;
mod yaml;

pub use diagnostic::{Diagnostic, Diagnostics, Severity};
pub use flags::{Flags, from_flags};
pub use outline::{defaults, full, schema};
pub use print::{Secrets, print};
pub use schema::{admin, load};
pub use source::{Environment, Source, Span, VARIABLE, find};
pub use trust::TrustedPeer;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};

/// Everything that one process serves.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where clients connect; at least one, no two on addresses that overlap.
    pub listeners: Vec<Listener>,
    /// First match wins; at least one.
    pub routes: Vec<Route>,
    /// The services, by name, in the order of the file; every route's upstream is among them.
    pub upstreams: Vec<Upstream>,
    pub admin: Admin,
    pub shutdown: Shutdown,
    pub logs: Logs,
    pub runtime: Runtime,
}

/// One address that clients connect to.
#[derive(Debug, Clone, PartialEq)]
pub struct Listener {
    /// Names the listener in logs and metrics. Default: `listener-N` by position.
    pub name: String,
    pub address: ListenAddress,
    /// Open client connections in the whole process; further ones wait in the kernel's backlog. Default 20 000.
    pub max_connections: u32,
    /// From the first byte of a head (or the accept) to its end. Default 10 s.
    pub header_timeout: Duration,
    /// A keep-alive connection without a request is closed after this. Default 75 s.
    pub idle_timeout: Duration,
    /// The whole request head: request line and fields, in bytes. Default 64 KiB, at least 8 KiB.
    pub header_bytes_max: usize,
    /// Header fields in a request head. Default 100, which is parsed without an allocation.
    pub headers_max: usize,
    /// Requests at once on one HTTP/2 client connection (`SETTINGS_MAX_CONCURRENT_STREAMS`). Default 100.
    pub streams_max: u32,
    /// The request body in bytes; `None` is unlimited, the default.
    pub body_bytes_max: Option<u64>,
    /// Peers whose `X-Forwarded-*`, `X-Real-IP` and `Forwarded` are kept and added to; those of all others are removed.
    /// Shared with every connection. Default: none.
    pub trust_forwarded_from: Arc<[TrustedPeer]>,
    pub proxy_protocol: ProxyProtocol,
    /// `None`: clients speak in the clear. The default.
    pub tls: Option<ListenerTls>,
}

/// How a listener proves who it is, and what it asks of its clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerTls {
    /// At least one, picked by the name that the client asks for (SNI). The first one is for all other clients.
    pub certificates: Vec<Identity>,
    /// What is offered by ALPN, the preferred one first. Default: both.
    pub alpn: Vec<Alpn>,
    /// Default 1.2.
    pub min_version: TlsVersion,
    /// Clients must show a certificate that one of these CAs has signed. `None`, the default: they need none.
    pub client_ca: Option<PathBuf>,
}

/// A certificate and its key, both PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// With the certificates of its issuers behind it, up to the root.
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// What may be agreed on in a TLS handshake (RFC 7301).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Alpn {
    H2,
    Http1,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsVersion {
    #[default]
    Tls12,
    Tls13,
}

/// Where clients connect.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ListenAddress {
    Tcp(SocketAddr),
    /// An absolute path.
    Unix(PathBuf),
}

impl ListenAddress {
    #[must_use]
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// Whether one of the two cannot be listened on while the other one is: they are the same, or one is every address of
    /// the machine. Port 0 is a fresh port each time.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let (Self::Tcp(one), Self::Tcp(other)) = (self, other) else { return self == other };
        // `::` takes clients of IPv4 too.
        let holds = |all: &SocketAddr, one: &SocketAddr| all.ip().is_unspecified() && (all.is_ipv6() || one.is_ipv4());
        one.port() == other.port() && one.port() != 0 && (one == other || holds(one, other) || holds(other, one))
    }
}

impl From<SocketAddr> for ListenAddress {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl std::fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Whether connections begin with a PROXY header that says who the client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ProxyProtocol {
    /// The default: such a header is a malformed request.
    #[default]
    Disabled,
    /// Version 1 or 2, or none.
    Optional,
    /// Version 1 or 2; a connection without is closed.
    Required,
}

/// A rule that sends matching requests to one upstream.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// Names the route in logs. Default: `route-N` by position.
    pub name: String,
    pub matches: RouteMatch,
    /// The name of an [`Upstream`] of the same [`Config`].
    pub upstream: String,
    pub timeouts: RouteTimeouts,
    /// A comment to the client of an event stream whose service has been silent for so long; `None`, the default: none.
    pub heartbeat: Option<Duration>,
    /// When the clients of event streams that a drain ends come back.
    pub reconnect: Reconnect,
    /// `None`: only what was provably not processed is sent again. The default.
    pub retry: Option<Retry>,
    /// Fields removed from, then set on, the request that goes upstream.
    pub request_headers: HeaderEdits,
    /// Replaces the matched `path_prefix` at the start of the path; `None` leaves the path alone.
    pub rewrite_path_prefix: Option<String>,
}

/// All stated conditions must hold; an empty match takes every request.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RouteMatch {
    /// Lower-case host names without port; `*.example.com` matches any sub-domain. Empty: any host.
    pub hosts: Vec<String>,
    /// Starts with `/`; a prefix of whole path segments (`/v1` matches `/v1` and `/v1/x`, not `/v10`). `None`: any path.
    pub path_prefix: Option<String>,
    /// Empty: any method.
    pub methods: Vec<Method>,
    /// Field name and the exact value it must have.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// Time limits of one request. There is none on a whole stream by default: streams may live for ever.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteTimeouts {
    /// From the end of the request to the response head; `None`: no limit. Default 60 s.
    pub response_header: Option<Duration>,
    /// No byte moved in either direction (upstream silent, or the client not reading); `None`: no limit. Default 5 min.
    pub stream_idle: Option<Duration>,
    /// The whole exchange from head to last byte; `None`, the default: no limit.
    pub request: Option<Duration>,
}

/// When the client of an event stream that we end is to come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reconnect {
    /// When it likes. The default.
    Client,
    /// It is told to, after a time that is not the same for all, within the shutdown's timeout.
    Spread,
}

/// When a request is tried again although the service may have seen it; says `when`, or has a time, or both.
#[derive(Debug, Clone, PartialEq)]
pub struct Retry {
    /// Tries in all, 1 to 5. Default 2.
    pub attempts: u32,
    pub when: Vec<RetryWhen>,
    /// A try that another one may follow has so long from the end of the request to the response head. `None`, the
    /// default: as long as `response_header`.
    pub per_try_timeout: Option<Duration>,
}

/// What another try may follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryWhen {
    /// No endpoint was reached: nothing has been sent.
    ConnectFailure,
    /// The stream or its connection ended before the response head.
    Reset,
    /// The answer has this status: 429, or 500 to 599.
    Status(u16),
}

impl std::fmt::Display for RetryWhen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::ConnectFailure => f.write_str("connect_failure"),
            Self::Reset => f.write_str("reset"),
            Self::Status(status) => status.fmt(f),
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct HeaderEdits {
    pub set: Vec<(HeaderName, HeaderValue)>,
    pub remove: Vec<HeaderName>,
}

/// A named service: its endpoints, and how connections to each are kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Upstream {
    pub name: String,
    /// At least one; no two with one address.
    pub endpoints: Vec<Endpoint>,
    pub balance: Balance,
    pub pool: Pool,
    /// Bytes that the service may send on one stream before the client has taken them. The connection window
    /// is derived: `max_streams_per_connection` times this, so that stalled readers never stall the others
    /// (RFC 9113 §5.2). Default 256 KiB, 64 KiB to 16 MiB.
    pub stream_window_bytes: u32,
    /// TCP connect and TLS handshake together. Default 1 s.
    pub connect_timeout: Duration,
    pub tls: UpstreamTls,
    pub retry_budget: RetryBudget,
}

impl Upstream {
    /// Whether any of its endpoints is spoken to over TLS.
    #[must_use]
    pub fn has_tls(&self) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint.protocol.is_tls())
    }
}

/// The tries that routes may add to the requests of the last 10 s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryBudget {
    /// In per cent of those requests. Default 20.
    pub percent: u32,
    /// In the whole process, besides. Default 3.
    pub min_per_second: u32,
}

/// One address of an upstream.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    pub protocol: Protocol,
    pub location: Location,
    /// Share of the requests beside the other endpoints. Default 1, 1 to 1000.
    pub weight: u32,
}

/// Where an endpoint is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Location {
    /// Host name or IP address without brackets, and port.
    Host { host: String, port: u16 },
    /// A Unix socket; never under TLS.
    Unix(PathBuf),
}

impl Endpoint {
    /// `host:port`, IPv6 in brackets; what a request without Host is for. `localhost` for a Unix socket.
    #[must_use]
    pub fn authority(&self) -> String {
        match &self.location {
            location @ Location::Host { .. } => location.to_string(),
            Location::Unix(_) => "localhost".to_owned(),
        }
    }

    /// The name that is resolved, if there is one.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        match &self.location {
            Location::Host { host, .. } => Some(host),
            Location::Unix(_) => None,
        }
    }
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Host { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Host { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let separator = if matches!(self.location, Location::Unix(_)) { "+" } else { "://" };
        write!(f, "{}{separator}{}", self.protocol.scheme(), self.location)
    }
}

/// What is spoken to an endpoint, as its URL's scheme says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// `h2c://`: HTTP/2 in the clear with prior knowledge (RFC 9113 §3.3).
    H2c,
    /// `h2://`: HTTP/2 over TLS, `h2` required by ALPN.
    H2Tls,
    /// `http1://`: HTTP/1.1 in the clear, one request at a time on each connection.
    Http1,
    /// `http://`: h2c if the service answers to its preface, else HTTP/1.1.
    Http,
    /// `https://`: what the service chooses by ALPN (RFC 7301), HTTP/1.1 if it does not choose.
    Https,
}

impl Protocol {
    #[must_use]
    pub const fn scheme(self) -> &'static str {
        match self {
            Self::H2c => "h2c",
            Self::H2Tls => "h2",
            Self::Http1 => "http1",
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    #[must_use]
    pub const fn is_tls(self) -> bool {
        matches!(self, Self::H2Tls | Self::Https)
    }

    /// Whether the service is to be asked which HTTP it speaks.
    #[must_use]
    pub const fn is_discovered(self) -> bool {
        matches!(self, Self::Http | Self::Https)
    }
}

/// How an endpoint is picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Balance {
    /// By weight, in turn.
    RoundRobin,
    /// The fewest requests in flight from this worker per weight; ties in turn. The default.
    #[default]
    LeastRequests,
}

/// The connections to one endpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Pool {
    /// Connections kept open although idle, in the whole process per endpoint. Default 0.
    pub min_connections: u32,
    /// Connections in the whole process per endpoint that speaks HTTP/2. Default 4.
    pub max_connections: u32,
    /// The same where HTTP/1.1 is spoken, and a connection carries one request at a time: the same number if one is
    /// given or only one HTTP can be spoken, else 128.
    pub max_http1_connections: u32,
    /// Connections for one upgrade each, in the whole process per endpoint, beside the others. Default 1024.
    pub max_tunnel_connections: u32,
    /// Our limit beside the peer's `SETTINGS_MAX_CONCURRENT_STREAMS`; the smaller holds. Default 100.
    pub max_streams_per_connection: u32,
    /// An HTTP/2 connection that has carried so many is replaced. Default 10^9, a little below the end of the stream ids.
    pub max_requests_per_connection: u32,
    /// Requests that may wait for a stream, in the whole process per endpoint. Default 1024.
    pub max_pending: u32,
    /// How long one may wait. Default 1 s.
    pub pending_timeout: Duration,
    /// An idle connection above `min_connections` is closed after this. Default 5 min.
    pub idle_timeout: Duration,
    /// An HTTP/2 connection takes no new streams after this, give or take a tenth. `None`: never. Default 1 h.
    pub max_age: Option<Duration>,
    pub ping: Ping,
}

/// How a connection whose peer has vanished without a word is found out.
#[derive(Debug, Clone, PartialEq)]
pub struct Ping {
    /// A connection with open streams that has been silent for so long is asked. `None`: never. Default 20 s.
    pub interval: Option<Duration>,
    /// It is given up if it stays silent for so long after that. Default 5 s.
    pub timeout: Duration,
}

/// How an `h2://` or `https://` endpoint proves who it is, and how this proxy does.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct UpstreamTls {
    pub ca: CaSource,
    /// Name to verify and to send as SNI; `None`: the endpoint's host.
    pub server_name: Option<String>,
    /// Shown to services that ask for a certificate; `None`: they get none.
    pub client: Option<Identity>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub enum CaSource {
    /// The operating system's roots.
    #[default]
    System,
    /// A PEM file.
    File(PathBuf),
}

/// Where operators look. Both are closed unless an address is given.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Admin {
    /// Everything, including what changes the process: loopback only by advice.
    pub address: Option<SocketAddr>,
    /// `/livez`, `/readyz`, `/startupz`, `/metrics` only: safe on the pod's address.
    pub probes: Option<SocketAddr>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Shutdown {
    /// Between "not ready" and the first closed connection, for the load balancer to notice. Default 0 s.
    pub delay: Duration,
    /// Running requests are cut after this. Default 25 s, below Kubernetes' 30 s.
    pub timeout: Duration,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Logs {
    /// Default info.
    pub level: tracing::Level,
    pub access: AccessLog,
}

#[derive(Debug, Clone, PartialEq)]
pub struct AccessLog {
    pub only: AccessLogOnly,
    pub format: AccessLogFormat,
    pub output: AccessLogOutput,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AccessLogOnly {
    All,
    /// Faults, and answers with status 500 and above. The default.
    #[default]
    Failures,
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AccessLogFormat {
    #[default]
    Json,
    Text,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum AccessLogOutput {
    #[default]
    Stdout,
    Stderr,
    File(PathBuf),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Runtime {
    pub workers: Workers,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Workers {
    /// One per core that the process may use, respecting the cgroup's CPU quota.
    #[default]
    Auto,
    /// 1 to 256.
    Count(u16),
}
