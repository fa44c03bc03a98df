//! Waiting for a place, for a connection, for an answer, and for all of it together.

use std::time::Duration;

use http::Request;

use super::{SHORT, proxy_with};
use crate::harness::origin::ReservedAddress;
use crate::harness::origin::log::Ending;
use crate::harness::proxy::Proxy;
use crate::harness::scripted::Peer;
use crate::harness::watched::within;
use crate::harness::wire::{Broken, Response};
use crate::harness::{client, origin};

#[tokio::test]
async fn a_service_that_does_not_answer_in_time_is_a_504_and_its_stream_is_cancelled() {
    let (origin, proxy) = proxy("timeouts: { response_header: 150ms }");
    let mut client = client::h1(proxy.address()).await;
    let response = client.get("/hang").await;
    assert_fault(&response, 504, "http_response_timeout");
    origin.wait_for(|log| log.ended(Ending::ResetByPeer(h2::Reason::CANCEL)) == 1).await;
    assert_eq!(client.get("/bytes/1").await.status(), 200, "the connection is kept");
    proxy.expect_fault("response_head_timeout").await;
}

#[tokio::test]
async fn the_time_for_the_answer_begins_when_the_request_has_been_sent() {
    let (_origin, proxy) = proxy("timeouts: { response_header: 300ms }");
    upload_slowly(&proxy).await;
}

#[tokio::test]
async fn the_time_for_an_http1_answer_begins_when_the_request_has_been_sent() {
    let origin = origin::h1().start();
    let route = "timeouts: { response_header: 300ms }";
    let proxy = proxy_with("", route, &format!("endpoints: [http1://{origin}]"));
    upload_slowly(&proxy).await;
}

#[tokio::test]
async fn an_http1_service_that_does_not_answer_in_time_is_a_504_and_its_connection_closes() {
    let origin = origin::h1().start();
    let route = "timeouts: { response_header: 150ms }";
    let proxy = proxy_with("", route, &format!("endpoints: [http1://{origin}]"));
    let mut client = client::h1(proxy.address()).await;
    assert_fault(&client.get("/hang").await, 504, "http_response_timeout");
    origin.wait_for(|log| log.ended(Ending::ConnectionLost) == 1).await;
    assert_eq!(client.get("/bytes/1").await.status(), 200);
    proxy.expect_fault("response_head_timeout").await;
}

#[tokio::test]
async fn a_request_without_a_limit_for_its_answer_waits() {
    let (_origin, proxy) = proxy("timeouts: { response_header: none, stream_idle: 100ms }");
    let mut client = client::h1(proxy.address()).await;
    assert_eq!(client.get("/delay/500").await.text(), "slow");
}

#[tokio::test]
async fn a_request_that_takes_too_long_before_its_answer_is_a_504() {
    let (origin, proxy) = proxy("timeouts: { request: 150ms }");
    let mut client = client::h1(proxy.address()).await;
    assert_fault(&client.get("/hang").await, 504, "http_response_timeout");
    origin.wait_for(|log| log.ended(Ending::ResetByPeer(h2::Reason::CANCEL)) == 1).await;
    proxy.expect_fault("request_timeout").await;
}

#[tokio::test]
async fn a_request_that_takes_too_long_in_its_answer_is_cut() {
    let (_origin, proxy) = proxy("timeouts: { request: 150ms }");
    let mut client = client::h1(proxy.address()).await;
    client.start(&Request::get("/hang-body").body(()).unwrap(), false).await.unwrap();
    assert_eq!(client.head().await.unwrap().status(), Ok(200));
    assert_eq!(client.body().await, Err(Broken::ClosedInBody { received_bytes: 0 }));
    proxy.expect_fault("request_timeout").await;
}

#[tokio::test]
async fn an_answer_that_never_pauses_is_cut_all_the_same_when_its_request_takes_too_long() {
    let (_origin, proxy) = proxy("timeouts: { request: 150ms }");
    let mut client = client::h1(proxy.address()).await;
    client.start(&Request::get("/stream/1000000?every=1").body(()).unwrap(), false).await.unwrap();
    client.head().await.unwrap();
    assert!(matches!(client.body().await, Err(Broken::ClosedInBody { .. } | Broken::Reset)));
    proxy.expect_fault("request_timeout").await;
}

#[tokio::test]
async fn an_upload_that_never_pauses_is_ended_all_the_same_when_its_request_takes_too_long() {
    let (_origin, proxy) = proxy("timeouts: { request: 150ms }");
    let mut client = client::raw(proxy.address()).await;
    client.send("POST /upload HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n").await;
    let drip = async {
        while !client.has_input() {
            client.send("1\r\nx\r\n").await;
            tokio::time::sleep(SHORT / 100).await;
        }
    };
    crate::harness::watched::within("answer to a dripping client", drip).await;
    assert_fault(&client.expect_response_to("POST").await, 504, "http_response_timeout");
}

#[tokio::test]
async fn a_request_that_finds_no_stream_in_time_is_a_503_that_says_when_to_come_back() {
    let origin = origin::h2().max_concurrent_streams(1).start();
    let upstream = format!("endpoints: [h2c://{origin}], pool: {{ max_connections: 1, pending_timeout: 150ms }}");
    let proxy = proxy_with("", "", &upstream);
    let mut holder = client::h1(proxy.address()).await;
    holder.start(&Request::get("/hang").body(()).unwrap(), false).await.unwrap();
    origin.wait_for(|log| log.requests_in_flight() == 1).await;
    let mut client = client::h1(proxy.address()).await;
    let response = client.get("/bytes/1").await;
    assert_fault(&response, 503, "connection_limit_reached");
    assert_eq!(response.header("retry-after"), Some("1"));
    proxy.expect_fault("pool_wait_timeout").await;
    holder.abort();
    assert_eq!(client.get("/bytes/1").await.status(), 200, "the connection is kept, and the place is free again");
}

#[tokio::test]
async fn a_request_that_finds_the_queue_full_is_refused_at_once() {
    let origin = origin::h2().max_concurrent_streams(1).start();
    let upstream =
        format!("endpoints: [h2c://{origin}], pool: {{ max_connections: 1, max_pending: 1, pending_timeout: 1h }}");
    let proxy = proxy_with("", "", &upstream);
    let mut holder = client::h1(proxy.address()).await;
    holder.start(&Request::get("/delay/400").body(()).unwrap(), false).await.unwrap();
    origin.wait_for(|log| log.requests_in_flight() == 1).await;
    let mut clients = Vec::new();
    for _ in 0..2 {
        let mut client = client::h1(proxy.address()).await;
        client.start(&Request::get("/bytes/1").body(()).unwrap(), false).await.unwrap();
        clients.push(client);
    }
    let mut statuses = Vec::new();
    for client in &mut clients {
        statuses.push(client.head().await.unwrap().status().unwrap());
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 503], "the one that waits is served");
    proxy.expect_fault("pool_full").await;
}

#[tokio::test]
async fn a_request_that_finds_every_http1_connection_taken_is_a_503() {
    let origin = origin::h1().start();
    let upstream = format!("endpoints: [http1://{origin}], pool: {{ max_connections: 1, pending_timeout: 150ms }}");
    let proxy = proxy_with("", "", &upstream);
    let mut holder = client::h1(proxy.address()).await;
    holder.start(&Request::get("/hang").body(()).unwrap(), false).await.unwrap();
    origin.wait_for(|log| log.requests_in_flight() == 1).await;
    let mut client = client::h1(proxy.address()).await;
    assert_fault(&client.get("/bytes/1").await, 503, "connection_limit_reached");
    proxy.expect_fault("pool_wait_timeout").await;
}

#[tokio::test]
async fn the_request_timeout_bounds_the_wait_too() {
    let origin = origin::h2().max_concurrent_streams(1).start();
    let upstream = format!("endpoints: [h2c://{origin}], pool: {{ max_connections: 1, pending_timeout: 1h }}");
    let routes =
        "match: { path_prefix: /hang }, timeouts: { request: none } }, { upstream: a, timeouts: { request: 150ms }";
    let proxy = proxy_with("", routes, &upstream);
    let mut holder = client::h1(proxy.address()).await;
    holder.start(&Request::get("/hang").body(()).unwrap(), false).await.unwrap();
    origin.wait_for(|log| log.requests_in_flight() == 1).await;
    assert_fault(&client::h1(proxy.address()).await.get("/bytes/1").await, 504, "http_response_timeout");
    proxy.expect_fault("request_timeout").await;
}

#[tokio::test]
async fn the_request_timeout_bounds_the_wait_for_an_http1_connection_too() {
    let origin = origin::h1().start();
    let upstream = format!("endpoints: [http1://{origin}], pool: {{ max_connections: 1, pending_timeout: 1h }}");
    let routes =
        "match: { path_prefix: /hang }, timeouts: { request: none } }, { upstream: a, timeouts: { request: 150ms }";
    let proxy = proxy_with("", routes, &upstream);
    let mut holder = client::h1(proxy.address()).await;
    holder.start(&Request::get("/hang").body(()).unwrap(), false).await.unwrap();
    origin.wait_for(|log| log.requests_in_flight() == 1).await;
    assert_fault(&client::h1(proxy.address()).await.get("/bytes/1").await, 504, "http_response_timeout");
    proxy.expect_fault("request_timeout").await;
}

#[tokio::test]
async fn a_connection_that_is_not_taken_in_time_is_a_504() {
    let black_hole = BlackHole::new().await;
    let upstream = format!(
        "endpoints: [h2c://{}], timeouts: {{ connect: 100ms }}, pool: {{ pending_timeout: 400ms }}",
        black_hole.address.address()
    );
    let proxy = proxy_with("", "", &upstream);
    assert_fault(&client::h1(proxy.address()).await.get("/").await, 504, "connection_timeout");
    proxy.expect_fault("connect_timeout").await;
}

/// The kernel itself asks again after a second only, on the same socket.
#[tokio::test]
async fn a_service_whose_queue_is_full_for_a_moment_is_asked_again() {
    let black_hole = BlackHole::new().await;
    let address = black_hole.address.address();
    let upstream =
        format!("endpoints: [h2c://{address}], timeouts: {{ connect: 20s }}, pool: {{ pending_timeout: 20s }}");
    let proxy = proxy_with("", "", &upstream);
    let mut client = client::h1(proxy.address()).await;
    client.start(&Request::get("/").body(()).unwrap(), false).await.unwrap();
    within("two tries to connect", async {
        while unanswered_to(address.port()) < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let mut peer = black_hole.hears_again().await;
    let request = peer.expect_headers().await;
    peer.answer(&request, 200, "late").await;
    assert_eq!(client.head().await.unwrap().status(), Ok(200));
}

#[tokio::test]
async fn a_service_that_accepts_and_never_speaks_is_a_504() {
    let silent = crate::harness::scripted::service().await;
    let upstream =
        format!("endpoints: [h2c://{silent}], timeouts: {{ connect: 100ms }}, pool: {{ pending_timeout: 400ms }}");
    let proxy = proxy_with("", "", &upstream);
    assert_fault(&client::h1(proxy.address()).await.get("/").await, 504, "connection_timeout");
    proxy.expect_fault("connect_timeout").await;
}

/// An address where connections hang: a listener that accepts none, with its queue filled up.
struct BlackHole {
    address: ReservedAddress,
    listener: socket2::Socket,
    queued: Vec<tokio::net::TcpStream>,
}

impl BlackHole {
    async fn new() -> Self {
        let address = ReservedAddress::new();
        let listener = address.listen_with(0);
        let mut queued = Vec::new();
        // The kernel takes one more than asked for; from then on it drops what comes.
        while let Ok(connected) = tokio::time::timeout(SHORT, tokio::net::TcpStream::connect(address.address())).await {
            queued.push(connected.unwrap());
            assert!(queued.len() < 100, "the queue is bounded");
        }
        Self { address, listener, queued }
    }

    /// Takes the next one behind those in the queue.
    async fn hears_again(self) -> Peer {
        self.listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::TcpListener::from_std(self.listener.into()).unwrap();
        for _ in &self.queued {
            listener.accept().await.unwrap();
        }
        let (stream, _) = within("a connection", listener.accept()).await.unwrap();
        let mut peer = Peer::new(stream);
        peer.expect_preface().await;
        peer.settings(&[]).await;
        peer
    }
}

/// Sockets that have asked for a connection to this port of 127.0.0.1 and wait for the answer, as the kernel lists them
/// (proc(5)).
fn unanswered_to(port: u16) -> usize {
    const SYN_SENT: &str = "02";
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.filter(|columns| columns[2].ends_with(&format!(":{port:04X}")) && columns[3] == SYN_SENT).count()
}

/// Uploads for longer than the route gives the service for its answer.
async fn upload_slowly(proxy: &Proxy) {
    let mut client = client::h1(proxy.address()).await;
    client.start(&Request::post("/upload").body(()).unwrap(), true).await.unwrap();
    for _ in 0..5 {
        client.send_chunk(b"slow").await.unwrap();
        tokio::time::sleep(SHORT).await;
    }
    client.end_chunks().await.unwrap();
    assert_eq!(client.head().await.unwrap().status(), Ok(200));
    assert_eq!(client.body().await.unwrap(), "20");
}

fn assert_fault(response: &Response, status: u16, error: &str) {
    let expected = format!("trunkline; error={error}");
    assert_eq!((response.status(), response.header("proxy-status")), (status, Some(expected.as_str())));
}

fn proxy(route: &str) -> (origin::Origin, Proxy) {
    let origin = origin::h2().start();
    let proxy = proxy_with("", route, &format!("endpoints: [h2c://{origin}]"));
    (origin, proxy)
}
