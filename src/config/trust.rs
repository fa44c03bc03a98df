//! Who may say where a request comes from.
//!
//! Pure.

use std::fmt;

use ipnet::IpNet;

/// A part of `trust_forwarded_from`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrustedPeer {
    /// An address is a network of one. IPv4 is never written as IPv6 here.
    Network(IpNet),
    /// Whoever connects over a Unix socket.
    Unix,
}

impl fmt::Display for TrustedPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(network) if network.prefix_len() == network.max_prefix_len() => network.addr().fmt(f),
            Self::Network(network) => network.fmt(f),
            Self::Unix => f.write_str("unix"),
        }
    }
}
