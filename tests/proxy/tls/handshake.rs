//! Clients that come with something else than a handshake, or with half of one.

use http::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use super::{expect_failure, serving};
use crate::harness::client;

#[tokio::test]
async fn a_silent_client_is_closed_at_the_header_timeout_and_parked_until_then() {
    let serving = serving("", "timeouts: { header: 2s },");
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
    let serving = serving("", "timeouts: { header: 2s },");
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
async fn a_drain_closes_who_has_not_begun_and_lets_finish_who_is_served() {
    let mut serving = serving("", "");
    let mut silent = client::raw(serving.proxy.address()).await;
    serving.proxy.wait_for(|counts| counts.downstream_parked == 1).await;
    let mut served = client::h1_tls(serving.proxy.address(), &serving.identity.connector(&[])).await;
    served.start(&Request::get("/delay/300").body(()).unwrap(), false).await.unwrap();
    serving.origin.wait_for(|log| log.requests.len() == 1).await;
    serving.proxy.drain();
    silent.expect_close().await;
    assert_eq!(served.head().await.unwrap().status(), Ok(200));
    assert_eq!(&*served.body().await.unwrap(), b"slow");
    assert_eq!(serving.proxy.join().await.cut_connections, 0);
}

#[tokio::test]
async fn a_drain_lets_a_handshake_finish_that_has_begun() {
    let mut serving = serving("", "");
    let proxy = serving.proxy.address();
    // Between client and proxy, to hold the handshake up after its first bytes.
    let between = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = between.local_addr().unwrap();
    let (goes_on, wait) = oneshot::channel();
    tokio::spawn(async move {
        let (mut client, _) = between.accept().await.unwrap();
        let mut server = TcpStream::connect(proxy).await.unwrap();
        let mut first = [0; 10];
        client.read_exact(&mut first).await.unwrap();
        server.write_all(&first).await.unwrap();
        wait.await.unwrap();
        _ = copy_bidirectional(&mut client, &mut server).await;
    });
    let connector = serving.identity.connector(&[]);
    let asking = tokio::spawn(async move {
        let mut client = client::h1_tls(address, &connector).await;
        client.get("/status/200").await.status()
    });
    serving.proxy.wait_for(|counts| counts.downstream_accepted == 1 && counts.downstream_parked == 0).await;
    serving.proxy.drain();
    // A connection that is refused shows that the drain has begun.
    while TcpStream::connect(proxy).await.is_ok() {}
    goes_on.send(()).unwrap();
    assert_eq!(asking.await.unwrap(), 200);
    assert_eq!(serving.proxy.join().await.cut_connections, 0);
}
