//! The validated configuration: what every value means, its unit, its default and why.
//!
//! A [`Config`] is valid by construction: [`load`] builds it from YAML, [`from_flags`] from the flags of `trunkline
//! proxy`, and both refuse everything that the data plane could not serve. The environment is the caller's
//! function; the only files read are the configuration itself ([`Source::read`]) and the certificates that it names.
//!
//! From text to [`Config`]: `source` (the text), `yaml` (a tree with positions), `keys` (what may be written, declared
//! by `section`, read by `decode` with `rules`, `collections`, `parse` and `expand`), `schema` (the order of the steps),
//! `assemble` (put together, with `marks` where it stood), `check` (fits together). And back: `print` (the effective
//! configuration), `outline` (defaults and JSON Schema).
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
mod listener;
mod marks;
mod outline;
mod parse;
mod print;
mod rules;
mod schema;
mod section;
mod source;
mod trust;
mod upstream;
mod yaml;

pub use diagnostic::{Diagnostic, Diagnostics, Severity};
pub use flags::{Flags, from_flags};
pub use listener::{Alpn, ListenAddress, Listener, ListenerTls, ProxyProtocol, TlsVersion};
pub use outline::{defaults, full, schema};
pub use print::{Secrets, print};
pub use schema::{admin, load};
pub use source::{Environment, Source, Span, VARIABLE, find};
pub use trust::TrustedPeer;
pub use upstream::{Balance, CaSource, Endpoint, Location, Ping, Pool, Protocol, RetryBudget, Upstream, UpstreamTls};

use std::net::SocketAddr;
use std::path::PathBuf;
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

/// A certificate and its key, both PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// With the certificates of its issuers behind it, up to the root.
    pub cert: PathBuf,
    pub key: PathBuf,
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
