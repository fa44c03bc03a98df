//! Ports of 127.0.0.1 for services that want to be told theirs.

use std::fmt;
use std::net::SocketAddr;

use socket2::{Domain, Socket, Type};

/// A port that no other program can be given while this lives.
///
/// On Linux two sockets may share an address as long as both allow it and at most one listens: this one never does, and
/// nginx and nghttpd allow it.
pub struct ReservedAddress {
    _holder: Socket,
    address: SocketAddr,
}

impl ReservedAddress {
    pub fn new() -> Self {
        let holder = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        holder.set_reuse_address(true).unwrap();
        holder.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let address = holder.local_addr().unwrap().as_socket().expect("an IP socket");
        Self { _holder: holder, address }
    }

    pub fn socket_address(&self) -> SocketAddr {
        self.address
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }
}

impl fmt::Display for ReservedAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}
