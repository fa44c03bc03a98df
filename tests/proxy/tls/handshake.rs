//! Clients that come with something else than a handshake, or with half of one.

use super::{expect_failure, serving};
use crate::harness::client;

#[tokio::test]
async fn a_silent_client_is_closed_at_the_header_timeout_and_parked_until_then() {
    let serving = serving("", "timeouts: { header: 300ms },");
    let mut client = client::raw(serving.proxy.address()).await;
    serving.proxy.wait_for(|counts| counts.downstream_parked == 1).await;
    client.expect_close().await;
    expect_failure(&serving.proxy, "timeout").await;
}

#[tokio::test]
async fn a_part_of_a_handshake_is_closed_at_the_header_timeout() {
    let serving = serving("", "timeouts: { header: 100ms },");
    let mut client = client::raw(serving.proxy.address()).await;
    // The header of a record that never comes.
    client.send(b"\x16\x03\x01\x02\x00\x01\x00").await;
    client.expect_close().await;
    expect_failure(&serving.proxy, "timeout").await;
}

/// The handshake is over, the first head never comes: one time bounds both.
#[tokio::test]
async fn a_client_that_is_silent_after_its_handshake_is_closed_at_the_header_timeout() {
    let serving = serving("", "timeouts: { header: 300ms },");
    let mut client = client::raw_tls(serving.proxy.address(), &serving.identity.connector(&[])).await;
    client.expect_close().await;
    serving.proxy.wait_for(|counts| counts.downstream_connections == 0).await;
    assert!(serving.proxy.counts().tls_handshake_failures.is_empty());
}

#[tokio::test]
async fn plain_http_is_told_that_the_port_speaks_tls() {
    let serving = serving("", "");
    let mut client = client::raw(serving.proxy.address()).await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let response = client.expect_response().await;
    assert_eq!((response.status(), response.head.is_closing()), (400, true));
    assert_eq!(response.text(), "This port speaks TLS: use https:// instead.\n");
    client.expect_close().await;
    expect_failure(&serving.proxy, "plain_http").await;
}

#[tokio::test]
async fn bytes_that_are_no_handshake_are_refused() {
    let serving = serving("", "");
    let mut client = client::raw(serving.proxy.address()).await;
    client.send([0xff; 64]).await;
    // An alert.
    let _ = client.read_to_end().await;
    expect_failure(&serving.proxy, "not_tls").await;
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_is_counted_and_one_that_only_looks_is_not() {
    let serving = serving("", "");
    drop(client::raw(serving.proxy.address()).await);
    let mut client = client::raw(serving.proxy.address()).await;
    client.send(b"\x16\x03\x01\x02\x00\x01\x00").await;
    drop(client);
    expect_failure(&serving.proxy, "closed").await;
    serving.proxy.wait_for(|counts| counts.downstream_connections == 0).await;
}

#[tokio::test]
async fn a_drain_lets_a_client_finish_its_handshake_and_its_request() {
    let mut serving = serving("", "");
    let client = client::raw(serving.proxy.address()).await;
    serving.proxy.wait_for(|counts| counts.downstream_parked == 1).await;
    let mut served = client::h1_tls(serving.proxy.address(), &serving.identity.connector(&[])).await;
    served.start(&http::Request::get("/delay/300").body(()).unwrap(), false).await.unwrap();
    serving.origin.wait_for(|log| log.requests.len() == 1).await;
    serving.proxy.drain();
    assert_eq!(served.head().await.unwrap().status(), Ok(200));
    assert_eq!(&*served.body().await.unwrap(), b"slow");
    drop(client);
    assert_eq!(serving.proxy.join().await.cut_connections, 0);
}
