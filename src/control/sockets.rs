//! Listening sockets: one per worker for each listener, or one for an admin address.
//!
//! Runs on control, or on whoever starts the process.

mod unix;

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

pub(super) use self::unix::UnixBinding;
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
        // Without SO_REUSEPORT one of these two fails whenever anyone listens there. Set afterwards it lets our other
        // sockets in, and nobody who asks in the same way: not even a process that starts at the same moment.
        let first = bound(address, is_ours)?;
        listen(&first)?;
        first.set_reuse_port(true)?;
        let first = TcpListener::from(first);
        // The port that the kernel chose, when 0 was asked for.
        let address = first.local_addr()?;
        let mut sockets = vec![first];
        for _ in 1..workers {
            sockets.push(listening(bound(address, true)?)?);
        }
        Ok(sockets)
    };
    bind().map_err(|error| StartError::Bind { what: what.to_owned(), address: address.into(), error })
}

/// Binds one socket, non-blocking, listening.
///
/// # Errors
/// The address cannot be had.
pub(super) fn bind_one(what: &str, address: SocketAddr) -> Result<TcpListener, StartError> {
    bound(address, false).and_then(listening).map_err(|error| StartError::Bind {
        what: what.to_owned(),
        address: address.into(),
        error,
    })
}

fn bound(address: SocketAddr, is_shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of a former process in TIME_WAIT must not keep the address.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // `::` takes clients of IPv4 too, whatever the system's default: who checks the configuration counts on it.
        socket.set_only_v6(false)?;
    }
    if is_shared {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

fn listening<T: From<Socket>>(socket: Socket) -> io::Result<T> {
    listen(&socket)?;
    Ok(socket.into())
}

fn listen(socket: &Socket) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    socket.listen(BACKLOG)
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

    #[test]
    fn clients_are_spread_over_the_sockets() {
        let sockets = bind_shared("all", SocketAddr::from(([127, 0, 0, 1], 0)), 3, false).unwrap();
        let address = sockets[0].local_addr().unwrap();
        let clients: Vec<_> = (0..100).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
        let accepted = sockets.iter().map(|socket| std::iter::from_fn(|| socket.accept().ok()).count());
        let accepted: Vec<_> = accepted.collect();
        assert!(accepted.iter().all(|count| *count > 0), "{accepted:?}");
        assert_eq!(accepted.iter().sum::<usize>(), clients.len());
    }

    #[test]
    fn of_many_who_bind_an_address_at_one_moment_one_has_it() {
        for _ in 0..50 {
            let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let bound = std::thread::scope(|scope| {
                let all: Vec<_> = (0..4).map(|_| scope.spawn(|| bind_shared("one", free, 2, false).ok())).collect();
                all.into_iter().filter_map(|one| one.join().unwrap()).collect::<Vec<_>>()
            });
            assert!(bound.len() <= 1, "{} have it", bound.len());
            for socket in bound.iter().flatten() {
                assert_eq!(socket.local_addr().unwrap(), free);
            }
        }
    }
}
