//! The services, and how connections to them are kept.
//!
//! Pure.

use std::path::PathBuf;
use std::time::Duration;

use super::Identity;

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
