//! HTTP/2 services that want HTTP/1.1 for a request, or altogether. RFC 9113 §7.

use h2::Reason;
use http::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{HTTP1, HTTP2, answered, before, found, get, start};
use crate::harness::scripted::{self, Service};
use crate::harness::watched::within;

/// Expects an HTTP/1.1 request on a connection of its own, from its `line` to its `end`, and answers it.
async fn serve_http1(service: &Service, line: &str, end: &str) {
    let mut stream = service.accept_stream().await;
    let mut read = Vec::new();
    while !read.ends_with(end.as_bytes()) {
        assert!(within("request", stream.read_buf(&mut read)).await.unwrap() > 0, "{}", read.escape_ascii());
    }
    assert!(read.starts_with(line.as_bytes()), "{}", read.escape_ascii());
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nh1").await.unwrap();
}

#[tokio::test]
async fn a_post_that_requires_http1_goes_again_over_http1_and_others_stay_on_http2() {
    let service = scripted::service().await;
    let proxy = before(&format!("http://{service}"), "");
    let mut peer = service.accept_with(&[]).await;
    let order = Request::post("/order").header("content-length", "5").body(()).unwrap();
    let mut client = start(&proxy, order).await.into_raw();
    client.send("order").await;
    let head = peer.expect_headers().await;
    assert_eq!(peer.expect_body(head.stream).await, "order");
    peer.rst_stream(head.stream, Reason::HTTP_1_1_REQUIRED).await;
    serve_http1(&service, "POST /order HTTP/1.1\r\n", "order").await;
    assert_eq!(client.expect_response().await.text(), "h1");
    let other = start(&proxy, get("/other")).await;
    let head = peer.expect_headers().await;
    peer.answer(&head, 200, "h2").await;
    answered(other, "h2").await;
    let counts = proxy.counts();
    assert_eq!((counts.retries, counts.faults), ([("http_1_1_required", 1)].into(), [].into()));
    assert_eq!(found(&service), [HTTP2]);
}

#[tokio::test]
async fn a_service_that_ends_a_connection_for_http1_is_served_over_http1() {
    let service = scripted::service().await;
    let proxy = before(&format!("http://{service}"), "");
    let mut peer = service.accept_with(&[]).await;
    let client = start(&proxy, get("/")).await;
    peer.expect_headers().await;
    peer.goaway(0, Reason::HTTP_1_1_REQUIRED).await;
    serve_http1(&service, "GET / HTTP/1.1\r\n", "\r\n\r\n").await;
    answered(client, "h1").await;
    assert_eq!((found(&service), proxy.counts().retries), (vec![HTTP2, HTTP1], [("goaway", 1)].into()));
}

#[tokio::test]
async fn under_h2c_it_is_a_reset_like_any_other() {
    let service = scripted::service().await;
    let proxy = before(&format!("h2c://{service}"), "");
    let mut peer = service.accept_with(&[]).await;
    let mut client = start(&proxy, get("/")).await;
    let head = peer.expect_headers().await;
    peer.rst_stream(head.stream, Reason::HTTP_1_1_REQUIRED).await;
    assert_eq!(client.head().await.unwrap().status(), Ok(502));
    proxy.expect_fault("stream_reset").await;
    assert_eq!(proxy.counts().retries, [].into());
}
