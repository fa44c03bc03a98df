//! The client's doing, and our own decisions.

use http::Request;

use super::{Asking, row};
use crate::harness::client::Client;
use crate::harness::origin::Origin;
use crate::harness::proxy::Proxy;
use crate::harness::{client, origin, proxy};

#[tokio::test]
async fn a_head_that_is_malformed() {
    let (_origin, proxy) = proxy_before_origin("");
    let request = Request::get("/").header("host", "a b").body(()).unwrap();
    let row = row(400, "http_request_error", "malformed_head", "The request is malformed.").closing();
    Asking::with(&proxy, &request).await.expect(&proxy, row).await;
}

/// hyper answers what it cannot read by itself, with a bare head.
#[tokio::test]
async fn a_head_that_cannot_be_read() {
    let (_origin, proxy) = proxy_before_origin("");
    let mut client = client::raw(proxy.address()).await;
    client.send("nonsense\r\n\r\n").await;
    let response = client.expect_response().await;
    assert_eq!((response.status(), response.body.len(), response.head.is_closing()), (400, 0, true));
    client.expect_close().await;
    proxy.expect_fault("malformed_head").await;
}

#[tokio::test]
async fn a_head_with_too_many_bytes() {
    let (_origin, proxy) = proxy_before_origin("limits: { header_bytes: 8KiB }");
    let mut client = client::raw(proxy.address()).await;
    client.send(format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "y".repeat(9000))).await;
    let response = client.expect_response().await;
    assert_eq!((response.status(), response.head.is_closing()), (431, true));
    client.expect_close().await;
    proxy.expect_fault("head_too_large").await;
}

#[tokio::test]
async fn a_head_with_too_many_fields() {
    let (_origin, proxy) = proxy_before_origin("limits: { headers: 10 }");
    let mut client = client::raw(proxy.address()).await;
    client.send(format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "x: y\r\n".repeat(10))).await;
    let response = client.expect_response().await;
    assert_eq!((response.status(), response.head.is_closing()), (431, true));
    client.expect_close().await;
    proxy.expect_fault("head_too_large").await;
}

/// The longest target that `http::Uri` holds has 65534 bytes; hyper answers by itself.
#[tokio::test]
async fn a_target_that_is_too_long() {
    let (_origin, proxy) = proxy_before_origin("limits: { header_bytes: 128KiB }");
    let mut client = client::raw(proxy.address()).await;
    client.send(format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "x".repeat(70_000))).await;
    let response = client.expect_response().await;
    assert_eq!((response.status(), response.head.is_closing()), (414, true));
    client.expect_close().await;
    proxy.expect_fault("uri_too_long").await;
}

#[tokio::test]
async fn a_target_that_its_route_makes_too_long() {
    let origin = origin::h2().start();
    let proxy = proxy::on_one_worker(&format!(
        "listeners: [{{ address: 127.0.0.1:0, limits: {{ header_bytes: 128KiB }} }}]\n\
         routes: [{{ match: {{ path_prefix: / }}, upstream: a, rewrite: {{ path_prefix: /{}/ }} }}]\n\
         upstreams: {{ a: {{ endpoints: [h2c://{origin}] }} }}\n",
        "p".repeat(200)
    ));
    let request = Request::get(format!("/{}", "x".repeat(65_400))).body(()).unwrap();
    let row = row(414, "http_request_error", "uri_too_long", "The request target is too long.").closing();
    Asking::with(&proxy, &request).await.expect(&proxy, row).await;
}

#[tokio::test]
async fn a_body_that_is_too_large() {
    let (_origin, proxy) = proxy_before_origin("limits: { body_bytes: 4B }");
    let request = Request::post("/").header("content-length", "5").body(()).unwrap();
    let row = row(413, "http_request_error", "body_too_large", "The request body is too large.").closing();
    Asking::with(&proxy, &request).await.expect(&proxy, row).await;
}

#[tokio::test]
async fn a_method_that_is_not_carried() {
    let (_origin, proxy) = proxy_before_origin("");
    let request = Request::trace("/").body(()).unwrap();
    let row = row(405, "http_request_error", "method_not_allowed", "The method is not carried here.").closing();
    Asking::with(&proxy, &request).await.expect(&proxy, row).await;
}

#[tokio::test]
async fn a_request_without_a_route() {
    let origin = origin::h2().start();
    let proxy = proxy::on_one_worker(&format!(
        "listeners: [{{ address: 127.0.0.1:0 }}]\n\
         routes: [{{ match: {{ path_prefix: /other }}, upstream: a }}]\n\
         upstreams: {{ a: {{ endpoints: [h2c://{origin}] }} }}\n"
    ));
    let row = row(404, "destination_not_found", "no_route", "No route matches the request.");
    Asking::new(&proxy).await.expect(&proxy, row).await;
}

#[tokio::test]
async fn a_body_that_its_client_does_not_finish() {
    let origin = origin::h2().start();
    let proxy = proxy::on_one_worker(&format!(
        "listeners: [{{ address: 127.0.0.1:0 }}]\n\
         routes: [{{ upstream: a, timeouts: {{ stream_idle: 100ms }} }}]\n\
         upstreams: {{ a: {{ endpoints: [h2c://{origin}] }} }}\n"
    ));
    let request = Request::post("/upload").header("content-length", "5").body(()).unwrap();
    let row = row(400, "http_request_error", "body_incomplete", "The request body is incomplete.").closing();
    Asking::with(&proxy, &request).await.expect(&proxy, row).await;
}

#[tokio::test]
async fn a_request_that_waits_too_long_for_a_stream() {
    let (proxy, _held) = full("max_pending: 1, pending_timeout: 100ms").await;
    let sentence = "The request waited too long for the service.";
    let row = row(503, "connection_limit_reached", "pool_wait_timeout", sentence).retry_after();
    Asking::new(&proxy).await.expect(&proxy, row).await;
}

#[tokio::test]
async fn a_request_that_finds_the_queue_full() {
    let (proxy, _held) = full("max_pending: 1, pending_timeout: 1h").await;
    let mut waiting = client::h1(proxy.address()).await;
    waiting.start(&Request::get("/").body(()).unwrap(), false).await.unwrap();
    proxy.wait_for(|counts| counts.pending == 1).await;
    let row = row(503, "connection_limit_reached", "pool_full", "Too many requests are waiting.").retry_after();
    Asking::new(&proxy).await.expect(&proxy, row).await;
}

/// A proxy with one stream, which is taken until what comes beside it is dropped.
async fn full(pool: &str) -> (Proxy, (Origin, Client)) {
    let origin = origin::h2().max_concurrent_streams(1).start();
    let proxy = proxy::on_one_worker(&format!(
        "listeners: [{{ address: 127.0.0.1:0 }}]\n\
         upstreams: {{ a: {{ endpoints: [h2c://{origin}], pool: {{ max_connections: 1, {pool} }} }} }}\n"
    ));
    let mut holder = client::h1(proxy.address()).await;
    holder.start(&Request::get("/hang").body(()).unwrap(), false).await.unwrap();
    origin.wait_for(|log| log.requests_in_flight() == 1).await;
    (proxy, (origin, holder))
}

#[tokio::test]
async fn a_request_that_takes_too_long() {
    let origin = origin::h2().start();
    let proxy = proxy::on_one_worker(&format!(
        "listeners: [{{ address: 127.0.0.1:0 }}]\n\
         routes: [{{ upstream: a, timeouts: {{ request: 100ms }} }}]\n\
         upstreams: {{ a: {{ endpoints: [h2c://{origin}] }} }}\n"
    ));
    let row = row(504, "http_response_timeout", "request_timeout", "The request took too long.");
    Asking::with(&proxy, &Request::get("/hang").body(()).unwrap()).await.expect(&proxy, row).await;
}

#[tokio::test]
async fn a_service_that_takes_too_long() {
    let origin = origin::h2().start();
    let proxy = proxy::on_one_worker(&format!(
        "listeners: [{{ address: 127.0.0.1:0 }}]\n\
         routes: [{{ upstream: a, timeouts: {{ response_header: 100ms }} }}]\n\
         upstreams: {{ a: {{ endpoints: [h2c://{origin}] }} }}\n"
    ));
    let row = row(504, "http_response_timeout", "response_head_timeout", "The service took too long.");
    Asking::with(&proxy, &Request::get("/hang").body(()).unwrap()).await.expect(&proxy, row).await;
}

#[tokio::test]
async fn a_client_that_leaves_is_counted_and_told_nothing() {
    let (origin, proxy) = proxy_before_origin("");
    let mut client = client::h1(proxy.address()).await;
    client.start(&Request::get("/hang").body(()).unwrap(), false).await.unwrap();
    origin.wait_for(|log| log.requests_in_flight() == 1).await;
    client.abort();
    proxy.expect_fault("client_gone").await;
}

fn proxy_before_origin(listener: &str) -> (Origin, Proxy) {
    let origin = origin::h2().start();
    let proxy = proxy::on_one_worker(&format!(
        "listeners: [{{ address: 127.0.0.1:0, {listener} }}]\n\
         upstreams: {{ a: {{ endpoints: [h2c://{origin}] }} }}\n"
    ));
    (origin, proxy)
}
