//! HTTP/2 services that refuse, break off, or answer what is no answer.

use h2::Reason;

use super::{Asking, BROKEN, GONE, INVALID, Row, proxy_before, row};
use crate::harness::scripted::frame::{DATA, END_STREAM, HEADERS, OPEN, encode};
use crate::harness::scripted::{Peer, Service};
use crate::harness::{client, origin, scripted};

#[tokio::test]
async fn a_stream_that_is_refused_whenever_it_is_tried() {
    let origin = origin::h2().refuse_every(1).start();
    let proxy = proxy_before(&format!("h2c://{origin}"), "");
    Asking::new(&proxy).await.expect(&proxy, REFUSED).await;
}

#[tokio::test]
async fn a_stream_above_the_last_that_each_goaway_covers() {
    faulty(REFUSED, async |peer, _stream| peer.goaway(0, Reason::NO_ERROR).await).await;
}

#[tokio::test]
async fn a_stream_that_a_goaway_covers_is_answered() {
    let service = scripted::service().await;
    let proxy = proxy_before(&format!("h2c://{service}"), "");
    let mut peer = service.accept_with(&[]).await;
    let mut client = client::h1(proxy.address()).await;
    client.start(&http::Request::get("/").body(()).unwrap(), false).await.unwrap();
    let request = peer.expect_headers().await;
    peer.goaway(request.stream, Reason::NO_ERROR).await;
    peer.answer(&request, 200, "covered").await;
    client.head().await.unwrap();
    assert_eq!(client.body().await.unwrap(), "covered");
}

#[tokio::test]
async fn a_stream_that_is_reset_before_its_answer() {
    let row = row(502, "http_response_incomplete", "stream_reset", BROKEN);
    faulty(row, async |peer, stream| peer.rst_stream(stream, Reason::INTERNAL_ERROR).await).await;
}

#[tokio::test]
async fn a_stream_that_is_reset_after_an_interim_answer() {
    let row = row(502, "http_response_incomplete", "stream_reset", BROKEN);
    faulty(row, async |peer, stream| {
        peer.headers(stream, 103, &[], OPEN).await;
        peer.rst_stream(stream, Reason::CANCEL).await;
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_is_lost_before_the_answer() {
    let service = scripted::service().await;
    let proxy = proxy_before(&format!("h2c://{service}"), "");
    let mut peer = service.accept_with(&[]).await;
    let asking = Asking::new(&proxy).await;
    peer.expect_headers().await;
    peer.abort().await;
    asking.expect(&proxy, row(502, "connection_terminated", "connection_lost", BROKEN)).await;
}

#[tokio::test]
async fn a_connection_that_is_closed_before_the_answer() {
    let service = scripted::service().await;
    let proxy = proxy_before(&format!("h2c://{service}"), "");
    let mut peer = service.accept_with(&[]).await;
    let asking = Asking::new(&proxy).await;
    peer.expect_headers().await;
    peer.close().await;
    asking.expect(&proxy, row(502, "connection_terminated", "connection_lost", BROKEN)).await;
}

#[tokio::test]
async fn an_answer_without_a_status() {
    faulty(MALFORMED, async |peer, stream| peer.fields(stream, &[("x", "y")], END_STREAM).await).await;
}

#[tokio::test]
async fn an_answer_with_a_field_name_in_upper_case() {
    faulty(MALFORMED, async |peer, stream| peer.headers(stream, 200, &[("X-Upper", "y")], END_STREAM).await).await;
}

#[tokio::test]
async fn an_answer_with_a_field_of_http1_connections() {
    for field in [("connection", "close"), ("transfer-encoding", "chunked"), ("keep-alive", "x")] {
        faulty(MALFORMED, async |peer, stream| peer.headers(stream, 200, &[field], END_STREAM).await).await;
    }
}

#[tokio::test]
async fn an_answer_whose_length_is_no_number_or_two() {
    for fields in [&[("content-length", "+1")][..], &[("content-length", "1"), ("content-length", "2")]] {
        faulty(MALFORMED, async |peer, stream| {
            peer.headers(stream, 200, fields, OPEN).await;
        })
        .await;
    }
}

/// h2 takes every 1xx for an interim answer, so that the stream ends without a final one.
#[tokio::test]
async fn an_answer_that_switches_protocols_unasked() {
    faulty(MALFORMED, async |peer, stream| peer.headers(stream, 101, &[], END_STREAM).await).await;
}

#[tokio::test]
async fn a_body_without_a_head() {
    faulty(MALFORMED, async |peer, stream| peer.raw(encode(DATA, END_STREAM, stream, b"body")).await).await;
}

#[tokio::test]
async fn frames_that_are_none() {
    // A field block that no HPACK decoder reads ends the connection (RFC 9113 §4.3).
    faulty(MALFORMED, async |peer, stream| {
        peer.raw(encode(HEADERS, END_STREAM | 4, stream, &[0xff; 20])).await;
    })
    .await;
}

/// h2 tells a head above `SETTINGS_MAX_HEADER_LIST_SIZE` from a malformed one no further, so the reason is that.
#[tokio::test]
async fn a_head_that_is_too_large() {
    faulty(MALFORMED, async |peer, stream| {
        let long = "v".repeat(10_000);
        peer.head_in_parts(stream, 200, &[("x", long.as_str()); 8]).await;
    })
    .await;
}

const REFUSED: Row = row(503, "destination_unavailable", "stream_refused", GONE);
const MALFORMED: Row = row(502, "http_protocol_error", "malformed_response", INVALID);

/// Asks a service that does the same to every stream, on as many connections as it takes.
async fn faulty(row: Row, act: impl AsyncFn(&mut Peer, u32)) {
    let service = scripted::service().await;
    let proxy = proxy_before(&format!("h2c://{service}"), "");
    let asking = Asking::new(&proxy).await;
    tokio::select! {
        () = asking.expect(&proxy, row) => {}
        () = play(&service, act) => {}
    }
}

async fn play(service: &Service, act: impl AsyncFn(&mut Peer, u32)) {
    let mut peers = Vec::new();
    loop {
        let mut peer = service.accept_any_time().await;
        let stream = peer.expect_headers().await.stream;
        act(&mut peer, stream).await;
        // A peer that is dropped would end its connection.
        peers.push(peer);
    }
}
