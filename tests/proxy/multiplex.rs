//! Many clients on few connections: nothing lost, nothing mixed up, no connection too many, nobody left out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::Request;

use crate::harness::load::{self, Load, judge};
use crate::harness::origin::Origin;
use crate::harness::proxy::Proxy;
use crate::harness::{client, origin, proxy};

#[tokio::test]
async fn tagged_requests_over_two_connections_are_neither_lost_nor_doubled_nor_mixed_up() {
    check_tagged_load(Load { connections: 128, requests: 20_000, ..Load::default() }).await;
}

#[tokio::test]
#[ignore = "minutes of load in debug: `make test` runs it in release mode"]
async fn a_million_tagged_requests_over_two_connections_are_neither_lost_nor_doubled_nor_mixed_up() {
    check_tagged_load(Load { connections: 256, requests: 1_000_000, body_bytes: 0..=2048, ..Load::default() }).await;
}

async fn check_tagged_load(load: Load) {
    let requests = load.requests;
    let origin = origin::h2().compact_log().start();
    let proxy = pooled(&origin, 2, "max_connections: 2, pending_timeout: 20s");
    let client = load::start(proxy.address(), load).finish().await;
    eprintln!("{:.0} requests/s", requests as f64 / client.took.as_secs_f64());
    let log = origin.log();
    let verdict = judge(&client, [&*log]);
    verdict.assert_clean();
    assert_eq!((verdict.answered as u64, log.connections.len() <= 2), (requests, true), "{verdict:?}");
}

#[tokio::test]
async fn a_thousand_clients_share_four_connections() {
    let origin = origin::h2().compact_log().start();
    let proxy = pooled(&origin, 2, "max_connections: 4, pending_timeout: 20s");
    let load = Load { connections: 1000, requests: 5000, body_bytes: 0..=512, ..Load::default() };
    let client = load::start(proxy.address(), load).finish().await;
    judge(&client, [&*origin.log()]).assert_clean();
    let log = origin.log();
    assert!(log.connections_open_max <= 4, "{} connections", log.connections_open_max);
}

#[tokio::test]
async fn the_cap_holds_and_nothing_is_lost_with_any_number_of_workers() {
    for workers in [1, 2, 3] {
        for max_connections in [1, 2, 4] {
            let origin = origin::h2().compact_log().start();
            let pool = format!("max_connections: {max_connections}, pending_timeout: 20s");
            let proxy = pooled(&origin, workers, &pool);
            let load = Load { connections: 60, requests: 1500, body_bytes: 0..=512, ..Load::default() };
            let client = load::start(proxy.address(), load).finish().await;
            let what = format!("{workers} workers, max_connections {max_connections}");
            let log = origin.log();
            assert!(log.connections_open_max <= max_connections, "{what}: {} open", log.connections_open_max);
            let verdict = judge(&client, [&*log]);
            assert!(verdict.is_clean(), "{what}: {verdict:?}");
        }
    }
}

#[tokio::test]
async fn a_worker_without_a_connection_of_its_own_gets_its_share_of_the_places() {
    let origin = origin::h2().compact_log().start();
    let proxy = pooled(&origin, 3, "max_connections: 1, max_streams_per_connection: 6, pending_timeout: 20s");
    // Ten times more clients than places: a place that becomes free is wanted by every worker at every moment.
    let load = Load {
        connections: 60,
        requests: 3000,
        delayed_percent: 100,
        delay_ms: 1..=3,
        body_bytes: 0..=256,
        ..Load::default()
    };
    let client = load::start(proxy.address(), load).finish().await;
    judge(&client, [&*origin.log()]).assert_clean();
    let counts = proxy.counts();
    let least = counts.upstream_requests.iter().min().copied().unwrap_or(0);
    // An equal share would be 1000.
    assert!(least >= 500, "{:?} requests by worker", counts.upstream_requests);
    assert_eq!(origin.log().connections_open_max, 1);
}

#[tokio::test]
async fn requests_of_different_clients_run_on_one_connection_at_the_same_time() {
    let origin = origin::h2().start();
    let proxy = pooled(&origin, 2, "max_connections: 1");
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = client::h1(proxy.address()).await;
        client.start(&Request::get("/hang").body(()).unwrap(), false).await.unwrap();
        clients.push(client);
    }
    origin.wait_for(|log| log.connections.first().is_some_and(|connection| connection.streams_open == 20)).await;
}

#[tokio::test]
async fn an_http1_upstream_gets_one_request_at_a_time_on_no_more_than_the_cap() {
    for workers in [1, 2, 3] {
        let origin = origin::h1().compact_log().start();
        let proxy = proxy::with(&format!(
            "runtime: {{ workers: {workers} }}\nupstreams: {{ up: {{ endpoints: [\"http1://{origin}\"], \
             pool: {{ max_connections: 2, pending_timeout: 20s }} }} }}"
        ));
        let load = Load { connections: 24, requests: 1200, body_bytes: 0..=512, ..Load::default() };
        let client = load::start(proxy.address(), load).finish().await;
        let log = origin.log();
        let verdict = judge(&client, [&*log]);
        assert!(verdict.is_clean(), "{workers} workers: {verdict:?}");
        assert!(log.connections_open_max <= 2, "{workers} workers: {} connections", log.connections_open_max);
        assert!(log.connections.iter().all(|connection| connection.streams_open_max <= 1));
    }
}

#[tokio::test]
async fn round_robin_spreads_requests_by_weight() {
    let (heavy, light) = (origin::h2().start(), origin::h2().start());
    let proxy = balanced("round_robin", &format!("{{ url: \"h2c://{heavy}\", weight: 3 }}, \"h2c://{light}\""));
    let mut client = client::h1(proxy.address()).await;
    for _ in 0..40 {
        assert_eq!(client.get("/status/200").await.status(), 200);
    }
    assert_eq!((heavy.log().requests.len(), light.log().requests.len()), (30, 10));
}

#[tokio::test]
async fn least_requests_avoids_the_endpoint_that_is_busy() {
    let origins = [origin::h2().start(), origin::h2().start()];
    let proxy = balanced("least_requests", &format!("\"h2c://{}\", \"h2c://{}\"", origins[0], origins[1]));
    let mut busy = client::h1(proxy.address()).await;
    busy.start(&Request::get("/hang").body(()).unwrap(), false).await.unwrap();
    proxy.wait_for(|counts| counts.streams == 1).await;
    let mut client = client::h1(proxy.address()).await;
    for _ in 0..10 {
        assert_eq!(client.get("/status/200").await.status(), 200);
    }
    let mut requests = origins.map(|origin| origin.log().requests.len());
    requests.sort_unstable();
    assert_eq!(requests, [1, 10]);
}

#[tokio::test]
async fn least_requests_keeps_requests_in_flight_in_proportion_to_the_weights() {
    let (heavy, light) = (origin::h2().start(), origin::h2().start());
    let proxy = balanced("least_requests", &format!("{{ url: \"h2c://{heavy}\", weight: 3 }}, \"h2c://{light}\""));
    let mut clients = Vec::new();
    for streams in 1..=40 {
        let mut client = client::h1(proxy.address()).await;
        client.start(&Request::get("/hang").body(()).unwrap(), false).await.unwrap();
        clients.push(client);
        proxy.wait_for(|counts| counts.streams == streams).await;
    }
    heavy.wait_for(|log| log.streams_open() == 30).await;
    light.wait_for(|log| log.streams_open() == 10).await;
}

#[tokio::test]
async fn while_one_endpoint_refuses_connections_the_other_serves_every_request() {
    let (alive, dead) = (origin::h2().start(), origin::ReservedAddress::new());
    let proxy = balanced("round_robin", &format!("\"h2c://{}\", \"h2c://{alive}\"", dead.address()));
    let load = Load { connections: 16, requests: 1000, body_bytes: 0..=64, ..Load::default() };
    let client = load::start(proxy.address(), load).finish().await;
    let verdict = judge(&client, [&*alive.log()]);
    verdict.assert_clean();
    assert_eq!(verdict.answered, 1000);
}

#[tokio::test]
async fn every_client_of_an_overloaded_pool_is_served_in_its_turn() {
    let origin = origin::h2().compact_log().start();
    let proxy = pooled(&origin, 3, "max_connections: 2, max_streams_per_connection: 2, pending_timeout: 20s");
    let total = Arc::new(AtomicU64::new(0));
    let address = proxy.address();
    let clients = (0..30).map(|_| {
        let total = total.clone();
        tokio::spawn(async move {
            let mut client = client::h1(address).await;
            let mut own = 0_u64;
            while total.fetch_add(1, Ordering::Relaxed) < 1500 {
                assert_eq!(client.get("/delay/1").await.status(), 200);
                own += 1;
            }
            own
        })
    });
    let mut least = u64::MAX;
    for client in clients.collect::<Vec<_>>() {
        least = least.min(client.await.unwrap());
    }
    // An equal share would be 50.
    assert!(least >= 15, "a client was served {least} times of 50");
}

/// A proxy with so many workers before one HTTP/2 endpoint with this pool.
fn pooled(origin: &Origin, workers: usize, pool: &str) -> Proxy {
    proxy::with(&format!(
        "runtime: {{ workers: {workers} }}\n\
         upstreams: {{ up: {{ endpoints: [\"h2c://{origin}\"], pool: {{ {pool} }} }} }}"
    ))
}

/// A proxy with one worker, so that the picks are in one order.
fn balanced(policy: &str, endpoints: &str) -> Proxy {
    proxy::with(&format!(
        "runtime: {{ workers: 1 }}\nupstreams: {{ up: {{ endpoints: [{endpoints}], balance: {policy} }} }}"
    ))
}
