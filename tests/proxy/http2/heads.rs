//! What an HTTP/2 head may be, and what becomes of it (RFC 9113 §8.3, RFC 9110 §7.6).

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::harness::scripted::frame::END_STREAM;
use crate::harness::{client, origin, proxy};

#[tokio::test]
async fn the_service_sees_the_clients_head_and_what_this_hop_says() {
    for (origin, scheme) in [(origin::h2().start(), "h2c"), (origin::h1().start(), "http1")] {
        let proxy = proxy::with(&format!("upstream: {scheme}://{origin}"));
        let client = client::h2(proxy.address()).await;
        let request = client
            .request("http://example.com:81/head?a=b")
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .header("te", "trailers")
            .header("x-forwarded-for", "198.51.100.7")
            .header("x-real-ip", "198.51.100.7");
        let head = client.send(request.body(Bytes::new()).unwrap()).await.unwrap().json();
        assert_eq!((&head["authority"], &head["target"]), (&"example.com:81".into(), &"/head?a=b".into()));
        let fields = head["headers"].to_string();
        for field in [
            r#"["cookie","a=1; b=2"]"#,
            r#"["te","trailers"]"#,
            r#"["x-forwarded-for","127.0.0.1"]"#,
            r#"["x-forwarded-proto","http"]"#,
            r#"["via","2.0 trunkline"#,
        ] {
            assert!(fields.contains(field), "{field} is not in {fields}");
        }
        assert!(!fields.contains("x-real-ip") && !fields.contains("198.51.100.7"), "{fields}");
    }
}

#[tokio::test]
async fn host_stands_in_for_authority_and_may_not_differ_from_it() {
    let origin = origin::h2().start();
    let proxy = proxy::with(&format!("upstream: h2c://{origin}"));
    let mut peer = client::frames(proxy.address()).await;
    let mut stream = 1;
    let mut status = async |fields: &[(&str, &str)]| {
        let head = [&[(":method", "GET"), (":scheme", "http"), (":path", "/status/200")], fields].concat();
        let mut head = head;
        // Pseudo-header fields come first.
        head.sort_by_key(|(name, _)| !name.starts_with(':'));
        peer.fields(stream, &head, END_STREAM).await;
        let answer = peer.expect_headers().await;
        stream += 2;
        answer.field(":status").to_owned()
    };
    assert_eq!(status(&[("host", "a")]).await, "200");
    assert_eq!(status(&[(":authority", "a"), ("host", "a:80")]).await, "200");
    assert_eq!(status(&[(":authority", "a"), ("host", "b")]).await, "400");
    assert_eq!(status(&[(":authority", "a@b")]).await, "400");
    assert_eq!(status(&[("host", "a"), ("host", "a")]).await, "400");
    assert_eq!(status(&[]).await, "400");
    drop(peer);
    assert_eq!(origin.log().requests.len(), 2);
}

#[tokio::test]
async fn options_about_the_whole_server_and_about_its_root_are_told_apart() {
    let origin = origin::h2().start();
    let proxy = proxy::with(&format!("upstream: h2c://{origin}"));
    let mut peer = client::frames(proxy.address()).await;
    for (stream, path) in [(1, "*"), (3, "/")] {
        let head = [(":method", "OPTIONS"), (":scheme", "http"), (":authority", "a"), (":path", path)];
        peer.fields(stream, &head, END_STREAM).await;
        peer.expect_headers().await;
    }
    let log = origin.log();
    assert_eq!((&*log.requests[0].target, &*log.requests[1].target), ("*", "/"));
}

#[tokio::test]
async fn connect_and_trace_are_not_carried() {
    let origin = origin::h2().start();
    let proxy = proxy::with(&format!("upstream: h2c://{origin}"));
    let client = client::h2(proxy.address()).await;
    let trace = client.request("/").method("TRACE").body(Bytes::new()).unwrap();
    assert_eq!(client.send(trace).await.unwrap().status(), 405);
    let mut peer = client::frames(proxy.address()).await;
    peer.fields(1, &[(":method", "CONNECT"), (":authority", "a:443")], END_STREAM).await;
    assert_eq!(peer.expect_headers().await.field(":status"), "405");
}

#[tokio::test]
async fn more_fields_than_allowed_are_431_cookie_crumbs_counted() {
    let origin = origin::h2().start();
    let proxy = proxy::with(&format!(
        "upstreams: {{ a: {{ endpoints: [\"h2c://{origin}\"] }} }}\n\
         listeners: [{{ address: 127.0.0.1:0, limits: {{ headers: 10 }} }}]"
    ));
    let client = client::h2(proxy.address()).await;
    let with = |crumbs: usize| {
        let request = (0..crumbs).fold(client.request("/status/200"), |it, n| it.header("cookie", format!("c{n}=1")));
        client.send(request.body(Bytes::new()).unwrap())
    };
    assert_eq!(with(10).await.unwrap().status(), 200);
    assert_eq!(with(11).await.unwrap().status(), 431);
    assert_eq!(with(1).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused_and_the_connection_goes_on() {
    let origin = origin::h2().start();
    let proxy = proxy::with(&format!(
        "upstreams: {{ a: {{ endpoints: [\"h2c://{origin}\"] }} }}\n\
         listeners: [{{ address: 127.0.0.1:0, limits: {{ header_bytes: 8KiB }} }}]"
    ));
    let mut peer = client::frames(proxy.address()).await;
    let head = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/status/200")];
    let (field, path) = ("x".repeat(12_000), format!("/{}", "x".repeat(12_000)));
    peer.fields(1, &[&head[..], &[("x-long", &field)]].concat(), END_STREAM).await;
    assert_eq!(peer.expect_headers().await.field(":status"), "431");
    peer.fields(3, &[&head[..3], &[(":path", &path)]].concat(), END_STREAM).await;
    assert_eq!(peer.expect_headers().await.field(":status"), "431");
    peer.fields(5, &head, END_STREAM).await;
    assert_eq!(peer.expect_headers().await.field(":status"), "200");
    assert_eq!(proxy.faults(), BTreeMap::from([("head_too_large", 2)]));
    // What h2 itself refuses.
    let client = client::h2(proxy.address()).await;
    let request = client.request("/status/200").header("x-long", "x".repeat(40_000)).body(Bytes::new()).unwrap();
    assert_eq!(client.send(request).await.unwrap().status(), 431);
    assert_eq!(client.get("/status/200").await.status(), 200);
}
