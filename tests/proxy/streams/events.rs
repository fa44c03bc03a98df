//! Server-sent events: passed as they come, kept alive, and ended where it does no harm.

use h2::Reason;
use http::Request;
use trunkline::control::Ending;

use super::proxy_to;
use crate::harness::client::Client;
use crate::harness::origin::RawConnection;
use crate::harness::proxy::Proxy;
use crate::harness::scripted::frame::{END_STREAM, OPEN};
use crate::harness::scripted::{Peer, Service};
use crate::harness::watched::within;
use crate::harness::wire::Broken;
use crate::harness::{client, origin, scripted};

#[tokio::test]
async fn the_head_and_each_event_are_passed_before_the_next_one_comes() {
    let (_service, _proxy, peer, mut stream) = streaming("").await;
    for event in ["data: 1\n\n", "data: 2\n", "\n", ": comment\n\n"] {
        peer.data(stream.id, event, OPEN).await;
        assert_eq!(stream.client.part().await.unwrap().unwrap(), event);
    }
    peer.data(stream.id, "data: last\n\n", END_STREAM).await;
    assert_eq!(stream.client.body().await.unwrap(), "data: last\n\n");
}

#[tokio::test]
async fn a_silent_service_has_its_client_told_that_the_stream_lives() {
    let (_service, proxy, peer, mut stream) = streaming("heartbeat: 40ms").await;
    for _ in 0..3 {
        assert_eq!(stream.client.part().await.unwrap().unwrap(), ":\n\n");
    }
    peer.data(stream.id, "data: 1\n\n", OPEN).await;
    stream.expect_after_heartbeats("data: 1\n\n").await;
    assert_eq!(stream.client.part().await.unwrap().unwrap(), ":\n\n");
    peer.data(stream.id, "", END_STREAM).await;
    stream.expect_end().await;
    assert!(proxy.faults().is_empty(), "{:?}", proxy.faults());
}

#[tokio::test]
async fn no_heartbeat_comes_inside_an_event_whatever_ends_the_lines() {
    for (head, tail) in [("data: 1\n", "\n"), ("data: 1\r\n", "\r\n"), ("data: 1\r", "\r"), ("data: 1\r\n\r", "\n")] {
        let (_service, proxy, mut peer, mut inside) = streaming("heartbeat: 30ms").await;
        let mut between = Stream::open(&proxy, &mut peer, &EVENT_STREAM).await;
        peer.data(inside.id, head, OPEN).await;
        assert_eq!(inside.client.part().await.unwrap().unwrap(), head);
        for _ in 0..3 {
            assert_eq!(between.client.part().await.unwrap().unwrap(), ":\n\n");
        }
        peer.data(inside.id, tail, OPEN).await;
        assert_eq!(inside.client.part().await.unwrap().unwrap(), tail);
        assert_eq!(inside.client.part().await.unwrap().unwrap(), ":\n\n");
    }
}

#[tokio::test]
async fn a_byte_order_mark_behind_a_heartbeat_is_none_and_goes() {
    let (_service, _proxy, peer, mut stream) = streaming("heartbeat: 30ms").await;
    assert_eq!(stream.client.part().await.unwrap().unwrap(), ":\n\n");
    peer.data(stream.id, "\u{feff}data: 1\n\n", OPEN).await;
    stream.expect_after_heartbeats("data: 1\n\n").await;
    let (_service, _proxy, peer, mut stream) = streaming("heartbeat: 60s").await;
    peer.data(stream.id, "\u{feff}data: 1\n\n", OPEN).await;
    assert_eq!(stream.client.part().await.unwrap().unwrap(), "\u{feff}data: 1\n\n");
}

#[tokio::test]
async fn heartbeats_do_not_keep_a_service_that_is_dead() {
    let (_service, proxy, mut peer, mut stream) = streaming("heartbeat: 30ms, timeouts: { stream_idle: 200ms }").await;
    assert_eq!(stream.client.part().await.unwrap().unwrap(), ":\n\n");
    let cut = loop {
        match stream.client.part().await {
            Ok(Some(part)) => assert_eq!(part, ":\n\n"),
            end => break end,
        }
    };
    assert!(matches!(cut, Err(Broken::ClosedInBody { .. })), "{cut:?}");
    assert_eq!(peer.expect_rst(stream.id).await, Reason::CANCEL);
    proxy.expect_fault("stream_idle").await;
}

#[tokio::test]
async fn only_event_streams_that_can_be_looked_into_have_a_heartbeat() {
    let (_service, proxy, mut peer, mut beating) = streaming("heartbeat: 30ms").await;
    let mut others = Vec::new();
    for fields in [
        &[("content-type", "text/plain")][..],
        &[EVENT_STREAM[0], ("content-encoding", "gzip")],
        &[EVENT_STREAM[0], ("content-length", "4")],
    ] {
        others.push(Stream::open(&proxy, &mut peer, fields).await);
    }
    for _ in 0..3 {
        assert_eq!(beating.client.part().await.unwrap().unwrap(), ":\n\n");
    }
    for other in &mut others {
        peer.data(other.id, "last", END_STREAM).await;
        assert_eq!(other.client.body().await.unwrap(), "last");
    }
}

#[tokio::test]
async fn a_head_request_has_no_heartbeat() {
    let service = scripted::service().await;
    let proxy = proxy_to(&format!("h2c://{service}"), "heartbeat: 30ms");
    let mut peer = service.accept_with(&[]).await;
    let mut client = client::h1(proxy.address()).await;
    client.start(&Request::head("/").body(()).unwrap(), false).await.unwrap();
    let stream = peer.expect_headers().await.stream;
    peer.headers(stream, 200, &EVENT_STREAM, OPEN).await;
    assert_eq!(client.head().await.unwrap().status(), Ok(200));
    assert_eq!(client.body().await.unwrap(), "");
    let mut other = Stream::open(&proxy, &mut peer, &EVENT_STREAM).await;
    for _ in 0..3 {
        assert_eq!(other.client.part().await.unwrap().unwrap(), ":\n\n");
    }
    assert_eq!(client.into_raw().leftover(), b"");
}

#[tokio::test]
async fn a_drain_ends_a_stream_between_two_events() {
    let (_service, mut proxy, mut peer, mut stream) = streaming("").await;
    peer.data(stream.id, "data: 1\n\n", OPEN).await;
    assert_eq!(stream.client.part().await.unwrap().unwrap(), "data: 1\n\n");
    proxy.drain();
    stream.expect_end().await;
    assert_eq!(peer.expect_rst(stream.id).await, Reason::CANCEL);
    assert!(proxy.faults().is_empty(), "{:?}", proxy.faults());
    proxy.wait_for(|counts| counts.finished.get("2xx") == Some(&1)).await;
    assert_eq!(proxy.join().await, Ending { cut_connections: 0 });
}

#[tokio::test]
async fn a_stream_inside_an_event_ends_with_that_event() {
    let (_service, mut proxy, mut peer, mut stream) = streaming("").await;
    peer.data(stream.id, "data: 1\n", OPEN).await;
    assert_eq!(stream.client.part().await.unwrap().unwrap(), "data: 1\n");
    drained(&proxy).await;
    peer.data(stream.id, "id: 1\n\ndata: 2\n\ndata: 3\n", OPEN).await;
    assert_eq!(stream.client.body().await.unwrap(), "id: 1\n\ndata: 2\n\n");
    assert_eq!(peer.expect_rst(stream.id).await, Reason::CANCEL);
    assert_eq!(proxy.join().await, Ending { cut_connections: 0 });
}

#[tokio::test]
async fn a_stream_whose_event_never_ends_is_cut_at_the_deadline() {
    let (_service, mut proxy, peer, mut stream) = streaming("").await;
    peer.data(stream.id, "data: 1\n", OPEN).await;
    assert_eq!(stream.client.part().await.unwrap().unwrap(), "data: 1\n");
    assert_eq!(proxy.stop().await, Ending { cut_connections: 1 });
    assert!(matches!(stream.client.body().await, Err(Broken::ClosedInBody { .. } | Broken::Reset)));
}

#[tokio::test]
async fn a_stream_that_begins_during_a_drain_ends_at_once_and_in_order() {
    let service = scripted::service().await;
    let mut proxy = proxy_to(&format!("h2c://{service}"), "reconnect: spread");
    let mut peer = service.accept_with(&[]).await;
    let mut client = client::h1(proxy.address()).await;
    client.start(&Request::get("/").body(()).unwrap(), false).await.unwrap();
    let id = peer.expect_headers().await.stream;
    drained(&proxy).await;
    peer.headers(id, 200, &EVENT_STREAM, OPEN).await;
    assert!(client.head().await.unwrap().is_closing());
    assert!(client.body().await.unwrap().starts_with(b"retry: "));
    assert_eq!(proxy.join().await, Ending { cut_connections: 0 });
}

#[tokio::test]
async fn clients_are_told_to_come_back_one_after_another_if_so_asked() {
    let (_service, mut proxy, mut peer, first) = streaming("reconnect: spread").await;
    let mut streams = vec![first];
    for _ in 0..19 {
        streams.push(Stream::open(&proxy, &mut peer, &EVENT_STREAM).await);
    }
    proxy.drain();
    let mut times = Vec::new();
    for stream in &mut streams {
        let body = String::from_utf8(stream.client.body().await.unwrap().to_vec()).unwrap();
        let time = body.strip_prefix("retry: ").and_then(|rest| rest.strip_suffix("\n\n")).expect(&body);
        times.push(time.parse::<u64>().unwrap());
    }
    // The harness's timeout of the shutdown.
    assert!(times.iter().all(|time| *time <= 2000), "{times:?}");
    times.sort_unstable();
    times.dedup();
    assert!(times.len() > 10, "{times:?}");
    assert_eq!(proxy.join().await, Ending { cut_connections: 0 });
}

#[tokio::test]
async fn a_listener_that_goes_ends_its_streams() {
    let service = scripted::service().await;
    let listeners = |names: &[&str]| {
        let listeners: Vec<_> = names.iter().map(|name| format!("{{ name: {name}, address: 127.0.0.1:0 }}")).collect();
        let upstreams = format!("upstreams: {{ a: {{ endpoints: [h2c://{service}] }} }}");
        format!("listeners: [{}]\n{upstreams}\nruntime: {{ workers: 1 }}", listeners.join(", "))
    };
    let proxy = crate::harness::proxy::with(&listeners(&["stays", "goes"]));
    let mut peer = service.accept_with(&[]).await;
    let mut stays = Stream::open(&proxy, &mut peer, &EVENT_STREAM).await;
    let mut goes = Stream::open_at(proxy.address_of("goes"), &mut peer, &EVENT_STREAM).await;
    proxy.reload(&listeners(&["stays"])).await.unwrap();
    goes.expect_end().await;
    assert_eq!(peer.expect_rst(goes.id).await, Reason::CANCEL);
    peer.data(stays.id, "data: 1\n\n", OPEN).await;
    assert_eq!(stays.client.part().await.unwrap().unwrap(), "data: 1\n\n");
}

#[tokio::test]
async fn an_event_stream_of_an_http1_service_is_kept_alive_and_ended_likewise() {
    let service = origin::raw_h1().await;
    let mut proxy = proxy_to(&format!("http1://{service}"), "heartbeat: 40ms, reconnect: spread");
    let mut connection = service.accept().await;
    let mut client = client::h1(proxy.address()).await;
    client.start(&Request::get("/").body(()).unwrap(), false).await.unwrap();
    connection.expect_head().await;
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    connection.send(head).await;
    assert_eq!(client.head().await.unwrap().status(), Ok(200));
    assert_eq!(client.part().await.unwrap().unwrap(), ":\n\n");
    chunk(&mut connection, "data: 1\n").await;
    let mut stream = Stream { client, id: 0 };
    stream.expect_after_heartbeats("data: 1\n").await;
    drained(&proxy).await;
    chunk(&mut connection, "\ndata: 2").await;
    let body = stream.client.body().await.unwrap();
    assert!(body.starts_with(b"\nretry: ") && body.ends_with(b"\n\n"), "{body:?}");
    connection.expect_close().await;
    assert!(proxy.faults().is_empty(), "{:?}", proxy.faults());
    assert_eq!(proxy.join().await, Ending { cut_connections: 0 });
}

#[tokio::test]
async fn a_client_that_leaves_has_its_stream_cancelled() {
    let (_service, proxy, mut peer, stream) = streaming("heartbeat: 30ms").await;
    stream.client.abort();
    assert_eq!(peer.expect_rst(stream.id).await, Reason::CANCEL);
    proxy.expect_fault("client_gone").await;
}

#[tokio::test]
async fn event_streams_of_http2_clients_are_kept_alive_and_ended_likewise() {
    let service = scripted::service().await;
    let mut proxy = proxy_to(&format!("h2c://{service}"), "heartbeat: 40ms, timeouts: { stream_idle: 1h }");
    let mut peer = service.accept_with(&[]).await;
    let client = client::h2(proxy.address()).await;
    let mut stream = client.open(client.request("/").body(()).unwrap(), true).await.unwrap();
    let id = peer.expect_headers().await.stream;
    peer.headers(id, 200, &EVENT_STREAM, OPEN).await;
    assert_eq!(stream.head().await.unwrap().status(), 200);
    for _ in 0..3 {
        assert_eq!(stream.part().await.unwrap().unwrap(), ":\n\n");
    }
    proxy.drain();
    while let Some(part) = stream.part().await.unwrap() {
        assert_eq!(part, ":\n\n");
    }
    assert_eq!(peer.expect_rst(id).await, Reason::CANCEL);
    assert!(proxy.faults().is_empty(), "{:?}", proxy.faults());
    assert_eq!(proxy.join().await, Ending { cut_connections: 0 });
}

#[tokio::test]
async fn heartbeats_to_an_http2_client_do_not_keep_a_service_that_is_dead() {
    let service = scripted::service().await;
    let proxy = proxy_to(&format!("h2c://{service}"), "heartbeat: 30ms, timeouts: { stream_idle: 200ms }");
    let mut peer = service.accept_with(&[]).await;
    let client = client::h2(proxy.address()).await;
    let mut stream = client.open(client.request("/").body(()).unwrap(), true).await.unwrap();
    let id = peer.expect_headers().await.stream;
    peer.headers(id, 200, &EVENT_STREAM, OPEN).await;
    stream.head().await.unwrap();
    while let Ok(part) = stream.part().await {
        assert_eq!(part.unwrap(), ":\n\n");
    }
    assert_eq!(peer.expect_rst(id).await, Reason::CANCEL);
    proxy.expect_fault("stream_idle").await;
}

/// A client that has the head of its event stream, and the stream at the service.
struct Stream {
    client: Client,
    id: u32,
}

impl Stream {
    async fn open(proxy: &Proxy, peer: &mut Peer, fields: &[(&str, &str)]) -> Self {
        Self::open_at(proxy.address(), peer, fields).await
    }

    async fn open_at(address: std::net::SocketAddr, peer: &mut Peer, fields: &[(&str, &str)]) -> Self {
        let mut client = client::h1(address).await;
        client.start(&Request::get("/").body(()).unwrap(), false).await.unwrap();
        let id = peer.expect_headers().await.stream;
        peer.headers(id, 200, fields, OPEN).await;
        assert_eq!(client.head().await.unwrap().status(), Ok(200));
        Self { client, id }
    }

    async fn expect_after_heartbeats(&mut self, event: &str) {
        loop {
            let part = self.client.part().await.unwrap().unwrap();
            if part != ":\n\n" {
                return assert_eq!(part, event);
            }
        }
    }

    /// Nothing but heartbeats, then a complete end.
    async fn expect_end(&mut self) {
        let rest = self.client.body().await.unwrap();
        assert!(rest.chunks(3).all(|part| part == b":\n\n"), "{rest:?}");
    }
}

async fn streaming(route: &str) -> (Service, Proxy, Peer, Stream) {
    let service = scripted::service().await;
    let proxy = proxy_to(&format!("h2c://{service}"), route);
    let mut peer = service.accept_with(&[]).await;
    let stream = Stream::open(&proxy, &mut peer, &EVENT_STREAM).await;
    (service, proxy, peer, stream)
}

/// Asks the proxy to drain; its streams know when this returns.
async fn drained(proxy: &Proxy) {
    let mut idle = client::raw(proxy.address()).await;
    proxy.wait_for(|counts| counts.downstream_parked == 1).await;
    proxy.drain();
    idle.expect_close().await;
    within("end of accepting", async { while tokio::net::TcpStream::connect(proxy.address()).await.is_ok() {} }).await;
}

async fn chunk(connection: &mut RawConnection, bytes: &str) {
    connection.send(format!("{:x}\r\n{bytes}\r\n", bytes.len())).await;
}

const EVENT_STREAM: [(&str, &str); 1] = [("content-type", "text/event-stream")];
