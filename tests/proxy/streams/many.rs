//! Hundreds of event streams at once: each event comes, in order, and how much later than without the proxy is told.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Request;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::harness::origin::Builder;
use crate::harness::origin::exchange::Exchange;
use crate::harness::{client, origin, proxy};

#[tokio::test]
async fn a_hundred_event_streams_lose_nothing_and_share_a_connection() {
    check(100, 20).await;
}

#[tokio::test]
#[ignore = "long in debug: `make test` runs it in release mode"]
async fn five_hundred_event_streams_lose_nothing_and_share_five_connections() {
    check(500, 100).await;
}

async fn check(streams: usize, events: usize) {
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let start = Instant::now();
    let direct = {
        let gate = Arc::new(Semaphore::new(0));
        let origin = telling(origin::h1(), start, events, &gate).start();
        listen(origin.address(), start, streams, events, &gate).await
    };
    let gate = Arc::new(Semaphore::new(0));
    let origin = telling(origin::h2(), start, events, &gate).start();
    let connections = streams / 100;
    let proxy = proxy::on_one_worker(&format!(
        "listeners: [{{ address: 127.0.0.1:0 }}]\nroutes: [{{ upstream: a, heartbeat: 15s }}]\n\
         upstreams: {{ a: {{ endpoints: [\"h2c://{origin}\"], pool: {{ max_connections: {connections} }} }} }}"
    ));
    let proxied = listen(proxy.address(), start, streams, events, &gate).await;
    eprintln!("{streams} event streams: direct {direct}, through the proxy {proxied}");
    let log = origin.log();
    assert!(log.connections.len() <= connections, "{} connections", log.connections.len());
    assert_eq!(log.requests.len(), streams);
    assert!(proxy.faults().is_empty(), "{:?}", proxy.faults());
}

/// Tells the time `events` times on each stream, once all are there.
fn telling(origin: Builder, start: Instant, events: usize, gate: &Arc<Semaphore>) -> Builder {
    let gate = gate.clone();
    origin.handler(move |mut exchange: Exchange| {
        let gate = gate.clone();
        async move {
            exchange.start(exchange.response(200).header("content-type", "text/event-stream"))?;
            let _opened = exchange.until(gate.acquire_owned()).await?;
            for event in 0..events {
                exchange.pause(EVERY).await?;
                exchange.send(format!("id: {event}\ndata: {}\n\n", start.elapsed().as_micros())).await?;
            }
            exchange.finish("").await
        }
    })
}

/// Reads all streams to their ends; panics if an event is missing or out of order.
async fn listen(address: SocketAddr, start: Instant, streams: usize, events: usize, gate: &Semaphore) -> Delays {
    let mut listeners = JoinSet::new();
    for _ in 0..streams {
        let mut client = client::h1(address).await;
        client.start(&Request::get("/").body(()).unwrap(), false).await.unwrap();
        // The head comes before there is anything to tell.
        assert_eq!(client.head().await.unwrap().status(), Ok(200));
        listeners.spawn(async move {
            let (mut text, mut delays) = (String::new(), Vec::new());
            while let Some(part) = client.part().await.unwrap() {
                text.push_str(str::from_utf8(&part).unwrap());
                while let Some((event, rest)) = text.split_once("\n\n") {
                    let now = start.elapsed().as_micros();
                    let told = event.strip_prefix(&format!("id: {}\ndata: ", delays.len())).expect(event);
                    delays.push(now - told.parse::<u128>().unwrap());
                    text = rest.to_owned();
                }
            }
            assert_eq!((text.as_str(), delays.len()), ("", events));
            delays
        });
    }
    gate.add_permits(streams);
    let mut delays = listeners.join_all().await.concat();
    delays.sort_unstable();
    assert_eq!(delays.len(), streams * events);
    Delays { median_us: delays[delays.len() / 2], p99_us: delays[delays.len() * 99 / 100] }
}

/// From the service's hand to the client's.
struct Delays {
    median_us: u128,
    p99_us: u128,
}

impl std::fmt::Display for Delays {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} us (p99 {} us)", self.median_us, self.p99_us)
    }
}

const EVERY: Duration = Duration::from_millis(50);
