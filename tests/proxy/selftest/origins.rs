//! Origins answer as their table says, and their logs tell what happened.

use bytes::Bytes;
use h2::Reason;
use http::Request;

use crate::harness::origin::behaviour::pattern;
use crate::harness::origin::log::{Closing, Ending};
use crate::harness::tls::Identity;
use crate::harness::wire::Broken;
use crate::harness::{client, origin};

#[tokio::test]
async fn h1_origin_answers_by_path_on_one_connection() {
    let origin = origin::h1().start();
    let mut client = client::h1(origin.address()).await;
    let request = Request::get("/bytes/10").header("x-request-id", "a7").body(Bytes::new()).unwrap();
    let response = client.send(&request).await.unwrap();
    assert_eq!((response.status(), &response.body[..]), (200, &pattern("a7", 10)[..]));
    assert_eq!(response.header("X-Request-Id"), Some("a7"));
    assert_eq!(client.post("/echo", "hello").await.text(), "hello");
    assert_eq!(client.post("/upload", vec![0; 100_000]).await.text(), "100000");
    assert_eq!(client.get("/status/404").await.status(), 404);
    assert_eq!(client.get("/delay/1").await.text(), "slow");
    assert_eq!(client.get("/head").await.json()["target"], "/head");
    let log = origin.log();
    assert_eq!((log.connections.len(), log.requests.len()), (1, 6));
    assert_eq!(log.request("a7").unwrap().ending(), Some(Ending::Complete));
    assert_eq!(log.requests[2].body_bytes, 100_000);
}

#[tokio::test]
async fn h1_origin_sends_event_streams_and_trailers() {
    let origin = origin::h1().start();
    let mut client = client::h1(origin.address()).await;
    let events = client.get("/stream/3?every=1").await;
    assert_eq!(events.text().matches("data:").count(), 3);
    let request = Request::get("/trailers").header("te", "trailers").body(Bytes::new()).unwrap();
    let response = client.send(&request).await.unwrap();
    assert_eq!(response.trailer("x-checksum"), Some("42"));
}

#[tokio::test]
async fn h1_origin_cuts_a_body_and_logs_it() {
    let origin = origin::h1().start();
    let mut client = client::h1(origin.address()).await;
    client.start(&Request::get("/reset-body/7").body(()).unwrap(), false).await.unwrap();
    assert_eq!(client.head().await.unwrap().status(), Ok(200));
    assert_eq!(client.body().await, Err(Broken::ClosedInBody { received_bytes: 7 }));
    origin.wait_for(|log| log.ended(Ending::ResetByOrigin(Reason::CANCEL)) == 1).await;
}

#[tokio::test]
async fn h1_origin_notices_a_client_that_leaves() {
    let origin = origin::h1().start();
    let mut client = client::h1(origin.address()).await;
    client.start(&Request::get("/hang").body(()).unwrap(), false).await.unwrap();
    origin.wait_for(|log| log.requests_in_flight() == 1).await;
    client.abort();
    origin.wait_for(|log| log.ended(Ending::ConnectionLost) == 1 && log.connections_open == 0).await;
}

#[tokio::test]
async fn h2_origin_logs_streams_resets_and_their_codes() {
    let origin = origin::h2().start();
    let mut send = h2_client(origin.address()).await;
    let (echo, mut body) = send.send_request(request("POST", "/echo", "e1"), false).unwrap();
    body.send_data(Bytes::from_static(b"over h2"), true).unwrap();
    let mut answer = echo.await.unwrap();
    assert_eq!(answer.headers()["x-request-id"], "e1");
    assert_eq!(answer.body_mut().data().await.unwrap().unwrap(), "over h2");

    let (_hang, mut stream) = send.send_request(request("GET", "/hang", "h1"), false).unwrap();
    origin.wait_for(|log| log.requests_in_flight() == 1).await;
    stream.send_reset(Reason::CANCEL);
    origin.wait_for(|log| log.ended(Ending::ResetByPeer(Reason::CANCEL)) == 1).await;

    let (reset, _) = send.send_request(request("GET", "/reset?code=11", "r1"), true).unwrap();
    assert_eq!(reset.await.unwrap_err().reason(), Some(Reason::ENHANCE_YOUR_CALM));
    let log = origin.log();
    assert_eq!(log.requests.iter().map(|request| request.stream).collect::<Vec<_>>(), [1, 3, 5]);
    assert_eq!(log.connections[0].streams_open_max, 1);
}

#[tokio::test]
async fn h2_origin_refuses_the_streams_it_is_told_to() {
    let origin = origin::h2().refuse_every(2).start();
    let mut send = h2_client(origin.address()).await;
    let (first, _) = send.send_request(request("GET", "/bytes/1", "a"), true).unwrap();
    assert_eq!(first.await.unwrap().status(), 200);
    let (second, _) = send.send_request(request("GET", "/bytes/1", "b"), true).unwrap();
    assert_eq!(second.await.unwrap_err().reason(), Some(Reason::REFUSED_STREAM));
    let log = origin.log();
    assert_eq!(log.request("b").unwrap().ending(), Some(Ending::Refused));
    assert!(!log.request("b").unwrap().is_processed());
}

#[tokio::test]
async fn goaway_lets_the_running_stream_finish_and_closes() {
    let origin = origin::h2().start();
    let mut send = h2_client(origin.address()).await;
    let (slow, _) = send.send_request(request("GET", "/stream/20?every=5", "s"), true).unwrap();
    let mut answer = slow.await.unwrap();
    origin.goaway();
    while let Some(data) = answer.body_mut().data().await {
        data.unwrap();
    }
    drop((send, answer));
    origin.wait_for(|log| log.connections[0].closed.is_some()).await;
    let log = origin.log();
    assert_eq!(log.connections[0].closed.as_ref().unwrap().0, Closing::Clean);
    assert!(log.connections[0].is_goaway_sent);
    assert_eq!(log.ended(Ending::Complete), 1);
}

#[tokio::test]
async fn crash_resets_the_port_refuses_and_restart_brings_it_back() {
    let mut origin = origin::h1().start();
    let mut client = client::h1(origin.address()).await;
    client.start(&Request::get("/hang").body(()).unwrap(), false).await.unwrap();
    origin.wait_for(|log| log.requests_in_flight() == 1).await;
    origin.crash().await;
    assert_eq!(client.head().await, Err(Broken::Reset));
    assert!(tokio::net::TcpStream::connect(origin.address()).await.is_err());
    assert_eq!(origin.log().connections[0].closed.as_ref().unwrap().0, Closing::Aborted);
    origin.restart();
    assert_eq!(client::h1(origin.address()).await.get("/status/200").await.status(), 200);
}

#[tokio::test]
async fn frozen_origin_accepts_and_answers_only_after_the_thaw() {
    let origin = origin::h1().start();
    let frozen = origin.freeze();
    let mut client = client::h1(origin.address()).await;
    client.start(&Request::get("/status/200").body(()).unwrap(), false).await.unwrap();
    assert!(origin.log().connections.is_empty());
    drop(frozen);
    assert_eq!(client.head().await.unwrap().status(), Ok(200));
}

#[tokio::test]
async fn handler_closure_replaces_the_table() {
    let handler = |mut exchange: origin::exchange::Exchange| async move {
        let head = exchange.response(418).header("x-seen", exchange.path());
        exchange.answer(head, "short and stout").await
    };
    let origin = origin::h1().handler(handler).start();
    let response = client::h1(origin.address()).await.get("/tea").await;
    assert_eq!((response.status(), response.header("x-seen")), (418, Some("/tea")));
}

#[tokio::test]
async fn tls_origin_agrees_on_h2_by_alpn() {
    let identity = Identity::new();
    let origin = origin::h2_tls(&identity, &["h2"]).start();
    let client = client::raw_tls(origin.address(), &identity.connector(&["h2", "http/1.1"])).await;
    assert_eq!(client.socket().alpn(), Some(&b"h2"[..]));
}

#[tokio::test]
async fn raw_origin_sends_any_bytes_and_the_client_calls_them_what_they_are() {
    let origin = origin::raw_h1().await;
    let mut client = client::h1(origin.address()).await;
    client.start(&Request::get("/x").body(()).unwrap(), false).await.unwrap();
    let mut connection = origin.accept().await;
    assert_eq!(connection.expect_request().await.head.start, "GET /x HTTP/1.1");
    connection.send("HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n").await;
    assert!(matches!(client.head().await, Err(Broken::Malformed(_))));
}

/// A plain h2 client: what the proxy is to an origin.
async fn h2_client(address: std::net::SocketAddr) -> h2::client::SendRequest<Bytes> {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    send
}

fn request(method: &str, path: &str, id: &str) -> Request<()> {
    let uri = format!("http://origin{path}");
    Request::builder().method(method).uri(uri).header("x-request-id", id).body(()).unwrap()
}
