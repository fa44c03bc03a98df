//! A hand-made HTTP/2 server that sends and expects frames, one by one.
//!
//! ```ignore
//! let service = scripted::service().await;            // `upstream: h2c://{service}`
//! let mut peer = service.accept().await;
//! peer.expect_preface().await;
//! peer.settings(&[(MAX_CONCURRENT_STREAMS, 1)]).await;
//! let request = peer.expect_headers().await;
//! peer.headers(request.stream, 200, &[("x-request-id", request.field("x-request-id"))], END_STREAM).await;
//! peer.goaway(request.stream, Reason::NO_ERROR).await;
//! peer.expect_closed().await;
//! ```
//!
//! Runs on the test's runtime. It knows frames and nothing of streams' states, so it can break every rule.
//! RFC 9113 §4, §6.

mod connection;
pub mod frame;
mod peer;

use std::fmt;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};

pub use self::connection::PREFACE;
pub use self::frame::{Frame, Head};
pub use self::peer::Peer;
use super::watched::within;

/// Listens on a free port of 127.0.0.1.
pub async fn service() -> Service {
    Service { listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
}

/// Where scripted peers come from: each connection is one.
pub struct Service {
    listener: TcpListener,
}

impl Service {
    pub fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// Waits for the next connection; nothing is sent yet.
    pub async fn accept(&self) -> Peer {
        let (stream, _) = within("connection", self.listener.accept()).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Peer::new(stream)
    }

    /// Waits for the next connection, which need not speak HTTP/2.
    pub async fn accept_stream(&self) -> TcpStream {
        within("connection", self.listener.accept()).await.unwrap().0
    }

    /// Waits for the next connection, reads its preface, and sends these SETTINGS.
    pub async fn accept_with(&self, settings: &[(u16, u32)]) -> Peer {
        let mut peer = self.accept().await;
        peer.expect_preface().await;
        peer.settings(settings).await;
        peer
    }

    /// As [`Service::accept_with`] without settings, for as long as it takes.
    pub async fn accept_any_time(&self) -> Peer {
        let (stream, _) = self.listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut peer = Peer::new(stream);
        peer.expect_preface().await;
        peer.settings(&[]).await;
        peer
    }

    /// Stops listening: the port refuses from now on.
    pub fn close(self) {
        drop(self.listener);
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address().fmt(f)
    }
}
