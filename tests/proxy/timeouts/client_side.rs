//! Clients that send too slowly, or nothing.

use std::time::Instant;

use super::{SHORT, proxy_with};
use crate::harness::proxy::Proxy;
use crate::harness::{client, origin};

#[tokio::test]
async fn a_silent_connection_is_closed_without_a_word() {
    let (_origin, proxy) = proxy("timeouts: { header: 150ms }");
    let mut client = client::raw(proxy.address()).await;
    let connected = Instant::now();
    client.expect_close().await;
    assert!(connected.elapsed() >= SHORT, "not before its time");
    assert!(proxy.faults().is_empty(), "{:?}", proxy.faults());
}

#[tokio::test]
async fn a_part_of_a_head_is_answered_408_and_closed() {
    let (_origin, proxy) = proxy("timeouts: { header: 150ms }");
    let mut client = client::raw(proxy.address()).await;
    client.send("GET / HTTP/1.1\r\nhost:").await;
    let response = client.expect_response().await;
    assert_eq!((response.status(), response.head.is_closing()), (408, true));
    assert_eq!(response.header("proxy-status"), Some("trunkline; error=http_request_error"));
    client.expect_close().await;
    proxy.expect_fault("head_timeout").await;
}

#[tokio::test]
async fn a_head_that_comes_byte_by_byte_is_no_reason_to_wait_longer() {
    let (_origin, proxy) = proxy("timeouts: { header: 150ms }");
    let mut client = client::raw(proxy.address()).await;
    let drip = async {
        for byte in b"GET / HTTP/1.1\r\nhost: a\r\n".iter().chain(std::iter::repeat(&b'x')) {
            client.send([*byte]).await;
            tokio::time::sleep(SHORT / 10).await;
            if client.has_input() {
                break;
            }
        }
    };
    crate::harness::watched::within("answer to a dripping client", drip).await;
    assert_eq!(client.expect_response().await.status(), 408);
}

#[tokio::test]
async fn a_part_of_a_second_head_is_answered_408_and_closed() {
    let (_origin, proxy) = proxy("timeouts: { header: 150ms }");
    let mut client = client::raw(proxy.address()).await;
    client.send("GET /bytes/1 HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(client.expect_response().await.status(), 200);
    client.send("GET ").await;
    assert_eq!(client.expect_response().await.status(), 408);
    client.expect_close().await;
}

/// hyper has read it already when the answer before it ends, so nothing tells us that a head has begun.
#[tokio::test]
async fn a_part_of_a_head_pipelined_behind_a_request_has_the_idle_time() {
    let (_origin, proxy) = proxy("timeouts: { header: 1h, idle: 150ms }");
    let mut client = client::raw(proxy.address()).await;
    client.send("GET /bytes/1 HTTP/1.1\r\nhost: a\r\n\r\nGET ").await;
    assert_eq!(client.expect_response().await.status(), 200);
    client.expect_close().await;
}

#[tokio::test]
async fn the_header_timeout_does_not_bound_the_service() {
    let (_origin, proxy) = proxy("timeouts: { header: 150ms }");
    let mut client = client::h1(proxy.address()).await;
    assert_eq!(client.get("/delay/400").await.text(), "slow");
}

#[tokio::test]
async fn an_idle_connection_is_closed_without_a_word() {
    let (_origin, proxy) = proxy("timeouts: { idle: 150ms }");
    let mut client = client::raw(proxy.address()).await;
    client.send("GET /bytes/1 HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(client.expect_response().await.status(), 200);
    let answered = Instant::now();
    client.expect_close().await;
    // The time began when the answer was handed to the socket, a little earlier than it was read.
    assert!(answered.elapsed() >= SHORT / 2, "not before its time");
    assert!(proxy.faults().is_empty(), "{:?}", proxy.faults());
}

#[tokio::test]
async fn the_idle_timeout_does_not_bound_a_running_exchange() {
    let (_origin, proxy) = proxy("timeouts: { idle: 150ms }");
    let mut client = client::h1(proxy.address()).await;
    assert_eq!(client.get("/delay/400").await.text(), "slow");
    assert_eq!(client.get("/stream/4?every=100").await.text().matches("data:").count(), 4);
}

#[tokio::test]
async fn each_request_begins_the_idle_time_anew() {
    let (_origin, proxy) = proxy("timeouts: { idle: 300ms }");
    let mut client = client::h1(proxy.address()).await;
    for _ in 0..5 {
        client.get("/bytes/1").await;
        tokio::time::sleep(SHORT).await;
    }
    assert_eq!(client.get("/bytes/1").await.status(), 200);
}

fn proxy(listener: &str) -> (origin::Origin, Proxy) {
    let origin = origin::h2().start();
    let proxy = proxy_with(listener, "", &format!("endpoints: [h2c://{origin}]"));
    (origin, proxy)
}
