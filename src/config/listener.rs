//! Where clients connect, and on what terms.
//!
//! Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{Identity, Location, TrustedPeer};

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

    /// Whether a connection to `location` comes out here, as far as that shows without the machine's names and addresses.
    /// `localhost` is taken for both of its own.
    #[must_use]
    pub fn is_reached_by(&self, location: &Location) -> bool {
        match location {
            Location::Host { host, port } => {
                let to = |ip: IpAddr| Self::Tcp(SocketAddr::new(ip, *port)).overlaps(self);
                let local = [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()];
                if host == "localhost" {
                    return local.into_iter().any(to);
                }
                host.parse()
                    .is_ok_and(|ip: IpAddr| to(ip) && (ip.is_loopback() || self.tcp().is_some_and(|it| it.ip() == ip)))
            }
            Location::Unix(path) => matches!(self, Self::Unix(here) if here == path),
        }
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
