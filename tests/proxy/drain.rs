//! The end of the proxy: what runs finishes, what is idle goes, and nobody holds it up beyond the timeout.

use std::sync::Arc;

use http::Request;
use trunkline::control::{Ending, Stage};

use crate::harness::load::{self, Load, Outcome, judge};
use crate::harness::origin::exchange::Exchange;
use crate::harness::proxy::Proxy;
use crate::harness::watched::within;
use crate::harness::wire::Broken;
use crate::harness::{client, origin, proxy};

#[tokio::test]
async fn drain_under_load_answers_every_request_that_has_reached_the_proxy() {
    let origin = origin::h2().compact_log().start();
    let mut proxy = proxy::with(&format!("upstream: h2c://{origin}\nshutdown: {{ timeout: 9s }}"));
    let load = load::start(proxy.address(), Load { connections: 64, requests: u64::MAX, ..Load::default() });
    load.wait_for(|progress| progress.finished > 1000).await;
    let ending = proxy.stop().await;
    load.stop();
    let client = load.finish().await;
    assert_eq!(ending, Ending { cut_connections: 0 });
    // Whoever comes back meets nobody: refused, or reset in the backlog of a socket that was closed meanwhile.
    let is_refused = |outcome| matches!(outcome, Outcome::Answered | Outcome::NotConnected | Outcome::Reset);
    let cut: Vec<_> = client.records.iter().filter(|record| !is_refused(record.outcome)).collect();
    assert!(cut.is_empty(), "{cut:?}");
    let verdict = judge(&client, [&*origin.log()]);
    let lost: Vec<_> = verdict.lost.iter().filter(|lost| lost.processed > 0).collect();
    assert!(lost.is_empty() && verdict.failed == 0, "{lost:?} {verdict:?}");
    assert!(verdict.doubled.is_empty() && verdict.wrong.is_empty() && verdict.invented.is_empty(), "{verdict:?}");
    eprintln!("{:?}", verdict.outcomes);
}

#[tokio::test]
async fn idle_connections_are_closed_by_a_drain() {
    let origin = origin::h2().start();
    let mut proxy = proxy::with(&format!("upstream: h2c://{origin}\nshutdown: {{ timeout: 1h }}"));
    let mut used = client::h1(proxy.address()).await;
    assert_eq!(used.get("/status/200").await.status(), 200);
    let fresh = client::raw(proxy.address()).await;
    proxy.wait_for(|counts| counts.downstream_connections == 2).await;
    assert_eq!(proxy.stop().await, Ending { cut_connections: 0 });
    for mut client in [used.into_raw(), fresh] {
        client.expect_close().await;
    }
}

#[tokio::test]
async fn a_running_stream_finishes_during_a_drain() {
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let origin = {
        let gate = gate.clone();
        origin::h2().handler(move |exchange| two_parts(exchange, gate.clone())).start()
    };
    let mut proxy = proxy::with(&format!("upstream: h2c://{origin}\nshutdown: {{ timeout: 1h }}"));
    let mut client = client::h1(proxy.address()).await;
    client.start(&Request::get("/").body(()).unwrap(), false).await.unwrap();
    client.head().await.unwrap();
    assert_eq!(client.part().await.unwrap().unwrap(), "first ");
    proxy.drain();
    // An idle connection that was closed shows that the drain has begun.
    within("end of accepting", async { while tokio::net::TcpStream::connect(proxy.address()).await.is_ok() {} }).await;
    gate.add_permits(1);
    assert_eq!(client.body().await.unwrap(), "second");
    assert_eq!(client.head().await, Err(Broken::Closed));
    assert_eq!(proxy.join().await, Ending { cut_connections: 0 });
}

#[tokio::test]
async fn an_answer_that_begins_during_a_drain_says_connection_close() {
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let origin = {
        let gate = gate.clone();
        let handler = move |mut exchange: Exchange| {
            let gate = gate.clone();
            async move {
                let _opened = exchange.until(gate.acquire_owned()).await?;
                exchange.answer(exchange.response(200), "late").await
            }
        };
        origin::h2().handler(handler).start()
    };
    let mut proxy = proxy::with(&format!("upstream: h2c://{origin}\nshutdown: {{ timeout: 1h }}"));
    let mut client = client::h1(proxy.address()).await;
    client.start(&Request::get("/").body(()).unwrap(), false).await.unwrap();
    origin.wait_for(|log| log.streams_open() == 1).await;
    proxy.drain();
    within("end of accepting", async { while tokio::net::TcpStream::connect(proxy.address()).await.is_ok() {} }).await;
    gate.add_permits(1);
    let head = client.head().await.unwrap();
    assert!(head.is_closing(), "{head:?}");
    assert_eq!(client.body().await.unwrap(), "late");
    assert_eq!(proxy.join().await, Ending { cut_connections: 0 });
}

#[tokio::test]
async fn what_still_runs_at_the_timeout_is_cut_and_counted() {
    let origin = origin::h2().start();
    let mut proxy = hanging(&origin, "100ms");
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = client::h1(proxy.address()).await;
        client.start(&Request::get("/hang").body(()).unwrap(), false).await.unwrap();
        clients.push(client);
    }
    origin.wait_for(|log| log.streams_open() == 3).await;
    assert_eq!(proxy.stop().await, Ending { cut_connections: 3 });
    for client in clients {
        client.into_raw().expect_close().await;
    }
}

#[tokio::test]
async fn a_second_request_to_drain_ends_the_proxy_at_once() {
    let origin = origin::h2().start();
    let mut proxy = hanging(&origin, "1h");
    let mut client = client::h1(proxy.address()).await;
    client.start(&Request::get("/hang").body(()).unwrap(), false).await.unwrap();
    origin.wait_for(|log| log.streams_open() == 1).await;
    proxy.drain();
    assert_eq!(proxy.stop().await, Ending { cut_connections: 1 });
}

#[tokio::test]
async fn a_client_that_never_reads_and_one_that_never_ends_its_head_do_not_hold_the_end_up() {
    let origin = origin::h2().start();
    let mut proxy = hanging(&origin, "100ms");
    let mut deaf = client::raw(proxy.address()).await;
    deaf.send("GET /bytes/50000000 HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let mut slow = client::raw(proxy.address()).await;
    slow.send("GET / HTTP/1.1\r\nhost:").await;
    origin.wait_for(|log| log.requests.len() == 1).await;
    proxy.wait_for(|counts| counts.downstream_connections == 2).await;
    // The harness bounds this.
    let ending = proxy.stop().await;
    assert!(ending.cut_connections >= 1, "{ending:?}");
    drop((deaf, slow));
}

#[tokio::test]
async fn during_the_delay_new_clients_are_served() {
    let origin = origin::h2().start();
    let mut proxy = proxy::with(&format!("upstream: h2c://{origin}\nshutdown: {{ delay: 700ms, timeout: 5s }}"));
    proxy.drain();
    within("drain", async {
        while proxy.control().stage() != Stage::Draining {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut client = client::h1(proxy.address()).await;
    let response = client.get("/status/200").await;
    assert_eq!((response.status(), response.head.is_closing()), (200, false));
    // A second request to drain would end the delay: the end must come by itself.
    client.into_raw().expect_close().await;
    assert_eq!(proxy.join().await, Ending { cut_connections: 0 });
}

fn hanging(origin: &origin::Origin, timeout: &str) -> Proxy {
    proxy::with(&format!("upstream: h2c://{origin}\nshutdown: {{ timeout: {timeout} }}"))
}

async fn two_parts(mut exchange: Exchange, gate: Arc<tokio::sync::Semaphore>) -> Result<(), origin::log::Ending> {
    exchange.start(exchange.response(200))?;
    exchange.send("first ").await?;
    let _opened = exchange.until(gate.acquire_owned()).await?;
    exchange.finish("second").await
}
