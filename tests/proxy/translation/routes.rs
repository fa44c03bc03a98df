//! Which service a request goes to, and what its route changes on the way.

use bytes::Bytes;
use http::Request;

use super::Seen;
use crate::harness::client::Client;
use crate::harness::origin::Origin;
use crate::harness::origin::exchange::Exchange;
use crate::harness::proxy::Proxy;
use crate::harness::{client, origin, proxy};

#[tokio::test]
async fn the_first_route_that_matches_wins() {
    let services = Services::new(&["reads", "gold", "host", "prefix", "rest"]);
    let proxy = services.proxy(
        "- { match: { hosts: [api.example], path_prefix: /v1/, methods: [GET, HEAD] }, upstream: reads }
         - { match: { headers: { x-tier: gold } }, upstream: gold }
         - { match: { hosts: [api.example, '*.wild.example'] }, upstream: host }
         - { match: { path_prefix: /v1/ }, upstream: prefix }
         - { upstream: rest }",
    );
    let mut client = client::h1(proxy.address()).await;
    for (method, host, path, tier, expected) in [
        ("GET", "api.example", "/v1/x", None, "reads"),
        ("GET", "API.example:8080", "/v1/x", Some("gold"), "reads"),
        ("POST", "api.example", "/v1/x", None, "host"),
        ("POST", "api.example", "/v1/x", Some("gold"), "gold"),
        ("GET", "api.example", "/v2/x", None, "host"),
        ("GET", "a.wild.example", "/", None, "host"),
        ("GET", "other.example", "/v1/x", None, "prefix"),
        ("GET", "other.example", "/v10", Some("silver"), "rest"),
    ] {
        let mut request = Request::builder().method(method).uri(path).header("host", host);
        if let Some(tier) = tier {
            request = request.header("x-tier", tier);
        }
        assert_eq!(ask(&mut client, request).await, expected, "{method} {host}{path} {tier:?}");
    }
}

#[tokio::test]
async fn reads_and_writes_go_to_different_services_on_one_client_connection() {
    let services = Services::new(&["reads", "writes"]);
    let proxy = services.proxy("- { match: { methods: [GET, HEAD] }, upstream: reads }\n - { upstream: writes }");
    let mut client = client::h1(proxy.address()).await;
    for (method, expected) in [("GET", "reads"), ("POST", "writes"), ("GET", "reads"), ("DELETE", "writes")] {
        assert_eq!(ask(&mut client, Request::builder().method(method).uri("/")).await, expected, "{method}");
    }
}

#[tokio::test]
async fn an_absolute_target_is_routed_by_its_host() {
    let services = Services::new(&["one", "rest"]);
    let proxy = services.proxy("- { match: { hosts: [one.example] }, upstream: one }\n - { upstream: rest }");
    let mut client = client::raw(proxy.address()).await;
    client.send("GET http://one.example/ HTTP/1.1\r\nhost: one.example:80\r\n\r\n").await;
    assert_eq!(client.expect_response().await.text(), "one");
}

#[tokio::test]
async fn a_request_without_a_route_is_told_so_and_the_connection_is_kept() {
    let services = Services::new(&["one"]);
    let proxy = services.proxy("- { match: { path_prefix: /one/ }, upstream: one }");
    let mut client = client::h1(proxy.address()).await;
    let response = client.get("/two").await;
    assert_eq!(response.status(), 404);
    assert_eq!(response.header("proxy-status"), Some("trunkline; error=destination_not_found"));
    assert_eq!(client.get("/one/").await.text(), "one");
    proxy.expect_fault("no_route").await;
}

#[tokio::test]
async fn a_route_sets_and_removes_fields() {
    let origin = origin::h2().start();
    let seen = through(
        &origin,
        "request_headers: { set: { x-set: new, authorization: Basic ours }, remove: [x-internal, cookie, via] }",
        "x-set: old\r\nx-set: older\r\nx-internal: 1\r\ncookie: a\r\nx-kept: 1",
    )
    .await;
    assert_eq!((seen.field("x-set"), seen.field("authorization")), ("new", "Basic ours"));
    assert_eq!(seen.names(), ["authorization", "x-forwarded-for", "x-forwarded-proto", "x-kept", "x-set"]);
}

#[tokio::test]
async fn a_route_that_sets_host_changes_the_authority() {
    let origin = origin::h2().start();
    let seen = through(&origin, "request_headers: { set: { host: 'inner.example:81' } }", "x: y").await;
    assert_eq!((seen.authority(), seen.has("host")), ("inner.example:81", false));
}

#[tokio::test]
async fn a_route_replaces_its_prefix() {
    let origin = origin::h2().start();
    let proxy = proxy::with(&format!(
        "listeners: [{{ address: 127.0.0.1:0 }}]\n\
         routes:\n  - {{ match: {{ path_prefix: /v1/ }}, upstream: a, rewrite: {{ path_prefix: /api/ }} }}\n  \
         - {{ match: {{ path_prefix: /base/ }}, upstream: a, rewrite: {{ path_prefix: / }} }}\n\
         upstreams: {{ a: {{ endpoints: [h2c://{origin}] }} }}\n"
    ));
    let mut client = client::h1(proxy.address()).await;
    for (path, expected) in [("/v1/x?y=/v1/", "/api/x?y=/v1/"), ("/v1/", "/api/"), ("/base/x", "/x"), ("/base/", "/")] {
        client.get(path).await;
        assert_eq!(&*origin.log().requests.last().unwrap().target, expected, "{path}");
    }
}

/// What a service sees through a route with `edits`, of a request with these lines.
async fn through(origin: &Origin, edits: &str, lines: &str) -> Seen {
    let proxy = proxy::with(&format!(
        "listeners: [{{ address: 127.0.0.1:0 }}]\n\
         routes: [{{ upstream: a, {edits} }}]\n\
         upstreams: {{ a: {{ endpoints: [h2c://{origin}] }} }}\n"
    ));
    let mut client = client::raw(proxy.address()).await;
    client.send(format!("GET /head HTTP/1.1\r\nhost: a\r\n{lines}\r\n\r\n")).await;
    Seen(client.expect_response().await.json())
}

async fn ask(client: &mut Client, request: http::request::Builder) -> String {
    let response = client.send(&request.body(Bytes::new()).unwrap()).await.unwrap();
    response.text().to_owned()
}

/// Services that answer with their names.
struct Services(Vec<(&'static str, Origin)>);

impl Services {
    fn new(names: &[&'static str]) -> Self {
        let start = |name: &'static str| {
            let handler = move |mut exchange: Exchange| async move {
                exchange.body().await?;
                let head = exchange.response(200);
                exchange.answer(head, name).await
            };
            (name, origin::h2().handler(handler).start())
        };
        Self(names.iter().copied().map(start).collect())
    }

    fn proxy(&self, routes: &str) -> Proxy {
        let routes: Vec<_> = routes.lines().map(|route| format!("  {}\n", route.trim())).collect();
        let upstream = |(name, origin): &(&str, Origin)| format!("  {name}: {{ endpoints: [\"h2c://{origin}\"] }}\n");
        let upstreams: Vec<_> = self.0.iter().map(upstream).collect();
        proxy::with(&format!(
            "listeners: [{{ address: 127.0.0.1:0 }}]\nroutes:\n{}upstreams:\n{}",
            routes.concat(),
            upstreams.concat()
        ))
    }
}
