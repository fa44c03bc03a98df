//! `Expect: 100-continue` from the client to the service, and the service's word back.

use std::time::Duration;

use h2::Reason;
use http::Request;

use super::proxy_to;
use crate::harness::client::RawClient;
use crate::harness::scripted::frame::{END_STREAM, OPEN};
use crate::harness::scripted::{Frame, Peer};
use crate::harness::wire::Broken;
use crate::harness::{client, origin, proxy, scripted};

const EXPECTING: &str = "PUT /upload HTTP/1.1\r\nhost: a\r\nexpect: 100-Continue\r\ncontent-length: 5\r\n\r\n";

#[tokio::test]
async fn a_client_is_told_to_continue_when_the_service_says_so_and_not_before() {
    let service = scripted::service().await;
    let proxy = proxy_to(&format!("h2c://{service}"), "");
    let mut peer = service.accept_with(&[]).await;
    let mut client = client::raw(proxy.address()).await;
    client.send(EXPECTING).await;
    let head = peer.expect_headers().await;
    assert_eq!(head.field("expect"), "100-continue");
    // An interim answer of another kind is no word about the body.
    peer.fields(head.stream, &[(":status", "103"), ("link", "</a>")], OPEN).await;
    assert_no_data(&peer.gather().await);
    assert!(!client.has_input());
    peer.fields(head.stream, &[(":status", "100")], OPEN).await;
    assert_eq!(client.expect_head().await.status(), Ok(100));
    client.send("hello").await;
    assert_eq!(peer.expect_body(head.stream).await, "hello");
    peer.headers(head.stream, 204, &[], END_STREAM).await;
    assert_eq!(client.expect_response_to("PUT").await.status(), 204);
    answers_another(client, &mut peer).await;
}

#[tokio::test]
async fn a_client_is_told_to_continue_when_an_http1_service_says_so_and_not_before() {
    let service = origin::raw_h1().await;
    let proxy = proxy_to(&format!("http1://{service}"), "");
    let mut connection = service.accept().await;
    let mut client = client::raw(proxy.address()).await;
    client.send(EXPECTING).await;
    let head = connection.expect_head().await;
    assert_eq!(head.header("expect"), Some("100-continue"));
    assert!(!client.has_input());
    connection.send("HTTP/1.1 100 Continue\r\n\r\n").await;
    assert_eq!(client.expect_head().await.status(), Ok(100));
    client.send("hello").await;
    assert_eq!(connection.expect_body(&head).await, "hello");
    connection.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(client.expect_response_to("PUT").await.status(), 204);
    // The connection is as good as before.
    client.send("GET /next HTTP/1.1\r\nhost: a\r\n\r\n").await;
    connection.expect_head().await;
}

#[tokio::test]
async fn a_service_that_says_nothing_is_sent_the_body_all_the_same() {
    let origin = origin::h2().start();
    let proxy = proxy_to(&format!("h2c://{origin}"), IMPATIENT);
    let mut client = client::raw(proxy.address()).await;
    client.send(EXPECTING).await;
    assert_eq!(client.expect_head().await.status(), Ok(100));
    client.send("hello").await;
    assert_eq!(client.expect_response_to("PUT").await.text(), "5");
    assert!(proxy.faults().is_empty(), "{:?}", proxy.faults());
}

#[tokio::test]
async fn an_http1_service_that_says_nothing_is_sent_the_body_all_the_same() {
    let service = origin::raw_h1().await;
    let proxy = proxy_to(&format!("http1://{service}"), IMPATIENT);
    let mut connection = service.accept().await;
    let mut client = client::raw(proxy.address()).await;
    client.send(EXPECTING).await;
    let head = connection.expect_head().await;
    assert_eq!(client.expect_head().await.status(), Ok(100));
    client.send("hello").await;
    assert_eq!(connection.expect_body(&head).await, "hello");
    connection.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(client.expect_response_to("PUT").await.status(), 204);
}

#[tokio::test]
async fn a_body_that_the_service_refuses_is_never_read() {
    let service = scripted::service().await;
    let proxy = proxy_to(&format!("h2c://{service}"), "");
    let mut peer = service.accept_with(&[]).await;
    let mut client = client::raw(proxy.address()).await;
    client.send(EXPECTING).await;
    let stream = peer.expect_headers().await.stream;
    peer.headers(stream, 413, &[("content-length", "5")], OPEN).await;
    peer.data(stream, "large", END_STREAM).await;
    let response = client.expect_response_to("PUT").await;
    assert_eq!((response.status(), response.interim.len(), response.head.is_closing()), (413, 0, true));
    client.expect_close().await;
    assert_eq!(peer.expect_rst(stream).await, Reason::CANCEL);
    assert_no_data(&peer.gather().await);
    assert!(proxy.faults().is_empty(), "{:?}", proxy.faults());
}

#[tokio::test]
async fn an_http1_connection_whose_service_has_refused_a_body_is_not_used_again() {
    let service = origin::raw_h1().await;
    let proxy = proxy_to(&format!("http1://{service}"), "");
    let mut connection = service.accept().await;
    let mut client = client::raw(proxy.address()).await;
    client.send(EXPECTING).await;
    connection.expect_head().await;
    connection.send("HTTP/1.1 401 Unauthorized\r\ncontent-length: 4\r\n\r\nwho?").await;
    let response = client.expect_response_to("PUT").await;
    assert_eq!((response.status(), response.interim.len(), response.text()), (401, 0, "who?"));
    client.expect_close().await;
    // The five bytes that the service may still wait for would be the start of the next request.
    connection.expect_close().await;
    let mut next = client::raw(proxy.address()).await;
    next.send("GET /next HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let mut connection = service.accept().await;
    connection.expect_request().await;
    connection.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    assert_eq!(next.expect_response().await.text(), "ok");
}

#[tokio::test]
async fn a_service_that_answers_at_once_and_reads_on_gets_the_body() {
    let service = scripted::service().await;
    let proxy = proxy_to(&format!("h2c://{service}"), "");
    let mut peer = service.accept_with(&[]).await;
    let mut client = client::raw(proxy.address()).await;
    client.send(EXPECTING).await;
    let stream = peer.expect_headers().await.stream;
    peer.headers(stream, 200, &[("content-length", "5")], OPEN).await;
    assert_eq!(client.expect_head().await.status(), Ok(200));
    client.send("hello").await;
    assert_eq!(peer.expect_body(stream).await, "hello");
    peer.data(stream, "there", END_STREAM).await;
    peer.gather().await;
}

#[tokio::test]
async fn a_request_whose_body_was_not_asked_for_goes_elsewhere_whole() {
    let service = scripted::service().await;
    let proxy = proxy_to(&format!("h2c://{service}"), "retry: { when: [\"503\"] }");
    let mut peer = service.accept_with(&[]).await;
    let mut client = client::raw(proxy.address()).await;
    client.send(EXPECTING).await;
    let refused = peer.expect_headers().await.stream;
    peer.rst_stream(refused, Reason::REFUSED_STREAM).await;
    let unwanted = peer.expect_headers().await;
    assert_eq!(unwanted.field("expect"), "100-continue");
    peer.headers(unwanted.stream, 503, &[], END_STREAM).await;
    let last = peer.expect_headers().await;
    assert_eq!(last.field("expect"), "100-continue");
    peer.fields(last.stream, &[(":status", "100")], OPEN).await;
    assert_eq!(client.expect_head().await.status(), Ok(100));
    client.send("hello").await;
    assert_eq!(peer.expect_body(last.stream).await, "hello");
    peer.headers(last.stream, 204, &[], END_STREAM).await;
    assert_eq!(client.expect_response_to("PUT").await.status(), 204);
}

#[tokio::test]
async fn a_client_that_leaves_before_it_is_asked_leaves_nothing_behind() {
    let service = scripted::service().await;
    let proxy = proxy_to(&format!("h2c://{service}"), "");
    let mut peer = service.accept_with(&[]).await;
    let mut client = client::raw(proxy.address()).await;
    client.send(EXPECTING).await;
    let stream = peer.expect_headers().await.stream;
    client.abort();
    assert_eq!(peer.expect_rst(stream).await, Reason::CANCEL);
    proxy.expect_fault("client_gone").await;
}

#[tokio::test]
async fn a_client_that_leaves_before_an_http1_service_has_asked_takes_the_connection_with_it() {
    let service = origin::raw_h1().await;
    let proxy = proxy_to(&format!("http1://{service}"), "");
    let mut connection = service.accept().await;
    let mut client = client::raw(proxy.address()).await;
    client.send(EXPECTING).await;
    connection.expect_head().await;
    client.abort();
    connection.expect_close().await;
    proxy.expect_fault("client_gone").await;
}

#[tokio::test]
async fn the_time_of_a_request_runs_while_its_body_is_held_back() {
    let origin = origin::h2().start();
    let proxy = proxy_to(&format!("h2c://{origin}"), "timeouts: { request: 150ms }");
    let mut client = client::raw(proxy.address()).await;
    client.send("PUT /hang HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n").await;
    let response = client.expect_response_to("PUT").await;
    assert_eq!((response.status(), response.interim.len()), (504, 0));
    proxy.expect_fault("request_timeout").await;
}

#[tokio::test]
async fn what_expects_nothing_or_something_else_is_sent_on_without_it() {
    let origin = origin::h2().start();
    let proxy = proxy::with(&format!("upstream: h2c://{origin}"));
    for head in [
        "GET /head HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\nconnection: close\r\n\r\n",
        "PUT /head HTTP/1.0\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\nab",
        "PUT /head HTTP/1.1\r\nhost: a\r\nexpect: the worst\r\ncontent-length: 2\r\nconnection: close\r\n\r\nab",
    ] {
        let mut client = client::raw(proxy.address()).await;
        client.send(head).await;
        let response = client.expect_response_to("PUT").await;
        assert_eq!((response.status(), response.interim.len()), (200, 0), "{head}");
    }
    assert!(origin.log().requests.iter().all(|request| request.header("expect").is_none()));
}

#[tokio::test]
async fn an_expectation_that_a_client_does_not_wait_for_is_met_with_what_it_sent() {
    let origin = origin::h2().start();
    let proxy = proxy::with(&format!("upstream: h2c://{origin}"));
    let mut client = client::h1(proxy.address()).await;
    let request = Request::put("/upload").header("expect", "100-continue").body("hello".into()).unwrap();
    let response: Result<_, Broken> = client.send(&request).await;
    assert_eq!(response.unwrap().text(), "5");
}

#[tokio::test]
async fn an_http2_client_is_told_to_continue_when_the_service_says_so() {
    let service = scripted::service().await;
    let proxy = proxy_to(&format!("h2c://{service}"), "");
    let mut peer = service.accept_with(&[]).await;
    let mut client = client::frames(proxy.address()).await;
    let fields = [
        (":method", "PUT"),
        (":scheme", "http"),
        (":authority", "a"),
        (":path", "/"),
        ("expect", "100-continue"),
        ("content-length", "5"),
    ];
    client.fields(1, &fields, OPEN).await;
    let upstream = peer.expect_headers().await;
    assert_eq!(upstream.field("expect"), "100-continue");
    peer.fields(upstream.stream, &[(":status", "100")], OPEN).await;
    assert_eq!(client.expect_headers().await.field(":status"), "100");
    client.data(1, "hello", END_STREAM).await;
    assert_eq!(peer.expect_body(upstream.stream).await, "hello");
    peer.headers(upstream.stream, 204, &[], END_STREAM).await;
    assert_eq!(client.expect_headers().await.field(":status"), "204");
    // A refusal leaves the connection as it is.
    client.fields(3, &fields, OPEN).await;
    let upstream = peer.expect_headers().await;
    peer.headers(upstream.stream, 413, &[], END_STREAM).await;
    let refusal = client.expect_headers().await;
    assert_eq!((refusal.field(":status"), refusal.has("connection")), ("413", false));
    assert!(proxy.faults().is_empty(), "{:?}", proxy.faults());
}

/// By the patience that a service without a word has, it would be told after the request's time.
#[tokio::test]
async fn an_http2_client_is_told_at_once_what_an_http1_service_says() {
    let service = origin::raw_h1().await;
    let proxy = proxy_to(&format!("http1://{service}"), "timeouts: { request: 800ms }");
    let mut connection = service.accept().await;
    let client = client::h2(proxy.address()).await;
    let request = client.request("/").method("PUT").header("expect", "100-continue").header("content-length", "5");
    let mut stream = client.open(request.body(()).unwrap(), false).await.unwrap();
    let head = connection.expect_head().await;
    connection.send("HTTP/1.1 100 Continue\r\n\r\n").await;
    stream.interim(100).await;
    stream.upload("hello".into(), true).await.unwrap();
    assert_eq!(connection.expect_body(&head).await, "hello");
    // There must be time left.
    tokio::time::sleep(Duration::from_millis(300)).await;
    connection.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(stream.head().await.unwrap().status(), 204);
}

async fn answers_another(mut client: RawClient, peer: &mut Peer) {
    client.send("GET /next HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let next = peer.expect_headers().await;
    peer.answer(&next, 200, "next").await;
    assert_eq!(client.expect_response().await.text(), "next");
}

fn assert_no_data(frames: &[Frame]) {
    assert!(!frames.iter().any(|frame| matches!(frame, Frame::Data { .. })), "{frames:?}");
}

/// Less time for what stands still than a service has to say something about a body.
const IMPATIENT: &str = "timeouts: { stream_idle: 300ms }";
