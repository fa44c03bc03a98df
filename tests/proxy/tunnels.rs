//! `WebSocket` and other upgrades: where they are carried, what passes, how they end.

mod connect;
mod handshakes;
mod life;
mod others;
mod tls;

use http::Request;

use crate::harness::client::Client;
use crate::harness::origin::Origin;
use crate::harness::origin::raw_h1::RawConnection;
use crate::harness::proxy::Proxy;
use crate::harness::watched::within;
use crate::harness::websocket::{self, BINARY, Frame, PING, PONG, TEXT, WebSocket};
use crate::harness::{client, origin, proxy};

/// A proxy before this service.
fn before(origin: &Origin) -> Proxy {
    proxy::with(&format!("upstream: h2c://{origin}"))
}

fn echoing() -> Origin {
    origin::h2().handler(websocket::echo).start()
}

/// A WebSocket of each kind of client.
async fn opened_by_each(proxy: &Proxy) -> [WebSocket; 2] {
    let client = client::h2(proxy.address()).await;
    [websocket::open(proxy.address(), "/").await, websocket::open_on(&client, "/").await]
}

/// Waits until there is no tunnel any more.
async fn over(proxy: &Proxy) {
    proxy.wait_for_metrics(|metrics| metrics.sum("trunkline_tunnels", &[]) == 0.0).await;
}

/// A client that has asked, and the connection on which the service was asked.
async fn asked_in_http1(request: &Request<()>) -> (Proxy, Client, RawConnection) {
    let service = origin::raw_h1().await;
    let proxy = proxy::with(&format!("upstream: http1://{service}"));
    // The pool's own, by which it learns that the service is there.
    let pooled = service.accept().await;
    let mut client = client::h1(proxy.address()).await;
    client.start(request, false).await.unwrap();
    let connection = service.accept().await;
    drop(pooled);
    (proxy, client, connection)
}

#[tokio::test]
async fn a_websocket_is_one_stream_where_the_service_takes_extended_connect() {
    let origin = echoing();
    let proxy = before(&origin);
    let mut socket = websocket::open(proxy.address(), "/chat?room=1").await;
    socket.expect_echo("hello").await;
    {
        let log = origin.log();
        let request = &log.requests[0];
        assert_eq!((request.method.as_str(), &*request.target), ("CONNECT", "/chat?room=1"));
        assert_eq!(request.header("sec-websocket-version"), Some("13"));
        for absent in ["sec-websocket-key", "upgrade", "connection"] {
            assert_eq!(request.header(absent), None);
        }
    }
    socket.close(1000).await;
}

#[tokio::test]
async fn a_websocket_has_a_connection_of_its_own_where_the_service_speaks_http1() {
    let service = websocket::echo_h1().await;
    for scheme in ["http1", "http"] {
        let proxy = proxy::with(&format!("upstream: {scheme}://{service}"));
        let mut socket = websocket::open(proxy.address(), "/").await;
        socket.expect_echo("hello").await;
        socket.close(4321).await;
        over(&proxy).await;
    }
}

#[tokio::test]
async fn pings_and_messages_of_every_length_pass_both_ways() {
    let origin = echoing();
    let over_http1 = websocket::echo_h1().await;
    for upstream in [format!("h2c://{origin}"), format!("http1://{over_http1}")] {
        let proxy = proxy::with(&format!("upstream: {upstream}"));
        for mut socket in opened_by_each(&proxy).await {
            for length in [0, 1, 125, 126, 65_535, 65_536, 300_000] {
                let frame = Frame::new(BINARY, vec![7; length]);
                socket.send(&frame).await;
                assert_eq!(socket.recv().await, frame, "{length} bytes by {upstream}");
            }
            socket.send(&Frame::new(PING, "are you there")).await;
            assert_eq!(socket.recv().await, Frame::new(PONG, "are you there"));
            socket.close(1000).await;
        }
    }
}

#[tokio::test]
async fn bytes_in_pieces_of_one_and_bytes_behind_the_head_pass() {
    let origin = echoing();
    let proxy = before(&origin);
    let frame = Frame::new(TEXT, "early");
    let mut client = client::raw(proxy.address()).await;
    let head = format!(
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: keep-alive, Upgrade\r\nupgrade: WebSocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: {}\r\n\r\n",
        websocket::KEY
    );
    client.send([head.as_bytes(), &frame.bytes(true)].concat()).await;
    assert_eq!(client.expect_head().await.status(), Ok(101));
    for byte in frame.bytes(true) {
        client.send([byte]).await;
    }
    let mut frames = websocket::Frames::default();
    for _ in 0..2 {
        let echoed = loop {
            match frames.next() {
                Some((frame, _)) => break frame,
                None => frames.push(&client.some().await.unwrap()),
            }
        };
        assert_eq!(echoed, frame);
    }
}

#[tokio::test]
async fn two_hundred_websockets_share_two_connections() {
    let origin = echoing();
    let proxy = proxy::with(&format!(
        "routes: [{{ upstream: up }}]\nupstreams: {{ up: {{ endpoints: [\"h2c://{origin}\"], \
         pool: {{ max_connections: 2, max_streams_per_connection: 150 }} }} }}"
    ));
    let mut sockets = Vec::new();
    for index in 0..200 {
        let mut socket = websocket::open(proxy.address(), "/").await;
        socket.expect_echo(&format!("opened {index}")).await;
        sockets.push(socket);
    }
    proxy.wait_for_metrics(|metrics| metrics.sum("trunkline_tunnels", &[("protocol", "websocket")]) >= 200.0).await;
    for (index, socket) in sockets.iter_mut().enumerate() {
        socket.expect_echo(&format!("still {index}")).await;
    }
    assert!(origin.log().connections_open_max <= 2, "{}", origin.log().connections_open_max);
    let closing = sockets.into_iter().map(|socket| tokio::spawn(socket.close(1000)));
    for closed in closing.collect::<Vec<_>>() {
        within("closed WebSocket", closed).await.unwrap();
    }
    origin.wait_for(|log| log.requests_in_flight() == 0).await;
    over(&proxy).await;
    assert_eq!(proxy.faults().len(), 0, "{:?}", proxy.faults());
}

#[tokio::test]
async fn ten_megabytes_pass_each_way_at_once() {
    let origin = echoing();
    let over_http1 = websocket::echo_h1().await;
    for upstream in [format!("h2c://{origin}"), format!("http1://{over_http1}")] {
        let proxy = proxy::with(&format!("upstream: {upstream}"));
        let payload: Vec<u8> = (0..10_u32 << 20).map(|at| (at % 251) as u8).collect();
        let frames: Vec<Frame> = payload.chunks(100_000).map(|part| Frame::new(BINARY, part.to_vec())).collect();
        for mut socket in opened_by_each(&proxy).await {
            // At most two are on their way, so that neither the echo nor the client waits for the other.
            for (at, frame) in frames.iter().enumerate() {
                socket.send(frame).await;
                if at > 0 {
                    assert_eq!(socket.recv().await, frames[at - 1]);
                }
            }
            assert_eq!(socket.recv().await, frames[frames.len() - 1]);
            socket.close(1000).await;
        }
    }
}
