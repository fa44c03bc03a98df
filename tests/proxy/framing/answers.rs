//! Complete answers on their way down.

use bytes::Bytes;
use h2::Reason;
use http::Request;

use crate::harness::origin::behaviour::pattern;
use crate::harness::scripted::Frame;
use crate::harness::scripted::frame::{DATA, END_HEADERS, END_STREAM, HEADERS, OPEN, encode, encode_fields};
use crate::harness::{client, origin, proxy, scripted};

#[tokio::test]
async fn an_answer_with_content_length_keeps_it() {
    let origin = origin::h2().start();
    let proxy = proxy::with(&format!("upstream: h2c://{origin}"));
    let mut client = client::h1(proxy.address()).await;
    let request = Request::get("/bytes/1000000").header("x-request-id", "d").body(Bytes::new()).unwrap();
    let response = client.send(&request).await.unwrap();
    assert_eq!(response.header("content-length"), Some("1000000"));
    assert_eq!(response.header("transfer-encoding"), None);
    assert_eq!(response.body, pattern("d", 1_000_000));
}

#[tokio::test]
async fn an_answer_without_content_length_is_chunked() {
    let origin = origin::h2().start();
    let proxy = proxy::with(&format!("upstream: h2c://{origin}"));
    let mut client = client::h1(proxy.address()).await;
    let response = client.get("/stream/10").await;
    assert_eq!(response.header("transfer-encoding"), Some("chunked"));
    assert_eq!(response.text().matches("data:").count(), 10);
}

#[tokio::test]
async fn the_first_bytes_come_down_while_the_rest_is_still_to_come() {
    let service = scripted::service().await;
    let proxy = proxy::on_one_worker(&format!("upstream: h2c://{service}"));
    let mut peer = service.accept_with(&[]).await;
    let mut client = client::h1(proxy.address()).await;
    client.start(&Request::get("/").body(()).unwrap(), false).await.unwrap();
    let stream = peer.expect_headers().await.stream;
    peer.headers(stream, 200, &[], OPEN).await;
    assert_eq!(client.head().await.unwrap().status(), Ok(200));
    peer.data(stream, "first", OPEN).await;
    assert_eq!(client.part().await.unwrap().unwrap(), "first");
    peer.data(stream, "last", END_STREAM).await;
    assert_eq!(client.body().await.unwrap(), "last");
}

#[tokio::test]
async fn an_answer_that_has_its_whole_length_is_complete_before_its_stream_ends() {
    let service = scripted::service().await;
    let proxy = proxy::on_one_worker(&format!("upstream: h2c://{service}"));
    let mut peer = service.accept_with(&[]).await;
    let mut client = client::h1(proxy.address()).await;
    client.start(&Request::get("/").body(()).unwrap(), false).await.unwrap();
    let stream = peer.expect_headers().await.stream;
    peer.headers(stream, 200, &[("content-length", "5")], OPEN).await;
    peer.data(stream, "whole", OPEN).await;
    client.head().await.unwrap();
    assert_eq!(client.body().await.unwrap(), "whole");
    peer.data(stream, "", END_STREAM).await;
    let frames = peer.gather().await;
    assert!(!frames.iter().any(|frame| matches!(frame, Frame::Reset { .. })), "{frames:?}");
    assert!(proxy.faults().is_empty(), "{:?}", proxy.faults());
}

#[tokio::test]
async fn a_stream_that_does_not_end_after_its_whole_length_is_cancelled() {
    let service = scripted::service().await;
    let proxy = proxy::on_one_worker(&format!("upstream: h2c://{service}"));
    let mut peer = service.accept_with(&[]).await;
    let mut client = client::h1(proxy.address()).await;
    client.start(&Request::get("/").body(()).unwrap(), false).await.unwrap();
    let stream = peer.expect_headers().await.stream;
    peer.headers(stream, 200, &[("content-length", "5")], OPEN).await;
    peer.data(stream, "whole", OPEN).await;
    client.head().await.unwrap();
    client.body().await.unwrap();
    assert_eq!(peer.expect_rst(stream).await, Reason::CANCEL);
}

#[tokio::test]
async fn empty_data_frames_are_not_the_end() {
    let service = scripted::service().await;
    let proxy = proxy::on_one_worker(&format!("upstream: h2c://{service}"));
    let mut peer = service.accept_with(&[]).await;
    let mut client = client::h1(proxy.address()).await;
    client.start(&Request::get("/").body(()).unwrap(), false).await.unwrap();
    let stream = peer.expect_headers().await.stream;
    peer.headers(stream, 200, &[], OPEN).await;
    for part in ["", "", "a", "", "b", ""] {
        peer.data(stream, part, OPEN).await;
    }
    peer.data(stream, "", END_STREAM).await;
    client.head().await.unwrap();
    assert_eq!(client.body().await.unwrap(), "ab");
}

#[tokio::test]
async fn data_after_a_204_is_dropped_and_the_connection_stays_in_step() {
    let service = scripted::service().await;
    let proxy = proxy::on_one_worker(&format!("upstream: h2c://{service}"));
    let mut peer = service.accept_with(&[]).await;
    let mut client = client::h1(proxy.address()).await;
    client.start(&Request::get("/1").body(()).unwrap(), false).await.unwrap();
    let stream = peer.expect_headers().await.stream;
    peer.headers(stream, 204, &[("content-length", "5")], OPEN).await;
    peer.data(stream, "wrong", END_STREAM).await;
    let head = client.head().await.unwrap();
    assert_eq!((head.status(), head.header("content-length"), head.header("transfer-encoding")), (Ok(204), None, None));
    client.start(&Request::get("/2").body(()).unwrap(), false).await.unwrap();
    let request = peer.expect_headers().await;
    peer.answer(&request, 200, "right").await;
    client.head().await.unwrap();
    assert_eq!(client.body().await.unwrap(), "right");
}

#[tokio::test]
async fn interim_answers_are_dropped_without_harm() {
    let origin = origin::h2().start();
    let proxy = proxy::with(&format!("upstream: h2c://{origin}"));
    let mut client = client::h1(proxy.address()).await;
    for status in [102, 103] {
        let response = client.get(&format!("/interim/{status}")).await;
        // hyper's server can send no 1xx but 100.
        assert_eq!((response.status(), response.interim.len(), response.text()), (200, 0, "final"));
    }
}

#[tokio::test]
async fn interim_answers_of_an_http1_service_are_dropped_without_harm() {
    let answer = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n\
        HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfinal";
    let service = origin::raw_h1().await.answer_all(answer);
    let proxy = proxy::on_one_worker(&format!("upstream: http1://{service}"));
    let mut client = client::h1(proxy.address()).await;
    for _ in 0..2 {
        let response = client.get("/").await;
        assert_eq!((response.status(), response.interim.len(), response.text()), (200, 0, "final"));
    }
}

#[tokio::test]
async fn a_response_head_of_60_kib_comes_down_whole() {
    let service = scripted::service().await;
    let proxy = proxy::on_one_worker(&format!("upstream: h2c://{service}"));
    let mut peer = service.accept_with(&[]).await;
    let mut client = client::h1(proxy.address()).await;
    client.start(&Request::get("/").body(()).unwrap(), false).await.unwrap();
    let stream = peer.expect_headers().await.stream;
    let values: Vec<String> = (0..4).map(|number| number.to_string().repeat(15_000)).collect();
    // One frame holds 16 KiB, so the head goes in four.
    peer.head_in_parts(stream, 200, &values.iter().map(|value| ("x-long", value.as_str())).collect::<Vec<_>>()).await;
    let head = client.head().await.unwrap();
    assert!(head.headers("x-long").eq(values.iter().map(String::as_str)));
}

#[tokio::test]
async fn an_http1_answer_that_ends_with_its_connection_is_complete() {
    let service = origin::raw_h1().await;
    let proxy = proxy::on_one_worker(&format!("upstream: http1://{service}"));
    let mut connection = service.accept().await;
    let mut client = client::h1(proxy.address()).await;
    client.start(&Request::get("/").body(()).unwrap(), false).await.unwrap();
    connection.expect_request().await;
    connection.send("HTTP/1.1 200 OK\r\n\r\nuntil the end").await;
    connection.close().await;
    client.head().await.unwrap();
    assert_eq!(client.body().await.unwrap(), "until the end");
}

#[tokio::test]
async fn bodiless_answers_of_an_http1_service_leave_both_connections_in_step() {
    let origin = origin::h1().start();
    let proxy = proxy::on_one_worker(&format!("upstream: http1://{origin}"));
    let mut client = client::h1(proxy.address()).await;
    for (method, path, status) in [("HEAD", "/bytes/9", 200), ("GET", "/status/204", 204), ("GET", "/status/304", 304)]
    {
        let request = Request::builder().method(method).uri(path).body(Bytes::new()).unwrap();
        let response = client.send(&request).await.unwrap();
        assert_eq!((response.status(), response.body.len()), (status, 0), "{path}");
    }
    assert_eq!(client.get("/bytes/3").await.body.len(), 3);
    let used: Vec<_> = origin.log().requests.iter().map(|request| request.connection).collect();
    assert_eq!(used, [used[0]; 4]);
}

/// More of them than h2 suffers in the life of a connection, cut wherever a read may end.
#[tokio::test]
async fn empty_data_frames_are_taken_out_wherever_the_bytes_of_an_answer_are_cut() {
    let service = scripted::service().await;
    let proxy = proxy::on_one_worker(&format!("upstream: h2c://{service}"));
    let mut peer = service.accept_with(&[]).await;
    for step in [1, 2, 7, 9, 10, 11, 500] {
        let mut client = client::h1(proxy.address()).await;
        client.start(&Request::get("/").body(()).unwrap(), false).await.unwrap();
        let stream = peer.expect_headers().await.stream;
        let empty = encode(DATA, OPEN, stream, &[]);
        let mut bytes = encode(HEADERS, END_HEADERS, stream, &encode_fields([(":status", "200")]));
        for text in ["one ", "two ", "three"] {
            bytes.extend(empty.repeat(40));
            bytes.extend(encode(DATA, OPEN, stream, text.as_bytes()));
        }
        bytes.extend(empty);
        // This one says something.
        bytes.extend(encode(DATA, END_STREAM, stream, &[]));
        for part in bytes.chunks(step) {
            peer.raw(part).await;
            // The proxy's turn to read.
            tokio::task::yield_now().await;
        }
        assert_eq!(client.head().await.unwrap().status(), Ok(200), "{step}");
        assert_eq!(client.body().await.unwrap(), "one two three", "{step}");
    }
    assert_eq!(proxy.counts().closed, [].into());
}

#[tokio::test]
async fn an_http1_answer_passes_as_it_is_whatever_its_bytes_are() {
    let origin = origin::h1().start();
    let proxy = proxy::on_one_worker(&format!("upstream: http1://{origin}"));
    let mut client = client::h1(proxy.address()).await;
    // Taken for frames, "HTTP/1.1 " would begin one of 4.7 MB, and the zeros behind it such as say nothing.
    let zeros = vec![0; 6 << 20];
    assert!(client.post("/echo", zeros.clone()).await.body == zeros);
    // The end of none is held back until more comes.
    for length in 0..50 {
        assert_eq!(client.get(&format!("/bytes/{length}")).await.body.len(), length);
    }
    assert_eq!(origin.log().connections.len(), 1);
}
