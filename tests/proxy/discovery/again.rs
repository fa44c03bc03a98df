//! Services that change their mind: what is asked again, and when.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, LocalOptions};
use trunkline::config::{Source, load};
use trunkline::control::lone_worker;

use super::{ASKED_AGAIN, HTTP1, HTTP2, answered, before, found, get, start};
use crate::harness::scripted::Service;
use crate::harness::watched::within;
use crate::harness::{client, origin, said, scripted};

/// Accepts a connection, expects its beginning, and answers it with bytes. What has not been read would turn its end into a
/// reset, which may overtake the answer: so the connection comes back.
pub async fn meet(service: &Service, beginning: &str, answer: &[u8]) -> TcpStream {
    let mut stream = service.accept_stream().await;
    let mut read = vec![0; beginning.len()];
    within("the beginning of a connection", stream.read_exact(&mut read)).await.unwrap();
    assert_eq!(read.escape_ascii().to_string(), beginning.as_bytes().escape_ascii().to_string());
    stream.write_all(answer).await.unwrap();
    stream
}

/// One HTTP/1.1 exchange on a connection of its own, which then ends.
const CLOSING: &[u8] = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nh1";
/// Empty SETTINGS, then GOAWAY with `PROTOCOL_ERROR`: how HTTP/2 meets HTTP/1.1 (RFC 9113 §3.4).
const NOT_A_PREFACE: &[u8] = b"\0\0\0\x04\0\0\0\0\0\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\x01";

/// As behind a socket that outlives its service: no dial ever fails, so nothing tells that it is another program.
#[tokio::test]
async fn a_post_that_is_answered_in_http2_was_not_read_and_goes_again() {
    let service = scripted::service().await;
    let proxy = before(&format!("http://{service}"), "");
    let _asked = meet(&service, "PRI * ", CLOSING).await;
    let first = start(&proxy, get("/first")).await;
    let _first = meet(&service, "GET /first ", CLOSING).await;
    answered(first, "h1").await;
    let order = http::Request::post("/order").header("content-length", "5").body(()).unwrap();
    let mut client = start(&proxy, order).await.into_raw();
    client.send("order").await;
    let _second = meet(&service, "POST /order ", NOT_A_PREFACE).await;
    let mut peer = service.accept_with(&[]).await;
    let head = peer.expect_headers().await;
    assert_eq!(peer.expect_body(head.stream).await, "order");
    peer.answer(&head, 200, "h2").await;
    assert_eq!(client.expect_response().await.text(), "h2");
    assert_eq!(found(&service), [HTTP1, HTTP2]);
    let counts = proxy.counts();
    assert_eq!((counts.retries, counts.faults), ([("http_2_answered", 1)].into(), [].into()));
}

/// Under `http1://` nothing else is spoken.
#[tokio::test]
async fn an_answer_in_http2_under_http1_is_malformed() {
    let service = scripted::service().await;
    let proxy = before(&format!("http1://{service}"), "");
    let mut client = start(&proxy, get("/")).await;
    let _connection = meet(&service, "GET / ", NOT_A_PREFACE).await;
    assert_eq!(client.head().await.unwrap().status(), Ok(502));
    proxy.expect_fault("malformed_response").await;
}

#[tokio::test]
async fn a_service_that_comes_back_with_http2_is_asked_before_a_request_meets_it() {
    let mut origin = origin::h1().start();
    let proxy = before(&format!("http://{origin}"), "");
    let mut client = client::h1(proxy.address()).await;
    assert_eq!(client.get("/bytes/1").await.status(), 200);
    origin.crash().await;
    client.start(&get("/head"), false).await.unwrap();
    proxy.wait_for(|counts| counts.pending == 1).await;
    said::line(&[&origin.to_string(), "endpoint cannot be reached"]).await;
    origin.restart_as(origin::h2());
    assert_eq!(client.head().await.unwrap().status(), Ok(200));
    client.body().await.unwrap();
    assert_eq!(client.get("/head").await.json()["version"], "HTTP/2.0");
    let counts = proxy.counts();
    assert_eq!((found(&origin), counts.retries), (vec![HTTP1, HTTP2], [].into()));
}

#[tokio::test]
async fn a_service_that_comes_back_without_http2_is_served_over_http1() {
    let mut origin = origin::h2().start();
    let proxy = before(&format!("http://{origin}"), "");
    let mut client = client::h1(proxy.address()).await;
    assert_eq!(client.get("/bytes/1").await.status(), 200);
    origin.crash().await;
    origin.restart_as(origin::h1());
    assert_eq!(client.get("/head").await.json()["version"], "HTTP/1.1");
    assert_eq!(found(&origin), [HTTP2, HTTP1]);
}

/// On a runtime of its own, whose clock is put forward.
#[test]
fn a_service_that_learns_http2_is_found_out_within_a_minute() {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    runtime.block_on(async {
        said::listen();
        let service = scripted::service().await;
        let text = format!("listen: 127.0.0.1:0\nupstream: http://{service}\nlogs: {{ access: {{ only: none }} }}\n");
        let (config, _) = load(&Source::new("test.yaml", text), &|_| None).unwrap_or_else(|errors| panic!("{errors}"));
        let (_worker, address) = lone_worker(&config).unwrap();
        let _asked = meet(&service, "PRI * ", CLOSING).await;
        said::line(&[&service.to_string(), HTTP1]).await;
        put_forward().await;
        let _asked_again = meet(&service, "PRI * ", CLOSING).await;
        put_forward().await;
        let mut peer = service.accept_with(&[]).await;
        said::line(&[&service.to_string(), HTTP2]).await;
        let mut client = client::h1(address).await;
        client.start(&get("/"), false).await.unwrap();
        let head = peer.expect_headers().await;
        peer.answer(&head, 200, "h2").await;
        answered(client, "h2").await;
        assert_eq!(found(&service), [HTTP1, HTTP2]);
    });
}

/// The pause between two questions is over at once.
async fn put_forward() {
    tokio::time::pause();
    tokio::time::advance(ASKED_AGAIN).await;
    tokio::time::resume();
}
