//! Requests that two recipients could read differently: refused and closed, and no text of a body becomes a request.
//!
//! Every attempt here holds a request for `/smuggled` where a wrong reader would find one; whatever the answer is, no
//! origin may ever see it. RFC 9112 §2.2, §3.2, §5, §6, §7.1, §11.2.

mod hosts;

use crate::harness::origin::Origin;
use crate::harness::origin::log::Ending;
use crate::harness::proxy::Proxy;
use crate::harness::{client, origin, proxy};

/// What an attempt tries to get through.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";

#[tokio::test]
async fn lengths_that_are_not_plain_digits_are_refused() {
    let target = Target::new();
    let smuggled = SMUGGLED.len();
    for lines in [
        format!("content-length: 0\r\ncontent-length: {smuggled}"),
        format!("content-length: {smuggled}\r\ncontent-length: 0"),
        format!("content-length: 0, {smuggled}"),
        format!("content-length: {smuggled}, {smuggled}"),
        format!("content-length: +{smuggled}"),
        "content-length: -1".to_owned(),
        "content-length: 0x10".to_owned(),
        "content-length: 1 0".to_owned(),
        "content-length: 0;".to_owned(),
        "content-length:".to_owned(),
        "content-length: 18446744073709551616".to_owned(),
        "content-length: 18446744073709551615".to_owned(),
    ] {
        target.refuses(&format!("POST /upload HTTP/1.1\r\nhost: a\r\n{lines}\r\n\r\n{SMUGGLED}")).await;
    }
}

/// hyper merges equal lengths before we see them, as RFC 9112 §6.3 allows.
#[tokio::test]
async fn equal_lengths_are_one_length() {
    let target = Target::new();
    let length = SMUGGLED.len();
    let lines = format!("content-length: {length}\r\ncontent-length: {length}");
    let mut client = client::raw(target.proxy.address()).await;
    client.send(format!("POST /upload HTTP/1.1\r\nhost: a\r\n{lines}\r\n\r\n{SMUGGLED}")).await;
    assert_eq!(client.expect_response_to("POST").await.text(), length.to_string());
    target.assert_nothing_smuggled();
    let log = target.origin.log();
    assert_eq!(log.requests[0].headers.get_all("content-length").iter().count(), 1);
}

#[tokio::test]
async fn transfer_codings_other_than_chunked_alone_are_refused() {
    let target = Target::new();
    for lines in [
        "transfer-encoding: xchunked",
        "transfer-encoding: chunked, chunked",
        "transfer-encoding: gzip, chunked",
        "transfer-encoding: chunked, gzip",
        "transfer-encoding: identity",
        "transfer-encoding: identity, chunked",
        "transfer-encoding: chunked;q=1",
        "transfer-encoding: \"chunked\"",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ntransfer-encoding: identity",
        "transfer-encoding: identity\r\ntransfer-encoding: chunked",
        "transfer-encoding:",
        "transfer-encoding: ,chunked",
        "transfer-encoding: \x0bchunked",
        "transfer-encoding : chunked",
        "transfer-encoding\t: chunked",
        "transfer_encoding: chunked\r\ntransfer-encoding: x",
        "x: y\r\n transfer-encoding: chunked",
    ] {
        target.refuses(&format!("POST /upload HTTP/1.1\r\nhost: a\r\n{lines}\r\n\r\n0\r\n\r\n{SMUGGLED}")).await;
    }
}

#[tokio::test]
async fn http10_with_a_transfer_coding_is_refused() {
    let target = Target::new();
    for lines in ["transfer-encoding: chunked", "connection: keep-alive\r\ntransfer-encoding: chunked"] {
        target.refuses(&format!("POST /upload HTTP/1.0\r\nhost: a\r\n{lines}\r\n\r\n0\r\n\r\n{SMUGGLED}")).await;
    }
}

/// hyper drops Content-Length beside Transfer-Encoding before we see it, reads the chunks and closes after the answer, as
/// RFC 9112 §6.1 allows.
#[tokio::test]
async fn chunks_beside_a_length_are_read_as_chunks_and_the_connection_closes() {
    for lines in [
        "content-length: 5\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 5",
        "content-length: 5\r\ntransfer-encoding: chunked\r\ncontent-length: 9",
    ] {
        let target = Target::new();
        let mut client = client::raw(target.proxy.address()).await;
        client.send(format!("POST /upload HTTP/1.1\r\nhost: a\r\n{lines}\r\n\r\n0\r\n\r\n{SMUGGLED}")).await;
        let response = client.expect_response_to("POST").await;
        assert_eq!((response.text(), response.head.is_closing()), ("0", true), "{lines}");
        client.expect_close().await;
        target.assert_nothing_smuggled();
        assert_eq!(target.origin.log().requests[0].header("content-length"), None, "{lines}");
    }
}

#[tokio::test]
async fn field_lines_that_break_the_grammar_are_refused() {
    let target = Target::new();
    for line in [
        "x: folded\r\n over lines",
        "x: folded\r\n\tover lines",
        "x y: z",
        "x : z",
        ": z",
        "x",
        "x\x00: z",
        "x: \x00",
        "x: a\rb",
        "x\r: a",
        "x: \x01",
        "x: \x7f",
        "x(y): z",
        "\u{e9}: z",
    ] {
        target.refuses(&format!("GET / HTTP/1.1\r\nhost: a\r\n{line}\r\n\r\n{SMUGGLED}")).await;
        target.refuses(&format!("GET / HTTP/1.1\r\n{line}\r\nhost: a\r\n\r\n{SMUGGLED}")).await;
    }
    target.refuses(&format!("GET / HTTP/1.1\r\n host: a\r\nhost: a\r\n\r\n{SMUGGLED}")).await;
}

#[tokio::test]
async fn request_lines_that_break_the_grammar_are_refused() {
    let target = Target::new();
    for line in [
        "GET /a b HTTP/1.1",
        "GET  / HTTP/1.1",
        "GET /  HTTP/1.1",
        "GET\t/ HTTP/1.1",
        "GET / HTTP/1.1 ",
        "GET /",
        "GET / HTTP/1.2",
        "GET / HTTP/0.9",
        "GET / HTTP/2.0",
        "GET / http/1.1",
        "GET / HTTP/1.1\rx: y",
        "GET /\x00 HTTP/1.1",
        "GET /\r HTTP/1.1",
        "G\x00T / HTTP/1.1",
        "G(T / HTTP/1.1",
        "GET a HTTP/1.1",
        "GET ../ HTTP/1.1",
        "GET ? HTTP/1.1",
        "GET * HTTP/1.1",
        "OPTIONS ** HTTP/1.1",
        "GET http:// HTTP/1.1",
        "GET ftp://a/ HTTP/1.1",
        "GET a:80 HTTP/1.1",
    ] {
        target.refuses(&format!("{line}\r\nhost: a\r\n\r\n{SMUGGLED}")).await;
    }
}

/// RFC 9112 §2.2 lets a recipient take a bare LF for the end of a line, and hyper does. What goes upstream has no lines.
#[tokio::test]
async fn a_head_with_bare_line_feeds_is_one_head() {
    let target = Target::new();
    let mut client = client::raw(target.proxy.address()).await;
    client.send("GET /head HTTP/1.1\nhost: a\nx: y\n\n").await;
    let response = client.expect_response().await;
    assert_eq!((response.status(), &response.json()["authority"]), (200, &"a".into()));
}

#[tokio::test]
async fn chunks_that_break_the_grammar_are_refused_and_their_request_never_ends() {
    for chunks in [
        "-1\r\n\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "5 x\r\nhello\r\n0\r\n\r\n",
        "g\r\n0\r\n\r\n",
        "10000000000000000\r\n0\r\n\r\n",
        "fffffffffffffffff\r\n0\r\n\r\n",
        "5\nhello\n0\n\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhelloworld\r\n0\r\n\r\n",
        "5;x=\ny\r\nhello\r\n0\r\n\r\n",
        "0\r\nno colon\r\n\r\n",
        "0\r\nx: a\r\n folded\r\n\r\n",
        "0\r\nx\x00: y\r\n\r\n",
    ] {
        let target = Target::new();
        let mut client = client::raw(target.proxy.address()).await;
        client
            .send(format!("POST /upload HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{chunks}{SMUGGLED}"))
            .await;
        let response = client.expect_response_to("POST").await;
        assert_eq!(response.status(), 400, "{chunks:?}");
        client.expect_close().await;
        target.assert_nothing_smuggled();
        assert_eq!(target.origin.log().ended(Ending::Complete), 0, "{chunks:?}");
    }
}

#[tokio::test]
async fn chunk_extensions_end_here() {
    let target = Target::new();
    let mut client = client::raw(target.proxy.address()).await;
    client
        .send("POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5;a=\"b\";c\r\nhello\r\n0;d\r\n\r\n")
        .await;
    assert_eq!(client.expect_response_to("POST").await.text(), "hello");
}

#[tokio::test]
async fn chunk_extensions_without_end_are_refused() {
    let target = Target::new();
    let mut client = client::raw(target.proxy.address()).await;
    let extension = "x".repeat(32 * 1024);
    client
        .send(format!("POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5;{extension}\r\nhello"))
        .await;
    assert_eq!(client.expect_response_to("POST").await.status(), 400);
}

#[tokio::test]
async fn the_text_of_a_body_is_never_a_request() {
    let target = Target::new();
    let mut client = client::raw(target.proxy.address()).await;
    let length = SMUGGLED.len();
    client
        .send(format!(
            "GET /upload HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n{SMUGGLED}\
             HEAD /upload HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n{SMUGGLED}\
             POST /early/400 HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{length:x}\r\n{SMUGGLED}\r\n0\r\n\r\n"
        ))
        .await;
    assert_eq!(client.expect_response().await.text(), length.to_string());
    assert_eq!(client.expect_response_to("HEAD").await.status(), 200);
    assert_eq!(client.expect_response_to("POST").await.status(), 400);
    target.assert_nothing_smuggled();
}

/// Chunks that the client ends are chunks that the service sees end: no text is moved from one body to the next.
#[tokio::test]
async fn an_http1_service_sees_the_same_requests_as_the_client_sent() {
    let origin = origin::h1().start();
    let proxy = proxy::with(&format!("upstream: http1://{origin}"));
    let mut client = client::raw(proxy.address()).await;
    let length = SMUGGLED.len();
    client
        .send(format!(
            "POST /upload HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n{SMUGGLED}\
             POST /upload HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n\
             {length:x};x\r\n{SMUGGLED}\r\n0\r\n\r\n"
        ))
        .await;
    for _ in 0..2 {
        assert_eq!(client.expect_response_to("POST").await.text(), length.to_string());
    }
    let log = origin.log();
    let targets: Vec<_> = log.requests.iter().map(|request| &*request.target).collect();
    assert_eq!(targets, ["/upload", "/upload"]);
}

/// A proxy, and the service behind it that must not see what was smuggled.
struct Target {
    origin: Origin,
    proxy: Proxy,
}

impl Target {
    fn new() -> Self {
        let origin = origin::h2().start();
        let proxy = proxy::with(&format!("upstream: h2c://{origin}"));
        Self { origin, proxy }
    }

    /// Sends `bytes`: one answer, 4xx, then the end, and the service has seen nothing.
    async fn refuses(&self, bytes: &str) {
        let mut client = client::raw(self.proxy.address()).await;
        client.send(bytes).await;
        let response = client.response_to("GET").await;
        let status = response.as_ref().map(crate::harness::wire::Response::status);
        assert!(matches!(status, Ok(400..500)), "{bytes:?}: {response:?}");
        assert!(response.unwrap().head.is_closing(), "{bytes:?}");
        client.expect_close().await;
        assert!(self.origin.log().requests.is_empty(), "{bytes:?}");
    }

    fn assert_nothing_smuggled(&self) {
        let log = self.origin.log();
        assert!(log.requests.iter().all(|request| &*request.target != "/smuggled"), "{:#?}", log.requests);
    }
}
