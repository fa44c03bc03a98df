//! Clients that ask for more work than they wait for.

use h2::Reason;

use crate::harness::client::h2::Broken;
use crate::harness::origin::exchange::Exchange;
use crate::harness::scripted::Frame;
use crate::harness::scripted::frame::{CONTINUATION, END_STREAM, HEADERS, OPEN, PING, SETTINGS, encode, encode_fields};
use crate::harness::{client, origin, proxy};

const HEAD: [(&str, &str); 4] = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/hang")];

#[tokio::test]
async fn a_client_that_opens_and_resets_streams_is_cut_off() {
    let origin = origin::h2().start();
    let proxy = proxy::with(&format!("upstream: h2c://{origin}"));
    let mut peer = client::frames(proxy.address()).await;
    let mut resets = 0;
    'cut: loop {
        let stream = 2 * resets + 1;
        peer.fields(stream, &HEAD, END_STREAM).await;
        // Answered when the stream has been accepted: h2 itself looks only at those that have not been.
        peer.ping([0; 8]).await;
        loop {
            match peer.next().await {
                Some(Frame::Pong(_)) => break,
                Some(Frame::GoAway { code, .. }) => {
                    assert_eq!(code, Reason::ENHANCE_YOUR_CALM);
                    break 'cut;
                }
                Some(Frame::Closed { .. }) | None => break 'cut,
                Some(_) => {}
            }
        }
        peer.rst_stream(stream, Reason::CANCEL).await;
        resets += 1;
        assert!(resets < 5000, "nobody minds");
    }
    assert!(resets > 500, "cut off after {resets}");
    proxy.wait_for(|counts| counts.downstream_connections == 0).await;
    let metrics = proxy.metrics().await;
    assert!((metrics.sum("trunkline_downstream_goaway_total", &[("code", "ENHANCE_YOUR_CALM")]) - 1.0).abs() < 0.5);
    // Whoever else is connected notices nothing.
    assert_eq!(client::h2(proxy.address()).await.get("/status/200").await.status(), 200);
}

#[tokio::test]
async fn a_client_whose_requests_are_mostly_answered_may_give_up_many() {
    let origin = origin::h2().start();
    let proxy = proxy::with(&format!("upstream: h2c://{origin}"));
    let client = client::h2(proxy.address()).await;
    for _ in 0..700 {
        drop(client.open(client.request("/delay/60000").body(()).unwrap(), true).await.unwrap());
        assert_eq!(client.get("/status/200").await.status(), 200);
    }
    assert!(!client.has_ended());
}

#[tokio::test]
async fn answers_that_a_service_cuts_are_not_held_against_the_client() {
    let origin = origin::h2().handler(|mut exchange: Exchange| async move {
        exchange.start(exchange.response(200))?;
        exchange.send("part").await?;
        // When the client has the head.
        exchange.chunk().await?;
        exchange.reset(Reason::INTERNAL_ERROR)
    });
    let origin = origin.start();
    let proxy = proxy::with(&format!("upstream: h2c://{origin}"));
    let client = client::h2(proxy.address()).await;
    for _ in 0..700 {
        let request = client.request("/").method("POST").body(()).unwrap();
        let mut stream = client.open(request, false).await.unwrap();
        assert_eq!(stream.head().await.unwrap().status(), 200);
        assert_eq!(stream.part().await.unwrap().unwrap(), "part");
        stream.upload("cut".into(), false).await.unwrap();
        assert_eq!(stream.part().await, Err(Broken { code: Some(Reason::INTERNAL_ERROR) }));
    }
    assert!(!client.has_ended());
}

/// h2 ends a connection at the 101st.
#[tokio::test]
async fn empty_data_frames_of_a_client_are_no_harm() {
    let origin = origin::h2().start();
    let proxy = proxy::with(&format!("upstream: h2c://{origin}"));
    let mut peer = client::frames(proxy.address()).await;
    peer.fields(1, &[&[(":method", "POST")], &HEAD[1..3], &[(":path", "/upload")]].concat(), OPEN).await;
    for _ in 0..300 {
        peer.data(1, "", OPEN).await;
        peer.data(1, "x", OPEN).await;
    }
    peer.data(1, "", END_STREAM).await;
    assert_eq!(peer.expect_headers().await.field(":status"), "200");
    assert_eq!(peer.expect_body(1).await, "300");
}

#[tokio::test]
async fn floods_of_frames_that_ask_for_nothing_end_the_connection() {
    let origin = origin::h2().start();
    let proxy = proxy::with(&format!("upstream: h2c://{origin}"));
    for (kind, payload) in [(PING, &[0; 8][..]), (SETTINGS, &[]), (2, &[0; 5]), (77, &[])] {
        let mut peer = client::frames(proxy.address()).await;
        let stream = u32::from(kind == 2);
        let frames = encode(kind, 0, stream, payload).repeat(1000);
        for _ in 0..30 {
            peer.raw(&frames).await;
        }
        peer.expect_closed().await;
    }
    let metrics = proxy.metrics().await;
    assert!((metrics.sum("trunkline_downstream_goaway_total", &[("code", "ENHANCE_YOUR_CALM")]) - 4.0).abs() < 0.5);
}

#[tokio::test]
async fn a_head_in_countless_parts_ends_the_connection() {
    let origin = origin::h2().start();
    let proxy = proxy::with(&format!("upstream: h2c://{origin}"));
    let mut peer = client::frames(proxy.address()).await;
    peer.raw(encode(HEADERS, END_STREAM, 1, &encode_fields(HEAD))).await;
    for _ in 0..200 {
        peer.raw(encode(CONTINUATION, 0, 1, &encode_fields([("x-a", "b")])).repeat(100)).await;
    }
    peer.expect_closed().await;
    assert!(origin.log().requests.is_empty());
}
