//! Fields after the body, in both directions.
//!
//! Towards HTTP/1.1 hyper writes a trailer only if the head has announced it, in a chunked message, and down
//! to a client only if that said `TE: trailers`.

use crate::harness::scripted::frame::OPEN;
use crate::harness::{client, origin, proxy, scripted};

const UPLOAD: &str = "POST /upload HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntrailer: x-checksum\r\n\r\n\
                      2\r\nhi\r\n0\r\n";

#[tokio::test]
async fn request_trailers_go_up() {
    let origin = origin::h2().start();
    let proxy = proxy::with(&format!("upstream: h2c://{origin}"));
    let mut client = client::raw(proxy.address()).await;
    client.send(format!("{UPLOAD}x-checksum: 42\r\n\r\n")).await;
    assert_eq!(client.expect_response_to("POST").await.text(), "2");
    let log = origin.log();
    assert_eq!(log.requests[0].trailers.as_ref().unwrap()["x-checksum"], "42");
}

#[tokio::test]
async fn forbidden_request_trailers_stay_here_and_do_not_hold_the_stream_up() {
    for forbidden in ["transfer-encoding: chunked", "connection: close", "host: b", "authorization: Basic x", "te: x"] {
        let origin = origin::h2().start();
        let proxy = proxy::with(&format!("upstream: h2c://{origin}"));
        let mut client = client::raw(proxy.address()).await;
        client.send(format!("{UPLOAD}{forbidden}\r\nx-checksum: 42\r\n\r\n")).await;
        assert_eq!(client.expect_response_to("POST").await.text(), "2", "{forbidden}");
        let log = origin.log();
        let trailers = log.requests[0].trailers.as_ref().unwrap();
        assert_eq!((trailers.len(), &trailers["x-checksum"]), (1, &"42".parse().unwrap()), "{forbidden}");
    }
}

#[tokio::test]
async fn a_body_whose_trailers_are_all_forbidden_ends_without_any() {
    let origin = origin::h2().start();
    let proxy = proxy::with(&format!("upstream: h2c://{origin}"));
    let mut client = client::raw(proxy.address()).await;
    client.send(format!("{UPLOAD}transfer-encoding: chunked\r\n\r\n")).await;
    assert_eq!(client.expect_response_to("POST").await.text(), "2");
    assert!(origin.log().requests[0].trailers.is_none());
}

#[tokio::test]
async fn announced_response_trailers_come_down_to_a_client_that_takes_them() {
    let origin = origin::h2().start();
    let proxy = proxy::with(&format!("upstream: h2c://{origin}"));
    let mut client = client::raw(proxy.address()).await;
    client.send("GET /trailers HTTP/1.1\r\nhost: a\r\nte: trailers\r\n\r\n").await;
    let response = client.expect_response().await;
    assert_eq!((response.trailer("x-checksum"), response.trailer("grpc-status")), (Some("42"), Some("0")));
}

#[tokio::test]
async fn response_trailers_are_left_out_for_a_client_that_did_not_ask() {
    let origin = origin::h2().start();
    let proxy = proxy::with(&format!("upstream: h2c://{origin}"));
    let mut client = client::raw(proxy.address()).await;
    client.send("GET /trailers HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let response = client.expect_response().await;
    assert_eq!((response.text(), response.trailers.len()), ("with trailers", 0));
}

#[tokio::test]
async fn forbidden_response_trailers_stay_here() {
    let service = scripted::service().await;
    let proxy = proxy::on_one_worker(&format!("upstream: h2c://{service}"));
    let mut peer = service.accept_with(&[]).await;
    let mut client = client::raw(proxy.address()).await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\nte: trailers\r\n\r\n").await;
    let stream = peer.expect_headers().await.stream;
    peer.headers(stream, 200, &[("trailer", "set-cookie, x-sum, content-length")], OPEN).await;
    peer.data(stream, "body", OPEN).await;
    peer.trailers(stream, &[("set-cookie", "a=b"), ("x-sum", "7"), ("content-length", "9")]).await;
    let response = client.expect_response().await;
    assert_eq!((response.text(), response.trailer("x-sum"), response.trailers.len()), ("body", Some("7"), 1));
}

#[tokio::test]
async fn trailers_go_both_ways_through_an_http1_service() {
    let service = origin::raw_h1().await;
    let proxy = proxy::on_one_worker(&format!("upstream: http1://{service}"));
    let mut connection = service.accept().await;
    let mut client = client::raw(proxy.address()).await;
    let upload = UPLOAD.replace("trailer:", "te: trailers\r\ntrailer:");
    client.send(format!("{upload}x-checksum: 42\r\n\r\n")).await;
    assert_eq!(connection.expect_request().await.trailers, [("x-checksum".to_owned(), "42".to_owned())]);
    connection.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n").await;
    connection.send("2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n").await;
    assert_eq!(client.expect_response_to("POST").await.trailer("x-sum"), Some("7"));
}

#[tokio::test]
async fn forbidden_request_trailers_do_not_reach_an_http1_service() {
    let service = origin::raw_h1().await;
    let proxy = proxy::on_one_worker(&format!("upstream: http1://{service}"));
    let mut connection = service.accept().await;
    let mut client = client::raw(proxy.address()).await;
    let upload = UPLOAD.replace("x-checksum", "x-forwarded-for, x-checksum");
    client.send(format!("{upload}x-forwarded-for: 1.2.3.4\r\nx-checksum: 42\r\n\r\n")).await;
    assert_eq!(connection.expect_request().await.trailers, [("x-checksum".to_owned(), "42".to_owned())]);
}
