//! Clients, on the test's runtime: a well-behaved HTTP/1.1 one, and one that sends any bytes.

mod h1;
mod raw;

use std::net::{IpAddr, SocketAddr};

use tokio_rustls::TlsConnector;

pub use self::h1::Client;
pub use self::raw::RawClient;
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
