//! Answers that come before the request body: refusals, resets without error. (`streams` has what is expected.)

use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use http::Request;

use crate::harness::scripted::Frame;
use crate::harness::scripted::frame::{END_STREAM, OPEN};

use crate::harness::{client, origin, proxy, scripted};

const EXPECTING: &str = "POST /upload HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n";

#[tokio::test]
async fn a_body_that_no_service_wants_is_not_asked_for() {
    let nobody = origin::ReservedAddress::new();
    let yaml = format!("{LISTENERS}upstreams: {{ a: {{ endpoints: [h2c://{}], {PATIENCE} }} }}", nobody.address());
    let proxy = proxy::with(&yaml);
    let mut client = client::raw(proxy.address()).await;
    client.send(EXPECTING).await;
    let response = client.expect_response_to("POST").await;
    assert_eq!((response.status(), response.interim.len()), (502, 0));
}

#[tokio::test]
async fn a_body_that_is_announced_as_too_large_is_refused_unread() {
    let origin = origin::h2().start();
    let proxy = proxy::with(&limited_to("4B", &format!("h2c://{origin}")));
    let mut client = client::raw(proxy.address()).await;
    client.send(EXPECTING).await;
    let response = client.expect_response_to("POST").await;
    assert_eq!((response.status(), response.interim.len()), (413, 0));
    client.expect_close().await;
    assert!(origin.log().requests.is_empty());
}

#[tokio::test]
async fn a_chunked_body_that_grows_too_large_is_refused_and_never_complete() {
    let origin = origin::h2().start();
    let proxy = proxy::with(&limited_to("4B", &format!("h2c://{origin}")));
    let mut client = client::raw(proxy.address()).await;
    client.send("POST /upload HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n").await;
    assert_eq!(client.expect_response_to("POST").await.status(), 413);
    client.expect_close().await;
    origin.wait_for(|log| log.ended(crate::harness::origin::log::Ending::ResetByPeer(Reason::CANCEL)) == 1).await;
}

#[tokio::test]
async fn a_chunked_body_that_grows_too_large_for_an_http1_service_is_refused() {
    let origin = origin::h1().start();
    let proxy = proxy::with(&limited_to("4B", &format!("http1://{origin}")));
    let mut client = client::raw(proxy.address()).await;
    client.send("POST /upload HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n").await;
    assert_eq!(client.expect_response_to("POST").await.status(), 413);
    client.expect_close().await;
}

#[tokio::test]
async fn an_answer_before_the_body_reaches_a_client_that_still_sends() {
    let origin = origin::h2().start();
    let proxy = proxy::with(&format!("upstream: h2c://{origin}"));
    let mut client = client::h1(proxy.address()).await;
    client.start(&Request::post("/early/401").body(()).unwrap(), true).await.unwrap();
    client.send_chunk(b"some of a long body").await.unwrap();
    assert_eq!(client.head().await.unwrap().status(), Ok(401));
    assert_eq!(client.body().await.unwrap(), "early");
}

#[tokio::test]
async fn a_complete_answer_followed_by_a_reset_without_error_is_complete() {
    let service = scripted::service().await;
    let proxy = proxy::on_one_worker(&format!("upstream: h2c://{service}"));
    let mut peer = service.accept_with(&[]).await;
    let mut client = client::h1(proxy.address()).await;
    client.start(&Request::post("/").body(()).unwrap(), true).await.unwrap();
    let stream = peer.expect_headers().await.stream;
    peer.headers(stream, 200, &[], OPEN).await;
    peer.data(stream, "enough", END_STREAM).await;
    peer.rst_stream(stream, Reason::NO_ERROR).await;
    assert_eq!(client.head().await.unwrap().status(), Ok(200));
    assert_eq!(client.body().await.unwrap(), "enough");
    assert!(proxy.faults().is_empty(), "{:?}", proxy.faults());
}

#[tokio::test]
async fn the_rest_of_a_body_that_nobody_wants_is_never_a_request() {
    let service = scripted::service().await;
    let proxy = proxy::on_one_worker(&format!("upstream: h2c://{service}"));
    let mut peer = service.accept_with(&[]).await;
    let mut client = client::raw(proxy.address()).await;
    client.send("POST /1 HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\npart").await;
    let stream = peer.expect_headers().await.stream;
    peer.headers(stream, 413, &[("content-length", "0")], END_STREAM).await;
    peer.rst_stream(stream, Reason::NO_ERROR).await;
    assert_eq!(client.expect_response_to("POST").await.status(), 413);
    // The last five bytes of the body: whoever forgot that they are due would read a request behind them.
    client.send("_restGET /smuggled HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
    let frames = peer.gather().await;
    let targets = frames.iter().filter_map(|frame| if let Frame::Headers(head) = frame { Some(head) } else { None });
    // The body may have been read away, and then this is a request in its own right; nothing between is one.
    assert!(targets.into_iter().all(|head| head.field(":method") == "GET"), "{frames:?}");
}

#[tokio::test]
async fn an_early_answer_of_an_http1_service_reaches_a_client_that_still_sends() {
    let service = origin::raw_h1().await;
    let proxy = proxy::on_one_worker(&format!("upstream: http1://{service}"));
    let mut connection = service.accept().await;
    let mut client = client::h1(proxy.address()).await;
    client.start(&Request::post("/").body(()).unwrap(), true).await.unwrap();
    client.send_chunk(b"some of a long body").await.unwrap();
    connection.expect_head().await;
    connection.send("HTTP/1.1 401 Unauthorized\r\ncontent-length: 5\r\nconnection: close\r\n\r\nearly").await;
    assert_eq!(client.head().await.unwrap().status(), Ok(401));
    assert_eq!(client.body().await.unwrap(), Bytes::from_static(b"early"));
}

#[tokio::test]
async fn a_connection_whose_request_is_not_through_is_not_given_to_another_one() {
    for is_http2 in [false, true] {
        let service = origin::raw_h1().await;
        let proxy = proxy::on_one_worker(&format!("upstream: http1://{service}"));
        let mut connection = service.accept().await;
        let mut http1 = client::h1(proxy.address()).await;
        let mut http2 = client::frames(proxy.address()).await;
        if is_http2 {
            let head = [(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/")];
            http2.fields(1, &head, OPEN).await;
            http2.data(1, "some of a long body", OPEN).await;
        } else {
            http1.start(&Request::post("/").body(()).unwrap(), true).await.unwrap();
            http1.send_chunk(b"some of a long body").await.unwrap();
        }
        connection.expect_head().await;
        connection.send("HTTP/1.1 401 Unauthorized\r\ncontent-length: 5\r\n\r\nearly").await;
        if is_http2 {
            assert_eq!(http2.expect_headers().await.field(":status"), "401");
            assert_eq!(http2.expect_body(1).await, "early");
            // There is no use in sending more.
            assert_eq!(http2.expect_rst(1).await, Reason::NO_ERROR);
        } else {
            assert_eq!(http1.head().await.unwrap().status(), Ok(401));
            assert_eq!(http1.body().await.unwrap(), "early");
        }
        while connection.some().await.is_ok_and(|bytes| !bytes.is_empty()) {}
        let mut next = client::h1(proxy.address()).await;
        next.start(&Request::get("/next").body(()).unwrap(), false).await.unwrap();
        let mut connection = service.accept().await;
        assert_eq!(connection.expect_head().await.start, "GET /next HTTP/1.1");
        connection.send("HTTP/1.1 204 No Content\r\n\r\n").await;
        assert_eq!(next.head().await.unwrap().status(), Ok(204));
        assert!(proxy.faults().is_empty(), "{:?}", proxy.faults());
    }
}

#[tokio::test]
async fn a_client_that_goes_on_sending_behind_an_early_answer_keeps_its_connection() {
    let service = origin::raw_h1().await;
    let proxy = proxy::on_one_worker(&format!("upstream: http1://{service}"));
    let mut connection = service.accept().await;
    let mut client = client::h1(proxy.address()).await;
    client.start(&Request::post("/").body(()).unwrap(), true).await.unwrap();
    client.send_chunk(b"first").await.unwrap();
    connection.expect_head().await;
    connection.send("HTTP/1.1 413 Content Too Large\r\ncontent-length: 5\r\n\r\nearly").await;
    assert_eq!(client.head().await.unwrap().status(), Ok(413));
    assert_eq!(client.body().await.unwrap(), "early");
    client.send_chunk(b"last").await.unwrap();
    client.end_chunks().await.unwrap();
    client.start(&Request::get("/next").body(()).unwrap(), false).await.unwrap();
    let mut connection = service.accept().await;
    assert_eq!(connection.expect_head().await.start, "GET /next HTTP/1.1");
    connection.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(client.head().await.unwrap().status(), Ok(204));
    assert!(proxy.faults().is_empty(), "{:?}", proxy.faults());
}

#[tokio::test]
async fn a_client_that_goes_on_sending_behind_an_early_answer_of_http2_keeps_its_connection() {
    let service = scripted::service().await;
    let proxy = proxy::on_one_worker(&format!("upstream: h2c://{service}"));
    let mut peer = service.accept_with(&[]).await;
    for is_chunked in [true, false] {
        let mut client = client::h1(proxy.address()).await;
        let request = Request::post("/").body(Bytes::from(vec![b'x'; if is_chunked { 0 } else { 1_000_000 }])).unwrap();
        let answering = async {
            let request = peer.expect_headers().await;
            peer.headers(request.stream, 413, &[], END_STREAM).await;
            peer.rst_stream(request.stream, Reason::NO_ERROR).await;
        };
        if is_chunked {
            client.start(&request, true).await.unwrap();
            client.send_chunk(b"first").await.unwrap();
            answering.await;
            assert_eq!(client.head().await.unwrap().status(), Ok(413));
            client.send_chunk(b"last").await.unwrap();
            client.end_chunks().await.unwrap();
        } else {
            // Its answer is there long before it has sent all, and not looked at before.
            let (answer, ()) = tokio::join!(client.send(&request), answering);
            assert_eq!(answer.unwrap().status(), 413);
        }
        client.start(&Request::get("/next").body(()).unwrap(), false).await.unwrap();
        let next = peer.expect_headers().await;
        assert_eq!(next.field(":path"), "/next");
        peer.answer(&next, 204, "").await;
        assert_eq!(client.head().await.unwrap().status(), Ok(204));
    }
    assert!(proxy.faults().is_empty(), "{:?}", proxy.faults());
}

/// What follows the answer is its body, and no beginning of a head that takes too long.
#[tokio::test]
async fn the_rest_of_a_body_behind_an_early_answer_is_no_head_that_comes_late() {
    let service = scripted::service().await;
    let proxy = proxy::on_one_worker(&format!(
        "listeners: [{{ address: 127.0.0.1:0, timeouts: {{ header: 100ms }} }}]\n\
         upstreams: {{ a: {{ endpoints: [h2c://{service}] }} }}\n"
    ));
    let mut peer = service.accept_with(&[]).await;
    let mut client = client::h1(proxy.address()).await;
    client.start(&Request::post("/").body(()).unwrap(), true).await.unwrap();
    client.send_chunk(b"first").await.unwrap();
    let request = peer.expect_headers().await;
    peer.headers(request.stream, 413, &[], END_STREAM).await;
    peer.rst_stream(request.stream, Reason::NO_ERROR).await;
    assert_eq!(client.head().await.unwrap().status(), Ok(413));
    client.send_chunk(b"last").await.unwrap();
    client.end_chunks().await.unwrap();
    // Longer than a head may take, and than the rest of a body.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    client.start(&Request::get("/next").body(()).unwrap(), false).await.unwrap();
    let next = peer.expect_headers().await;
    peer.answer(&next, 204, "").await;
    assert_eq!(client.head().await.unwrap().status(), Ok(204));
    assert!(proxy.faults().is_empty(), "{:?}", proxy.faults());
}

const LISTENERS: &str = "listeners: [{ address: 127.0.0.1:0 }]\n";
/// How long a request waits for a service that is away.
const PATIENCE: &str = "pool: { pending_timeout: 100ms }";

fn limited_to(body_bytes: &str, endpoint: &str) -> String {
    format!(
        "listeners: [{{ address: 127.0.0.1:0, limits: {{ body_bytes: {body_bytes} }} }}]\n\
         upstreams: {{ a: {{ endpoints: [{endpoint}] }} }}"
    )
}
