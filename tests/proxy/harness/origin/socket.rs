//! Addresses that stay ours while nobody listens, and sockets that close with a reset.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};
use tokio::net::TcpStream;

/// A port of 127.0.0.1 that no other test can take; it refuses connections until [`ReservedAddress::listen`].
///
/// On Linux two sockets may share an address as long as both allow it and at most one listens: the first one
/// here never does.
pub struct ReservedAddress {
    _holder: Socket,
    address: SocketAddr,
}

impl ReservedAddress {
    pub fn new() -> Self {
        let holder = bound(SocketAddr::from(([127, 0, 0, 1], 0)));
        let address = holder.local_addr().unwrap().as_socket().expect("an IP socket");
        Self { _holder: holder, address }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn listen(&self) -> TcpListener {
        let socket = self.listen_with(4096);
        socket.set_nonblocking(true).unwrap();
        socket.into()
    }

    /// Listens with a queue of this length, for connections that nobody will accept.
    pub fn listen_with(&self, backlog: i32) -> Socket {
        let socket = bound(self.address);
        socket.listen(backlog).unwrap();
        socket
    }
}

fn bound(address: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&address.into()).unwrap();
    socket
}

/// A second descriptor of a socket that a protocol library has swallowed.
pub struct Resetter(OwnedFd);

impl Resetter {
    pub fn new(stream: &TcpStream) -> Self {
        Self(stream.as_fd().try_clone_to_owned().expect("the test's descriptors suffice"))
    }

    /// Awaits `serving`, whose end drops its socket; that close is a reset if `is_reset` says so.
    pub async fn reset_if<T>(self, serving: impl Future<Output = T>, is_reset: impl FnOnce(&T) -> bool) -> T {
        let output = serving.await;
        if is_reset(&output) {
            reset_on_close(&self.0);
        }
        output
    }
}

/// Makes the close of this socket a reset (RST) instead of an orderly end (FIN).
pub fn reset_on_close(socket: &impl AsFd) {
    // The peer may have reset it before: then there is nothing to arrange.
    _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
}
