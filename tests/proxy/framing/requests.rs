//! Request bodies on their way up.

use bytes::Bytes;
use http::Request;

use crate::harness::origin::behaviour::pattern;
use crate::harness::origin::log::Ending;
use crate::harness::{client, origin, proxy, scripted};

#[tokio::test]
async fn a_body_with_content_length_arrives_whole_with_its_length() {
    let origin = origin::h2().start();
    let proxy = proxy::with(&format!("upstream: h2c://{origin}"));
    let body = pattern("up", 1_000_000);
    let mut client = client::h1(proxy.address()).await;
    assert_eq!(client.post("/echo", body.clone()).await.body, body);
    assert_eq!(origin.log().requests[0].header("content-length"), Some("1000000"));
}

#[tokio::test]
async fn a_chunked_body_arrives_whole_and_comes_back_chunked() {
    let origin = origin::h2().start();
    let proxy = proxy::with(&format!("upstream: h2c://{origin}"));
    let mut client = client::h1(proxy.address()).await;
    client.start(&Request::post("/echo").body(()).unwrap(), true).await.unwrap();
    let body = pattern("chunk", 200_000);
    for part in body.chunks(7919) {
        client.send_chunk(part).await.unwrap();
    }
    client.end_chunks().await.unwrap();
    let head = client.head().await.unwrap();
    assert_eq!((head.header("transfer-encoding"), head.header("content-length")), (Some("chunked"), None));
    assert_eq!(client.body().await.unwrap(), body);
    assert_eq!(origin.log().requests[0].header("transfer-encoding"), None);
}

#[tokio::test]
async fn a_get_with_a_body_is_forwarded_with_it() {
    let origin = origin::h2().start();
    let proxy = proxy::with(&format!("upstream: h2c://{origin}"));
    let mut client = client::h1(proxy.address()).await;
    let request = Request::get("/upload").body(Bytes::from_static(b"query")).unwrap();
    assert_eq!(client.send(&request).await.unwrap().text(), "5");
}

#[tokio::test]
async fn an_empty_post_keeps_its_content_length_of_zero() {
    let origin = origin::h2().start();
    let proxy = proxy::with(&format!("upstream: h2c://{origin}"));
    let mut client = client::h1(proxy.address()).await;
    assert_eq!(client.post("/upload", "").await.text(), "0");
    assert_eq!(origin.log().requests[0].header("content-length"), Some("0"));
}

#[tokio::test]
async fn a_request_without_a_body_is_one_frame() {
    let service = scripted::service().await;
    let proxy = proxy::on_one_worker(&format!("upstream: h2c://{service}"));
    let mut peer = service.accept_with(&[]).await;
    let mut client = client::h1(proxy.address()).await;
    client.start(&Request::get("/").body(()).unwrap(), false).await.unwrap();
    assert!(peer.expect_headers().await.is_end);
}

#[tokio::test]
async fn the_first_bytes_go_up_while_the_rest_is_still_to_come() {
    let service = scripted::service().await;
    let proxy = proxy::on_one_worker(&format!("upstream: h2c://{service}"));
    let mut peer = service.accept_with(&[]).await;
    let mut client = client::h1(proxy.address()).await;
    client.start(&Request::post("/").body(()).unwrap(), true).await.unwrap();
    client.send_chunk(b"first").await.unwrap();
    let stream = peer.expect_headers().await.stream;
    assert_eq!(peer.expect_data(stream).await, (Bytes::from_static(b"first"), false));
    client.end_chunks().await.unwrap();
    assert!(peer.expect_data(stream).await.1);
}

#[tokio::test]
async fn the_service_may_answer_while_the_client_still_sends() {
    let origin = origin::h2().start();
    let proxy = proxy::with(&format!("upstream: h2c://{origin}"));
    let mut client = client::h1(proxy.address()).await;
    client.start(&Request::post("/echo").body(()).unwrap(), true).await.unwrap();
    client.head().await.unwrap();
    for part in [&b"ping"[..], b"pong", b"last"] {
        client.send_chunk(part).await.unwrap();
        assert_eq!(client.part().await.unwrap().unwrap(), part);
    }
    client.end_chunks().await.unwrap();
    assert_eq!(client.part().await, Ok(None));
}

#[tokio::test]
async fn an_upload_larger_than_every_window_goes_on_as_the_service_reads() {
    let origin = origin::h2().windows(1024, 4096).start();
    let proxy = proxy::with(&format!("upstream: h2c://{origin}"));
    let mut client = client::h1(proxy.address()).await;
    assert_eq!(client.post("/upload", vec![b'x'; 300_000]).await.text(), "300000");
}

#[tokio::test]
async fn a_body_that_its_client_leaves_unfinished_is_reset_and_never_ends_cleanly() {
    let origin = origin::h2().start();
    let proxy = proxy::with(&format!("upstream: h2c://{origin}"));
    let mut client = client::raw(proxy.address()).await;
    client.send("POST /upload HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf").await;
    origin.wait_for(|log| log.requests.first().is_some_and(|request| request.body_bytes == 4)).await;
    client.shutdown_write().await;
    origin.wait_for(|log| log.ended(Ending::ResetByPeer(h2::Reason::CANCEL)) == 1).await;
}

#[tokio::test]
async fn a_chunk_that_breaks_the_rules_resets_the_stream_and_is_answered_400() {
    let origin = origin::h2().start();
    let proxy = proxy::with(&format!("upstream: h2c://{origin}"));
    let mut client = client::raw(proxy.address()).await;
    client.send("POST /upload HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n4\r\ngood\r\nxyz\r\n").await;
    assert_eq!(client.expect_response_to("POST").await.status(), 400);
    client.expect_close().await;
    origin.wait_for(|log| log.ended(Ending::ResetByPeer(h2::Reason::CANCEL)) == 1).await;
}

#[tokio::test]
async fn a_head_of_60_kib_goes_up_whole() {
    let origin = origin::h2().start();
    let proxy = proxy::with(&format!("upstream: h2c://{origin}"));
    let mut client = client::h1(proxy.address()).await;
    let long = "v".repeat(30_000);
    let request = Request::get("/bytes/1").header("x-long", &long).header("cookie", &long).body(Bytes::new()).unwrap();
    assert_eq!(client.send(&request).await.unwrap().status(), 200);
    assert_eq!(origin.log().requests[0].header("x-long"), Some(long.as_str()));
}

#[tokio::test]
async fn a_chunked_upload_stays_chunked_towards_an_http1_service() {
    let service = origin::raw_h1().await;
    let proxy = proxy::on_one_worker(&format!("upstream: http1://{service}"));
    // The connection that looks at start whether the service is there is the one that is used.
    let mut connection = service.accept().await;
    let mut client = client::h1(proxy.address()).await;
    client.start(&Request::post("/x").body(()).unwrap(), true).await.unwrap();
    client.send_chunk(b"first").await.unwrap();
    client.send_chunk(b"second").await.unwrap();
    client.end_chunks().await.unwrap();
    let request = connection.expect_request().await;
    let lengths: Vec<_> = request.head.headers("content-length").collect();
    assert_eq!((request.head.header("transfer-encoding"), lengths), (Some("chunked"), vec![]));
    assert_eq!(request.body, "firstsecond");
}

#[tokio::test]
async fn a_sized_upload_stays_sized_towards_an_http1_service() {
    let origin = origin::h1().start();
    let proxy = proxy::with(&format!("upstream: http1://{origin}"));
    let mut client = client::h1(proxy.address()).await;
    let body = pattern("up", 300_000);
    assert_eq!(client.post("/echo", body.clone()).await.body, body);
    let log = origin.log();
    assert_eq!(log.requests[0].header("content-length"), Some("300000"));
    assert_eq!(log.requests[0].header("transfer-encoding"), None);
}

#[tokio::test]
async fn an_unfinished_body_is_never_complete_for_an_http1_service() {
    let origin = origin::h1().start();
    let proxy = proxy::with(&format!("upstream: http1://{origin}"));
    let mut client = client::raw(proxy.address()).await;
    client.send("POST /upload HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n").await;
    origin.wait_for(|log| log.requests.first().is_some_and(|request| request.body_bytes == 4)).await;
    client.shutdown_write().await;
    origin.wait_for(|log| log.ended(Ending::ConnectionLost) == 1).await;
}
