//! A socket that clients connect to, before it belongs to a worker's runtime and after.
//!
//! TCP sockets are each worker's own. Of a Unix socket there is only one, which all workers accept from: a connection wakes
//! them all, and one has it.
//!
//! Used by all workers. Knows no listener.

use std::io;
use std::os::unix::net::UnixListener as StdUnixListener;

use tokio::net::{TcpListener, UnixListener};

use super::peer::Peer;
use super::transport::{Accepted, Transport};

/// A socket that belongs to no runtime. Non-blocking, listening.
pub enum ListeningSocket {
    Tcp(std::net::TcpListener),
    Unix(StdUnixListener),
}

/// The same in a worker's runtime.
pub(crate) enum Listening {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl ListeningSocket {
    /// Takes the next connection if one waits.
    pub(crate) fn accept(&self) -> io::Result<(Transport, Peer)> {
        let (accepted, peer) = match self {
            Self::Tcp(socket) => {
                let (stream, peer) = socket.accept()?;
                stream.set_nonblocking(true)?;
                (Accepted::Tcp(stream), Peer::Tcp(peer))
            }
            Self::Unix(socket) => {
                let (stream, _) = socket.accept()?;
                stream.set_nonblocking(true)?;
                (Accepted::Unix(stream), Peer::Unix)
            }
        };
        Ok((Transport::from_accepted(accepted)?, peer))
    }
}

impl Listening {
    pub(crate) fn new(socket: ListeningSocket) -> io::Result<Self> {
        match socket {
            ListeningSocket::Tcp(socket) => TcpListener::from_std(socket).map(Self::Tcp),
            ListeningSocket::Unix(socket) => UnixListener::from_std(socket).map(Self::Unix),
        }
    }

    pub(crate) async fn accept(&self) -> io::Result<(Transport, Peer)> {
        match self {
            Self::Tcp(socket) => {
                let (stream, peer) = socket.accept().await?;
                Ok((Transport::Tcp(stream), Peer::Tcp(peer)))
            }
            Self::Unix(socket) => {
                let (stream, _) = socket.accept().await?;
                Ok((Transport::Unix(stream), Peer::Unix))
            }
        }
    }

    pub(crate) fn into_socket(self) -> io::Result<ListeningSocket> {
        match self {
            Self::Tcp(socket) => socket.into_std().map(ListeningSocket::Tcp),
            Self::Unix(socket) => socket.into_std().map(ListeningSocket::Unix),
        }
    }
}
