//! The other end of a client connection.
//!
//! Used by all workers.

use std::fmt;
use std::net::SocketAddr;

use crate::translate::ClientAddress;

/// Who is connected, by the socket or, where that is believed, by the PROXY header on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    Tcp(SocketAddr),
    Unix,
}

impl Peer {
    pub(crate) fn address(self) -> ClientAddress {
        match self {
            Self::Tcp(address) => address.ip().into(),
            Self::Unix => ClientAddress::Unix,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix => f.write_str("unix"),
        }
    }
}
