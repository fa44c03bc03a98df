//! How connections of HTTP/2 clients end: idle, drained, silent, or with a reload.

use std::time::Duration;

use bytes::Bytes;
use trunkline::control::Ending;

use crate::harness::scripted::PREFACE;
use crate::harness::scripted::frame::{
    CONTINUATION, END_HEADERS, END_STREAM, Frame, HEADERS, OPEN, encode, encode_fields,
};
use crate::harness::watched::within;
use crate::harness::{client, origin, proxy};

const HEAD: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/status/200")];

#[tokio::test]
async fn a_drain_says_goaway_twice_and_answers_what_was_asked_in_between() {
    let origin = origin::h2().start();
    let mut proxy = proxy::with(&format!("upstream: h2c://{origin}\nshutdown: {{ timeout: 1h }}"));
    let mut peer = client::frames(proxy.address()).await;
    peer.stop_acking_pings();
    peer.fields(1, &[&HEAD[..3], &[(":path", "/delay/300")]].concat(), END_STREAM).await;
    origin.wait_for(|log| log.requests.len() == 1).await;
    proxy.drain();
    let (last_stream, code) = peer.expect_goaway().await;
    assert_eq!((last_stream, code), ((1 << 31) - 1, h2::Reason::NO_ERROR));
    let ping = peer.expect_ping().await;
    // Sent before it was heard: it has its answer, too.
    peer.fields(3, &HEAD, END_STREAM).await;
    let mut answered = [peer.expect_headers().await, peer.expect_headers().await];
    answered.sort_by_key(|head| head.stream);
    assert_eq!(
        answered.map(|head| (head.stream, head.field(":status").to_owned())),
        [(1, "200".into()), (3, "200".into())]
    );
    peer.raw(encode(6, 1, 0, &ping)).await;
    assert_eq!(peer.expect_goaway().await, (3, h2::Reason::NO_ERROR));
    peer.expect_closed().await;
    assert_eq!(proxy.join().await, Ending { cut_connections: 0 });
}

#[tokio::test]
async fn a_client_that_never_answers_the_closing_ping_does_not_hold_a_drain_up() {
    let origin = origin::h2().start();
    let mut proxy = proxy::with(&format!("upstream: h2c://{origin}\nshutdown: {{ timeout: 1h }}"));
    let peer = client::frames(proxy.address()).await;
    peer.stop_acking_pings();
    proxy.wait_for(|counts| counts.downstream_connections == 1).await;
    assert_eq!(within("drained", proxy.stop()).await, Ending { cut_connections: 0 });
}

#[tokio::test]
async fn an_idle_connection_is_told_to_end() {
    let origin = origin::h2().start();
    let proxy = proxy::with(&format!(
        "upstreams: {{ a: {{ endpoints: [\"h2c://{origin}\"] }} }}\n\
         listeners: [{{ address: 127.0.0.1:0, timeouts: {{ idle: 500ms }} }}]"
    ));
    let client = client::h2(proxy.address()).await;
    // While a request runs it is not idle.
    assert_eq!(client.get("/delay/800").await.status(), 200);
    assert_eq!(client.ended().await, Ok(()));
    let metrics = proxy.metrics().await;
    assert!((metrics.sum("trunkline_downstream_goaway_total", &[("code", "NO_ERROR")]) - 1.0).abs() < 0.5);
}

#[tokio::test]
async fn a_partial_preface_frame_or_head_is_not_waited_for() {
    let origin = origin::h2().start();
    let proxy = proxy::with(&format!(
        "upstreams: {{ a: {{ endpoints: [\"h2c://{origin}\"] }} }}\n\
         listeners: [{{ address: 127.0.0.1:0, timeouts: {{ header: 200ms }} }}]"
    ));
    let mut raw = client::raw(proxy.address()).await;
    raw.send(&PREFACE[..10]).await;
    assert_eq!(raw.expect_response().await.status(), 408);
    raw.expect_close().await;
    // A head without its end, beside a request that runs, and part of a frame alone.
    let mut peer = client::frames(proxy.address()).await;
    peer.fields(1, &[&HEAD[..3], &[(":path", "/hang")]].concat(), END_STREAM).await;
    peer.raw(encode(HEADERS, OPEN, 3, b"")).await;
    assert_eq!(peer.expect_goaway().await, (1, h2::Reason::PROTOCOL_ERROR));
    peer.expect_closed().await;
    proxy.wait_for(|counts| counts.faults.get("head_timeout") == Some(&2)).await;
    let mut peer = client::frames(proxy.address()).await;
    peer.raw(&encode(6, 0, 0, &[0; 8])[..12]).await;
    peer.expect_closed().await;
}

#[tokio::test]
async fn each_head_has_a_time_of_its_own_though_one_is_always_under_way() {
    let origin = origin::h2().start();
    let proxy = proxy::with(&format!(
        "upstreams: {{ a: {{ endpoints: [\"h2c://{origin}\"] }} }}\n\
         listeners: [{{ address: 127.0.0.1:0, timeouts: {{ header: 1s }} }}]"
    ));
    let mut peer = client::frames(proxy.address()).await;
    let part = encode_fields(HEAD);
    let (first, rest) = part.split_at(5);
    peer.raw(encode(HEADERS, END_STREAM, 1, first)).await;
    for stream in [1, 3, 5] {
        tokio::time::sleep(Duration::from_millis(600)).await;
        let next = encode(HEADERS, END_STREAM, stream + 2, first);
        peer.raw([encode(CONTINUATION, END_HEADERS, stream, rest), next].concat()).await;
        assert_eq!(peer.expect_headers().await.field(":status"), "200");
    }
    // And no more than that.
    peer.expect_closed().await;
}

/// 6 MB of answers that h2 has taken, and the socket has not.
#[tokio::test]
async fn a_drain_cuts_no_answer_that_a_slow_client_still_reads() {
    let origin = origin::h2().start();
    let mut proxy = proxy::with(&format!("upstream: h2c://{origin}\nshutdown: {{ timeout: 1h }}"));
    let mut peer = client::frames(proxy.address()).await;
    // SETTINGS_INITIAL_WINDOW_SIZE
    peer.settings(&[(4, 1 << 20)]).await;
    peer.window_update(0, 1 << 30).await;
    peer.fall_silent();
    for stream in (1..200).step_by(2) {
        peer.fields(stream, &[&HEAD[..3], &[(":path", "/bytes/60000")]].concat(), END_STREAM).await;
    }
    origin.wait_for(|log| log.requests.len() == 100 && log.requests_in_flight() == 0).await;
    proxy.wait_for(|counts| counts.requests_in_flight == 0).await;
    proxy.drain();
    // Longer than a connection that has nothing to say any more is waited for.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    peer.hear_again();
    let (mut bytes, mut ended) = (0, 0);
    while let Some(frame) = peer.next().await {
        if let Frame::Data { bytes: data, is_end, .. } = frame {
            bytes += data.len();
            ended += usize::from(is_end);
        }
    }
    assert_eq!((bytes, ended), (6_000_000, 100));
    assert_eq!(proxy.join().await, Ending { cut_connections: 0 });
}

#[tokio::test]
async fn a_listener_that_a_reload_removes_ends_its_connections_gently() {
    let origin = origin::h2().start();
    let upstreams =
        format!("upstreams: {{ a: {{ endpoints: [\"h2c://{origin}\"] }} }}\nadmin: {{ address: 127.0.0.1:0 }}\n");
    let two = "listeners: [{ name: a, address: 127.0.0.1:0 }, { name: b, address: 127.0.0.1:0 }]\n";
    let proxy = proxy::with(&format!("{upstreams}{two}"));
    let client = client::h2(proxy.address_of("b")).await;
    let mut stream = client.open(client.request("/slow-body/40?every=20").body(()).unwrap(), true).await.unwrap();
    stream.head().await.unwrap();
    proxy.reload(&format!("{upstreams}listeners: [{{ name: a, address: 127.0.0.1:0 }}]\n")).await.unwrap();
    let mut length = 0;
    while let Some(part) = stream.part().await.unwrap() {
        length += part.len();
    }
    assert_eq!(length, 40);
    assert_eq!(client.ended().await, Ok(()));
}

#[tokio::test]
async fn streams_above_the_limit_are_refused_unprocessed() {
    let origin = origin::h2().start();
    let proxy = proxy::with(&format!(
        "upstreams: {{ a: {{ endpoints: [\"h2c://{origin}\"] }} }}\n\
         listeners: [{{ address: 127.0.0.1:0, limits: {{ streams: 2 }} }}]"
    ));
    let mut peer = client::frames(proxy.address()).await;
    for stream in [1, 3, 5] {
        peer.fields(stream, &[&HEAD[..3], &[(":path", "/hang")]].concat(), END_STREAM).await;
    }
    assert_eq!(peer.expect_rst(5).await, h2::Reason::REFUSED_STREAM);
    origin.wait_for(|log| log.requests.len() == 2).await;
    let client = client::h2(proxy.address()).await;
    client.get("/status/200").await;
    assert_eq!(client.streams_max(), 2);
}

#[tokio::test]
async fn both_kinds_of_client_come_through_one_listener() {
    let origin = origin::h2().start();
    let proxy = proxy::with(&format!("upstream: h2c://{origin}"));
    let http2 = client::h2(proxy.address()).await;
    let mut http1 = client::h1(proxy.address()).await;
    for _ in 0..3 {
        assert_eq!(http2.get("/status/200").await.status(), 200);
        assert_eq!(http1.get("/status/200").await.status(), 200);
    }
    // A request line that begins as the preface does.
    let mut raw = client::raw(proxy.address()).await;
    raw.send("PRI").await;
    raw.send("VATE /head HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(raw.expect_response().await.json()["method"], "PRIVATE");
    let body = http2.send(http2.request("/").method("PRI").body(Bytes::new()).unwrap()).await.unwrap();
    assert_eq!(body.header("x-method"), "PRI");
}

#[tokio::test]
async fn what_is_no_http2_behind_the_preface_ends_the_connection_alone() {
    let origin = origin::h2().start();
    let proxy = proxy::with(&format!("upstream: h2c://{origin}"));
    let mut peer = client::frames(proxy.address()).await;
    peer.raw(encode(HEADERS, 4 | END_STREAM, 2, &[0x82])).await;
    assert_eq!(peer.expect_goaway().await.1, h2::Reason::PROTOCOL_ERROR);
    while let Some(frame) = peer.next().await {
        assert!(matches!(frame, Frame::Closed { .. }), "{frame:?}");
    }
    assert_eq!(client::h2(proxy.address()).await.get("/status/200").await.status(), 200);
}
