//! Listening sockets: one per worker for each listener, or one for an admin address.
//!
//! Runs on control, or on whoever starts the process.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use super::StartError;

/// Connections that wait to be accepted; the kernel lowers it to net.core.somaxconn.
const BACKLOG: i32 = 4096;

/// Binds one socket per worker to one address (`SO_REUSEPORT`), non-blocking, listening.
///
/// # Errors
/// The address is taken by another process, even by one that would share it: two proxies that share a port by accident
/// would each get a random half of the clients. `is_ours` says that this process itself listens there.
pub(super) fn bind_shared(
    what: &str,
    address: SocketAddr,
    workers: usize,
    is_ours: bool,
) -> Result<Vec<TcpListener>, StartError> {
    let bind = || -> io::Result<Vec<TcpListener>> {
        if !is_ours {
            // Without SO_REUSEPORT this fails whenever anyone listens there.
            drop(bound(address, false)?);
        }
        let first = listening(bound(address, true)?)?;
        // The port that the kernel chose, when 0 was asked for.
        let address = first.local_addr()?;
        let mut sockets = vec![first];
        for _ in 1..workers {
            sockets.push(listening(bound(address, true)?)?);
        }
        Ok(sockets)
    };
    bind().map_err(|error| StartError::Bind { what: what.to_owned(), address, error })
}

/// Binds one socket, non-blocking, listening.
///
/// # Errors
/// The address cannot be had.
pub(super) fn bind_one(what: &str, address: SocketAddr) -> Result<TcpListener, StartError> {
    bound(address, false).and_then(listening).map_err(|error| StartError::Bind {
        what: what.to_owned(),
        address,
        error,
    })
}

fn bound(address: SocketAddr, is_shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of a former process in TIME_WAIT must not keep the address.
    socket.set_reuse_address(true)?;
    if is_shared {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

fn listening(socket: Socket) -> io::Result<TcpListener> {
    socket.set_nonblocking(true)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_another_process_would_share_is_refused() {
        let first = bind_shared("first", SocketAddr::from(([127, 0, 0, 1], 0)), 2, false).unwrap();
        let address = first[0].local_addr().unwrap();
        assert_eq!(first[1].local_addr().unwrap(), address);
        let refused = bind_shared("second", address, 2, false).unwrap_err().to_string();
        assert!(refused.contains("in use"), "{refused}");
    }
}
