//! How tunnels end, and what they do to each other while they last.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use h2::Reason;
use http::Request;
use trunkline::control::Ending;

use super::{asked_in_http1, echoing, over};
use crate::harness::client::RawClient;
use crate::harness::origin::exchange::Exchange;
use crate::harness::proxy::Proxy;
use crate::harness::scripted::frame::{ENABLE_CONNECT_PROTOCOL, END_STREAM, OPEN};
use crate::harness::scripted::{self, Peer};
use crate::harness::watched::Watched;
use crate::harness::websocket::{self, BINARY, Frame, TEXT};
use crate::harness::wire::Broken;
use crate::harness::{client, origin, proxy};

/// A tunnel to a scripted service: the stream that it is there.
async fn opened(settings: &str) -> (Proxy, RawClient, Peer, u32) {
    let service = scripted::service().await;
    let proxy = proxy::on_one_worker(&format!(
        "routes: [{{ upstream: up{settings} }}]\nupstreams: {{ up: {{ endpoints: [\"h2c://{service}\"] }} }}"
    ));
    let mut peer = service.accept_with(&[(ENABLE_CONNECT_PROTOCOL, 1)]).await;
    let (client, stream) = open_on(&proxy, &mut peer).await;
    (proxy, client, peer, stream)
}

async fn open_on(proxy: &Proxy, peer: &mut Peer) -> (RawClient, u32) {
    let mut client = client::h1(proxy.address()).await;
    client.start(&websocket::request("/"), false).await.unwrap();
    let request = peer.expect_headers().await;
    peer.headers(request.stream, 200, &[], OPEN).await;
    assert_eq!(client.head().await.unwrap().status(), Ok(101));
    (client.into_raw(), request.stream)
}

#[tokio::test]
async fn the_clients_end_passes_and_the_service_goes_on() {
    let (proxy, mut client, mut peer, stream) = opened("").await;
    client.send("up").await;
    client.shutdown_write().await;
    assert_eq!(peer.expect_body(stream).await, "up");
    peer.data(stream, "down", OPEN).await;
    assert_eq!(client.some().await.unwrap(), "down");
    peer.data(stream, "last", END_STREAM).await;
    assert_eq!(client.read_to_end().await.unwrap(), b"last");
    over(&proxy).await;
    assert_eq!(proxy.faults(), BTreeMap::new());
}

#[tokio::test]
async fn the_services_end_passes_and_the_client_goes_on() {
    let (proxy, mut client, mut peer, stream) = opened("").await;
    peer.data(stream, "down", END_STREAM).await;
    assert_eq!(client.read_to_end().await.unwrap(), b"down");
    client.send("up").await;
    assert_eq!(peer.expect_data(stream).await, ("up".into(), false));
    client.shutdown_write().await;
    assert_eq!(peer.expect_body(stream).await, "");
    over(&proxy).await;
    assert_eq!(proxy.faults(), BTreeMap::new());
}

#[tokio::test]
async fn a_client_that_is_gone_resets_its_stream() {
    let (proxy, client, mut peer, stream) = opened("").await;
    client.abort();
    assert_eq!(peer.expect_rst(stream).await, Reason::CANCEL);
    proxy.expect_fault("client_gone").await;
}

#[tokio::test]
async fn a_stream_that_is_reset_resets_its_client() {
    let (proxy, mut client, peer, stream) = opened("").await;
    peer.rst_stream(stream, Reason::INTERNAL_ERROR).await;
    assert_eq!(client.some().await, Err(Broken::Reset));
    proxy.expect_fault("body_cut").await;
}

#[tokio::test]
async fn a_connection_that_is_lost_resets_the_clients_of_all_its_tunnels() {
    let (proxy, mut first, mut peer, _) = opened("").await;
    let (mut second, _) = open_on(&proxy, &mut peer).await;
    peer.abort().await;
    for client in [&mut first, &mut second] {
        assert_eq!(client.some().await, Err(Broken::Reset));
    }
}

/// RFC 9113 §8.1: a service that has said all may not want the rest.
#[tokio::test]
async fn a_service_that_has_ended_and_wants_no_more_is_no_fault() {
    let (proxy, mut client, peer, stream) = opened("").await;
    peer.data(stream, "all", END_STREAM).await;
    peer.rst_stream(stream, Reason::NO_ERROR).await;
    client.send("too late").await;
    assert_eq!(client.read_to_end().await.unwrap(), b"all");
    client.shutdown_write().await;
    over(&proxy).await;
    assert_eq!(proxy.faults(), BTreeMap::new());
}

#[tokio::test]
async fn a_tunnel_in_which_nothing_moves_is_given_up() {
    let (proxy, mut client, mut peer, stream) = opened(", timeouts: { stream_idle: 100ms }").await;
    client.expect_close().await;
    assert_eq!(peer.expect_rst(stream).await, Reason::CANCEL);
    proxy.expect_fault("stream_idle").await;
}

#[tokio::test]
async fn the_limit_of_a_request_ends_with_its_handshake() {
    let (proxy, mut client, mut peer, stream) = opened(", timeouts: { request: 200ms, stream_idle: 1s }").await;
    client.send("x").await;
    assert_eq!(peer.expect_data(stream).await.0, "x");
    // It is silence that ends it.
    client.expect_close().await;
    proxy.expect_fault("stream_idle").await;
}

#[tokio::test]
async fn a_client_that_stops_reading_stalls_itself_and_none_of_its_siblings() {
    let sent = Arc::new(Watched::new(0_usize));
    let flood = {
        let sent = sent.clone();
        move |mut exchange: Exchange| {
            let sent = sent.clone();
            async move {
                if exchange.path() != "/flood" {
                    return websocket::echo(exchange).await;
                }
                exchange.start(exchange.response(200))?;
                let frame = Bytes::from(Frame::new(BINARY, vec![0; 60_000]).bytes(false));
                loop {
                    exchange.send(frame.clone()).await?;
                    sent.change(|sent| *sent += frame.len());
                }
            }
        }
    };
    let origin = origin::h2().handler(flood).start();
    let proxy = proxy::on_one_worker(&format!(
        "upstreams: {{ up: {{ endpoints: [\"h2c://{origin}\"], pool: {{ max_connections: 1 }} }} }}"
    ));
    let deaf = websocket::open(proxy.address(), "/flood").await;
    sent.wait_for(|sent| *sent >= 256 * 1024).await;
    let mut sibling = websocket::open(proxy.address(), "/").await;
    for turn in 0..200 {
        sibling.expect_echo(&format!("turn {turn}")).await;
    }
    // The stream's window, one chunk, and what the kernel takes for the client's socket.
    let most = *sent.read();
    assert!(most <= 6 << 20, "{most} bytes for a client that reads none");
    drop(deaf);
    sibling.close(1000).await;
    over(&proxy).await;
}

/// The service's frames come in pieces all the while, so that most moments are within one.
#[tokio::test]
async fn a_drain_tells_every_websocket_to_go_between_two_frames() {
    let chatty = |mut exchange: Exchange| async move {
        exchange.start(exchange.response(200))?;
        let bytes = Frame::new(TEXT, "0123456789".repeat(20)).bytes(false);
        let mut frames = websocket::Frames::default();
        loop {
            for piece in bytes.chunks(7) {
                exchange.send(piece.to_vec()).await?;
                tokio::task::yield_now().await;
                if let Ok(chunk) = tokio::time::timeout(std::time::Duration::ZERO, exchange.chunk()).await {
                    frames.push(&chunk?.unwrap_or_default());
                }
            }
            if let Some((frame, _)) = frames.next() {
                // The client's own, as it is.
                assert_eq!(frame, Frame::close(1001));
                exchange.send(Frame::close(1001).bytes(false)).await?;
                return exchange.finish("").await;
            }
        }
    };
    let origin = origin::h2().handler(chatty).start();
    let mut proxy = proxy::with(&format!("upstream: h2c://{origin}\nshutdown: {{ timeout: 3s }}"));
    let mut sockets = Vec::new();
    for _ in 0..10 {
        sockets.push(websocket::open(proxy.address(), "/").await);
    }
    proxy.drain();
    let clients = sockets.into_iter().map(|mut socket| {
        tokio::spawn(async move {
            let mut messages = 0;
            loop {
                let frame = socket.recv().await;
                if frame == Frame::close(1001) {
                    break;
                }
                assert_eq!((frame.opcode, frame.payload.len()), (TEXT, 200));
                messages += 1;
            }
            // Nothing follows a Close frame but the end, once it has been answered.
            socket.send(&Frame::close(1001)).await;
            assert_eq!(socket.next().await, Ok(None));
            messages
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
    assert_eq!(proxy.join().await, Ending { cut_connections: 0 });
    assert_eq!(origin.log().ended(origin::log::Ending::Complete), 10);
}

#[tokio::test]
async fn an_idle_websocket_is_told_in_its_turn_and_not_cut_at_the_deadline() {
    let origin = echoing();
    let mut proxy = proxy::with(&format!("upstream: h2c://{origin}\nshutdown: {{ timeout: 3s }}"));
    let mut socket = websocket::open(proxy.address(), "/").await;
    proxy.drain();
    assert_eq!(socket.recv().await, Frame::close(1001));
    socket.send(&Frame::close(1001)).await;
    assert_eq!(socket.next().await, Ok(None));
    assert_eq!(proxy.join().await, Ending { cut_connections: 0 });
}

#[tokio::test]
async fn what_is_no_websocket_runs_until_the_deadline() {
    let request = Request::get("/").header("connection", "upgrade").header("upgrade", "x").body(()).unwrap();
    let service = origin::raw_h1().await;
    let mut proxy = proxy::with(&format!("upstream: http1://{service}\nshutdown: {{ timeout: 1s }}"));
    let _pooled = service.accept().await;
    let mut client = client::h1(proxy.address()).await;
    client.start(&request, false).await.unwrap();
    let mut connection = service.accept().await;
    connection.expect_head().await;
    connection.send("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n").await;
    assert_eq!(client.head().await.unwrap().status(), Ok(101));
    proxy.drain();
    connection.send("still here").await;
    let mut client = client.into_raw();
    assert_eq!(client.some().await.unwrap(), "still here");
    assert_eq!(proxy.join().await, Ending { cut_connections: 1 });
    client.expect_close().await;
}

#[tokio::test]
async fn a_reload_leaves_tunnels_alone_unless_their_listener_goes() {
    let origin = echoing();
    let config = |listeners: &str| {
        format!(
            "listeners: [{listeners}]\nroutes: [{{ upstream: up }}]\nupstreams: {{ up: {{ endpoints: [\"h2c://{origin}\"] }} }}\nshutdown: {{ timeout: 3s }}"
        )
    };
    let (stays, goes) = ("{ name: stays, address: 127.0.0.1:0 }", "{ name: goes, address: 127.0.0.1:0 }");
    let proxy = proxy::with(&config(&format!("{stays}, {goes}")));
    let mut kept = websocket::open(proxy.address_of("stays"), "/").await;
    let mut told = websocket::open(proxy.address_of("goes"), "/").await;
    proxy.reload(&config(stays)).await.unwrap();
    assert_eq!(told.recv().await, Frame::close(1001));
    told.send(&Frame::close(1001)).await;
    assert_eq!(told.next().await, Ok(None));
    kept.expect_echo("still here").await;
    kept.close(1000).await;
}

#[tokio::test]
async fn a_client_that_does_not_go_and_a_service_that_talks_on_are_parted() {
    let origin = origin::h2().handler(|mut exchange| async move {
        exchange.start(exchange.response(200))?;
        let frame = Bytes::from(Frame::new(TEXT, "on and on").bytes(false));
        loop {
            exchange.send(frame.clone()).await?;
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    });
    let origin = origin.start();
    let config = |listeners: &str| {
        format!(
            "listeners: [{listeners}]\nroutes: [{{ upstream: up }}]\nupstreams: {{ up: {{ endpoints: [\"h2c://{origin}\"] }} }}\nshutdown: {{ timeout: 400ms }}"
        )
    };
    let (stays, goes) = ("{ name: stays, address: 127.0.0.1:0 }", "{ name: goes, address: 127.0.0.1:0 }");
    let proxy = proxy::with(&config(&format!("{stays}, {goes}")));
    let mut told = websocket::open(proxy.address_of("goes"), "/").await;
    proxy.reload(&config(stays)).await.unwrap();
    let mut last = told.recv().await;
    while let Ok(Some(frame)) = told.next().await {
        last = frame;
    }
    assert_eq!(last, Frame::close(1001));
    over(&proxy).await;
}

#[tokio::test]
async fn the_access_log_tells_of_a_tunnel_at_its_end() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let origin = echoing();
    let mut proxy = proxy::with(&format!(
        "upstream: h2c://{origin}\nlogs: {{ access: {{ only: all, output: {} }} }}",
        file.path().display()
    ));
    let mut socket = websocket::open(proxy.address(), "/chat").await;
    socket.expect_echo("12345").await;
    socket.close(1000).await;
    over(&proxy).await;
    proxy.stop().await;
    let log = std::fs::read_to_string(file.path()).unwrap();
    let line: serde_json::Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
    assert_eq!((&line["status"], &line["path"]), (&101.into(), &"/chat".into()), "{line}");
    // Header, mask and payload up; without the mask down.
    assert_eq!((&line["received_bytes"], &line["sent_bytes"]), (&(11 + 8).into(), &(7 + 4).into()), "{line}");
}

#[tokio::test]
async fn a_service_in_http1_that_ends_its_connection_ends_the_clients() {
    let (proxy, mut client, mut connection) = asked_in_http1(&websocket::request("/")).await;
    connection.expect_head().await;
    connection.send(websocket::switching()).await;
    assert_eq!(client.head().await.unwrap().status(), Ok(101));
    connection.send(Frame::close(1000).bytes(false)).await;
    drop(connection);
    let mut client = client.into_raw();
    assert_eq!(client.read_to_end().await.unwrap(), Frame::close(1000).bytes(false));
    client.send(Frame::close(1000).bytes(true)).await;
    drop(client);
    over(&proxy).await;
    assert_eq!(proxy.faults(), BTreeMap::new());
}
