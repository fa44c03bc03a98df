//! Other protocols than WebSocket: HTTP/1.1 all the way.

use http::Request;

use super::{asked_in_http1, over};
use crate::harness::client::Client;
use crate::harness::origin::raw_h1::{RawConnection, RawOrigin};
use crate::harness::proxy::Proxy;
use crate::harness::scripted::frame::ENABLE_CONNECT_PROTOCOL;
use crate::harness::wire::Broken;
use crate::harness::{client, origin, proxy, scripted};

fn request(method: &str, protocol: &str) -> Request<()> {
    let request = Request::builder().method(method).uri("/exec").header("connection", "Upgrade");
    request.header("upgrade", protocol).body(()).unwrap()
}

/// Both ends of a tunnel.
async fn switched(proxy: &Proxy, service: &RawOrigin) -> (Client, RawConnection) {
    let mut client = client::h1(proxy.address()).await;
    client.start(&request("GET", "x"), false).await.unwrap();
    let mut connection = service.accept().await;
    connection.expect_head().await;
    connection.send("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n").await;
    assert_eq!(client.head().await.unwrap().status(), Ok(101));
    (client, connection)
}

#[tokio::test]
async fn any_protocol_and_method_is_carried_and_what_comes_with_the_heads_too() {
    let (proxy, mut client, mut connection) = asked_in_http1(&request("POST", "SPDY/3.1")).await;
    let head = connection.expect_head().await;
    assert_eq!(head.start, "POST /exec HTTP/1.1");
    assert_eq!((head.header("upgrade"), head.header("connection")), (Some("SPDY/3.1"), Some("upgrade")));
    connection.send("HTTP/1.1 101 Switching Protocols\r\nupgrade: spdy/3.1\r\nconnection: upgrade\r\n\r\nfirst").await;
    let head = client.head().await.unwrap();
    assert_eq!((head.status(), head.header("upgrade")), (Ok(101), Some("SPDY/3.1")));
    let mut client = client.into_raw();
    assert_eq!(client.some().await.unwrap(), "first");
    client.send("up").await;
    assert_eq!(connection.some().await.unwrap(), "up");
    proxy.wait_for_metrics(|metrics| metrics.sum("trunkline_tunnels", &[("protocol", "other")]) >= 1.0).await;
    // Each direction ends on its own.
    client.shutdown_write().await;
    assert_eq!(connection.some().await.unwrap(), "");
    connection.send("last").await;
    connection.shutdown_write().await;
    assert_eq!(client.read_to_end().await.unwrap(), b"last");
    over(&proxy).await;
    assert_eq!(proxy.faults().len(), 0);
}

/// An offer of extended CONNECT does not say for which protocols.
#[tokio::test]
async fn another_protocol_is_asked_for_in_http1_although_the_service_takes_extended_connect() {
    let service = scripted::service().await;
    let proxy = proxy::on_one_worker(&format!("upstream: h2c://{service}"));
    let _http2 = service.accept_with(&[(ENABLE_CONNECT_PROTOCOL, 1)]).await;
    let mut client = client::h1(proxy.address()).await;
    client.start(&request("GET", "irc"), false).await.unwrap();
    let mut connection = RawConnection::new(service.accept_stream().await);
    assert_eq!(connection.expect_head().await.header("upgrade"), Some("irc"));
}

#[tokio::test]
async fn another_protocol_with_a_body_is_an_ordinary_request() {
    let origin = origin::h1().start();
    let proxy = proxy::with(&format!("upstream: http1://{origin}"));
    let mut client = client::raw(proxy.address()).await;
    client
        .send("POST /echo HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: tcp\r\ncontent-length: 2\r\n\r\nhi")
        .await;
    let response = client.expect_response().await;
    assert_eq!((response.status(), response.text()), (200, "hi"));
    assert_eq!(origin.log().requests[0].header("upgrade"), None);
}

#[tokio::test]
async fn resets_pass_both_ways() {
    for is_service_first in [true, false] {
        let (_proxy, mut client, mut connection) = asked_in_http1(&request("GET", "x")).await;
        connection.expect_head().await;
        connection.send("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n").await;
        assert_eq!(client.head().await.unwrap().status(), Ok(101));
        if is_service_first {
            connection.abort();
            assert_eq!(client.into_raw().some().await, Err(Broken::Reset));
        } else {
            client.abort();
            assert_eq!(connection.some().await, Err(Broken::Reset));
        }
    }
}

#[tokio::test]
async fn connections_for_upgrades_from_before_a_reload_count() {
    let service = origin::raw_h1().await;
    let yaml = |pool: &str| {
        format!(
            "upstreams: {{ up: {{ endpoints: [\"http1://{service}\"], \
             pool: {{ max_connections: 1, max_tunnel_connections: 1, {pool} }} }} }}"
        )
    };
    let proxy = proxy::with(&yaml(""));
    let _pooled = service.accept().await;
    let _tunnel = switched(&proxy, &service).await;
    proxy.reload(&yaml("idle_timeout: 1m")).await.unwrap();
    let mut second = client::h1(proxy.address()).await;
    second.start(&request("GET", "x"), false).await.unwrap();
    assert_eq!(second.head().await.unwrap().status(), Ok(503));
}

#[tokio::test]
async fn connections_for_upgrades_are_bounded_and_take_no_place_of_the_pools() {
    let service = origin::raw_h1().await;
    let proxy = proxy::with(&format!(
        "upstreams: {{ up: {{ endpoints: [\"http1://{service}\"], \
         pool: {{ max_connections: 1, max_tunnel_connections: 1 }} }} }}"
    ));
    let mut pooled = service.accept().await;
    let tunnel = switched(&proxy, &service).await;
    let mut second = client::h1(proxy.address()).await;
    second.start(&request("GET", "x"), false).await.unwrap();
    let head = second.head().await.unwrap();
    assert_eq!((head.status(), head.header("retry-after")), (Ok(503), Some("1")));
    // An ordinary request has the pool's one connection.
    let mut ordinary = client::h1(proxy.address()).await;
    ordinary.start(&Request::get("/").body(()).unwrap(), false).await.unwrap();
    pooled.expect_head().await;
    pooled.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(ordinary.head().await.unwrap().status(), Ok(204));
    // The place is free again when the tunnel is over.
    drop(tunnel);
    over(&proxy).await;
    let mut third = client::h1(proxy.address()).await;
    third.start(&request("GET", "x"), false).await.unwrap();
    assert_eq!(service.accept().await.expect_head().await.header("upgrade"), Some("x"));
}
