//! What of a request body is sent again, and how much of it may be.

use h2::Reason;
use http::Request;

use super::{one_connection, start};
use crate::harness::client;
use crate::harness::scripted::frame::INITIAL_WINDOW_SIZE;

#[tokio::test]
async fn a_body_that_is_still_coming_is_sent_from_its_beginning() {
    let (service, proxy) = one_connection().await;
    let mut peer = service.accept_with(&[]).await;
    let mut client = client::h1(proxy.address()).await;
    client.start(&Request::post("/").body(()).unwrap(), true).await.unwrap();
    client.send_chunk(b"one ").await.unwrap();
    let first = peer.expect_headers().await;
    assert_eq!(peer.expect_data(first.stream).await, ("one ".into(), false));
    peer.rst_stream(first.stream, Reason::REFUSED_STREAM).await;
    let second = peer.expect_headers().await;
    assert_eq!(peer.expect_data(second.stream).await, ("one ".into(), false));
    client.send_chunk(b"two").await.unwrap();
    client.end_chunks().await.unwrap();
    assert_eq!(peer.expect_body(second.stream).await, "two");
    peer.answer(&second, 200, "done").await;
    assert_eq!(client.head().await.unwrap().status(), Ok(200));
}

#[tokio::test]
async fn trailers_are_sent_again() {
    let (service, proxy) = one_connection().await;
    let mut peer = service.accept_with(&[]).await;
    let mut client = client::raw(proxy.address()).await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n").await;
    client.send("4\r\nbody\r\n0\r\nx-sum: 42\r\n\r\n").await;
    for is_last in [false, true] {
        let head = peer.expect_headers().await;
        assert_eq!(peer.expect_data(head.stream).await, ("body".into(), false));
        assert_eq!(peer.expect_headers().await.field("x-sum"), "42");
        if is_last {
            peer.answer(&head, 200, "done").await;
        } else {
            peer.rst_stream(head.stream, Reason::REFUSED_STREAM).await;
        }
    }
    assert_eq!(client.expect_response().await.text(), "done");
}

#[tokio::test]
async fn a_body_of_64_kib_is_sent_again_and_a_longer_one_is_not() {
    const KIB: usize = 1024;
    for (bytes, status, attempts) in [(64 * KIB, 200, 2), (64 * KIB + 1, 503, 1)] {
        let (service, proxy) = one_connection().await;
        // Room for all of it at once.
        let mut peer = service.accept_with(&[(INITIAL_WINDOW_SIZE, 1 << 20)]).await;
        peer.window_update(0, 1 << 20).await;
        let request = Request::post("/").header("content-length", bytes).body(()).unwrap();
        let mut client = start(&proxy, request).await.into_raw();
        client.send(vec![b'x'; bytes]).await;
        for attempt in 1..=attempts {
            let head = peer.expect_headers().await;
            assert_eq!(peer.expect_body(head.stream).await.len(), bytes);
            if attempt == attempts && status == 200 {
                peer.answer(&head, 200, "").await;
            } else {
                peer.rst_stream(head.stream, Reason::REFUSED_STREAM).await;
            }
        }
        assert_eq!(client.expect_response().await.status(), status, "{bytes} bytes");
    }
}

/// Its length is not known until it is too long.
#[tokio::test]
async fn a_chunked_body_above_64_kib_is_sent_once() {
    let (service, proxy) = one_connection().await;
    let mut peer = service.accept_with(&[(INITIAL_WINDOW_SIZE, 1 << 20)]).await;
    peer.window_update(0, 1 << 20).await;
    let mut client = client::h1(proxy.address()).await;
    client.start(&Request::post("/").body(()).unwrap(), true).await.unwrap();
    for _ in 0..17 {
        client.send_chunk(&[b'x'; 4096]).await.unwrap();
    }
    let head = peer.expect_headers().await;
    let mut received = 0;
    while received < 17 * 4096 {
        received += peer.expect_data(head.stream).await.0.len();
    }
    peer.rst_stream(head.stream, Reason::REFUSED_STREAM).await;
    assert_eq!(client.head().await.unwrap().status(), Ok(503));
    assert_eq!(proxy.counts().retries, [].into());
}
