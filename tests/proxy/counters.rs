//! Counters and access log say exactly what happened, no more and no less.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;
use http::Request;
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::load::{self, Load, judge};
use crate::harness::origin::Origin;
use crate::harness::origin::log::Ending;
use crate::harness::proxy::Proxy;
use crate::harness::{client, origin, proxy};

#[tokio::test]
async fn after_a_load_the_counters_equal_the_logs_of_clients_and_origin() {
    for protocol in ["h2c", "http1"] {
        let origin = if protocol == "h2c" { origin::h2().start() } else { origin::h1().start() };
        let proxy = proxy::with(&format!("upstream: {protocol}://{origin}"));
        let load = Load { connections: 32, requests: 3000, post_percent: 50, ..Load::default() };
        let client = load::start(proxy.address(), load).finish().await;
        let verdict = judge(&client, [&*origin.log()]);
        verdict.assert_clean();
        proxy.wait_for(|counts| counts.downstream_connections == 0).await;
        let counts = proxy.counts();
        assert_eq!(counts.faults, BTreeMap::new(), "{protocol}");
        assert_eq!(counts.finished, [("2xx", 3000)].into(), "{protocol}");
        assert_eq!(counts.downstream_accepted, 32, "{protocol}");
        assert_eq!(
            (counts.requests_in_flight, counts.streams, counts.pending, counts.panics),
            (0, 0, 0, 0),
            "{protocol}"
        );
        let log = origin.log();
        let seen = log.requests.iter().filter(|request| request.ending() == Some(Ending::Complete)).count();
        assert_eq!((seen, log.requests.len()), (3000, 3000), "{protocol}");
        assert_eq!(counts.upstream_requests.iter().sum::<u64>(), 3000, "{protocol}");
        let body_bytes: u64 = log.requests.iter().map(|request| request.body_bytes).sum();
        assert!(
            counts.downstream_received_bytes > body_bytes && counts.downstream_sent_bytes > body_bytes,
            "{protocol}"
        );
    }
}

#[tokio::test]
async fn each_answer_is_counted_in_its_class_and_each_fault_by_its_reason() {
    let origin = origin::h2().start();
    let proxy = proxy::with(&format!(
        "upstreams: {{ up: {{ endpoints: [\"h2c://{origin}\"] }} }}\n\
         routes: [{{ match: {{ path_prefix: /status/ }}, upstream: up }}, \
         {{ match: {{ path_prefix: /reset }}, upstream: up }}]"
    ));
    let mut client = client::h1(proxy.address()).await;
    for (target, status) in
        [("/status/204", 204), ("/status/302", 302), ("/status/404", 404), ("/status/500", 500), ("/nowhere", 404)]
    {
        assert_eq!(client.get(target).await.status(), status, "{target}");
    }
    assert_eq!(client.get("/reset").await.status(), 502);
    proxy.wait_for(|counts| counts.requests_in_flight == 0).await;
    let counts = proxy.counts();
    // A request without a route belongs to no route's counters.
    assert_eq!(counts.finished, [("2xx", 1), ("3xx", 1), ("4xx", 1), ("5xx", 2)].into());
    assert_eq!(counts.faults, [("no_route", 1), ("stream_reset", 1)].into());
}

#[tokio::test]
async fn a_client_that_leaves_is_counted_and_leaves_no_gauge_behind() {
    let origin = origin::h2().start();
    let proxy = proxy::with(&format!("upstream: h2c://{origin}"));
    let mut client = client::h1(proxy.address()).await;
    client.start(&Request::get("/hang").body(()).unwrap(), false).await.unwrap();
    origin.wait_for(|log| log.streams_open() == 1).await;
    client.abort();
    proxy.wait_for(|counts| counts.downstream_connections == 0 && counts.streams == 0).await;
    let counts = proxy.counts();
    assert_eq!(counts.faults, [("client_gone", 1)].into());
    assert_eq!(counts.finished, [("none", 1)].into());
    assert_eq!((counts.requests_in_flight, counts.pending), (0, 0));
}

#[tokio::test]
async fn an_answer_whose_stream_ends_in_a_frame_of_its_own_is_complete() {
    let origin = origin::h2().start();
    let mut logged = logged(&origin, "all");
    let mut client = client::h1(logged.proxy.address()).await;
    for length in [0, 1, 100_000] {
        assert_eq!(client.post("/echo", vec![b'x'; length]).await.body.len(), length);
    }
    let request = Request::head("/bytes/10").body(Bytes::new()).unwrap();
    assert_eq!(client.send(&request).await.unwrap().status(), 200);
    drop(client);
    let lines = logged.lines().await;
    assert_eq!(field(&lines, "reason"), ["complete"; 4]);
    assert_eq!(origin.log().ended(Ending::Complete), 4, "no stream was reset");
}

#[tokio::test]
async fn the_access_log_has_one_line_for_each_request() {
    let origin = origin::h2().compact_log().start();
    let mut logged = logged(&origin, "all");
    let load = Load { connections: 32, requests: 2000, ..Load::default() };
    let client = load::start(logged.proxy.address(), load).finish().await;
    judge(&client, [&*origin.log()]).assert_clean();
    let lines = logged.lines().await;
    assert_eq!(lines.len(), 2000);
    let mut logged: Vec<&str> = field(&lines, "request_id");
    let log = origin.log();
    let mut seen: Vec<&str> = log.requests.iter().map(|request| &*request.id).collect();
    logged.sort_unstable();
    seen.sort_unstable();
    assert_eq!(logged, seen);
    let complete = |line: &&Value| line["status"] == 200 && line["reason"] == "complete" && line["phase"] == "done";
    assert_eq!(lines.iter().filter(complete).count(), 2000);
}

#[tokio::test]
async fn logging_failures_writes_those_and_nothing_else() {
    let origin = origin::h2().start();
    let mut logged = logged(&origin, "failures");
    let mut client = client::h1(logged.proxy.address()).await;
    for target in ["/status/200", "/status/404", "/status/500", "/reset", "/status/204"] {
        client.get(target).await;
    }
    let shown = client.get("/reset").await;
    drop(client);
    let lines = logged.lines().await;
    assert_eq!(lines[2]["request_id"], shown.header("x-request-id").unwrap(), "the id that the client can tell");
    let lines = lines[..2].to_vec();
    assert_eq!(field(&lines, "path"), ["/status/500", "/reset"]);
    assert_eq!(field(&lines, "phase"), ["done", "response_head"], "a fault is told where it happened");
}

#[tokio::test]
async fn the_line_of_a_head_that_could_not_be_read_has_no_method() {
    let origin = origin::h2().start();
    let mut logged = logged(&origin, "all");
    for request in ["POST / HTTP/1.1\r\nhost: a\r\n\r\n", "POST\r\n\r\n"] {
        let mut client = client::raw(logged.proxy.address()).await;
        client.send(request).await;
        client.expect_response_to("POST").await;
    }
    let lines = logged.lines().await;
    // Those of two workers come in any order.
    let mut told: Vec<_> = field(&lines, "method").into_iter().zip(field(&lines, "reason")).collect();
    told.sort_unstable();
    assert_eq!(told, [("", "malformed_head"), ("POST", "complete")]);
}

#[tokio::test]
async fn no_byte_of_a_request_can_break_a_line_of_the_access_log() {
    let origin = origin::h2().start();
    for format in ["json", "text"] {
        let mut logged = logged_as(&origin, "all", format);
        let mut requests = 0;
        for byte in (0..=255_u8).filter(|byte| !matches!(byte, b'\r' | b'\n')) {
            for place in ["target", "field"] {
                let mut client = client::raw(logged.proxy.address()).await;
                let (target, field) = if place == "target" { (&[byte][..], &b""[..]) } else { (&b""[..], &[byte][..]) };
                let request = [b"GET /a", target, b"b HTTP/1.1\r\nhost: a\r\nx-request-id: \"", field, b"\"\r\n\r\n"];
                client.send(request.concat()).await;
                client.expect_response().await;
                requests += 1;
            }
        }
        let mut client = client::raw(logged.proxy.address()).await;
        client.send("GET /%0d%0a%1b[31m HTTP/1.1\r\nhost: a\r\n\r\n").await;
        client.expect_response().await;
        drop(client);
        let text = logged.text().await;
        assert_eq!(text.lines().count(), requests + 1, "{format}");
        let control = text.chars().find(|c| c.is_control() && *c != '\n');
        assert_eq!(control, None, "{format}");
    }
}

/// A proxy that writes its access log into a file.
struct Logged {
    proxy: Proxy,
    folder: TempDir,
}

fn logged(origin: &Origin, only: &str) -> Logged {
    logged_as(origin, only, "json")
}

fn logged_as(origin: &Origin, only: &str, format: &str) -> Logged {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let proxy = proxy::with(&format!(
        "upstream: h2c://{origin}\n\
         logs: {{ access: {{ only: {only}, format: {format}, output: \"{}\" }} }}",
        path.display()
    ));
    Logged { proxy, folder }
}

impl Logged {
    /// Ends the proxy and reads all that it has written.
    async fn text(&mut self) -> String {
        self.proxy.stop().await;
        let path: PathBuf = self.folder.path().join("access.log");
        std::fs::read_to_string(path).expect("UTF-8")
    }

    async fn lines(&mut self) -> Vec<Value> {
        let text = self.text().await;
        let line = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        text.lines().map(line).collect()
    }
}

fn field<'a>(lines: &'a [Value], name: &str) -> Vec<&'a str> {
    lines.iter().map(|line| line[name].as_str().unwrap_or_default()).collect()
}
