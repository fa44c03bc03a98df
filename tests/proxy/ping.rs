//! Connections whose peer has vanished without a word are found out, and those whose peer is only quiet are kept.
//!
//! RFC 9113 §6.7.

use std::time::Duration;

use http::Request;

use crate::harness::client::{self, Client};
use crate::harness::proxy::{self, Proxy};
use crate::harness::scripted::frame::{END_STREAM, OPEN};
use crate::harness::scripted::{self, Frame, Peer, Service};

fn before(service: &Service, ping: &str) -> Proxy {
    proxy::on_one_worker(&format!(
        "upstreams: {{ a: {{ endpoints: [\"h2c://{service}\"], pool: {{ max_connections: 1, pending_timeout: 20s, ping: {{ {ping} }} }} }} }}\n"
    ))
}

async fn get(proxy: &Proxy, path: &str) -> Client {
    let mut client = client::h1(proxy.address()).await;
    client.start(&Request::get(path).body(()).unwrap(), false).await.unwrap();
    client
}

/// How many have come and were not expected.
async fn pings(peer: &mut Peer) -> usize {
    peer.gather().await.iter().filter(|frame| matches!(frame, Frame::Ping(_))).count()
}

#[tokio::test]
async fn requests_on_a_black_hole_are_answered_504_and_the_next_goes_to_a_fresh_connection() {
    let service = scripted::service().await;
    let proxy = before(&service, "interval: 50ms, timeout: 50ms");
    let mut hole = service.accept_with(&[]).await;
    hole.stop_acking_pings();
    let mut lost = get(&proxy, "/lost").await;
    hole.expect_headers().await;
    let head = lost.head().await.unwrap();
    assert_eq!(
        (head.status(), head.header("proxy-status")),
        (Ok(504), Some("trunkline; error=connection_read_timeout"))
    );
    let mut next = get(&proxy, "/next").await;
    let mut fresh = service.accept_with(&[]).await;
    let request = fresh.expect_headers().await;
    fresh.answer(&request, 200, "fresh").await;
    assert_eq!(next.head().await.unwrap().status(), Ok(200));
    let counts = proxy.counts();
    assert_eq!((counts.faults, counts.closed), ([("ping_timeout", 1)].into(), [("unresponsive", 1)].into()));
    // The socket is gone as well.
    hole.expect_closed().await;
}

/// Heads fill the socket's buffers, until nothing more can be written.
#[tokio::test]
async fn requests_that_found_no_room_in_a_black_holes_socket_are_moved() {
    const HEAD_BYTES: usize = 60_000;
    const WRITTEN: usize = 90;
    const UNWRITTEN: usize = 5;
    let service = scripted::service().await;
    let proxy = before(&service, "interval: 1s, timeout: 1s");
    let hole = service.accept_with(&[]).await;
    hole.fall_silent();
    let asking = async {
        let mut clients = Vec::new();
        for _ in 0..WRITTEN {
            let mut client = client::h1(proxy.address()).await;
            let request = Request::get("/written").header("x-large", "x".repeat(HEAD_BYTES)).body(()).unwrap();
            client.start(&request, false).await.unwrap();
            clients.push(client);
        }
        proxy.wait_for(|counts| counts.streams == WRITTEN as i64).await;
        let mut moved = Vec::new();
        for _ in 0..UNWRITTEN {
            moved.push(get(&proxy, "/unwritten").await);
        }
        proxy.wait_for(|counts| counts.streams == (WRITTEN + UNWRITTEN) as i64).await;
        (clients, moved)
    };
    // Until all have asked it says something now and then: however long that takes, it is not found out.
    let talking = async {
        loop {
            hole.window_update(0, 1).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let (clients, moved) = tokio::select! {
        asked = asking => asked,
        () = talking => unreachable!("it goes on and on"),
    };
    let fresh = service.accept_any_time().await;
    let answering = fresh.answer_all("fresh");
    for mut client in moved {
        assert_eq!(client.head().await.unwrap().status(), Ok(200), "{:?}", proxy.counts());
    }
    let mut lost = 0;
    for mut client in clients {
        let status = client.head().await.unwrap().status();
        assert!(matches!(status, Ok(200 | 504)), "{status:?}");
        lost += u64::from(status == Ok(504));
    }
    answering.abort();
    let counts = proxy.counts();
    assert_eq!(counts.faults, [("ping_timeout", lost)].into());
    assert!(counts.retries["unwritten"] >= UNWRITTEN as u64 && lost > 0, "{counts:?}");
}

#[tokio::test]
async fn an_answer_that_a_black_hole_has_begun_is_cut() {
    let service = scripted::service().await;
    let proxy = before(&service, "interval: 50ms, timeout: 50ms");
    let mut hole = service.accept_with(&[]).await;
    hole.stop_acking_pings();
    let mut client = get(&proxy, "/").await;
    let request = hole.expect_headers().await;
    hole.headers(request.stream, 200, &[], OPEN).await;
    assert_eq!(client.head().await.unwrap().status(), Ok(200));
    assert!(client.body().await.is_err());
    proxy.expect_fault("body_cut").await;
}

#[tokio::test]
async fn a_service_that_answers_pings_may_take_its_time() {
    let service = scripted::service().await;
    let proxy = before(&service, "interval: 20ms, timeout: 20s");
    let mut peer = service.accept_with(&[]).await;
    let mut client = get(&proxy, "/").await;
    let request = peer.expect_headers().await;
    // It is asked twice in its silence, and then for five minutes not again.
    peer.expect_ping().await;
    peer.expect_ping().await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(pings(&mut peer).await, 0);
    // Something comes, and the next silence begins.
    peer.headers(request.stream, 200, &[], OPEN).await;
    assert_eq!(client.head().await.unwrap().status(), Ok(200));
    peer.expect_ping().await;
    peer.data(request.stream, "late", END_STREAM).await;
    assert_eq!(client.body().await.unwrap(), "late");
    assert_eq!(proxy.counts().faults, [].into());
}

/// gRPC servers count pings until they send a part of an answer again, whatever else they send, and whatever becomes of
/// the requests.
#[tokio::test]
async fn two_pings_are_all_until_a_part_of_an_answer_comes() {
    let service = scripted::service().await;
    let proxy = before(&service, "interval: 20ms, timeout: 20s");
    let mut peer = service.accept_with(&[]).await;
    let client = get(&proxy, "/given-up").await;
    let given_up = peer.expect_headers().await;
    peer.expect_ping().await;
    peer.expect_ping().await;
    peer.window_update(0, 1).await;
    peer.ping(*b"estimate").await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(pings(&mut peer).await, 0, "frames of no stream forgive nothing");
    drop(client);
    peer.expect_rst(given_up.stream).await;
    let mut client = get(&proxy, "/").await;
    let request = peer.expect_headers().await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(pings(&mut peer).await, 0, "another request forgives nothing");
    peer.headers(request.stream, 200, &[], OPEN).await;
    peer.expect_ping().await;
    peer.data(request.stream, "late", END_STREAM).await;
    assert_eq!(client.head().await.unwrap().status(), Ok(200));
    assert_eq!(client.body().await.unwrap(), "late");
}

#[tokio::test]
async fn a_peer_that_sends_anything_at_all_is_alive() {
    let service = scripted::service().await;
    let proxy = before(&service, "interval: 20ms, timeout: 1s");
    let mut peer = service.accept_with(&[]).await;
    peer.stop_acking_pings();
    let mut client = get(&proxy, "/").await;
    let request = peer.expect_headers().await;
    peer.expect_ping().await;
    peer.headers(request.stream, 200, &[], OPEN).await;
    assert_eq!(client.head().await.unwrap().status(), Ok(200));
    // Past the time that the PING has had.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    peer.data(request.stream, "alive", END_STREAM).await;
    assert_eq!(client.body().await.unwrap(), "alive");
}

#[tokio::test]
async fn an_idle_connection_and_one_without_an_interval_are_not_asked() {
    for (ping, is_asking) in [("interval: 10ms, timeout: 20s", false), ("interval: none", true)] {
        let service = scripted::service().await;
        let proxy = before(&service, ping);
        let mut peer = service.accept_with(&[]).await;
        let _client = if is_asking {
            let client = get(&proxy, "/").await;
            peer.expect_headers().await;
            Some(client)
        } else {
            None
        };
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(pings(&mut peer).await, 0, "{ping}");
    }
}
