//! Clients, on the test's runtime: a well-behaved one of each HTTP, one that sends any bytes, and one that sends any frames.

mod h1;
pub mod h2;
mod raw;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

pub use self::h1::Client;
pub use self::h2::Client as H2Client;
pub use self::raw::RawClient;
use super::scripted::frame::{SETTINGS, encode};
use super::scripted::{PREFACE, Peer};
use super::watched::within;
use super::wire::{Socket, Wire};

/// Opens a keep-alive connection that sends well-formed requests.
pub async fn h1(address: SocketAddr) -> Client {
    Client::new(plain(address).await, address.to_string())
}

/// As [`h1`], from an address of this machine.
pub async fn h1_from(source: IpAddr, address: SocketAddr) -> Client {
    let connecting = Socket::connect_from(source, address);
    Client::new(Wire::new(within("connection", connecting).await.expect("the address accepts")), address.to_string())
}

pub async fn h1_tls(address: SocketAddr, connector: &TlsConnector) -> Client {
    Client::new(tls(address, connector).await, format!("localhost:{}", address.port()))
}

/// Opens an HTTP/2 connection with prior knowledge.
pub async fn h2(address: SocketAddr) -> H2Client {
    h2_with(address, |_| {}).await
}

/// As [`h2`], with settings of its own.
pub async fn h2_with(address: SocketAddr, set: impl FnOnce(&mut ::h2::client::Builder)) -> H2Client {
    let socket = within("connection", Socket::connect(address)).await.expect("the address accepts");
    H2Client::with(socket, format!("http://{address}"), set).await
}

/// Opens an HTTP/2 connection over TLS; `connector` has to offer `h2`.
pub async fn h2_tls(address: SocketAddr, connector: &TlsConnector) -> H2Client {
    let socket =
        within("TLS handshake", Socket::connect_tls(address, connector)).await.expect("the handshake succeeds");
    H2Client::new(socket, format!("https://localhost:{}", address.port())).await
}

/// Opens an HTTP/2 connection frame by frame; preface and SETTINGS have been exchanged.
pub async fn frames(address: SocketAddr) -> Peer {
    let stream = within("connection", TcpStream::connect(address)).await.expect("the address accepts");
    stream.set_nodelay(true).unwrap();
    let mut peer = Peer::client(stream);
    peer.raw(PREFACE).await;
    peer.raw(encode(SETTINGS, 0, 0, &[])).await;
    peer.expect_settings().await;
    peer
}

/// As [`h1_tls`], asking for `name`; an error if the handshake fails.
pub async fn try_h1_tls(address: SocketAddr, connector: &TlsConnector, name: &str) -> io::Result<Client> {
    let socket = within("TLS handshake", Socket::connect_tls_to(address, connector, name)).await?;
    Ok(Client::new(Wire::new(socket), name.to_owned()))
}

/// Opens a connection over TLS behind `first`, which comes in the clear.
pub async fn raw_tls_behind(first: &[u8], address: SocketAddr, connector: &TlsConnector) -> RawClient {
    let connecting = Socket::connect_behind(first, address, Some(connector));
    RawClient::new(Wire::new(within("TLS handshake", connecting).await.expect("the handshake succeeds")))
}

/// As [`h2`], behind `first`.
pub async fn h2_behind(first: &[u8], address: SocketAddr) -> H2Client {
    let connecting = Socket::connect_behind(first, address, None);
    let socket = within("connection", connecting).await.expect("the address accepts");
    H2Client::new(socket, format!("http://{address}")).await
}

/// As [`h1`], over a Unix socket.
pub async fn h1_unix(path: &Path) -> Client {
    Client::new(Wire::new(unix(path).await), "localhost".to_owned())
}

/// As [`h2`], over a Unix socket.
pub async fn h2_unix(path: &Path) -> H2Client {
    H2Client::new(unix(path).await, "http://localhost".to_owned()).await
}

pub async fn raw_unix(path: &Path) -> RawClient {
    RawClient::new(Wire::new(unix(path).await))
}

async fn unix(path: &Path) -> Socket {
    within("connection", Socket::connect_unix(path)).await.expect("the path accepts")
}

/// Opens a connection that sends whatever bytes it is given.
pub async fn raw(address: SocketAddr) -> RawClient {
    RawClient::new(plain(address).await)
}

pub async fn raw_tls(address: SocketAddr, connector: &TlsConnector) -> RawClient {
    RawClient::new(tls(address, connector).await)
}

async fn plain(address: SocketAddr) -> Wire {
    Wire::new(within("connection", Socket::connect(address)).await.expect("the address accepts"))
}

async fn tls(address: SocketAddr, connector: &TlsConnector) -> Wire {
    Wire::new(within("TLS handshake", Socket::connect_tls(address, connector)).await.expect("the handshake succeeds"))
}
