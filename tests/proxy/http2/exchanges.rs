//! Requests and answers of HTTP/2 clients, whatever the service speaks.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};

use crate::harness::origin::behaviour::pattern;
use crate::harness::scripted::Frame;
use crate::harness::scripted::frame::{END_STREAM, OPEN};
use crate::harness::{client, origin, proxy, scripted};

#[tokio::test]
async fn requests_of_one_connection_run_side_by_side_on_either_http() {
    for (origin, scheme) in [(origin::h2().start(), "h2c"), (origin::h1().start(), "http1")] {
        let proxy = proxy::with(&format!("upstream: {scheme}://{origin}"));
        let client = client::h2(proxy.address()).await;
        let slow = client.open(client.request("/delay/60000").body(()).unwrap(), true).await.unwrap();
        for number in 0..20 {
            let id = format!("id-{number}");
            let request = client.request("/bytes/3000").header("x-request-id", &id).body(Bytes::new()).unwrap();
            let answer = client.send(request).await.unwrap();
            assert_eq!((answer.status(), &answer.body), (200, &pattern(&id, 3000)));
            assert_eq!(answer.header("content-length"), "3000");
        }
        drop(slow);
        assert_eq!(proxy.counts().downstream_connections, 1);
        origin.wait_for(|log| log.requests_in_flight() == 0).await;
    }
}

#[tokio::test]
async fn bodies_go_both_ways_piece_by_piece() {
    for (origin, scheme) in [(origin::h2().start(), "h2c"), (origin::h1().start(), "http1")] {
        let proxy = proxy::with(&format!("upstream: {scheme}://{origin}"));
        let client = client::h2(proxy.address()).await;
        let request = client.request("/echo").method("POST").body(()).unwrap();
        let mut stream = client.open(request, false).await.unwrap();
        stream.upload(Bytes::from_static(b"first "), false).await.unwrap();
        // The answer comes while the request is still being sent.
        assert_eq!(stream.head().await.unwrap().status(), 200);
        assert_eq!(stream.part().await.unwrap().unwrap(), "first ");
        stream.upload(Bytes::from_static(b"second"), true).await.unwrap();
        assert_eq!(stream.part().await.unwrap().unwrap(), "second");
        assert_eq!(stream.part().await.unwrap(), None);
    }
}

#[tokio::test]
async fn large_bodies_pass_the_windows_whole() {
    let body: Bytes = (0..4_000_000_u32).map(|byte| byte as u8).collect();
    for (origin, scheme) in [(origin::h2().start(), "h2c"), (origin::h1().start(), "http1")] {
        let proxy = proxy::with(&format!("upstream: {scheme}://{origin}"));
        let client = client::h2(proxy.address()).await;
        assert_eq!(client.post("/upload", body.clone()).await.text(), body.len().to_string());
        let answer = client.get("/bytes/4000000").await;
        assert_eq!(answer.body.len(), body.len());
    }
}

#[tokio::test]
async fn a_length_is_kept_and_none_is_made_up() {
    for (origin, scheme) in [(origin::h2().start(), "h2c"), (origin::h1().start(), "http1")] {
        let proxy = proxy::with(&format!("upstream: {scheme}://{origin}"));
        let client = client::h2(proxy.address()).await;
        let sized = client.request("/head").method("POST").header("content-length", "2");
        let head = client.send(sized.body("hi".into()).unwrap()).await.unwrap().json();
        let fields = head["headers"].to_string();
        assert!(fields.contains(r#"["content-length","2"]"#) && !fields.contains("transfer-encoding"), "{fields}");
        let head = client.post("/head", "hi").await.json();
        let fields = head["headers"].to_string();
        assert!(!fields.contains("content-length"), "{fields}");
        assert_eq!(fields.contains(r#"["transfer-encoding","chunked"]"#), scheme == "http1", "{fields}");
        let head = client.get("/head").await.json();
        let fields = head["headers"].to_string();
        assert!(!fields.contains("content-length") && !fields.contains("transfer-encoding"), "{fields}");
    }
}

#[tokio::test]
async fn trailers_pass_both_ways_unannounced() {
    let origin = origin::h2().start();
    let proxy = proxy::with(&format!("upstream: h2c://{origin}"));
    let client = client::h2(proxy.address()).await;
    let request = client.request("/trailers").method("POST").body(()).unwrap();
    let mut stream = client.open(request, false).await.unwrap();
    stream.upload(Bytes::from_static(b"hi"), false).await.unwrap();
    stream.send_trailers(HeaderMap::from_iter([("x-sum".parse().unwrap(), HeaderValue::from_static("7"))])).unwrap();
    let answer = stream.answer().await.unwrap();
    assert_eq!(answer.trailers["grpc-status"], "0");
    assert_eq!(origin.log().requests[0].trailers.as_ref().unwrap()["x-sum"], "7");
}

#[tokio::test]
async fn trailers_behind_a_body_of_known_length_pass_too() {
    let service = scripted::service().await;
    let proxy = proxy::on_one_worker(&format!("upstream: h2c://{service}"));
    let mut peer = service.accept_with(&[]).await;
    let client = client::h2(proxy.address()).await;
    let mut stream = client.open(client.request("/").body(()).unwrap(), true).await.unwrap();
    let request = peer.expect_headers().await;
    peer.headers(request.stream, 200, &[("content-length", "5")], OPEN).await;
    peer.data(request.stream, "hello", OPEN).await;
    stream.head().await.unwrap();
    assert_eq!(stream.part().await.unwrap().unwrap(), "hello");
    peer.trailers(request.stream, &[("grpc-status", "0")]).await;
    assert_eq!(stream.part().await, Ok(None));
    assert_eq!(stream.trailers().await.unwrap()["grpc-status"], "0");
}

#[tokio::test]
async fn an_answer_without_a_body_ends_with_its_head() {
    let origin = origin::h2().start();
    let proxy = proxy::with(&format!("upstream: h2c://{origin}"));
    let client = client::h2(proxy.address()).await;
    for target in ["/status/204", "/status/304", "/status/200"] {
        let answer = client.get(target).await;
        assert!(answer.body.is_empty());
    }
    let head = client.request("/bytes/10").method("HEAD").body(Bytes::new()).unwrap();
    let answer = client.send(head).await.unwrap();
    assert_eq!((answer.header("content-length"), answer.body.len()), ("10", 0));
    let none = client.request("/nothing").method("HEAD").header("host", "127.0.0.1:1").body(Bytes::new()).unwrap();
    let answer = client.send(none).await.unwrap();
    assert_eq!((answer.status(), answer.body.len()), (400, 0));
}

#[tokio::test]
async fn an_early_answer_comes_whole_and_stops_the_upload() {
    for (origin, scheme) in [(origin::h2().start(), "h2c"), (origin::h1().start(), "http1")] {
        let proxy = proxy::with(&format!("upstream: {scheme}://{origin}"));
        let client = client::h2(proxy.address()).await;
        let request = client.request("/early/413").method("POST").body(()).unwrap();
        let mut stream = client.open(request, false).await.unwrap();
        stream.upload(Bytes::from_static(b"first"), false).await.unwrap();
        let answer = stream.answer().await.unwrap();
        assert_eq!((answer.status(), answer.text()), (413, "early"));
        // The connection goes on.
        assert_eq!(client.get("/status/200").await.status(), 200);
        assert_eq!(proxy.counts().downstream_connections, 1);
    }
}

/// As curl does, to which a reset before it has sent all is a failure.
#[tokio::test]
async fn a_client_that_sends_all_before_it_reads_gets_a_refusal_and_no_reset() {
    let origin = origin::h2().start();
    let proxy = proxy::with(&format!(
        "listeners: [{{ address: 127.0.0.1:0, limits: {{ body_bytes: 10KiB }} }}]\n\
         upstreams: {{ up: {{ endpoints: [\"h2c://{origin}\"] }} }}"
    ));
    let mut peer = client::frames(proxy.address()).await;
    let head = [(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/upload")];
    peer.fields(1, &[&head[..], &[("content-length", "20000")]].concat(), OPEN).await;
    assert_eq!(peer.expect_headers().await.field(":status"), "413");
    assert!(peer.expect_body(1).await.starts_with(b"413 "));
    peer.data(1, vec![b'x'; 10_000], OPEN).await;
    peer.data(1, vec![b'x'; 10_000], END_STREAM).await;
    let frames = peer.gather().await;
    assert!(!frames.iter().any(|frame| matches!(frame, Frame::Reset { .. })), "{frames:?}");
    // Who does not stop is stopped.
    peer.fields(3, &head, OPEN).await;
    peer.data(3, vec![b'x'; 11_000], OPEN).await;
    assert_eq!(peer.expect_headers().await.field(":status"), "413");
    assert_eq!(peer.expect_rst(3).await, h2::Reason::NO_ERROR);
}

#[tokio::test]
async fn a_client_that_resets_a_stream_has_it_reset_at_the_service() {
    let origin = origin::h2().start();
    let proxy = proxy::with(&format!("upstream: h2c://{origin}"));
    let client = client::h2(proxy.address()).await;
    let waiting = client.open(client.request("/hang").body(()).unwrap(), true).await.unwrap();
    let mut reading = client.open(client.request("/hang-body").body(()).unwrap(), true).await.unwrap();
    reading.head().await.unwrap();
    origin.wait_for(|log| log.requests_in_flight() == 2).await;
    waiting.reset(h2::Reason::CANCEL);
    drop(reading);
    origin.wait_for(|log| log.requests_in_flight() == 0).await;
    proxy.wait_for_metrics(|metrics| metrics.sum("trunkline_faults_total", &[("reason", "client_gone")]) > 1.0).await;
    assert_eq!(client.get("/status/200").await.status(), 200);
}

#[tokio::test]
async fn a_cut_answer_is_reset_and_never_ends_cleanly() {
    let service = scripted::service().await;
    let proxy = proxy::on_one_worker(&format!("upstream: h2c://{}", service.address()));
    let client = client::h2(proxy.address()).await;
    let mut stream = client.open(client.request("/").body(()).unwrap(), true).await.unwrap();
    let mut peer = service.accept_with(&[]).await;
    let request = peer.expect_headers().await;
    peer.headers(request.stream, 200, &[], OPEN).await;
    peer.data(request.stream, "part", OPEN).await;
    stream.head().await.unwrap();
    assert_eq!(stream.part().await.unwrap().unwrap(), "part");
    peer.rst_stream(request.stream, h2::Reason::CANCEL).await;
    assert_eq!(stream.part().await.unwrap_err().code, Some(h2::Reason::INTERNAL_ERROR));
    // Before the head there is an answer to give.
    let mut stream = client.open(client.request("/").body(()).unwrap(), true).await.unwrap();
    let request = peer.expect_headers().await;
    peer.rst_stream(request.stream, h2::Reason::CANCEL).await;
    let answer = stream.answer().await.unwrap();
    assert_eq!((answer.status(), answer.header("proxy-status")), (502, "trunkline; error=http_response_incomplete"));
    assert!(!answer.head.headers().contains_key("connection"));
}

#[tokio::test]
async fn the_access_log_says_what_the_client_spoke() {
    let origin = origin::h2().start();
    let file = tempfile::NamedTempFile::new().unwrap();
    let logs = format!("logs: {{ access: {{ only: all, output: {} }} }}", file.path().display());
    let mut proxy = proxy::with(&format!("upstream: h2c://{origin}\n{logs}"));
    let client = client::h2(proxy.address()).await;
    let request = client.request("http://example.com/status/200?a=b").body(Bytes::new()).unwrap();
    assert_eq!(client.send(request).await.unwrap().status(), 200);
    drop(client);
    proxy.stop().await;
    let log = std::fs::read_to_string(file.path()).unwrap();
    let line: serde_json::Value = serde_json::from_str(log.trim_end()).unwrap();
    assert_eq!(
        (&line["protocol"], &line["host"], &line["path"], &line["phase"]),
        (&"HTTP/2".into(), &"example.com".into(), &"/status/200?a=b".into(), &"done".into())
    );
}
