//! Idle clients: what a parked connection still does, what is never parked, and what ten thousand of them cost.
//!
//! A connection is parked about a second after its last answer, and the gauge says so. Where a connection is not to be
//! parked, nothing says so: another one that became idle later, and is parked, shows that the moment has passed.

use std::time::Duration;

use http::Request;
use trunkline::control::Ending;

use crate::harness::binary::Binary;
use crate::harness::client::{Client, RawClient};
use crate::harness::proxy::Proxy;
use crate::harness::watched::BOUND;
use crate::harness::{client, origin, process, proxy};

#[tokio::test]
async fn a_parked_client_is_answered_and_parked_again() {
    let (origin, proxy) = serving("");
    let mut client = parked(&proxy).await;
    for _ in 0..2 {
        assert_eq!(client.get("/bytes/100").await.status(), 200);
        assert_eq!(client.post("/upload", "body").await.text(), "4");
        proxy.wait_for(|counts| counts.downstream_parked == 0).await;
        proxy.wait_for(|counts| counts.downstream_parked == 1).await;
    }
    assert_eq!(origin.log().requests.len(), 5);
    assert!(proxy.faults().is_empty(), "{:?}", proxy.faults());
}

#[tokio::test]
async fn a_client_that_has_sent_nothing_is_parked_until_it_does() {
    let (_origin, proxy) = serving("");
    let mut client = client::raw(proxy.address()).await;
    proxy.wait_for(|counts| counts.downstream_parked == 1).await;
    client.send("GET /bytes/1 HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(client.expect_response().await.status(), 200);
    assert_eq!(proxy.counts().downstream_parked, 0);
}

#[tokio::test]
async fn a_head_that_comes_in_parts_to_a_parked_connection_is_one_head() {
    let (_origin, proxy) = serving("");
    let mut client = parked(&proxy).await.into_raw();
    client.send("GET /bytes/3 HT").await;
    proxy.wait_for(|counts| counts.downstream_parked == 0).await;
    client.send("TP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(client.expect_response().await.body.len(), 3);
}

#[tokio::test]
async fn a_part_of_a_head_on_a_parked_connection_is_answered_408() {
    let (_origin, proxy) = serving("timeouts: { header: 150ms }");
    let mut client = parked(&proxy).await.into_raw();
    client.send("GET ").await;
    assert_eq!(client.expect_response().await.status(), 408);
    client.expect_close().await;
    proxy.expect_fault("head_timeout").await;
}

#[tokio::test]
async fn the_idle_time_of_a_parked_connection_began_with_its_last_answer() {
    let (_origin, proxy) = serving("timeouts: { idle: 1200ms }");
    let mut first = client::h1(proxy.address()).await;
    first.get("/bytes/1").await;
    let mut second = client::raw(proxy.address()).await;
    second.send("GET /delay/100 HTTP/1.1\r\nhost: a\r\n\r\nGET /a-part-of-a-head-is-not-parked").await;
    assert_eq!(second.expect_response().await.text(), "slow");
    proxy.wait_for(|counts| counts.downstream_parked == 1).await;
    second.expect_close().await;
    assert!(first.into_raw().has_input(), "the one that became idle first is closed first");
    proxy.wait_for(|counts| (counts.downstream_connections, counts.downstream_parked) == (0, 0)).await;
    assert!(proxy.faults().is_empty(), "{:?}", proxy.faults());
}

#[tokio::test]
async fn whoever_leaves_while_parked_frees_a_place_and_is_no_fault() {
    let (_origin, proxy) = serving("max_connections: 1");
    for is_orderly in [true, false] {
        let client = parked(&proxy).await;
        if is_orderly { drop(client) } else { client.abort() }
    }
    assert_eq!(client::h1(proxy.address()).await.get("/status/200").await.status(), 200);
    proxy.wait_for(|counts| (counts.downstream_connections, counts.downstream_parked) == (0, 0)).await;
    assert!(proxy.faults().is_empty(), "{:?}", proxy.faults());
}

#[tokio::test]
async fn a_drain_closes_parked_connections_and_answers_what_was_on_its_way() {
    let (_origin, mut proxy) = serving("");
    let (silent, mut asking) = (parked(&proxy).await.into_raw(), client::h1(proxy.address()).await);
    assert_eq!(asking.get("/status/200").await.status(), 200);
    proxy.wait_for(|counts| counts.downstream_parked == 2).await;
    proxy.drain();
    assert_eq!(asking.get("/status/200").await.status(), 200);
    assert_closed([silent, asking.into_raw()]).await;
    assert_eq!(proxy.join().await, Ending { cut_connections: 0 });
}

#[tokio::test]
async fn a_listener_that_is_gone_closes_its_parked_connections() {
    let origin = origin::h2().start();
    let upstreams = format!("upstreams: {{ up: {{ endpoints: [\"h2c://{origin}\"] }} }}");
    let listeners = |names: &[&str]| {
        let each = names.iter().map(|name| format!("{{ name: {name}, address: 127.0.0.1:0 }}"));
        format!("listeners: [{}]\n{upstreams}", each.collect::<Vec<_>>().join(", "))
    };
    let proxy = proxy::with(&listeners(&["one", "two"]));
    let mut staying = client::h1(proxy.address_of("two")).await;
    staying.get("/status/200").await;
    let mut leaving = client::h1(proxy.address()).await;
    leaving.get("/status/200").await;
    proxy.wait_for(|counts| counts.downstream_parked == 2).await;
    proxy.reload(&listeners(&["two"])).await.unwrap();
    assert_closed([leaving.into_raw()]).await;
    assert_eq!(staying.get("/status/200").await.status(), 200);
}

#[tokio::test]
async fn a_part_of_a_head_behind_a_request_is_kept() {
    let (origin, proxy) = serving("");
    let mut client = client::raw(proxy.address()).await;
    client.send("GET /bytes/1 HTTP/1.1\r\nhost: a\r\n\r\nGET /bytes/2 HT").await;
    assert_eq!(client.expect_response().await.body.len(), 1);
    let _later = parked(&proxy).await;
    client.send("TP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(client.expect_response().await.body.len(), 2);
    assert_eq!(origin.log().requests.len(), 3);
}

#[tokio::test]
async fn pipelined_requests_are_all_answered_and_then_the_connection_is_parked() {
    let (_origin, proxy) = serving("");
    let mut client = client::raw(proxy.address()).await;
    client.send("GET /bytes/7 HTTP/1.1\r\nhost: a\r\n\r\n".repeat(40)).await;
    for _ in 0..40 {
        assert_eq!(client.expect_response().await.body.len(), 7);
    }
    proxy.wait_for(|counts| counts.downstream_parked == 1).await;
}

#[tokio::test]
async fn a_client_that_reads_late_gets_the_whole_answer() {
    let (_origin, proxy) = serving("");
    let mut client = client::h1(proxy.address()).await;
    client.start(&Request::get("/bytes/20000000").body(()).unwrap(), false).await.unwrap();
    assert_eq!(client.head().await.unwrap().status(), Ok(200));
    let _later = parked(&proxy).await;
    assert_eq!(client.body().await.unwrap().len(), 20_000_000);
}

/// Between requests hyper ends when it is asked to, and a connection that it has ended is parked. These two must not be
/// taken for that: in the first one the body goes on, and the second one has been answered for good.
#[tokio::test]
async fn the_rest_of_a_body_behind_an_early_answer_is_never_a_request() {
    for connection in ["", "connection: close\r\n"] {
        let (service, other) = (origin::raw_h1().await, origin::h2().start());
        let proxy = proxy::on_one_worker(&format!(
            "routes: [{{ match: {{ path_prefix: /early }}, upstream: a }}, {{ upstream: b }}]\n\
             upstreams: {{ a: {{ endpoints: [\"http1://{service}\"] }}, b: {{ endpoints: [\"h2c://{other}\"] }} }}"
        ));
        let mut exchange = service.accept().await;
        let mut client = client::raw(proxy.address()).await;
        let head = format!("POST /early HTTP/1.1\r\nhost: a\r\n{connection}content-length: 60\r\n\r\n");
        client.send(format!("{head}part")).await;
        exchange.expect_head().await;
        exchange.send("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nearly").await;
        assert_eq!(client.expect_response_to("POST").await.text(), "early");
        let _later = parked(&proxy).await;
        client.send("GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert_eq!(client::h1(proxy.address()).await.get("/asked").await.status(), 200);
        let log = other.log();
        let targets: Vec<_> = log.requests.iter().map(|request| &*request.target).collect();
        assert_eq!(targets, ["/status/200", "/asked"], "{connection:?}");
    }
}

#[tokio::test]
#[ignore = "ten thousand connections: `make test` runs it in release mode"]
async fn ten_thousand_idle_clients_cost_less_than_four_kibibytes_each_and_are_answered() {
    const CLIENTS: u64 = 10_000;
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let origin = origin::h2().compact_log().start();
    let address = origin::ReservedAddress::new().address();
    let arguments = ["proxy", "--listen", &address.to_string(), "--to", &format!("h2c://{origin}")];
    let proxy = Binary::start(&arguments, address).await;
    let mut clients = Vec::new();
    for _ in 0..100 {
        client::h1(address).await.get("/bytes/65").await;
    }
    let before = process::resident_bytes_of(proxy.id());
    for _ in 0..CLIENTS {
        let mut client = client::h1(address).await;
        assert_eq!(client.get("/bytes/65").await.status(), 200);
        clients.push(client);
    }
    // What is parked last is let go a moment later; what it has held goes back to the system after that.
    let mut per_client = u64::MAX;
    let settled = async {
        while per_client >= 4096 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            per_client = process::resident_bytes_of(proxy.id()).saturating_sub(before) / CLIENTS;
        }
    };
    let is_settled = tokio::time::timeout(BOUND, settled).await.is_ok();
    eprintln!("{per_client} bytes per idle client");
    assert!(is_settled, "{per_client} bytes per idle client");
    for client in &mut clients {
        assert_eq!(client.get("/bytes/65").await.status(), 200);
    }
}

/// An origin and a proxy whose one listener has more keys.
fn serving(listener: &str) -> (origin::Origin, Proxy) {
    let origin = origin::h2().start();
    let proxy = proxy::with(&format!(
        "listeners: [{{ address: 127.0.0.1:0, {listener} }}]\n\
         upstreams: {{ up: {{ endpoints: [\"h2c://{origin}\"] }} }}"
    ));
    (origin, proxy)
}

/// A client that has been answered once; its connection, and no other one, is parked.
async fn parked(proxy: &Proxy) -> Client {
    let mut client = client::h1(proxy.address()).await;
    assert_eq!(client.get("/status/200").await.status(), 200);
    proxy.wait_for(|counts| counts.downstream_parked == 1).await;
    client
}

async fn assert_closed(clients: impl IntoIterator<Item = RawClient>) {
    for mut client in clients {
        client.expect_close().await;
    }
}
