//! PROXY headers: who the client is when a balancer passes bytes on, `proxy_protocol`.

use std::collections::BTreeMap;

use super::{Edge, ask_on};
use crate::harness::client::RawClient;
use crate::harness::tls::Identity;
use crate::harness::watched::within;
use crate::harness::{client, origin, proxy, scripted};
use crate::translation::Seen;

const V1: &[u8] = b"PROXY TCP4 203.0.113.9 10.0.0.1 51000 443\r\n";
/// The same source in version 2, with something that a balancer tells of itself behind it.
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x11\xcb\0\x71\x09\x0a\0\0\x01\xc7\x38\x01\xbb\xea\0\x02\x01x";
const V2_LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
const HEAD: &[u8] = b"GET /head HTTP/1.1\r\nhost: a\r\n\r\n";

#[tokio::test]
async fn the_source_is_the_client_for_the_service_and_the_log() {
    for mode in ["required", "optional"] {
        let edge = Edge::new(&format!("proxy_protocol: {mode}"));
        for header in [V1, V2] {
            let mut client = edge.client().await;
            client.send(header).await;
            // The header is the connection's: every request on it has that client.
            for _ in 0..2 {
                assert_eq!(ask_on(&mut client, "").await.field("x-forwarded-for"), "203.0.113.9");
            }
        }
        assert_eq!(edge.proxy.counts().proxy_protocol_failures, BTreeMap::new());
        assert_eq!(edge.clients().await, ["203.0.113.9"; 4]);
    }
}

#[tokio::test]
async fn ipv6_sources_are_clients_too() {
    let edge = Edge::new("proxy_protocol: required");
    let mut client = edge.client().await;
    client.send("PROXY TCP6 2001:db8::9 ::1 51000 443\r\n").await;
    assert_eq!(ask_on(&mut client, "").await.field("x-forwarded-for"), "2001:db8::9");
    drop(client);
    assert_eq!(edge.clients().await, ["2001:db8::9"]);
}

#[tokio::test]
async fn what_follows_the_header_in_the_same_packet_is_the_request() {
    let edge = Edge::new("proxy_protocol: required");
    for header in [V1, V2] {
        let mut client = edge.client().await;
        client.send([header, HEAD, HEAD].concat()).await;
        for _ in 0..2 {
            assert_eq!(shown(&mut client).await.field("x-forwarded-for"), "203.0.113.9");
        }
    }
}

#[tokio::test]
async fn a_header_may_come_byte_by_byte() {
    for mode in ["required", "optional"] {
        let edge = Edge::new(&format!("proxy_protocol: {mode}"));
        for header in [V1, V2] {
            let mut client = edge.client().await;
            for byte in [header, HEAD].concat() {
                client.send([byte]).await;
                tokio::task::yield_now().await;
            }
            assert_eq!(shown(&mut client).await.field("x-forwarded-for"), "203.0.113.9");
        }
    }
}

#[tokio::test]
async fn a_connection_that_speaks_for_itself_has_its_own_address() {
    let edge = Edge::new("proxy_protocol: required");
    for header in [V2_LOCAL, b"PROXY UNKNOWN\r\n"] {
        let mut client = edge.client().await;
        client.send(header).await;
        assert_eq!(ask_on(&mut client, "").await.field("x-forwarded-for"), "127.0.0.1");
    }
    assert_eq!(edge.clients().await, ["127.0.0.1"; 2]);
}

#[tokio::test]
async fn an_optional_header_may_be_left_out() {
    let edge = Edge::new("proxy_protocol: optional");
    let mut client = edge.client().await;
    for _ in 0..2 {
        assert_eq!(ask_on(&mut client, "").await.field("x-forwarded-for"), "127.0.0.1");
    }
    // `P` may begin either.
    let mut client = edge.client().await;
    for part in ["P", "RO", "PFIND /head HTTP/1.1\r\nho", "st: a\r\n\r\n"] {
        client.send(part).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(shown(&mut client).await.method(), "PROPFIND");
    let mut client = edge.client().await;
    client.send("POST /upload HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc").await;
    assert_eq!(client.expect_response().await.text(), "3");
    assert_eq!(edge.proxy.counts().proxy_protocol_failures, BTreeMap::new());
}

#[tokio::test]
async fn a_connection_without_a_required_header_is_closed_and_counted() {
    let edge = Edge::new("proxy_protocol: required");
    for (bytes, reason) in [
        (&b"GET /head HTTP/1.1\r\nhost: a\r\n\r\n"[..], "missing"),
        (b"PROXY TCP4 nonsense of thirty-two bytes\r\n", "malformed"),
        (b"PROXY UNKNOWN xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n", "too_long"),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff", "too_long"),
        (b"\r\n\r\n\0\r\nQUIT\n\x33\x11\0\0", "malformed"),
    ] {
        let mut client = edge.client().await;
        client.send(bytes).await;
        client.expect_close().await;
        edge.expect_failure(reason).await;
    }
    assert_eq!(edge.clients().await, [""; 0], "nothing has reached HTTP");
}

#[tokio::test]
async fn a_malformed_header_is_closed_where_it_is_optional_too() {
    let edge = Edge::new("proxy_protocol: optional");
    let mut client = edge.client().await;
    client.send("PROXY TCP4 1.1.1.1 2.2.2.2 1 66000\r\n").await;
    client.expect_close().await;
    edge.expect_failure("malformed").await;
}

#[tokio::test]
async fn a_header_has_as_long_as_the_first_head_and_not_longer() {
    let edge = Edge::new("proxy_protocol: required, timeouts: { header: 200ms }");
    for part in [&b""[..], &V1[..20]] {
        let mut client = edge.client().await;
        client.send(part).await;
        client.expect_close().await;
        edge.expect_failure("timeout").await;
    }
    // The head has what the header leaves of it.
    let mut client = edge.client().await;
    client.send(V2).await;
    client.send("GET / HT").await;
    assert_eq!(client.expect_response().await.status(), 408);
    assert_eq!(edge.proxy.counts().faults, BTreeMap::from([("head_timeout", 1)]));
}

#[tokio::test]
async fn clients_that_leave_are_counted_only_if_they_have_said_something() {
    let edge = Edge::new("proxy_protocol: required");
    drop(edge.client().await);
    edge.proxy.wait_for(|counts| counts.downstream_accepted == 1 && counts.downstream_connections == 0).await;
    assert_eq!(edge.proxy.counts().proxy_protocol_failures, BTreeMap::new(), "as health checks do");
    let mut client = edge.client().await;
    client.send(&V2[..20]).await;
    drop(client);
    edge.expect_failure("truncated").await;
}

#[tokio::test]
async fn headers_count_only_from_those_that_are_trusted() {
    let trust =
        |peers: &str, mode: &str| Edge::new(&format!("trust_forwarded_from: [{peers}], proxy_protocol: {mode}"));
    for mode in ["required", "optional"] {
        let edge = trust("127.0.0.1", mode);
        let mut client = edge.client().await;
        client.send(V1).await;
        assert_eq!(ask_on(&mut client, "").await.field("x-forwarded-for"), "203.0.113.9");
    }
    // Where it is optional, somebody else's is skipped, and told.
    let edge = trust("10.0.0.0/8", "optional");
    let mut client = edge.client().await;
    client.send(V1).await;
    assert_eq!(ask_on(&mut client, "").await.field("x-forwarded-for"), "127.0.0.1");
    edge.expect_failure("untrusted").await;
    assert_eq!(edge.ask("").await.field("x-forwarded-for"), "127.0.0.1");
    // Where it is required, nobody else is served.
    let edge = trust("10.0.0.0/8", "required");
    let mut client = edge.client().await;
    client.send([V1, HEAD].concat()).await;
    client.expect_close().await;
    edge.expect_failure("untrusted").await;
}

#[tokio::test]
async fn the_balancer_is_trusted_and_not_the_client_behind_it() {
    let edge = Edge::new("trust_forwarded_from: [127.0.0.1, 198.51.100.7], proxy_protocol: required");
    let lines = "x-forwarded-for: 1.2.3.4\r\n";
    let mut client = edge.client().await;
    client.send(V1).await;
    assert_eq!(ask_on(&mut client, lines).await.field("x-forwarded-for"), "203.0.113.9");
    // Unless that is a proxy of ours as well.
    let mut client = edge.client().await;
    client.send("PROXY TCP4 198.51.100.7 10.0.0.1 51000 443\r\n").await;
    assert_eq!(ask_on(&mut client, lines).await.field("x-forwarded-for"), "1.2.3.4, 198.51.100.7");
    drop(client);
    assert_eq!(edge.clients().await, ["1.2.3.4", "203.0.113.9"]);
}

#[tokio::test]
async fn clients_behind_one_balancer_take_turns_as_if_they_came_themselves() {
    let service = scripted::service().await;
    let proxy = proxy::with(&format!(
        "runtime: {{ workers: 1 }}\n\
         listeners: [{{ address: 127.0.0.1:0, proxy_protocol: required }}]\n\
         upstreams: {{ up: {{ endpoints: [\"h2c://{service}\"], \
         pool: {{ max_connections: 1, max_streams_per_connection: 1, pending_timeout: 20s }} }} }}"
    ));
    let mut peer = service.accept_with(&[]).await;
    let mut clients = Vec::new();
    let (greedy, modest) = ("203.0.113.1", "203.0.113.2");
    for (at, (source, path)) in
        [(greedy, "/running"), (greedy, "/g1"), (greedy, "/g2"), (modest, "/m1")].into_iter().enumerate()
    {
        let mut client = client::raw(proxy.address()).await;
        client.send(format!("PROXY TCP4 {source} 10.0.0.1 1 2\r\nGET {path} HTTP/1.1\r\nhost: a\r\n\r\n")).await;
        clients.push(client);
        proxy.wait_for(|counts| counts.streams == 1 && counts.pending == at as i64).await;
    }
    assert_eq!(peer.answer_in_turn(clients.len()).await, ["/running", "/g1", "/m1", "/g2"]);
}

#[tokio::test]
async fn a_drain_ends_connections_that_wait_for_their_header() {
    let mut edge = Edge::new("proxy_protocol: required");
    let mut silent = edge.client().await;
    edge.proxy.wait_for(|counts| counts.downstream_connections == 1).await;
    let ending = within("end of the proxy", edge.proxy.stop()).await;
    assert_eq!(ending.cut_connections, 0);
    silent.expect_close().await;
}

#[tokio::test]
async fn a_header_comes_before_tls() {
    let identity = Identity::new();
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = identity.store(folder.path(), "one");
    let tls = format!("tls: {{ certificates: [{{ cert: {}, key: {} }}] }}", cert.display(), key.display());
    for mode in ["required", "optional"] {
        let edge = Edge::new(&format!("proxy_protocol: {mode}, {tls}"));
        for header in [V1, V2] {
            let connector = identity.connector(&[]);
            let mut client = client::raw_tls_behind(header, edge.proxy.address(), &connector).await;
            let seen = ask_on(&mut client, "").await;
            assert_eq!((seen.field("x-forwarded-for"), seen.field("x-forwarded-proto")), ("203.0.113.9", "https"));
        }
        let connector = identity.connector(&[]);
        if mode == "optional" {
            let mut client = client::raw_tls(edge.proxy.address(), &connector).await;
            assert_eq!(ask_on(&mut client, "").await.field("x-forwarded-for"), "127.0.0.1");
            // As without PROXY headers: somebody who speaks no TLS is told so.
            let mut client = edge.client().await;
            client.send(HEAD).await;
            assert_eq!(client.expect_response().await.status(), 400);
        }
    }
}

#[tokio::test]
async fn http2_clients_have_headers_too() {
    for mode in ["required", "optional"] {
        let edge = Edge::new(&format!("proxy_protocol: {mode}"));
        let client = client::h2_behind(V2, edge.proxy.address()).await;
        assert_eq!(Seen(client.get("/head").await.json()).field("x-forwarded-for"), "203.0.113.9");
        if mode == "optional" {
            let client = client::h2(edge.proxy.address()).await;
            assert_eq!(Seen(client.get("/head").await.json()).field("x-forwarded-for"), "127.0.0.1");
        }
    }
}

#[tokio::test]
async fn a_header_where_none_is_expected_is_a_malformed_request() {
    let origin = origin::h2().start();
    let proxy = proxy::with(&format!("upstream: h2c://{origin}"));
    for header in [V1, V2] {
        let mut client = client::raw(proxy.address()).await;
        client.send([header, HEAD].concat()).await;
        assert_eq!(client.expect_response().await.status(), 400);
    }
    assert!(origin.log().requests.is_empty());
}

async fn shown(client: &mut RawClient) -> Seen {
    let response = client.expect_response().await;
    assert_eq!(response.status(), 200, "{response:?}");
    Seen(response.json())
}
