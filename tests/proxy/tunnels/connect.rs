//! WebSockets of HTTP/2 clients: extended CONNECT in, either HTTP out.
//!
//! RFC 8441 §5.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use h2::Reason;
use h2::ext::Protocol;
use http::Request;
use trunkline::control::Ending;

use super::{before, echoing, over};
use crate::harness::client::H2Client;
use crate::harness::client::h2::{Broken, Stream};
use crate::harness::origin::raw_h1::RawConnection;
use crate::harness::proxy::Proxy;
use crate::harness::scripted::frame::{ENABLE_CONNECT_PROTOCOL, END_STREAM, OPEN};
use crate::harness::scripted::{self, Peer};
use crate::harness::tls::Identity;
use crate::harness::websocket::{self, BINARY, Frame};
use crate::harness::{client, origin, proxy};

async fn connected(proxy: &Proxy) -> H2Client {
    let client = client::h2(proxy.address()).await;
    client.may_connect().await;
    client
}

/// A client that has asked, and the connection on which the service was asked.
async fn asked_in_http1() -> (Proxy, H2Client, Stream, RawConnection) {
    let service = origin::raw_h1().await;
    let proxy = proxy::with(&format!("upstream: http1://{service}"));
    // The pool's own, by which it learns that the service is there.
    let pooled = service.accept().await;
    let client = connected(&proxy).await;
    let stream = client.open(websocket::connect(&client, "/chat"), false).await.unwrap();
    let connection = service.accept().await;
    drop(pooled);
    (proxy, client, stream, connection)
}

/// A tunnel between two streams: the client's, and the service's.
struct Tunnel {
    proxy: Proxy,
    client: H2Client,
    stream: Stream,
    peer: Peer,
    id: u32,
}

async fn opened(settings: &str) -> Tunnel {
    let service = scripted::service().await;
    let proxy = proxy::on_one_worker(&format!(
        "routes: [{{ upstream: up{settings} }}]\nupstreams: {{ up: {{ endpoints: [\"h2c://{service}\"] }} }}"
    ));
    let mut peer = service.accept_with(&[(ENABLE_CONNECT_PROTOCOL, 1)]).await;
    let client = connected(&proxy).await;
    let mut stream = client.open(websocket::connect(&client, "/"), false).await.unwrap();
    let request = peer.expect_headers().await;
    peer.headers(request.stream, 200, &[], OPEN).await;
    assert_eq!(stream.head().await.unwrap().status(), 200);
    Tunnel { proxy, client, stream, peer, id: request.stream }
}

impl Tunnel {
    /// The client's other streams go on.
    async fn expect_request_beside(&mut self) {
        let mut other = self.client.open(self.client.request("/").body(()).unwrap(), true).await.unwrap();
        let request = self.peer.expect_headers().await;
        self.peer.answer(&request, 200, "beside").await;
        assert_eq!(other.answer().await.unwrap().text(), "beside");
    }
}

const RESET: Broken = Broken { code: Some(Reason::CANCEL) };

#[tokio::test]
async fn a_websocket_is_a_stream_on_both_sides() {
    let origin = echoing();
    let proxy = before(&origin);
    let client = connected(&proxy).await;
    let mut request = websocket::connect(&client, "/chat?room=1");
    request.headers_mut().insert("sec-websocket-protocol", "mqtt".parse().unwrap());
    request.headers_mut().insert("sec-websocket-key", "of no meaning".parse().unwrap());
    let mut socket = websocket::open_on_as(&client, request).await;
    assert_eq!(socket.subprotocol.as_deref(), Some("mqtt"));
    socket.expect_echo("hello").await;
    {
        let log = origin.log();
        let request = &log.requests[0];
        assert_eq!((request.method.as_str(), &*request.target), ("CONNECT", "/chat?room=1"));
        assert_eq!(request.header("sec-websocket-version"), Some("13"));
        assert_eq!(request.header("sec-websocket-key"), None);
    }
    socket.close(1000).await;
    origin.wait_for(|log| log.ended(origin::log::Ending::Complete) == 1).await;
    assert_eq!(proxy.faults(), BTreeMap::new());
}

#[tokio::test]
async fn a_websocket_over_tls_reaches_services_of_either_http() {
    let identity = Identity::new();
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = identity.store(folder.path(), "one");
    let (over_http2, over_http1) = (echoing(), websocket::echo_h1().await);
    for upstream in [format!("h2c://{over_http2}"), format!("http1://{over_http1}")] {
        let proxy = proxy::with(&format!(
            "listeners: [{{ address: 127.0.0.1:0, tls: {{ certificates: [{{ cert: {}, key: {} }}] }} }}]\n\
             upstreams: {{ up: {{ endpoints: [\"{upstream}\"] }} }}",
            cert.display(),
            key.display()
        ));
        let client = client::h2_tls(proxy.address(), &identity.connector(&["h2"])).await;
        let mut socket = websocket::open_on(&client, "/").await;
        socket.expect_echo("hello").await;
        socket.close(1000).await;
    }
}

#[tokio::test]
async fn a_service_in_http1_is_given_a_key_and_its_hash_is_checked() {
    let mut keys = Vec::new();
    for is_right in [true, false] {
        let (_proxy, _client, mut stream, mut connection) = asked_in_http1().await;
        let head = connection.expect_head().await;
        assert_eq!(head.start, "GET /chat HTTP/1.1");
        assert_eq!((head.header("upgrade"), head.header("connection")), (Some("websocket"), Some("upgrade")));
        assert_eq!((head.header("transfer-encoding"), head.header("sec-websocket-version")), (None, Some("13")));
        let key = head.header("sec-websocket-key").unwrap();
        assert_eq!(BASE64_STANDARD.decode(key).unwrap().len(), 16);
        let switching = if is_right { websocket::switching_for(key) } else { websocket::switching() };
        connection.send(switching).await;
        assert_eq!(stream.head().await.unwrap().status(), if is_right { 200 } else { 502 });
        keys.push(key.to_owned());
    }
    assert_ne!(keys[0], keys[1]);
}

#[tokio::test]
async fn a_handshake_that_is_not_one_is_refused_and_the_connection_goes_on() {
    let origin = echoing();
    let proxy = before(&origin);
    let client = connected(&proxy).await;
    let request = || client.request("/head").method("CONNECT");
    let websocket = || request().extension(Protocol::from_static("websocket"));
    let plain = Request::builder().method("CONNECT").uri("a:80");
    for (request, status) in [
        (websocket(), 400),
        (websocket().header("sec-websocket-version", "8"), 426),
        (websocket().header("sec-websocket-version", "13").header("sec-websocket-version", "13"), 400),
        (websocket().header("sec-websocket-version", "13").header("content-length", "0"), 400),
        (request().extension(Protocol::from_static("connect-udp")), 501),
        (plain, 405),
    ] {
        let what = format!("{request:?}");
        let mut stream = client.open(request.body(()).unwrap(), false).await.unwrap();
        let answer = stream.answer().await.unwrap();
        assert_eq!(answer.status(), status, "{what}");
        assert_eq!(answer.header("sec-websocket-version"), if status == 426 { "13" } else { "" }, "{what}");
        assert!(answer.text().starts_with(&status.to_string()), "{what}");
    }
    assert_eq!(origin.log().requests.len(), 0);
    websocket::open_on(&client, "/").await.close(1000).await;
}

#[tokio::test]
async fn an_answer_that_is_no_consent_is_passed_on_unless_it_would_be_read_as_one() {
    let over_http1 = origin::h1().start();
    let over_http2 = origin::h2().start();
    for upstream in [format!("http1://{over_http1}"), format!("h2c://{over_http2}")] {
        let proxy = proxy::with(&format!("upstream: {upstream}"));
        let client = connected(&proxy).await;
        let mut stream = client.open(websocket::connect(&client, "/early/403"), false).await.unwrap();
        assert_eq!(stream.answer().await.unwrap().status(), 403);
        proxy.wait_for_metrics(|metrics| metrics.sum("trunkline_upstream_streams", &[]) == 0.0).await;
        assert_eq!(proxy.faults(), BTreeMap::new());
    }
    let proxy = proxy::with(&format!("upstream: http1://{over_http1}"));
    let client = connected(&proxy).await;
    let mut stream = client.open(websocket::connect(&client, "/status/201"), false).await.unwrap();
    let answer = stream.answer().await.unwrap();
    assert_eq!((answer.status(), answer.header("proxy-status")), (502, "trunkline; error=http_upgrade_failed"));
    assert_eq!(proxy.faults(), BTreeMap::from([("no_upgrade", 1)]));
}

#[tokio::test]
async fn bytes_that_come_before_consent_are_passed_after_it() {
    let (_proxy, _client, mut stream, mut connection) = asked_in_http1().await;
    stream.upload("early".into(), true).await.unwrap();
    let head = connection.expect_head().await;
    connection.send(websocket::switching_for(head.header("sec-websocket-key").unwrap())).await;
    assert_eq!(stream.head().await.unwrap().status(), 200);
    assert_eq!(connection.some().await.unwrap(), "early");
    assert_eq!(connection.some().await.unwrap(), "");
    connection.send("late").await;
    connection.close().await;
    assert_eq!(stream.part().await.unwrap().unwrap(), "late");
    assert_eq!(stream.part().await, Ok(None));
}

#[tokio::test]
async fn each_direction_ends_on_its_own() {
    let mut tunnel = opened("").await;
    tunnel.stream.upload("up".into(), true).await.unwrap();
    assert_eq!(tunnel.peer.expect_body(tunnel.id).await, "up");
    tunnel.peer.data(tunnel.id, "down", OPEN).await;
    assert_eq!(tunnel.stream.part().await.unwrap().unwrap(), "down");
    tunnel.peer.data(tunnel.id, "last", END_STREAM).await;
    assert_eq!(tunnel.stream.part().await.unwrap().unwrap(), "last");
    assert_eq!(tunnel.stream.part().await, Ok(None));
    over(&tunnel.proxy).await;

    let mut tunnel = opened("").await;
    tunnel.peer.data(tunnel.id, "down", END_STREAM).await;
    assert_eq!(tunnel.stream.part().await.unwrap().unwrap(), "down");
    assert_eq!(tunnel.stream.part().await, Ok(None));
    tunnel.stream.upload("up".into(), true).await.unwrap();
    assert_eq!(tunnel.peer.expect_body(tunnel.id).await, "up");
    over(&tunnel.proxy).await;
    assert_eq!(tunnel.proxy.faults(), BTreeMap::new());
}

#[tokio::test]
async fn a_reset_of_either_stream_is_one_of_the_other_and_of_no_third() {
    let mut tunnel = opened("").await;
    tunnel.peer.rst_stream(tunnel.id, Reason::INTERNAL_ERROR).await;
    assert_eq!(tunnel.stream.part().await, Err(RESET));
    tunnel.proxy.expect_fault("body_cut").await;
    tunnel.expect_request_beside().await;

    let mut tunnel = opened("").await;
    tunnel.stream.sending.send_reset(Reason::CANCEL);
    assert_eq!(tunnel.peer.expect_rst(tunnel.id).await, Reason::CANCEL);
    tunnel.proxy.expect_fault("client_gone").await;
    tunnel.expect_request_beside().await;
}

#[tokio::test]
async fn a_client_that_is_gone_ends_all_its_tunnels() {
    let Tunnel { proxy, client, stream, mut peer, id } = opened("").await;
    drop((client, stream));
    assert_eq!(peer.expect_rst(id).await, Reason::CANCEL);
    proxy.expect_fault("client_gone").await;
    over(&proxy).await;
}

#[tokio::test]
async fn a_tunnel_in_which_nothing_moves_is_given_up_and_its_connection_is_not() {
    let mut tunnel = opened(", timeouts: { stream_idle: 100ms }").await;
    assert_eq!(tunnel.stream.part().await, Ok(None));
    assert_eq!(tunnel.peer.expect_rst(tunnel.id).await, Reason::CANCEL);
    tunnel.proxy.expect_fault("stream_idle").await;
    tunnel.expect_request_beside().await;
}

#[tokio::test]
async fn a_stream_that_is_not_read_is_reset_and_its_siblings_go_on() {
    let mut tunnel = opened(", timeouts: { stream_idle: 100ms }").await;
    let (window, piece) = (65_535, vec![0; 10_000]);
    for _ in 0..window / piece.len() {
        tunnel.peer.data(tunnel.id, &piece, OPEN).await;
    }
    // More than the client's window: nobody takes the rest.
    tunnel.peer.data(tunnel.id, &piece, OPEN).await;
    assert_eq!(tunnel.peer.expect_rst(tunnel.id).await, Reason::CANCEL);
    tunnel.proxy.expect_fault("write_stalled").await;
    let mut read = 0;
    let end = loop {
        match tunnel.stream.part().await {
            Ok(Some(part)) => read += part.len(),
            end => break end,
        }
    };
    assert_eq!(end, Err(RESET), "{read} bytes were read");
}

#[tokio::test]
async fn many_websockets_share_one_connection_on_either_side() {
    let origin = echoing();
    let proxy = proxy::on_one_worker(&format!(
        "upstreams: {{ up: {{ endpoints: [\"h2c://{origin}\"], pool: {{ max_connections: 1 }} }} }}"
    ));
    let client = connected(&proxy).await;
    let mut sockets = Vec::new();
    for index in 0..50 {
        let mut socket = websocket::open_on(&client, "/").await;
        socket.expect_echo(&format!("opened {index}")).await;
        sockets.push(socket);
    }
    for (index, socket) in sockets.iter_mut().enumerate() {
        let frame = Frame::new(BINARY, vec![index as u8; 1000]);
        socket.send(&frame).await;
        assert_eq!(socket.recv().await, frame);
    }
    assert_eq!(origin.log().connections_open_max, 1);
    for socket in sockets {
        socket.close(1000).await;
    }
    over(&proxy).await;
    assert_eq!(proxy.faults(), BTreeMap::new());
}

#[tokio::test]
async fn a_drain_tells_each_websocket_to_go_and_then_ends_the_connection() {
    let origin = echoing();
    let mut proxy = proxy::with(&format!("upstream: h2c://{origin}\nshutdown: {{ timeout: 3s }}"));
    let client = connected(&proxy).await;
    let mut sockets = Vec::new();
    for _ in 0..5 {
        sockets.push(websocket::open_on(&client, "/").await);
    }
    proxy.drain();
    for mut socket in sockets {
        assert_eq!(socket.recv().await, Frame::close(1001));
        socket.send(&Frame::close(1001)).await;
        assert_eq!(socket.next().await, Ok(None));
    }
    client.ended().await.unwrap();
    assert_eq!(proxy.join().await, Ending { cut_connections: 0 });
}

#[tokio::test]
async fn the_access_log_tells_what_was_asked_and_how_much_passed() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let origin = echoing();
    let mut proxy = proxy::with(&format!(
        "upstream: h2c://{origin}\nlogs: {{ access: {{ only: all, output: {} }} }}",
        file.path().display()
    ));
    let client = connected(&proxy).await;
    let mut socket = websocket::open_on(&client, "/chat").await;
    socket.expect_echo("12345").await;
    socket.close(1000).await;
    over(&proxy).await;
    assert_eq!(proxy.counts().finished, BTreeMap::from([("1xx", 1)]));
    drop(client);
    proxy.stop().await;
    let log = std::fs::read_to_string(file.path()).unwrap();
    let line: serde_json::Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
    assert_eq!((&line["method"], &line["status"], &line["path"]), (&"CONNECT".into(), &200.into(), &"/chat".into()));
    assert_eq!(line["protocol"], "HTTP/2", "{line}");
    // Header, mask and payload up; without the mask down.
    assert_eq!((&line["received_bytes"], &line["sent_bytes"]), (&(11 + 8).into(), &(7 + 4).into()), "{line}");
}
