//! Where a client is, as far as it is known and believed.
//!
//! RFC 4291 §2.5.5.2 (IPv4 addresses written as IPv6 ones are the IPv4 addresses).

use std::fmt;
use std::net::IpAddr;

/// An IP address, or the other end of a Unix socket, which has none: all such clients are one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClientAddress {
    /// Canonical: never an IPv4 address in the form of an IPv6 one.
    Ip(IpAddr),
    Unix,
}

impl From<IpAddr> for ClientAddress {
    fn from(ip: IpAddr) -> Self {
        Self::Ip(ip.to_canonical())
    }
}

impl fmt::Display for ClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Unix => f.write_str("unix"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_address_is_the_ipv4_address() {
        let address = |text: &str| ClientAddress::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(address("::ffff:10.0.0.1"), address("10.0.0.1"));
        assert_eq!(address("::ffff:10.0.0.1").to_string(), "10.0.0.1");
        assert_eq!(ClientAddress::Unix.to_string(), "unix");
    }
}
