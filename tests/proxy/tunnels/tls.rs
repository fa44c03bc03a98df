//! WebSockets of HTTP/1.1 clients over TLS: what TLS has read ahead or holds back is part of the tunnel.
//!
//! RFC 8446 §6.1.

use std::collections::BTreeMap;

use tempfile::TempDir;
use tokio_rustls::TlsConnector;
use trunkline::control::Ending;

use super::{echoing, over};
use crate::harness::client::RawClient;
use crate::harness::origin::exchange::Exchange;
use crate::harness::proxy::Proxy;
use crate::harness::scripted::frame::{ENABLE_CONNECT_PROTOCOL, END_STREAM, OPEN};
use crate::harness::scripted::{self, Peer, Service};
use crate::harness::tls::Identity;
use crate::harness::websocket::{self, BINARY, Frame, TEXT, WebSocket};
use crate::harness::wire::Broken;
use crate::harness::{client, origin, proxy};

/// A proxy whose listener speaks TLS.
struct Serving {
    proxy: Proxy,
    connector: TlsConnector,
    _folder: TempDir,
}

impl Serving {
    fn before(endpoint: &str) -> Self {
        let identity = Identity::new();
        let folder = tempfile::tempdir().unwrap();
        let (cert, key) = identity.store(folder.path(), "one");
        let proxy = proxy::on_one_worker(&format!(
            "listeners: [{{ address: 127.0.0.1:0, tls: {{ certificates: [{{ cert: {}, key: {} }}] }} }}]\n\
             upstreams: {{ up: {{ endpoints: [\"{endpoint}\"] }} }}\nshutdown: {{ timeout: 3s }}",
            cert.display(),
            key.display()
        ));
        Self { proxy, connector: identity.connector(&["http/1.1"]), _folder: folder }
    }

    async fn open(&self) -> WebSocket {
        websocket::open_tls(self.proxy.address(), &self.connector, "/").await
    }

    /// A client that has asked for a WebSocket, and says `more` in the same breath.
    async fn ask(&self, more: &[u8]) -> RawClient {
        let mut client = client::raw_tls(self.proxy.address(), &self.connector).await;
        let head = format!(
            "GET / HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: {}\r\n\r\n",
            websocket::KEY
        );
        client.send([head.as_bytes(), more].concat()).await;
        client
    }
}

/// A tunnel to a scripted service: the stream that it is there.
async fn opened() -> (Serving, RawClient, Peer, u32) {
    let (serving, service) = scripted_service().await;
    let mut peer = service.accept_with(&[(ENABLE_CONNECT_PROTOCOL, 1)]).await;
    let mut client = serving.ask(b"").await;
    let stream = peer.expect_headers().await.stream;
    peer.headers(stream, 200, &[], OPEN).await;
    assert_eq!(client.expect_head().await.status(), Ok(101));
    (serving, client, peer, stream)
}

async fn scripted_service() -> (Serving, Service) {
    let service = scripted::service().await;
    (Serving::before(&format!("h2c://{service}")), service)
}

#[tokio::test]
async fn messages_of_every_length_and_the_close_code_pass_to_services_of_either_http() {
    let (over_http2, over_http1) = (echoing(), websocket::echo_h1().await);
    for upstream in [format!("h2c://{over_http2}"), format!("http1://{over_http1}")] {
        let serving = Serving::before(&upstream);
        let mut socket = serving.open().await;
        for length in [0, 1, 125, 126, 16_384, 65_536, 3_000_000] {
            let frame = Frame::new(BINARY, vec![7; length]);
            socket.send(&frame).await;
            assert_eq!(socket.recv().await, frame, "{length} bytes by {upstream}");
        }
        socket.close(4321).await;
        over(&serving.proxy).await;
        assert_eq!(serving.proxy.faults(), BTreeMap::new());
    }
}

#[tokio::test]
async fn what_comes_with_the_handshake_or_before_its_answer_is_whole() {
    let (serving, service) = scripted_service().await;
    let mut peer = service.accept_with(&[(ENABLE_CONNECT_PROTOCOL, 1)]).await;
    let mut client = serving.ask(b"with it, ").await;
    let stream = peer.expect_headers().await.stream;
    // The look for a client that leaves reads one byte ahead.
    client.send("before the answer, ").await;
    let mut other = client::h1_tls(serving.proxy.address(), &serving.connector).await;
    other.start(&http::Request::get("/").body(()).unwrap(), false).await.unwrap();
    let request = peer.expect_headers().await;
    peer.answer(&request, 200, "").await;
    assert_eq!(other.head().await.unwrap().status(), Ok(200));
    peer.headers(stream, 200, &[], OPEN).await;
    assert_eq!(client.expect_head().await.status(), Ok(101));
    client.send("behind it").await;
    client.shutdown_write().await;
    assert_eq!(peer.expect_body(stream).await, "with it, before the answer, behind it");
}

#[tokio::test]
async fn the_clients_end_passes_and_the_service_goes_on() {
    let (serving, mut client, mut peer, stream) = opened().await;
    client.send("up").await;
    client.shutdown_write().await;
    assert_eq!(peer.expect_body(stream).await, "up");
    peer.data(stream, "down", OPEN).await;
    assert_eq!(client.some().await.unwrap(), "down");
    peer.data(stream, "last", END_STREAM).await;
    assert_eq!(client.read_to_end().await.unwrap(), b"last");
    assert!(!client.is_cut());
    over(&serving.proxy).await;
    assert_eq!(serving.proxy.faults(), BTreeMap::new());
}

#[tokio::test]
async fn the_services_end_passes_and_the_client_goes_on() {
    let (serving, mut client, mut peer, stream) = opened().await;
    peer.data(stream, "down", END_STREAM).await;
    assert_eq!(client.read_to_end().await.unwrap(), b"down");
    assert!(!client.is_cut());
    client.send("up").await;
    assert_eq!(peer.expect_data(stream).await, ("up".into(), false));
    client.shutdown_write().await;
    assert_eq!(peer.expect_body(stream).await, "");
    over(&serving.proxy).await;
    assert_eq!(serving.proxy.faults(), BTreeMap::new());
}

#[tokio::test]
async fn a_stream_that_is_reset_resets_its_client() {
    let (serving, mut client, peer, stream) = opened().await;
    peer.rst_stream(stream, h2::Reason::INTERNAL_ERROR).await;
    assert_eq!(client.some().await, Err(Broken::Reset));
    serving.proxy.expect_fault("body_cut").await;
}

#[tokio::test]
async fn a_client_that_is_gone_resets_its_stream() {
    let (serving, client, mut peer, stream) = opened().await;
    client.abort();
    assert_eq!(peer.expect_rst(stream).await, h2::Reason::CANCEL);
    serving.proxy.expect_fault("client_gone").await;
}

/// Far more than the sockets hold: some of it waits in TLS when the service ends.
#[tokio::test]
async fn a_client_that_reads_late_gets_all_that_came_before_the_close_frame_and_the_end() {
    const MESSAGES: usize = 400;
    let origin = origin::h2().handler(|mut exchange: Exchange| async move {
        if exchange.head.method != "CONNECT" {
            return exchange.answer(exchange.response(200), "").await;
        }
        exchange.start(exchange.response(200))?;
        for _ in 0..MESSAGES {
            exchange.send(Frame::new(BINARY, vec![7; 50_000]).bytes(false)).await?;
        }
        exchange.finish(Frame::close(1000).bytes(false)).await
    });
    let origin = origin.windows(1 << 24, 1 << 24).start();
    let serving = Serving::before(&format!("h2c://{origin}"));
    let mut socket = serving.open().await;
    let mut other = client::h1_tls(serving.proxy.address(), &serving.connector).await;
    assert_eq!(other.get("/").await.status(), 200);
    for message in 0..MESSAGES {
        assert_eq!(socket.recv().await.payload.len(), 50_000, "message {message}");
    }
    assert_eq!(socket.recv().await, Frame::close(1000));
    assert_eq!(socket.next().await, Ok(None));
    socket.send(&Frame::close(1000)).await;
    drop(socket);
    over(&serving.proxy).await;
}

#[tokio::test]
async fn a_drain_tells_websockets_to_go_and_lets_them_end() {
    let origin = echoing();
    let mut serving = Serving::before(&format!("h2c://{origin}"));
    let mut socket = serving.open().await;
    socket.expect_echo("hello").await;
    // In the middle of a message, whose rest the client says after it has been told.
    let [first, second] = [Frame::new(TEXT, "begun"), Frame::close(1001)].map(|frame| frame.bytes(true));
    socket.send_bytes(&first[..4]).await;
    serving.proxy.drain();
    assert_eq!(socket.recv().await, Frame::close(1001));
    socket.send_bytes(&[&first[4..], &second].concat()).await;
    assert_eq!(socket.next().await, Ok(None));
    assert_eq!(serving.proxy.join().await, Ending { cut_connections: 0 });
    assert_eq!(origin.log().ended(origin::log::Ending::Complete), 1);
}
