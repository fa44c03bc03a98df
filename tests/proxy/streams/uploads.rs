//! Request bodies that take their time: both ways at once, broken off, and faster than their service.

use h2::Reason;
use http::Request;

use super::proxy_to;
use crate::harness::origin::log::Ending;
use crate::harness::scripted::frame::{END_STREAM, INITIAL_WINDOW_SIZE, OPEN};
use crate::harness::{client, origin, process, scripted};

#[tokio::test]
async fn bytes_go_both_ways_at_once() {
    for protocol in ["h2c", "http1"] {
        let origin = if protocol == "h2c" { origin::h2() } else { origin::h1() }.start();
        let proxy = proxy_to(&format!("{protocol}://{origin}"), "");
        let mut client = client::h1(proxy.address()).await;
        client.start(&Request::post("/echo").body(()).unwrap(), true).await.unwrap();
        client.send_chunk(b"part 0").await.unwrap();
        assert_eq!(client.head().await.unwrap().status(), Ok(200));
        for part in 0..20 {
            assert_eq!(client.part().await.unwrap().unwrap(), format!("part {part}"), "{protocol}");
            client.send_chunk(format!("part {}", part + 1).as_bytes()).await.unwrap();
        }
        assert_eq!(client.part().await.unwrap().unwrap(), "part 20");
        client.end_chunks().await.unwrap();
        assert_eq!(client.body().await.unwrap(), "", "{protocol}");
        assert_eq!(client.get("/status/200").await.status(), 200);
    }
}

#[tokio::test]
async fn an_answer_in_the_middle_of_a_body_ends_the_upload_and_not_the_answer() {
    let service = scripted::service().await;
    let proxy = proxy_to(&format!("h2c://{service}"), "");
    let mut peer = service.accept_with(&[]).await;
    for status in [401, 413] {
        let mut client = client::h1(proxy.address()).await;
        client.start(&Request::post("/").body(()).unwrap(), true).await.unwrap();
        client.send_chunk(b"some of a long body").await.unwrap();
        let stream = peer.expect_headers().await.stream;
        assert_eq!(peer.expect_data(stream).await.0, "some of a long body");
        peer.headers(stream, status, &[("content-length", "5")], OPEN).await;
        peer.data(stream, "early", END_STREAM).await;
        assert_eq!(client.head().await.unwrap().status(), Ok(status));
        assert_eq!(client.body().await.unwrap(), "early");
        // The service is told that nothing more comes.
        assert_eq!(peer.expect_rst(stream).await, Reason::CANCEL);
        // What would follow on the connection is the rest of the body: it takes no request.
        client.into_raw().expect_close().await;
    }
    assert!(proxy.faults().is_empty(), "{:?}", proxy.faults());
}

#[tokio::test]
async fn a_client_that_breaks_off_its_upload_has_it_reset_at_the_service() {
    for (protocol, ending) in [("h2c", Ending::ResetByPeer(Reason::CANCEL)), ("http1", Ending::ConnectionLost)] {
        let origin = if protocol == "h2c" { origin::h2() } else { origin::h1() }.start();
        let proxy = proxy_to(&format!("{protocol}://{origin}"), "");
        let mut client = client::h1(proxy.address()).await;
        client.start(&Request::post("/upload").body(()).unwrap(), true).await.unwrap();
        client.send_chunk(b"a part").await.unwrap();
        origin.wait_for(|log| log.requests.iter().any(|request| request.body_bytes == 6)).await;
        client.abort();
        origin.wait_for(|log| log.ended(ending) == 1).await;
        assert_eq!(origin.log().requests.len(), 1, "{protocol}");
    }
}

#[tokio::test]
async fn a_client_that_is_faster_than_its_service_waits_for_it() {
    if !process::is_alone("streams::uploads::a_client_that_is_faster_than_its_service_waits_for_it") {
        return;
    }
    let service = scripted::service().await;
    let proxy = proxy_to(&format!("h2c://{service}"), "");
    let mut peer = service.accept_with(&[(INITIAL_WINDOW_SIZE, 1000)]).await;
    let mut client = client::raw(proxy.address()).await;
    let before = process::resident_bytes();
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000000\r\n\r\n").await;
    let stream = peer.expect_headers().await.stream;
    let chunk = vec![b'x'; 1 << 20];
    for _ in 0..20 {
        client.send_some(&chunk, std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(peer.expect_data(stream).await.0.len(), 1000);
    let grown = process::resident_bytes().saturating_sub(before);
    // What was not taken is in the kernel's buffers or with the client still.
    assert!(grown < 8 << 20, "{grown} bytes more");
    peer.window_update(stream, 5000).await;
    assert_eq!(peer.expect_data(stream).await.0.len(), 5000);
}
