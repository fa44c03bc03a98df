//! A new configuration while requests run: what did not change is not touched, what is wrong is not taken.

use std::net::SocketAddr;

use http::Request;

use crate::harness::load::{self, Load, judge};
use crate::harness::origin::Origin;
use crate::harness::proxy::Proxy;
use crate::harness::watched::within;
use crate::harness::wire::Broken;
use crate::harness::{client, origin, proxy};

#[tokio::test]
async fn thirty_reloads_under_load_lose_nothing() {
    let (first, second) = (origin::h2().compact_log().start(), origin::h2().compact_log().start());
    // In turn: another pool, another service, another route, another listener.
    let configs: Vec<String> = [
        routed(&first, "pool: { max_connections: 2 }", ""),
        routed(&first, "pool: { max_connections: 3, max_streams_per_connection: 50 }", ""),
        routed(&second, "pool: { max_connections: 2 }", ""),
        routed(&second, "pool: { max_connections: 2 }", "request_headers: { set: { x-round: \"4\" } }"),
    ]
    .into_iter()
    .enumerate()
    .map(|(at, upstream)| {
        format!("listeners: [{{ address: 127.0.0.1:0, limits: {{ headers: {} }} }}]\n{upstream}", 100 + at)
    })
    .collect();
    let proxy = proxy::with(&configs[0]);
    let load = Load { connections: 32, requests: u64::MAX, body_bytes: 0..=1024, ..Load::default() };
    let load = load::start(proxy.address(), load);
    for round in 1..=30_u64 {
        load.wait_for(move |progress| progress.finished > round * 50).await;
        proxy.reload(&configs[round as usize % configs.len()]).await.unwrap();
    }
    load.stop();
    let client = load.finish().await;
    judge(&client, [&*first.log(), &*second.log()]).assert_clean();
    assert_eq!(proxy.control().config().1, 31);
}

#[tokio::test]
async fn an_upstream_that_did_not_change_keeps_its_connections() {
    let origin = origin::h2().start();
    let proxy = proxy::with(&routed(&origin, "pool: { max_connections: 1 }", ""));
    let mut client = client::h1(proxy.address()).await;
    client.start(&Request::get("/hang").body(()).unwrap(), false).await.unwrap();
    origin.wait_for(|log| log.streams_open() == 1).await;
    for round in 0..5 {
        let edits = format!("request_headers: {{ set: {{ x-round: \"{round}\" }} }}");
        proxy.reload(&routed(&origin, "pool: { max_connections: 1 }", &edits)).await.unwrap();
        assert_eq!(client::h1(proxy.address()).await.get("/status/200").await.status(), 200);
    }
    let log = origin.log();
    assert_eq!((log.connections.len(), log.streams_open()), (1, 1));
}

#[tokio::test]
async fn a_changed_pool_gets_new_connections_and_the_old_ones_end_when_their_streams_have() {
    let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let origin = {
        let gate = gate.clone();
        let handler = move |mut exchange: origin::exchange::Exchange| {
            let gate = gate.clone();
            async move {
                if exchange.path() == "/wait" {
                    let _opened = exchange.until(gate.acquire_owned()).await?;
                }
                exchange.answer(exchange.response(200), "whole").await
            }
        };
        origin::h2().handler(handler).start()
    };
    let proxy = proxy::with(&routed(&origin, "pool: { max_connections: 1 }", ""));
    let mut old = client::h1(proxy.address()).await;
    old.start(&Request::get("/wait").body(()).unwrap(), false).await.unwrap();
    origin.wait_for(|log| log.streams_open() == 1).await;
    proxy.reload(&routed(&origin, "pool: { max_connections: 2 }", "")).await.unwrap();
    assert_eq!(client::h1(proxy.address()).await.get("/now").await.text(), "whole");
    origin.wait_for(|log| log.connections.len() >= 2 && log.connections[0].closed.is_none()).await;
    gate.add_permits(1);
    assert_eq!(old.into_raw().expect_response().await.text(), "whole");
    origin.wait_for(|log| log.connections[0].closed.is_some()).await;
}

#[tokio::test]
async fn a_changed_route_applies_to_the_next_request_of_a_connection() {
    let (first, second) = (origin::h2().start(), origin::h2().start());
    let proxy = proxy::with(&routed(&first, "", ""));
    let mut client = client::h1(proxy.address()).await;
    assert_eq!(client.get("/status/200").await.status(), 200);
    let changed = proxy.reload(&routed(&second, "", "match: { path_prefix: /status/ }")).await;
    assert_eq!(changed.as_deref(), Ok("changed: routes, upstreams"));
    assert_eq!(client.get("/status/201").await.status(), 201);
    assert_eq!(client.get("/elsewhere").await.status(), 404);
    assert_eq!((first.log().requests.len(), second.log().requests.len()), (1, 1));
}

#[tokio::test]
async fn a_new_listener_accepts_and_a_removed_one_finishes_what_runs() {
    let origin = origin::h2().start();
    let upstreams = format!("upstreams: {{ up: {{ endpoints: [\"h2c://{origin}\"] }} }}");
    let one = "{ name: one, address: 127.0.0.1:0 }";
    let two = "{ name: two, address: 127.0.0.1:0 }";
    let proxy = proxy::with(&format!("listeners: [{one}]\n{upstreams}"));
    let first = proxy.address_of("one");
    proxy.reload(&format!("listeners: [{one}, {two}]\n{upstreams}")).await.unwrap();
    let second = proxy.address_of("two");
    assert_eq!(proxy.address_of("one"), first);
    assert_eq!(client::h1(second).await.get("/status/200").await.status(), 200);

    let mut running = client::h1(first).await;
    running.start(&Request::get("/slow-body/20?every=5").body(()).unwrap(), false).await.unwrap();
    running.head().await.unwrap();
    let mut idle = client::h1(first).await;
    assert_eq!(idle.get("/status/200").await.status(), 200);
    proxy.reload(&format!("listeners: [{two}]\n{upstreams}")).await.unwrap();
    idle.into_raw().expect_close().await;
    assert_eq!(running.body().await.unwrap().len(), 20);
    assert_eq!(running.head().await, Err(Broken::Closed));
    within("closed socket", async { while tokio::net::TcpStream::connect(first).await.is_ok() {} }).await;
    assert_eq!(client::h1(second).await.get("/status/200").await.status(), 200);
}

#[tokio::test]
async fn a_listener_may_be_narrowed_to_one_address_and_widened_again() {
    let origin = origin::h2().start();
    let yaml = |address: SocketAddr| {
        format!("listeners: [{{ address: \"{address}\" }}]\nupstreams: {{ up: {{ endpoints: [\"h2c://{origin}\"] }} }}")
    };
    let proxy = proxy::with(&yaml(([0, 0, 0, 0], 0).into()));
    let port = proxy.address().port();
    proxy.reload(&yaml(([127, 0, 0, 1], port).into())).await.unwrap();
    assert_eq!(proxy.address(), ([127, 0, 0, 1], port).into());
    assert_eq!(client::h1(proxy.address()).await.get("/status/200").await.status(), 200);
    proxy.reload(&yaml(([0, 0, 0, 0], port).into())).await.unwrap();
    assert_eq!(proxy.address(), ([0, 0, 0, 0], port).into());
}

#[tokio::test]
async fn changed_limits_of_a_listener_keep_its_socket_and_hold_for_new_connections() {
    let origin = origin::h2().start();
    let proxy = limited(&origin, "limits: { body_bytes: 10B }");
    let address = proxy.address();
    let mut old = client::h1(address).await;
    assert_eq!(old.post("/upload", "twelve bytes").await.status(), 413);
    let mut old = client::h1(address).await;
    assert_eq!(old.post("/upload", "few bytes").await.status(), 200);
    proxy.reload(&limited_yaml(&origin, "limits: { body_bytes: 20B }")).await.unwrap();
    assert_eq!(proxy.address(), address);
    // Both workers have to hear of it; each connection keeps what it was accepted with.
    within("new limit", async {
        while client::h1(address).await.post("/upload", "twelve bytes").await.status() != 200 {}
    })
    .await;
    assert_eq!(old.post("/upload", "few bytes").await.status(), 200);
}

#[tokio::test]
async fn an_invalid_configuration_keeps_the_old_one_and_says_why() {
    let origin = origin::h2().start();
    let yaml = routed(&origin, "", "");
    let proxy = proxy::with(&yaml);
    let why = proxy.reload(&yaml.replace("upstreams:", "upsteams:")).await.unwrap_err();
    assert!(why.contains("unknown key `upsteams`") && why.contains("did you mean `upstreams`?"), "{why}");
    assert!(!proxy.control().is_reloaded());
    assert_eq!(proxy.control().config().1, 1);
    assert_eq!(client::h1(proxy.address()).await.get("/status/200").await.status(), 200);
    proxy.reload(&yaml).await.unwrap();
    assert!(proxy.control().is_reloaded());
}

#[tokio::test]
async fn a_listener_that_cannot_be_bound_keeps_the_old_configuration_whole() {
    let (first, second) = (origin::h2().start(), origin::h2().start());
    let proxy = proxy::with(&routed(&first, "", ""));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let yaml = routed(&second, "", "");
    let why = proxy.reload(&format!("listeners: [{{ address: \"{address}\" }}]\n{yaml}")).await.unwrap_err();
    assert!(why.contains("in use") && why.contains(&address.to_string()), "{why}");
    assert_eq!(client::h1(proxy.address()).await.get("/status/200").await.status(), 200);
    assert_eq!(second.log().requests.len(), 0);
}

#[tokio::test]
async fn a_raised_max_connections_lets_waiting_clients_in() {
    let origin = origin::h2().start();
    let proxy = limited(&origin, "max_connections: 1");
    let mut first = client::h1(proxy.address()).await;
    assert_eq!(first.get("/status/200").await.status(), 200);
    let mut second = client::h1(proxy.address()).await;
    second.start(&Request::get("/status/201").body(()).unwrap(), false).await.unwrap();
    proxy.reload(&limited_yaml(&origin, "max_connections: 2")).await.unwrap();
    assert_eq!(second.head().await.unwrap().status(), Ok(201));
    assert_eq!(first.get("/status/200").await.status(), 200);
}

#[tokio::test]
async fn connections_from_before_a_reload_count_for_max_connections() {
    let origin = origin::h2().start();
    let proxy = limited(&origin, "max_connections: 1");
    let mut first = client::h1(proxy.address()).await;
    assert_eq!(first.get("/status/200").await.status(), 200);
    proxy.reload(&limited_yaml(&origin, "max_connections: 1, timeouts: { header: 5s }")).await.unwrap();
    let mut second = client::h1(proxy.address()).await;
    second.start(&Request::get("/status/201").body(()).unwrap(), false).await.unwrap();
    for _ in 0..200 {
        assert_eq!(first.get("/status/200").await.status(), 200);
        assert_eq!(proxy.counts().downstream_connections, 1);
    }
    drop(first);
    assert_eq!(second.head().await.unwrap().status(), Ok(201));
}

/// One upstream `up` with these settings, and one route with these.
fn routed(origin: &Origin, upstream: &str, route: &str) -> String {
    let comma = |text: &str| if text.is_empty() { String::new() } else { format!(", {text}") };
    format!(
        "upstreams: {{ up: {{ endpoints: [\"h2c://{origin}\"]{} }} }}\nroutes: [{{ upstream: up{} }}]",
        comma(upstream),
        comma(route)
    )
}

fn limited(origin: &Origin, listener: &str) -> Proxy {
    proxy::with(&limited_yaml(origin, listener))
}

fn limited_yaml(origin: &Origin, listener: &str) -> String {
    format!(
        "listeners: [{{ address: 127.0.0.1:0, {listener} }}]\n\
         upstreams: {{ up: {{ endpoints: [\"h2c://{origin}\"] }} }}"
    )
}
