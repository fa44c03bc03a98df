//! What a service sees of a request, and a client of an answer: through either upstream protocol.
//!
//! The service shows its request's head at `/head`. RFC 9110 §7.6, RFC 9113 §8.2-§8.3, RFC 9112 §3.2.

mod http1;
mod routes;

use bytes::Bytes;
use http::{Method, Request};

use crate::harness::origin::Origin;
use crate::harness::proxy::Proxy;
use crate::harness::scripted::frame::END_STREAM;
use crate::harness::{client, origin, proxy, scripted};

#[tokio::test]
async fn a_plain_request_is_four_pseudo_headers_and_the_fields_that_say_who_passed_it_on() {
    let seen = Target::h2().ask("GET /head?a=b HTTP/1.1\r\nhost: Api.example:81\r\naccept: */*\r\n\r\n").await;
    assert_eq!((seen.method(), seen.target(), seen.authority()), ("GET", "/head?a=b", "Api.example:81"));
    assert_eq!((seen.text("scheme"), seen.text("version")), ("http", "HTTP/2.0"));
    assert_eq!(seen.names(), ["accept", "via", "x-forwarded-for", "x-forwarded-proto"]);
    assert_eq!((seen.field("x-forwarded-for"), seen.field("x-forwarded-proto")), ("127.0.0.1", "http"));
    assert!(seen.field("via").starts_with("1.1 trunkline-"), "{seen:?}");
}

#[tokio::test]
async fn fields_for_the_clients_hop_stay_here() {
    let seen = Target::h2()
        .ask(
            "GET /head HTTP/1.1\r\nhost: a\r\nconnection: keep-alive\r\nkeep-alive: timeout=5\r\n\
             proxy-connection: keep-alive\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\nte: gzip\r\nx-kept: 1\r\n\r\n",
        )
        .await;
    assert_eq!(seen.names(), ["via", "x-forwarded-for", "x-forwarded-proto", "x-kept"]);
}

#[tokio::test]
async fn every_connection_line_is_honoured() {
    let seen = Target::h2()
        .ask(
            "GET /head HTTP/1.1\r\nhost: a\r\nconnection: X-One, keep-alive\r\nx-one: 1\r\nx-two: 2\r\nx-three: 3\r\n\
             connection: x-two\r\nx-kept: 1\r\nconnection:\tx-three ,,\r\n\r\n",
        )
        .await;
    assert_eq!(seen.names(), ["via", "x-forwarded-for", "x-forwarded-proto", "x-kept"]);
}

#[tokio::test]
async fn connection_cannot_take_away_what_is_meant_for_everyone() {
    let seen = Target::h2()
        .ask(
            "GET /head HTTP/1.1\r\nhost: a\r\ncookie: c\r\nauthorization: Basic x\r\nte: trailers\r\n\
             connection: host, cookie, authorization, te, via, x-forwarded-for, x-forwarded-proto, :path\r\n\r\n",
        )
        .await;
    let expected = ["authorization", "cookie", "te", "via", "x-forwarded-for", "x-forwarded-proto"];
    assert_eq!((seen.authority(), seen.names()), ("a", expected.to_vec()));
}

#[tokio::test]
async fn what_the_client_says_about_forwarding_is_replaced_by_what_is_true() {
    let seen = Target::h2()
        .ask(
            "GET /head HTTP/1.1\r\nhost: a\r\nforwarded: for=1.2.3.4\r\nx-forwarded-for: 1.2.3.4\r\n\
             x-forwarded-for: 5.6.7.8\r\nx-forwarded-proto: https\r\nx-forwarded-host: evil\r\nx-forwarded-port: 1\r\n\
             x-forwarded-client-cert: Subject=admin\r\nx-real-ip: 1.2.3.4\r\n\r\n",
        )
        .await;
    assert_eq!(seen.names(), ["via", "x-forwarded-for", "x-forwarded-proto"]);
    assert_eq!((seen.field("x-forwarded-for"), seen.field("x-forwarded-proto")), ("127.0.0.1", "http"));
}

#[tokio::test]
async fn the_proxies_before_us_stay_in_via() {
    let seen = Target::h2().ask("GET /head HTTP/1.1\r\nhost: a\r\nvia: 1.1 edge, 1.0 old\r\n\r\n").await;
    let via: Vec<_> = seen.fields("via").collect();
    assert_eq!(via[0], "1.1 edge, 1.0 old");
    assert!(via[1].starts_with("1.1 trunkline-"), "{via:?}");
}

#[tokio::test]
async fn te_is_trailers_or_nothing() {
    let target = Target::h2();
    for (lines, expected) in [
        ("te: trailers", vec!["trailers"]),
        ("te: gzip, Trailers\r\nconnection: te", vec!["trailers"]),
        ("te: deflate\r\nte: trailers", vec!["trailers"]),
        ("te: gzip;q=0.5", vec![]),
        ("te:", vec![]),
    ] {
        let seen = target.ask(&format!("GET /head HTTP/1.1\r\nhost: a\r\n{lines}\r\n\r\n")).await;
        assert_eq!(seen.fields("te").collect::<Vec<_>>(), expected, "{lines}");
    }
}

#[tokio::test]
async fn an_absolute_target_arrives_as_path_and_authority() {
    let seen = Target::h2().ask("GET http://api.example/head?x HTTP/1.1\r\nhost: api.example\r\n\r\n").await;
    assert_eq!((seen.authority(), seen.target(), seen.has("host")), ("api.example", "/head?x", false));
}

#[tokio::test]
async fn http10_is_named_in_via_and_gets_the_endpoint_for_a_missing_host() {
    let target = Target::h2();
    let seen = target.ask("GET /head HTTP/1.0\r\n\r\n").await;
    assert_eq!(seen.authority(), target.origin.to_string());
    assert!(seen.field("via").starts_with("1.0 trunkline-"), "{seen:?}");
}

#[tokio::test]
async fn options_asterisk_arrives_as_asterisk() {
    let target = Target::h2();
    let mut client = client::raw(target.proxy.address()).await;
    client.send("OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(client.expect_response_to("OPTIONS").await.status(), 200);
    let log = target.origin.log();
    assert_eq!((log.requests[0].method.as_str(), &*log.requests[0].target), ("OPTIONS", "*"));
}

#[tokio::test]
async fn connect_and_trace_are_not_carried() {
    let target = Target::h2();
    for (method, place) in [(Method::CONNECT, "a:80"), (Method::TRACE, "/")] {
        let mut client = client::raw(target.proxy.address()).await;
        client.send(format!("{method} {place} HTTP/1.1\r\nhost: {place}\r\n\r\n").replace("host: /", "host: a")).await;
        let response = client.expect_response().await;
        assert_eq!((response.status(), response.head.is_closing()), (405, true), "{method}");
        assert_eq!(response.header("allow"), Some("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"), "RFC 9110 §15.5.6");
        client.expect_close().await;
    }
    assert!(target.origin.log().requests.is_empty());
}

#[tokio::test]
async fn options_whose_hops_are_used_up_goes_no_further() {
    let target = Target::h2();
    let seen = target.ask("OPTIONS /head HTTP/1.1\r\nhost: a\r\nmax-forwards: 2\r\n\r\n").await;
    assert_eq!(seen.field("max-forwards"), "1");
    let mut client = client::raw(target.proxy.address()).await;
    client.send("OPTIONS /head HTTP/1.1\r\nhost: a\r\nmax-forwards: 0\r\n\r\n").await;
    assert_eq!(client.expect_response_to("OPTIONS").await.status(), 405);
}

#[tokio::test]
async fn methods_are_carried_as_they_are() {
    let target = Target::h2();
    for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND", "get"] {
        let request = format!("{method} /head HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(target.ask(&request).await.method(), method);
    }
}

#[tokio::test]
async fn paths_and_queries_are_not_touched() {
    let target = Target::h2();
    for path in ["/head?%2f%00", "/head?a=b&&c=%20?d", "/head?", "/head?q={}|^`\u{e9}"] {
        let seen = target.ask(&format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n")).await;
        assert_eq!(seen.target(), path);
    }
    let mut client = client::raw(target.proxy.address()).await;
    for path in ["//x//", "/a/../b/./c", "/%2e%2e/%2F", "/;a=b,c"] {
        client.send(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n")).await;
        client.expect_response().await;
        assert_eq!(&*target.origin.log().requests.last().unwrap().target, path);
    }
}

#[tokio::test]
async fn repeated_fields_and_their_order_are_kept() {
    let seen = Target::h2().ask("GET /head HTTP/1.1\r\nhost: a\r\nx: 1\r\ny: 2\r\nX: 3\r\nx:\r\n\r\n").await;
    assert_eq!(seen.fields("x").collect::<Vec<_>>(), ["1", "3", ""]);
}

#[tokio::test]
async fn the_services_fields_come_down_and_those_of_its_hop_do_not() {
    let service = scripted::service().await;
    let proxy = proxy::on_one_worker(&format!("upstream: h2c://{service}"));
    let mut peer = service.accept_with(&[]).await;
    let mut client = client::h1(proxy.address()).await;
    client.start(&Request::get("/").body(()).unwrap(), false).await.unwrap();
    let stream = peer.expect_headers().await.stream;
    let fields = [("set-cookie", "a=b"), ("set-cookie", "c=d"), ("server", "s"), ("x-mine", "1"), ("date", "today")];
    peer.headers(stream, 418, &fields, END_STREAM).await;
    let head = client.head().await.unwrap();
    assert_eq!(head.status(), Ok(418));
    assert!(head.headers("set-cookie").eq(["a=b", "c=d"]));
    for (name, value) in &fields[2..] {
        assert!(head.headers(name).eq([*value]), "{head:?}");
    }
    for name in ["via", "connection", "proxy-status"] {
        assert_eq!(head.header(name), None, "{head:?}");
    }
}

#[tokio::test]
async fn a_request_that_has_passed_here_before_is_a_loop() {
    let target = Target::h2();
    let mut client = client::h1(target.proxy.address()).await;
    let seen = client.get("/head").await.json();
    let via = Seen(seen).field("via").to_owned();
    let request = Request::get("/head").header("via", format!("1.1 other, {via}")).body(Bytes::new()).unwrap();
    let response = client.send(&request).await.unwrap();
    assert_eq!((response.status(), response.header("proxy-status")), (502, Some(LOOP)));
    assert_eq!(client.get("/bytes/1").await.status(), 200, "the connection is kept");
    target.proxy.expect_fault("loop").await;
}

#[tokio::test]
async fn a_proxy_that_points_at_itself_answers_instead_of_going_round() {
    let address = origin::ReservedAddress::new().address();
    let proxy = proxy::with(&format!("listen: {address}\nupstream: http1://{address}"));
    let response = client::h1(proxy.address()).await.get("/").await;
    assert_eq!((response.status(), response.header("proxy-status")), (502, Some(LOOP)));
}

#[tokio::test]
async fn two_proxies_in_a_row_are_not_a_loop() {
    let origin = origin::h1().start();
    let inner = proxy::with(&format!("upstream: http1://{origin}"));
    let outer = proxy::with(&format!("upstream: http1://{}", inner.address()));
    let seen = Seen(client::h1(outer.address()).await.get("/head").await.json());
    assert_eq!(seen.fields("via").count(), 2);
    assert_eq!(seen.field("x-forwarded-for"), "127.0.0.1");
}

const LOOP: &str = "trunkline; error=proxy_loop_detected";

/// A proxy before a service that shows what it sees.
struct Target {
    origin: Origin,
    proxy: Proxy,
}

impl Target {
    fn h2() -> Self {
        let origin = origin::h2().start();
        let proxy = proxy::with(&format!("upstream: h2c://{origin}"));
        Self { origin, proxy }
    }

    fn h1() -> Self {
        let origin = origin::h1().start();
        let proxy = proxy::with(&format!("upstream: http1://{origin}"));
        Self { origin, proxy }
    }

    /// What the service saw of a request for `/head`.
    async fn ask(&self, request: &str) -> Seen {
        let mut client = client::raw(self.proxy.address()).await;
        client.send(request).await;
        let response = client.expect_response().await;
        assert_eq!(response.status(), 200, "{request}: {response:?}");
        Seen(response.json())
    }
}

/// A head as the service saw it.
#[derive(Debug)]
pub struct Seen(pub serde_json::Value);

impl Seen {
    pub fn text(&self, key: &str) -> &str {
        self.0[key].as_str().unwrap_or_else(|| panic!("no {key}: {self:?}"))
    }

    pub fn method(&self) -> &str {
        self.text("method")
    }

    pub fn target(&self) -> &str {
        self.text("target")
    }

    pub fn authority(&self) -> &str {
        self.text("authority")
    }

    pub fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        let fields = self.0["headers"].as_array().expect("a list of fields");
        fields.iter().map(|field| (field[0].as_str().unwrap(), field[1].as_str().unwrap()))
    }

    /// The names of all fields, sorted, each once.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.all().map(|(name, _)| name).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    pub fn fields<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.all().filter(move |(known, _)| *known == name).map(|(_, value)| value)
    }

    /// The only value of a field.
    pub fn field(&self, name: &str) -> &str {
        let values: Vec<_> = self.fields(name).collect();
        assert_eq!(values.len(), 1, "{name}: {self:?}");
        values[0]
    }

    pub fn has(&self, name: &str) -> bool {
        self.fields(name).next().is_some()
    }
}
