//! HTTP/1.1 services that break off, or answer what is no answer.

use super::{Asking, BROKEN, INVALID, Row, proxy_before, row};
use crate::harness::client;
use crate::harness::origin;

#[tokio::test]
async fn a_connection_that_ends_before_the_answer() {
    let service = origin::raw_h1().await;
    let proxy = proxy_before(&format!("http1://{service}"), "");
    let mut connection = service.accept().await;
    let asking = Asking::new(&proxy).await;
    connection.expect_request().await;
    connection.abort();
    asking.expect(&proxy, row(502, "connection_terminated", "connection_lost", BROKEN)).await;
}

#[tokio::test]
async fn a_connection_that_ends_within_the_head() {
    let service = origin::raw_h1().await;
    let proxy = proxy_before(&format!("http1://{service}"), "");
    let mut connection = service.accept().await;
    let asking = Asking::new(&proxy).await;
    connection.expect_request().await;
    connection.send("HTTP/1.1 200 OK\r\nx").await;
    connection.close().await;
    asking.expect(&proxy, row(502, "connection_terminated", "connection_lost", BROKEN)).await;
}

#[tokio::test]
async fn an_answer_that_breaks_the_grammar() {
    for answer in [
        &b"nonsense\r\n\r\n"[..],
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/3.0 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx y: z\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx",
        b"HTTP/1.1 200 OK\r\ncontent-length: +1\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    ] {
        let service = origin::raw_h1().await.answer_all(answer);
        let proxy = proxy_before(&format!("http1://{service}"), "");
        Asking::new(&proxy).await.expect(&proxy, MALFORMED).await;
    }
}

#[tokio::test]
async fn an_answer_that_switches_protocols_unasked() {
    let answer = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n";
    let service = origin::raw_h1().await.answer_all(answer);
    let proxy = proxy_before(&format!("http1://{service}"), "");
    Asking::new(&proxy).await.expect(&proxy, MALFORMED).await;
}

#[tokio::test]
async fn a_head_that_is_too_large() {
    let service = origin::raw_h1().await;
    let proxy = proxy_before(&format!("http1://{service}"), "");
    let mut connection = service.accept().await;
    let asking = Asking::new(&proxy).await;
    connection.expect_request().await;
    connection.send(format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(100_000))).await;
    let row = row(502, "http_response_header_section_size", "response_head_too_large", INVALID);
    asking.expect(&proxy, row).await;
}

/// Two lengths of a body would be believed by two recipients in two ways.
#[tokio::test]
async fn chunks_beside_a_length_are_passed_on_as_chunks_only_or_not_at_all() {
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    let service = origin::raw_h1().await.answer_all(answer);
    let proxy = proxy_before(&format!("http1://{service}"), "");
    let mut client = client::h1(proxy.address()).await;
    let response = client.get("/").await;
    match response.status() {
        200 => assert_eq!((response.header("content-length"), response.text()), (None, "ok")),
        status => assert_eq!(status, 502),
    }
}

const MALFORMED: Row = row(502, "http_protocol_error", "malformed_response", INVALID);
