//! Proxies in front of us that are believed, and all others, who are not: `trust_forwarded_from`.

use std::net::IpAddr;

use bytes::Bytes;
use http::Request;

use super::Edge;
use crate::harness::client::{self, Client};
use crate::harness::proxy::{self, Proxy};
use crate::harness::{origin, scripted};
use crate::translation::Seen;

#[tokio::test]
async fn a_trusted_peer_is_added_to_what_it_says() {
    let edge = Edge::new("trust_forwarded_from: [127.0.0.0/8]");
    let seen = edge
        .ask(
            "forwarded: for=203.0.113.9;proto=https\r\nx-forwarded-for: 203.0.113.9\r\nx-forwarded-for: 127.0.0.9\r\n\
             x-forwarded-proto: https\r\nx-forwarded-host: a.example\r\nx-forwarded-port: 443\r\nx-real-ip: 203.0.113.9\r\n",
        )
        .await;
    for (name, value) in [
        ("forwarded", "for=203.0.113.9;proto=https, for=127.0.0.1;proto=http"),
        ("x-forwarded-for", "203.0.113.9, 127.0.0.9, 127.0.0.1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "a.example"),
        ("x-forwarded-port", "443"),
        ("x-real-ip", "203.0.113.9"),
    ] {
        assert_eq!(seen.field(name), value);
    }
    assert!(seen.field("via").starts_with("1.1 trunkline-"));
    assert_eq!(edge.clients().await, ["203.0.113.9"]);
}

#[tokio::test]
async fn a_trusted_peer_that_says_nothing_is_the_client() {
    let edge = Edge::new("trust_forwarded_from: [127.0.0.1]");
    let seen = edge.ask("").await;
    assert_eq!(seen.names(), ["via", "x-forwarded-for", "x-forwarded-proto"]);
    assert_eq!((seen.field("x-forwarded-for"), seen.field("x-forwarded-proto")), ("127.0.0.1", "http"));
    assert_eq!(edge.clients().await, ["127.0.0.1"]);
}

#[tokio::test]
async fn a_peer_outside_the_list_is_not_believed() {
    let edge = Edge::new("trust_forwarded_from: [10.0.0.0/8, \"::1\", unix]");
    let seen = edge
        .ask("forwarded: for=1.2.3.4\r\nx-forwarded-for: 1.2.3.4\r\nx-forwarded-proto: https\r\nx-real-ip: 1.2.3.4\r\n")
        .await;
    assert_eq!(seen.names(), ["via", "x-forwarded-for", "x-forwarded-proto"]);
    assert_eq!((seen.field("x-forwarded-for"), seen.field("x-forwarded-proto")), ("127.0.0.1", "http"));
    assert_eq!(edge.clients().await, ["127.0.0.1"]);
}

#[tokio::test]
async fn connection_cannot_take_away_what_a_trusted_peer_says() {
    let edge = Edge::new("trust_forwarded_from: [127.0.0.1]");
    let seen = edge
        .ask(
            "connection: forwarded, x-forwarded-for, x-forwarded-proto, x-real-ip\r\nforwarded: for=203.0.113.9\r\n\
             x-forwarded-for: 203.0.113.9\r\nx-forwarded-proto: https\r\nx-real-ip: 203.0.113.9\r\n",
        )
        .await;
    assert_eq!(seen.names(), ["forwarded", "via", "x-forwarded-for", "x-forwarded-proto", "x-real-ip"]);
    assert_eq!((seen.field("x-forwarded-for"), seen.field("x-forwarded-proto")), ("203.0.113.9, 127.0.0.1", "https"));
}

#[tokio::test]
async fn lists_that_cannot_be_read_are_no_fault() {
    let edge = Edge::new("trust_forwarded_from: [127.0.0.0/8]");
    let mut client = edge.client().await;
    for lines in [
        "x-forwarded-for: ,,, \u{e4} \"\\\r\n",
        "x-forwarded-for: 1.1.1.1, what, 203.0.113.9\r\n",
        "forwarded: for=\"\\\r\n",
        "forwarded: for=\"1.1.1.1, for=203.0.113.9\r\n",
    ] {
        let seen = super::ask_on(&mut client, lines).await;
        assert!(seen.field("x-forwarded-for").ends_with("127.0.0.1"), "{lines}: {seen:?}");
    }
    drop(client);
    assert_eq!(edge.clients().await, ["127.0.0.1", "127.0.0.1", "203.0.113.9", "203.0.113.9"]);
}

#[tokio::test]
async fn trust_is_the_same_for_http2_clients() {
    let edge = Edge::new("trust_forwarded_from: [127.0.0.1]");
    let client = client::h2(edge.proxy.address()).await;
    for list in ["203.0.113.9", "203.0.113.8"] {
        let request = client.request("/head").header("x-forwarded-for", list).body(Bytes::new()).unwrap();
        let seen = Seen(client.send(request).await.unwrap().json());
        assert_eq!(seen.field("x-forwarded-for"), format!("{list}, 127.0.0.1"));
    }
    drop(client);
    assert_eq!(edge.clients().await, ["203.0.113.8", "203.0.113.9"]);
}

#[tokio::test]
async fn two_proxies_in_a_row_tell_the_whole_way() {
    let origin = origin::h1().start();
    let trust = "trust_forwarded_from: [127.0.0.1]";
    let inner = proxy::with(&format!(
        "listeners: [{{ address: 127.0.0.1:0, {trust} }}]\nupstreams: {{ up: {{ endpoints: [\"http1://{origin}\"] }} }}"
    ));
    let outer = proxy::with(&format!("upstream: http1://{}", inner.address()));
    let from: IpAddr = [127, 0, 0, 5].into();
    let seen = Seen(client::h1_from(from, outer.address()).await.get("/head").await.json());
    assert_eq!(seen.field("x-forwarded-for"), "127.0.0.5, 127.0.0.1");
}

#[tokio::test]
async fn clients_behind_one_trusted_proxy_take_turns_as_if_they_came_themselves() {
    let service = scripted::service().await;
    let proxy = proxy::with(&format!(
        "runtime: {{ workers: 1 }}\n\
         listeners: [{{ address: 127.0.0.1:0, trust_forwarded_from: [127.0.0.1] }}]\n\
         upstreams: {{ up: {{ endpoints: [\"h2c://{service}\"], \
         pool: {{ max_connections: 1, max_streams_per_connection: 1, pending_timeout: 20s }} }} }}"
    ));
    let mut peer = service.accept_with(&[]).await;
    let mut clients = Vec::new();
    let (greedy, modest) = ("203.0.113.1", "203.0.113.2");
    for (at, (client, path)) in
        [(greedy, "/running"), (greedy, "/g1"), (greedy, "/g2"), (modest, "/m1")].into_iter().enumerate()
    {
        clients.push(ask_for(&proxy, client, path).await);
        proxy.wait_for(|counts| counts.streams == 1 && counts.pending == at as i64).await;
    }
    assert_eq!(peer.answer_in_turn(clients.len()).await, ["/running", "/g1", "/m1", "/g2"]);
}

#[tokio::test]
async fn a_reload_changes_whom_new_connections_trust() {
    let origin = origin::h2().start();
    let yaml = |keys: &str| {
        format!(
            "listeners: [{{ address: 127.0.0.1:0{keys} }}]\nupstreams: {{ up: {{ endpoints: [\"h2c://{origin}\"] }} }}"
        )
    };
    let proxy = proxy::with(&yaml(""));
    let mut before = client::raw(proxy.address()).await;
    let lines = "x-forwarded-for: 203.0.113.9\r\n";
    assert_eq!(super::ask_on(&mut before, lines).await.field("x-forwarded-for"), "127.0.0.1");
    proxy.reload(&yaml(", trust_forwarded_from: [127.0.0.1]")).await.unwrap();
    let mut after = client::raw(proxy.address()).await;
    assert_eq!(super::ask_on(&mut after, lines).await.field("x-forwarded-for"), "203.0.113.9, 127.0.0.1");
    assert_eq!(super::ask_on(&mut before, lines).await.field("x-forwarded-for"), "127.0.0.1");
}

/// A connection on which a proxy has passed on a request of `client`.
async fn ask_for(proxy: &Proxy, client: &str, path: &str) -> Client {
    let mut connection = client::h1(proxy.address()).await;
    let request = Request::get(path).header("x-forwarded-for", client).body(()).unwrap();
    connection.start(&request, false).await.unwrap();
    connection
}
