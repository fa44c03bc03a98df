//! Many exchanges on one client connection: kept, pipelined, closed.

use bytes::Bytes;
use http::Request;

use crate::harness::origin::log::Ending;
use crate::harness::{client, origin, proxy};

#[tokio::test]
async fn a_connection_carries_one_request_after_another() {
    let origin = origin::h2().start();
    let proxy = proxy::with(&format!("upstream: h2c://{origin}"));
    let mut client = client::h1(proxy.address()).await;
    for number in 0..5 {
        assert_eq!(client.get(&format!("/bytes/{number}")).await.body.len(), number);
        assert_eq!(client.post("/echo", "hello").await.text(), "hello");
    }
    assert_eq!(origin.log().requests.len(), 10);
}

#[tokio::test]
async fn pipelined_answers_come_in_order_however_long_each_takes() {
    let origin = origin::h2().start();
    let proxy = proxy::with(&format!("upstream: h2c://{origin}"));
    let mut client = client::raw(proxy.address()).await;
    let request = |id: &str, path: &str| format!("GET {path} HTTP/1.1\r\nhost: a\r\nx-request-id: {id}\r\n\r\n");
    let slow_first = request("1", "/bytes/9?delay=60") + &request("2", "/bytes/9") + &request("3", "/delay/20");
    client.send(slow_first + &request("4", "/status/204") + &request("5", "/stream/3")).await;
    for id in ["1", "2", "3", "4", "5"] {
        assert_eq!(client.expect_response().await.header("x-request-id"), Some(id));
    }
    assert_eq!(client.leftover(), b"");
}

#[tokio::test]
async fn a_request_pipelined_after_a_body_is_a_request_of_its_own() {
    let origin = origin::h2().start();
    let proxy = proxy::with(&format!("upstream: h2c://{origin}"));
    let mut client = client::raw(proxy.address()).await;
    client
        .send(
            "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nfirst\
             POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n6\r\nsecond\r\n0\r\n\r\n\
             GET /bytes/1 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
        )
        .await;
    assert_eq!(client.expect_response_to("POST").await.text(), "first");
    assert_eq!(client.expect_response_to("POST").await.text(), "second");
    assert_eq!(client.expect_response().await.body.len(), 1);
    client.expect_close().await;
}

#[tokio::test]
async fn an_answer_is_not_held_back_by_the_requests_pipelined_behind_it() {
    let origin = origin::h2().start();
    let proxy = proxy::with(&format!("upstream: h2c://{origin}"));
    let mut client = client::raw(proxy.address()).await;
    let request = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n");
    // A client that leaves with more in the pipeline is noticed late, so the slow one ends by itself.
    client.send(request("/bytes/3") + &request("/delay/500") + &request("/bytes/3")).await;
    assert_eq!(client.expect_response().await.status(), 200);
    assert_eq!(origin.log().ended(Ending::Complete), 1, "the slow one still runs");
}

#[tokio::test]
async fn the_last_answer_is_written_although_more_was_pipelined_behind_it() {
    let origin = origin::h2().start();
    let proxy = proxy::with(&format!("upstream: h2c://{origin}"));
    let mut client = client::raw(proxy.address()).await;
    client
        .send(
            "GET /bytes/3 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n\
             GET /bytes/4 HTTP/1.1\r\nhost: a\r\n\r\n",
        )
        .await;
    assert_eq!(client.expect_response().await.body.len(), 3);
    client.expect_close().await;
    assert_eq!(origin.log().requests.len(), 1);
}

#[tokio::test]
async fn bodiless_answers_have_no_byte_and_leave_the_connection_in_step() {
    let origin = origin::h2().start();
    let proxy = proxy::with(&format!("upstream: h2c://{origin}"));
    let mut client = client::raw(proxy.address()).await;
    for (method, path, status) in [
        ("HEAD", "/bytes/9", 200),
        ("HEAD", "/stream/3", 200),
        ("GET", "/status/204", 204),
        ("POST", "/status/204", 204),
        ("GET", "/status/304", 304),
        ("GET", "/bytes/0", 200),
    ] {
        client.send(format!("{method} {path} HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n")).await;
        let response = client.expect_response_to(method).await;
        assert_eq!((response.status(), response.body.len(), client.leftover()), (status, 0, &b""[..]), "{path}");
    }
}

#[tokio::test]
async fn head_says_the_length_that_get_would_have() {
    let origin = origin::h2().start();
    let proxy = proxy::with(&format!("upstream: h2c://{origin}"));
    let mut client = client::h1(proxy.address()).await;
    let response = client.send(&Request::head("/bytes/9").body(Bytes::new()).unwrap()).await.unwrap();
    assert_eq!(response.header("content-length"), Some("9"));
    assert_eq!(response.header("transfer-encoding"), None);
}

#[tokio::test]
async fn connection_close_is_answered_and_followed() {
    let origin = origin::h2().start();
    let proxy = proxy::with(&format!("upstream: h2c://{origin}"));
    let mut client = client::raw(proxy.address()).await;
    client.send("GET /bytes/3 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
    let response = client.expect_response().await;
    assert!(response.head.is_closing());
    client.expect_close().await;
}

#[tokio::test]
async fn an_http10_connection_closes_after_its_answer() {
    let origin = origin::h2().start();
    let proxy = proxy::with(&format!("upstream: h2c://{origin}"));
    let mut client = client::raw(proxy.address()).await;
    client.send("GET /bytes/3 HTTP/1.0\r\n\r\n").await;
    let response = client.expect_response().await;
    assert_eq!((response.status(), response.header("content-length")), (200, Some("3")));
    assert!(response.head.is_closing());
    client.expect_close().await;
}

#[tokio::test]
async fn an_http10_connection_is_kept_if_the_client_asks_for_it() {
    let origin = origin::h2().start();
    let proxy = proxy::with(&format!("upstream: h2c://{origin}"));
    let mut client = client::raw(proxy.address()).await;
    for _ in 0..2 {
        client.send("GET /bytes/3 HTTP/1.0\r\nhost: a\r\nconnection: keep-alive\r\n\r\n").await;
        let response = client.expect_response().await;
        assert_eq!((response.status(), response.head.is_closing()), (200, false), "{:?}", response.head);
    }
}

#[tokio::test]
async fn an_http10_answer_of_unknown_length_ends_with_the_connection_and_is_not_chunked() {
    let origin = origin::h2().start();
    let proxy = proxy::with(&format!("upstream: h2c://{origin}"));
    let mut client = client::raw(proxy.address()).await;
    client.send("GET /stream/3 HTTP/1.0\r\nhost: a\r\nconnection: keep-alive\r\n\r\n").await;
    let response = client.expect_response().await;
    assert_eq!((response.header("transfer-encoding"), response.header("content-length")), (None, None));
    assert_eq!(response.text().matches("data:").count(), 3);
    assert!(response.head.is_closing());
}

#[tokio::test]
async fn empty_lines_before_a_request_are_skipped() {
    let origin = origin::h2().start();
    let proxy = proxy::with(&format!("upstream: h2c://{origin}"));
    let mut client = client::raw(proxy.address()).await;
    client.send("\r\n\r\nGET /bytes/3 HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(client.expect_response().await.status(), 200);
}
