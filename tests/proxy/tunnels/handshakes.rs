//! What is an upgrade, what is refused, and what a service may answer.

use std::collections::BTreeMap;

use h2::Reason;

use crate::harness::origin::log::Ending;
use crate::harness::proxy::Proxy;
use crate::harness::scripted::frame::{ENABLE_CONNECT_PROTOCOL, END_STREAM, OPEN};
use crate::harness::websocket::{self, KEY};
use crate::harness::wire::Response;
use crate::harness::{client, origin, proxy, said, scripted};

use super::{asked_in_http1, before, echoing};

/// A handshake with these fields beside Host.
async fn answer(proxy: &Proxy, method: &str, fields: &str) -> Response {
    let mut client = client::raw(proxy.address()).await;
    client.send(format!("{method} /head HTTP/1.1\r\nhost: a\r\n{fields}\r\n")).await;
    client.expect_response_to(method).await
}

#[tokio::test]
async fn a_handshake_that_is_not_one_is_refused_and_nothing_reaches_the_service() {
    let origin = echoing();
    let proxy = before(&origin);
    let good = format!("sec-websocket-version: 13\r\nsec-websocket-key: {KEY}\r\n");
    for (method, fields, status) in [
        ("GET", "sec-websocket-version: 13\r\n".to_owned(), 400),
        ("GET", "sec-websocket-version: 13\r\nsec-websocket-key: c2hvcnQ=\r\n".to_owned(), 400),
        ("GET", format!("{good}sec-websocket-key: {KEY}\r\n"), 400),
        ("GET", format!("sec-websocket-key: {KEY}\r\n"), 400),
        ("GET", format!("sec-websocket-version: 8\r\nsec-websocket-key: {KEY}\r\n"), 426),
        ("POST", good.clone(), 400),
        ("GET", format!("{good}content-length: 5\r\n\r\nhello"), 400),
        ("GET", format!("{good}transfer-encoding: chunked\r\n\r\n0\r\n"), 400),
    ] {
        let response = answer(&proxy, method, &format!("connection: upgrade\r\nupgrade: websocket\r\n{fields}")).await;
        assert_eq!(response.status(), status, "{method} {fields}");
        assert!(response.head.is_closing());
        if status == 426 {
            assert_eq!(response.header("sec-websocket-version"), Some("13"));
            assert_eq!(response.header("upgrade"), Some("websocket"));
        }
    }
    assert_eq!(origin.log().requests.len(), 0);
}

/// RFC 9110 §7.8 lets a server go on as if nothing had been asked for.
#[tokio::test]
async fn what_is_no_upgrade_is_answered_as_an_ordinary_request() {
    let origin = origin::h2().start();
    let proxy = before(&origin);
    let websocket = format!("sec-websocket-version: 13\r\nsec-websocket-key: {KEY}\r\n");
    for fields in [
        format!("upgrade: websocket\r\n{websocket}"),
        format!("connection: upgrade, close\r\nupgrade: websocket\r\n{websocket}"),
        "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n".to_owned(),
        "connection: upgrade\r\nupgrade: TLS/1.2\r\n".to_owned(),
        "connection: upgrade\r\nupgrade: HTTP/3.0\r\n".to_owned(),
        "connection: upgrade\r\nupgrade: a, b\r\n".to_owned(),
        "connection: upgrade\r\n".to_owned(),
    ] {
        let response = answer(&proxy, "GET", &fields).await;
        assert_eq!(response.status(), 200, "{fields}");
        let head = response.json();
        assert_eq!(head["method"], "GET", "{fields}");
        assert!(!head["headers"].to_string().contains("upgrade"), "{head}");
    }
    let mut client = client::raw(proxy.address()).await;
    client
        .send(format!("GET /head HTTP/1.0\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n{websocket}\r\n"))
        .await;
    assert_eq!(client.expect_response().await.status(), 200);
}

#[tokio::test]
async fn a_plain_answer_to_a_handshake_is_passed_on_and_the_connection_goes_on() {
    let over_http1 = origin::h1().start();
    let over_http2 = origin::h2().start();
    for upstream in [format!("http1://{over_http1}"), format!("h2c://{over_http2}")] {
        let proxy = proxy::with(&format!("upstream: {upstream}"));
        let mut client = client::h1(proxy.address()).await;
        client.start(&websocket::request("/early/403"), false).await.unwrap();
        assert_eq!(client.head().await.unwrap().status(), Ok(403));
        client.body().await.unwrap();
        assert_eq!(client.get("/status/201").await.status(), 201);
        proxy.wait_for_metrics(|metrics| metrics.sum("trunkline_upstream_streams", &[]) == 0.0).await;
        assert_eq!(proxy.faults(), BTreeMap::new());
    }
    assert_eq!(over_http2.log().ended(Ending::Complete), 2);
}

#[tokio::test]
async fn a_service_that_answers_200_in_http1_has_not_switched() {
    let service = origin::raw_h1().await.answer_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    let proxy = proxy::with(&format!("upstream: http1://{service}"));
    let mut client = client::h1(proxy.address()).await;
    client.start(&websocket::request("/"), false).await.unwrap();
    assert_eq!(client.head().await.unwrap().status(), Ok(200));
    assert_eq!(client.body().await.unwrap(), "ok");
}

#[tokio::test]
async fn a_101_that_was_not_made_for_the_handshake_is_502() {
    for answer in [
        "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n",
        "connection: upgrade\r\nupgrade: websocket\r\n",
        "connection: upgrade\r\nupgrade: other\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n",
        "connection: upgrade\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n",
        "upgrade: websocket\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n",
    ] {
        let (_proxy, mut client, mut connection) = asked_in_http1(&websocket::request("/")).await;
        connection.expect_head().await;
        connection.send(format!("HTTP/1.1 101 Switching Protocols\r\n{answer}\r\n")).await;
        assert_eq!(client.head().await.unwrap().status(), Ok(502), "{answer}");
        connection.expect_close().await;
    }
}

#[tokio::test]
async fn subprotocols_and_extensions_pass_and_the_hash_is_made_here_over_http2() {
    let origin = echoing();
    let proxy = before(&origin);
    let mut request = websocket::request("/");
    request.headers_mut().insert("sec-websocket-protocol", "mqtt".parse().unwrap());
    request.headers_mut().insert("sec-websocket-extensions", "permessage-deflate".parse().unwrap());
    let socket = websocket::open_as(proxy.address(), &request).await;
    assert_eq!(socket.subprotocol.as_deref(), Some("mqtt"));
    assert_eq!(origin.log().requests[0].header("sec-websocket-extensions"), Some("permessage-deflate"));
    socket.close(1000).await;
}

#[tokio::test]
async fn a_service_of_http2_without_extended_connect_is_asked_in_http1() {
    // No SETTINGS_ENABLE_CONNECT_PROTOCOL.
    let service = scripted::service().await;
    let proxy = proxy::on_one_worker(&format!("upstream: h2c://{service}"));
    let _http2 = service.accept_with(&[]).await;
    let mut client = client::h1(proxy.address()).await;
    client.start(&websocket::request("/"), false).await.unwrap();
    let mut connection = origin::raw_h1::RawConnection::new(service.accept_stream().await);
    let head = connection.expect_head().await;
    assert_eq!(head.header("sec-websocket-key"), Some(KEY));
    assert_eq!(head.header("connection"), Some("upgrade"));
    connection.send(websocket::switching()).await;
    assert_eq!(client.head().await.unwrap().status(), Ok(101));
}

#[tokio::test]
async fn a_service_that_takes_no_upgrade_at_all_is_told_of_once() {
    let service = scripted::service().await;
    let proxy = proxy::on_one_worker(&format!("upstream: h2c://{service}"));
    let _http2 = service.accept_with(&[]).await;
    for _ in 0..2 {
        let mut client = client::h1(proxy.address()).await;
        client.start(&websocket::request("/"), false).await.unwrap();
        // What a server of HTTP/2 says to a request in HTTP/1.1.
        let mut connection = origin::raw_h1::RawConnection::new(service.accept_stream().await);
        connection.expect_head().await;
        connection.send(b"\0\0\0\x04\0\0\0\0\0\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\x01").await;
        connection.close().await;
        let head = client.head().await.unwrap();
        assert_eq!(head.status(), Ok(502));
        assert_eq!(head.header("proxy-status"), Some("trunkline; error=http_upgrade_failed"));
    }
    assert_eq!(proxy.faults(), BTreeMap::from([("no_upgrade", 2)]));
    let address = service.address().to_string();
    let lines = said::lines(&address);
    assert_eq!(lines.iter().filter(|line| line.contains("takes no upgrades")).count(), 1, "{lines:#?}");
}

#[tokio::test]
async fn a_refused_stream_is_asked_for_again_and_a_lost_one_is_not() {
    let service = scripted::service().await;
    let proxy = proxy::on_one_worker(&format!("upstream: h2c://{service}"));
    let mut peer = service.accept_with(&[(ENABLE_CONNECT_PROTOCOL, 1)]).await;
    let mut client = client::h1(proxy.address()).await;
    client.start(&websocket::request("/chat"), false).await.unwrap();
    let first = peer.expect_headers().await;
    assert_eq!((first.field(":method"), first.field(":protocol")), ("CONNECT", "websocket"));
    assert_eq!((first.field(":path"), first.field(":scheme")), ("/chat", "http"));
    peer.rst_stream(first.stream, Reason::REFUSED_STREAM).await;
    let second = peer.expect_headers().await;
    assert_eq!(second.field(":protocol"), "websocket");
    peer.headers(second.stream, 200, &[], OPEN).await;
    assert_eq!(client.head().await.unwrap().status(), Ok(101));
    let mut lost = client::h1(proxy.address()).await;
    lost.start(&websocket::request("/"), false).await.unwrap();
    let third = peer.expect_headers().await;
    peer.rst_stream(third.stream, Reason::INTERNAL_ERROR).await;
    assert_eq!(lost.head().await.unwrap().status(), Ok(502));
}

#[tokio::test]
async fn a_refused_handshake_ends_its_stream_in_both_directions() {
    let service = scripted::service().await;
    let proxy = proxy::on_one_worker(&format!("upstream: h2c://{service}"));
    let mut peer = service.accept_with(&[(ENABLE_CONNECT_PROTOCOL, 1)]).await;
    let mut client = client::h1(proxy.address()).await;
    client.start(&websocket::request("/"), false).await.unwrap();
    let request = peer.expect_headers().await;
    peer.headers(request.stream, 401, &[("content-length", "2")], OPEN).await;
    peer.data(request.stream, "no", END_STREAM).await;
    assert_eq!(client.head().await.unwrap().status(), Ok(401));
    assert_eq!(client.body().await.unwrap(), "no");
    assert_eq!(peer.expect_data(request.stream).await, ("".into(), true));
}

#[tokio::test]
async fn a_service_that_says_nothing_to_a_handshake_is_504() {
    let service = scripted::service().await;
    let proxy = proxy::on_one_worker(&format!(
        "routes: [{{ upstream: up, timeouts: {{ response_header: 100ms }} }}]\nupstreams: {{ up: {{ endpoints: [\"h2c://{service}\"] }} }}"
    ));
    let mut peer = service.accept_with(&[(ENABLE_CONNECT_PROTOCOL, 1)]).await;
    let mut client = client::h1(proxy.address()).await;
    client.start(&websocket::request("/"), false).await.unwrap();
    let request = peer.expect_headers().await;
    assert_eq!(client.head().await.unwrap().status(), Ok(504));
    assert_eq!(peer.expect_rst(request.stream).await, Reason::CANCEL);
}
