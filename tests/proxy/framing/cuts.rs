//! Answers that break off: the client must see it.

use bytes::Bytes;
use h2::Reason;
use http::Request;

use crate::harness::client::Client;
use crate::harness::proxy::Proxy;
use crate::harness::scripted::frame::{END_STREAM, OPEN};
use crate::harness::scripted::{Peer, Service};
use crate::harness::wire::Broken;
use crate::harness::{client, origin, proxy, scripted};

#[tokio::test]
async fn a_body_shorter_than_its_content_length_is_cut() {
    let mut exchange = Exchange::new().await;
    exchange.head(&[("content-length", "10")]).await;
    exchange.peer.data(exchange.stream, "short", END_STREAM).await;
    assert!(matches!(exchange.client.body().await, Err(Broken::ClosedInBody { .. })));
    exchange.proxy.expect_fault("body_cut").await;
}

#[tokio::test]
async fn a_body_longer_than_its_content_length_is_never_passed_on_as_more() {
    let mut exchange = Exchange::new().await;
    exchange.head(&[("content-length", "4")]).await;
    exchange.peer.data(exchange.stream, "longer", END_STREAM).await;
    assert!(matches!(exchange.client.body().await, Err(Broken::ClosedInBody { .. })));
    exchange.proxy.expect_fault("body_cut").await;
}

#[tokio::test]
async fn a_chunked_answer_that_is_reset_has_no_last_chunk() {
    let mut exchange = Exchange::new().await;
    exchange.head(&[]).await;
    exchange.peer.data(exchange.stream, "part", OPEN).await;
    assert_eq!(exchange.client.part().await.unwrap().unwrap(), "part");
    exchange.peer.rst_stream(exchange.stream, Reason::INTERNAL_ERROR).await;
    assert_eq!(exchange.client.body().await, Err(Broken::ClosedInBody { received_bytes: 4 }));
    exchange.proxy.expect_fault("body_cut").await;
}

#[tokio::test]
async fn a_sized_answer_that_is_reset_is_cut() {
    let mut exchange = Exchange::new().await;
    exchange.head(&[("content-length", "10")]).await;
    exchange.peer.data(exchange.stream, "part", OPEN).await;
    assert_eq!(exchange.client.part().await.unwrap().unwrap(), "part");
    exchange.peer.rst_stream(exchange.stream, Reason::CANCEL).await;
    assert_eq!(exchange.client.body().await, Err(Broken::ClosedInBody { received_bytes: 4 }));
}

#[tokio::test]
async fn no_error_in_the_middle_of_an_answer_is_a_cut_all_the_same() {
    let mut exchange = Exchange::new().await;
    exchange.head(&[]).await;
    exchange.peer.data(exchange.stream, "part", OPEN).await;
    assert_eq!(exchange.client.part().await.unwrap().unwrap(), "part");
    exchange.peer.rst_stream(exchange.stream, Reason::NO_ERROR).await;
    assert_eq!(exchange.client.body().await, Err(Broken::ClosedInBody { received_bytes: 4 }));
}

#[tokio::test]
async fn the_loss_of_the_upstream_connection_cuts_the_answers_on_it() {
    let Exchange { mut client, peer, stream, proxy, .. } = Exchange::new().await;
    peer.headers(stream, 200, &[], OPEN).await;
    peer.data(stream, "part", OPEN).await;
    client.head().await.unwrap();
    assert_eq!(client.part().await.unwrap().unwrap(), "part");
    peer.abort().await;
    assert_eq!(client.body().await, Err(Broken::ClosedInBody { received_bytes: 4 }));
    proxy.expect_fault("body_cut").await;
}

#[tokio::test]
async fn a_goaway_does_not_cut_the_answer_that_it_covers() {
    let Exchange { mut client, mut peer, stream, proxy, service } = Exchange::new().await;
    peer.headers(stream, 200, &[], OPEN).await;
    client.head().await.unwrap();
    peer.goaway(stream, Reason::NO_ERROR).await;
    peer.data(stream, "rest", END_STREAM).await;
    assert_eq!(client.body().await.unwrap(), "rest");
    peer.expect_closed().await;
    drop((proxy, service));
}

#[tokio::test]
async fn an_http1_service_that_breaks_off_cuts_the_answer() {
    let origin = origin::h1().start();
    let proxy = proxy::with(&format!("upstream: http1://{origin}"));
    let mut client = client::h1(proxy.address()).await;
    client.start(&Request::get("/reset-body/7").body(()).unwrap(), false).await.unwrap();
    client.head().await.unwrap();
    assert_eq!(client.body().await, Err(Broken::ClosedInBody { received_bytes: 7 }));
    proxy.expect_fault("body_cut").await;
}

#[tokio::test]
async fn an_http1_answer_without_its_last_chunk_is_cut() {
    let service = origin::raw_h1().await;
    let proxy = proxy::on_one_worker(&format!("upstream: http1://{service}"));
    let mut connection = service.accept().await;
    let mut client = client::h1(proxy.address()).await;
    client.start(&Request::get("/").body(()).unwrap(), false).await.unwrap();
    connection.expect_request().await;
    connection.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\npart\r\n").await;
    client.head().await.unwrap();
    assert_eq!(client.part().await.unwrap().unwrap(), "part");
    connection.close().await;
    assert_eq!(client.body().await, Err(Broken::ClosedInBody { received_bytes: 4 }));
}

/// HTTP/1.0 has no framing but the end of the connection, so only a reset can say that it came too early.
#[tokio::test]
async fn an_http10_answer_of_unknown_length_that_is_cut_ends_with_a_reset() {
    let service = scripted::service().await;
    let proxy = proxy::on_one_worker(&format!("upstream: h2c://{service}"));
    let mut peer = service.accept_with(&[]).await;
    let mut client = client::raw(proxy.address()).await;
    client.send("GET / HTTP/1.0\r\nhost: a\r\n\r\n").await;
    let stream = peer.expect_headers().await.stream;
    peer.headers(stream, 200, &[], OPEN).await;
    client.expect_head().await;
    peer.rst_stream(stream, Reason::INTERNAL_ERROR).await;
    assert_eq!(client.read_to_end().await, Err(Broken::Reset));
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_stream_and_nobody_elses() {
    let Exchange { client, mut peer, stream, proxy, service } = Exchange::new().await;
    let mut other = client::h1(proxy.address()).await;
    other.start(&Request::get("/other").body(()).unwrap(), false).await.unwrap();
    let request = peer.expect_headers().await;
    client.abort();
    assert_eq!(peer.expect_rst(stream).await, Reason::CANCEL);
    peer.answer(&request, 200, "unharmed").await;
    other.head().await.unwrap();
    assert_eq!(other.body().await.unwrap(), Bytes::from_static(b"unharmed"));
    proxy.expect_fault("client_gone").await;
    drop(service);
}

/// A request that has reached a scripted service.
struct Exchange {
    client: Client,
    peer: Peer,
    stream: u32,
    proxy: Proxy,
    service: Service,
}

impl Exchange {
    async fn new() -> Self {
        let service = scripted::service().await;
        let proxy = proxy::on_one_worker(&format!("upstream: h2c://{service}"));
        let mut peer = service.accept_with(&[]).await;
        let mut client = client::h1(proxy.address()).await;
        client.start(&Request::get("/").body(()).unwrap(), false).await.unwrap();
        let stream = peer.expect_headers().await.stream;
        Self { client, peer, stream, proxy, service }
    }

    /// Answers with a head, and sees it arrive.
    async fn head(&mut self, fields: &[(&str, &str)]) {
        self.peer.headers(self.stream, 200, fields, OPEN).await;
        assert_eq!(self.client.head().await.unwrap().status(), Ok(200));
    }
}
