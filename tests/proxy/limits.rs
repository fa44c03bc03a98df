//! What a client may ask of the proxy: bytes of a head, bytes of a body, connections, and memory while idle.

use http::Request;

use crate::harness::load::{self, Load, judge};
use crate::harness::origin::Origin;
use crate::harness::proxy::Proxy;
use crate::harness::wire::Response;
use crate::harness::{client, origin, process, proxy};

#[tokio::test]
async fn a_head_with_too_many_bytes_is_answered_431_and_the_connection_ends() {
    let origin = origin::h2().start();
    let proxy = limited(&origin, "limits: { header_bytes: 8KiB }");
    let mut client = client::raw(proxy.address()).await;
    client.send(format!("GET / HTTP/1.1\r\nhost: a\r\nx-large: {}\r\n\r\n", "y".repeat(9000))).await;
    assert_eq!(client.expect_response().await.status(), 431);
    client.expect_close().await;
    proxy.wait_for(|counts| counts.faults == [("head_too_large", 1)].into()).await;
    assert_eq!(origin.log().requests.len(), 0);
}

#[tokio::test]
async fn a_head_within_its_bytes_passes() {
    let origin = origin::h2().start();
    let proxy = limited(&origin, "limits: { header_bytes: 8KiB }");
    let mut client = client::raw(proxy.address()).await;
    client.send(format!("GET / HTTP/1.1\r\nhost: a\r\nx-large: {}\r\n\r\n", "y".repeat(8000))).await;
    assert_eq!(client.expect_response().await.status(), 200);
}

#[tokio::test]
async fn one_field_more_than_the_limit_is_answered_431() {
    let origin = origin::h2().start();
    let proxy = limited(&origin, "limits: { headers: 16 }");
    for (fields, status) in [(16, 200), (17, 431)] {
        let mut client = client::raw(proxy.address()).await;
        let others = "x-other: y\r\n".repeat(fields - 1);
        client.send(format!("GET / HTTP/1.1\r\nhost: a\r\n{others}\r\n")).await;
        assert_eq!(client.expect_response().await.status(), status, "{fields} fields");
    }
    assert_eq!(origin.log().requests.len(), 1);
}

#[tokio::test]
async fn a_body_that_announces_too_much_is_answered_413_and_reaches_no_service() {
    let origin = origin::h2().start();
    let proxy = limited(&origin, "limits: { body_bytes: 1000B }");
    let response = client::h1(proxy.address()).await.post("/upload", vec![b'x'; 1001]).await;
    assert_too_large(&response);
    assert_eq!(origin.log().requests.len(), 0);
    assert_eq!(client::h1(proxy.address()).await.post("/upload", vec![b'x'; 1000]).await.text(), "1000");
}

#[tokio::test]
async fn a_chunked_body_is_answered_413_at_the_first_byte_too_many() {
    for protocol in ["h2c", "http1"] {
        let origin = if protocol == "h2c" { origin::h2().start() } else { origin::h1().start() };
        let proxy = proxy::with(&format!(
            "listeners: [{{ address: 127.0.0.1:0, limits: {{ body_bytes: 1000B }} }}]\n\
             upstreams: {{ up: {{ endpoints: [\"{protocol}://{origin}\"] }} }}"
        ));
        let mut client = client::h1(proxy.address()).await;
        client.start(&Request::post("/upload").body(()).unwrap(), true).await.unwrap();
        client.send_chunk(&[b'x'; 1000]).await.unwrap();
        origin.wait_for(|log| log.requests.len() == 1 && log.requests[0].body_bytes == 1000).await;
        client.send_chunk(b"y").await.unwrap();
        let mut client = client.into_raw();
        let response = client.expect_response().await;
        eprintln!("{protocol}");
        assert_too_large(&response);
        client.expect_close().await;
        // The service must not take the part for the whole.
        origin.wait_for(|log| log.requests[0].ended.is_some()).await;
        assert_ne!(origin.log().requests[0].ending(), Some(origin::log::Ending::Complete));
    }
}

#[tokio::test]
async fn clients_beyond_max_connections_wait_and_are_served_when_one_leaves() {
    let origin = origin::h2().start();
    let proxy = limited(&origin, "max_connections: 2");
    let mut served = Vec::new();
    for _ in 0..2 {
        let mut client = client::h1(proxy.address()).await;
        assert_eq!(client.get("/status/200").await.status(), 200);
        served.push(client);
    }
    let mut waiting = Vec::new();
    for _ in 0..4 {
        let mut client = client::h1(proxy.address()).await;
        client.start(&Request::get("/status/201").body(()).unwrap(), false).await.unwrap();
        waiting.push(client);
    }
    // While these go on, nobody else is let in.
    for client in &mut served {
        for _ in 0..50 {
            assert_eq!(client.get("/status/200").await.status(), 200);
            assert!(proxy.counts().downstream_connections <= 2);
        }
    }
    drop(served);
    // Those that wait are let in as others leave, in whatever order the workers come to them.
    let answers =
        waiting.into_iter().map(|mut client| tokio::spawn(async move { client.head().await.unwrap().status() }));
    for answer in answers.collect::<Vec<_>>() {
        assert_eq!(answer.await.unwrap(), Ok(201));
    }
}

#[tokio::test]
async fn max_connections_holds_under_a_load_of_more_clients() {
    let origin = origin::h2().compact_log().start();
    // One worker, because gauges of several cannot be read at one moment.
    let proxy = proxy::on_one_worker(&limits(&origin, "max_connections: 8"));
    // Eight keep their connections until nothing is left to ask; only then are the others let in.
    let load = Load { connections: 24, requests: 2000, body_bytes: 0..=256, ..Load::default() };
    let load = load::start(proxy.address(), load);
    proxy
        .wait_for(|counts| {
            assert!(counts.downstream_connections <= 8, "{} connections", counts.downstream_connections);
            counts.finished.get("2xx") == Some(&2000)
        })
        .await;
    judge(&load.finish().await, [&*origin.log()]).assert_clean();
}

#[tokio::test]
async fn two_thousand_idle_clients_cost_little_memory_and_stay_alive() {
    if !process::is_alone("limits::two_thousand_idle_clients_cost_little_memory_and_stay_alive") {
        return;
    }
    const CLIENTS: usize = 2000;
    let origin = origin::h2().compact_log().start();
    let proxy = limited(&origin, "max_connections: 5000");
    let mut clients = vec![client::h1(proxy.address()).await];
    assert_eq!(clients[0].get("/bytes/100").await.status(), 200);
    let before = process::resident_bytes();
    for _ in 1..CLIENTS {
        let mut client = client::h1(proxy.address()).await;
        assert_eq!(client.get("/bytes/100").await.status(), 200);
        clients.push(client);
    }
    let per_client = (process::resident_bytes() - before) / CLIENTS as u64;
    // The test's own ends of the connections are in it too: a read buffer of 8 KiB each.
    eprintln!("{per_client} bytes per idle client, this test's end included");
    assert!(per_client < 48 * 1024, "{per_client} bytes per idle client");
    for client in &mut clients {
        assert_eq!(client.get("/bytes/100").await.status(), 200);
    }
}

#[track_caller]
fn assert_too_large(response: &Response) {
    let status = response.header("proxy-status");
    assert_eq!((response.status(), status), (413, Some("trunkline; error=http_request_error")));
    assert!(response.head.is_closing());
}

fn limited(origin: &Origin, listener: &str) -> Proxy {
    proxy::with(&limits(origin, listener))
}

fn limits(origin: &Origin, listener: &str) -> String {
    format!(
        "listeners: [{{ address: 127.0.0.1:0, {listener} }}]\n\
         upstreams: {{ up: {{ endpoints: [\"h2c://{origin}\"] }} }}"
    )
}
