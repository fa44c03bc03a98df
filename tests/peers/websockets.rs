//! WebSockets of PyPI's `websockets`: what was said comes back, pings are answered, and each side learns the other's close code.

use serde_json::json;

use crate::harness::programs::are_installed;
use crate::harness::proxy::Proxy;
use crate::harness::python::{PYTHON, Script, run};
use crate::harness::sockets::Sampler;

/// All of them are open at the same time.
const CLIENTS: usize = 200;

#[test]
fn websockets_over_http1_keep_their_messages_pings_and_close_codes() {
    if !are_installed(&[PYTHON]) {
        return;
    }
    let service = Script::start("websocket_service.py", &[]);
    expect_talk(&service, "http1", usize::MAX);
}

#[test]
fn two_hundred_websockets_share_two_connections_to_a_service_with_extended_connect() {
    if !are_installed(&[PYTHON]) {
        return;
    }
    let service = Script::start("websocket_service.py", &[]);
    expect_talk(&service, "http2", 2);
}

/// Through a proxy to one of the service's ports, with at most so many connections to it at any time.
#[track_caller]
fn expect_talk(service: &Script, version: &str, connections_max: usize) {
    let port = service.port(version);
    let scheme = if version == "http1" { "http1" } else { "h2c" };
    // Python's service has room for 100 connections that it has not accepted yet: the others are asked for again.
    let mut proxy = Proxy::run(&format!(
        "listeners: [{{ name: http, address: 127.0.0.1:0 }}]\nupstreams:\n  service:\n    \
         endpoints: [{scheme}://127.0.0.1:{port}]\n    pool: {{ max_connections: 2, max_streams_per_connection: 250 }}\n"
    ));
    let connections = Sampler::start(port);
    let said = run("websocket_clients.py", &[&format!("ws://{proxy}"), &CLIENTS.to_string()]);
    let samples = connections.finish();
    println!("{version}: {said}, {samples:?}");
    let half = CLIENTS / 2;
    let expected = json!({
        "echoed": CLIENTS, "closed_by_service": half, "closed_by_client": half, "client_codes_arrived": true
    });
    assert_eq!(said, expected, "{}", proxy.log());
    assert!(samples.most <= connections_max, "{samples:?}");
    proxy.stop();
    assert!(proxy.failures().is_empty(), "{:?}", proxy.failures());
}
