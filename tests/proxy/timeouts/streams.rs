//! Bodies that stand still, in either direction, and those that are only slow.

use bytes::Bytes;
use h2::Reason;
use http::Request;

use super::{SHORT, proxy_with};
use crate::harness::origin::behaviour::by_path;
use crate::harness::origin::exchange::Exchange;
use crate::harness::origin::log::Ending;
use crate::harness::proxy::Proxy;
use crate::harness::scripted::frame::INITIAL_WINDOW_SIZE;
use crate::harness::watched::within;
use crate::harness::wire::Broken;
use crate::harness::{client, origin, scripted};

#[tokio::test]
async fn an_answer_that_falls_silent_is_cut() {
    let (origin, proxy) = proxy("h2c", "timeouts: { stream_idle: 150ms }");
    let mut client = client::h1(proxy.address()).await;
    client.start(&Request::get("/hang-body").body(()).unwrap(), false).await.unwrap();
    assert_eq!(client.head().await.unwrap().status(), Ok(200));
    assert_eq!(client.body().await, Err(Broken::ClosedInBody { received_bytes: 0 }));
    origin.wait_for(|log| log.ended(Ending::ResetByPeer(h2::Reason::CANCEL)) == 1).await;
    proxy.expect_fault("stream_idle").await;
}

#[tokio::test]
async fn an_answer_of_an_http1_service_that_falls_silent_is_cut() {
    let (origin, proxy) = proxy("http1", "timeouts: { stream_idle: 150ms }");
    let mut client = client::h1(proxy.address()).await;
    client.start(&Request::get("/hang-body").body(()).unwrap(), false).await.unwrap();
    assert_eq!(client.head().await.unwrap().status(), Ok(200));
    assert_eq!(client.body().await, Err(Broken::ClosedInBody { received_bytes: 0 }));
    origin.wait_for(|log| log.ended(Ending::ConnectionLost) == 1).await;
    proxy.expect_fault("stream_idle").await;
}

#[tokio::test]
async fn an_event_stream_that_sends_now_and_then_is_not_cut() {
    for protocol in ["h2c", "http1"] {
        let (_origin, proxy) = proxy(protocol, "timeouts: { stream_idle: 1s }");
        let mut client = client::h1(proxy.address()).await;
        let events = client.get("/stream/6?every=200").await;
        assert_eq!(events.text().matches("data:").count(), 6, "{protocol}");
    }
}

#[tokio::test]
async fn an_event_stream_without_limits_may_be_as_slow_as_it_likes() {
    let (_origin, proxy) = proxy("h2c", "timeouts: { stream_idle: none, request: none }");
    let mut client = client::h1(proxy.address()).await;
    let events = client.get("/stream/2?every=600").await;
    assert_eq!(events.text().matches("data:").count(), 2);
}

#[tokio::test]
async fn a_body_that_its_client_stops_sending_is_answered_400_and_closed() {
    let (origin, proxy) = proxy("h2c", "timeouts: { stream_idle: 150ms }");
    let mut client = client::raw(proxy.address()).await;
    client.send("POST /upload HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\npart").await;
    let response = client.expect_response_to("POST").await;
    assert_eq!((response.status(), response.head.is_closing()), (400, true));
    client.expect_close().await;
    origin.wait_for(|log| log.ended(Ending::ResetByPeer(h2::Reason::CANCEL)) == 1).await;
    proxy.expect_fault("body_incomplete").await;
}

#[tokio::test]
async fn a_body_for_an_http1_service_that_its_client_stops_sending_is_answered_400_and_closed() {
    let (origin, proxy) = proxy("http1", "timeouts: { stream_idle: 150ms }");
    let mut client = client::raw(proxy.address()).await;
    client.send("POST /upload HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\npart").await;
    let response = client.expect_response_to("POST").await;
    assert_eq!((response.status(), response.head.is_closing()), (400, true));
    client.expect_close().await;
    origin.wait_for(|log| log.ended(Ending::ConnectionLost) == 1).await;
    proxy.expect_fault("body_incomplete").await;
}

#[tokio::test]
async fn a_body_that_comes_slowly_is_not_cut() {
    for protocol in ["h2c", "http1"] {
        let (_origin, proxy) = proxy(protocol, "timeouts: { stream_idle: 400ms }");
        let mut client = client::h1(proxy.address()).await;
        client.start(&Request::post("/upload").body(()).unwrap(), true).await.unwrap();
        for _ in 0..8 {
            client.send_chunk(b"slow").await.unwrap();
            tokio::time::sleep(SHORT / 2).await;
        }
        client.end_chunks().await.unwrap();
        assert_eq!(client.head().await.unwrap().status(), Ok(200), "{protocol}");
    }
}

#[tokio::test]
async fn a_service_that_stops_reading_a_body_is_a_504() {
    let service = scripted::service().await;
    let proxy = proxy_with("", "timeouts: { stream_idle: 150ms }", &format!("endpoints: [h2c://{service}]"));
    let mut peer = service.accept_with(&[(INITIAL_WINDOW_SIZE, 0)]).await;
    let mut client = client::h1(proxy.address()).await;
    client.start(&Request::post("/upload").body(()).unwrap(), true).await.unwrap();
    client.send_chunk(b"too much").await.unwrap();
    let stream = peer.expect_headers().await.stream;
    assert_eq!(client.head().await.unwrap().status(), Ok(504));
    assert_eq!(peer.expect_rst(stream).await, Reason::CANCEL);
    proxy.expect_fault("stream_idle").await;
}

#[tokio::test]
async fn an_http1_service_that_stops_reading_a_body_is_a_504() {
    let service = origin::raw_h1().await;
    let proxy = proxy_with("", "timeouts: { stream_idle: 150ms }", &format!("endpoints: [http1://{service}]"));
    let mut connection = service.accept().await;
    let mut client = client::raw(proxy.address()).await;
    let length = 100_000_000;
    client.send(format!("POST /upload HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n")).await;
    let chunk = vec![b'x'; 64 * 1024];
    let upload = async {
        // More than all buffers on the way can hold: at some point nobody takes it any more.
        while !client.has_input() {
            client.send_some(&chunk, SHORT).await;
        }
    };
    within("answer to an upload that stands still", upload).await;
    assert_eq!(client.expect_response_to("POST").await.status(), 504);
    connection.expect_head().await;
    proxy.expect_fault("stream_idle").await;
}

#[tokio::test]
async fn a_client_that_stops_reading_is_let_go() {
    for protocol in ["h2c", "http1"] {
        let (origin, proxy) = proxy(protocol, "timeouts: { stream_idle: 150ms }");
        let mut client = client::h1(proxy.address()).await;
        client.start(&Request::get("/endless").body(()).unwrap(), false).await.unwrap();
        client.head().await.unwrap();
        proxy.expect_fault("write_stalled").await;
        origin.wait_for(|log| log.requests_in_flight() == 0).await;
        assert!(client.body().await.is_err(), "{protocol}");
    }
}

#[tokio::test]
async fn a_client_that_reads_slowly_is_served() {
    let (_origin, proxy) = proxy("h2c", "timeouts: { stream_idle: 1s }");
    let mut client = client::h1(proxy.address()).await;
    client.start(&Request::get("/endless").body(()).unwrap(), false).await.unwrap();
    client.head().await.unwrap();
    // Much at a time: the kernel asks for more when a third of its buffers is free, and those are megabytes.
    for _ in 0..30 {
        let mut bytes = 0;
        while bytes < 1024 * 1024 {
            bytes += client.part().await.unwrap().unwrap().len();
        }
        tokio::time::sleep(SHORT / 2).await;
    }
    assert!(proxy.faults().is_empty(), "{:?}", proxy.faults());
}

#[tokio::test]
async fn a_fast_answer_is_cut_when_its_request_takes_too_long() {
    let (_origin, proxy) = proxy("h2c", "timeouts: { request: 150ms }");
    let mut client = client::h1(proxy.address()).await;
    client.start(&Request::get("/endless").body(()).unwrap(), false).await.unwrap();
    client.head().await.unwrap();
    assert!(client.body().await.is_err());
    proxy.expect_fault("request_timeout").await;
}

#[tokio::test]
async fn the_end_of_the_request_is_told_as_such_when_the_client_reads_nothing() {
    let (_origin, proxy) = proxy("h2c", "timeouts: { request: 150ms, stream_idle: 60s }");
    let mut client = client::h1(proxy.address()).await;
    client.start(&Request::get("/endless").body(()).unwrap(), false).await.unwrap();
    client.head().await.unwrap();
    proxy.expect_fault("request_timeout").await;
}

fn proxy(protocol: &str, route: &str) -> (origin::Origin, Proxy) {
    let origin = if protocol == "h2c" { origin::h2() } else { origin::h1() }.handler(endless_by_path).start();
    let proxy = proxy_with("", route, &format!("endpoints: [{protocol}://{origin}]"));
    (origin, proxy)
}

/// Sends as fast as it is taken, for `/endless`.
async fn endless_by_path(mut exchange: Exchange) -> Result<(), Ending> {
    if exchange.path() != "/endless" {
        return by_path(exchange).await;
    }
    let part = Bytes::from(vec![b'x'; 64 * 1024]);
    exchange.start(exchange.response(200))?;
    loop {
        exchange.send(part.clone()).await?;
    }
}
