//! Hundreds of event streams at once: each event comes, in order, and hardly later than without the proxy.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::harness::client::Client;
use crate::harness::client::h2::Stream;
use crate::harness::origin::Builder;
use crate::harness::origin::exchange::Exchange;
use crate::harness::tls::Identity;
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

/// Prints how late the events were: without the proxy, through it, and through it over TLS and HTTP/2.
async fn check(streams: usize, events: usize) {
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let start = Instant::now();
    let gate = Arc::new(Semaphore::new(0));
    let origin = telling(origin::h1(), start, events, &gate).start();
    let direct = listen(by_http1(origin.address(), streams).await, start, events, &gate).await;

    let gate = Arc::new(Semaphore::new(0));
    let origin = telling(origin::h2(), start, events, &gate).start();
    let connections = streams / PER_CONNECTION;
    let (identity, folder) = (Identity::new(), tempfile::tempdir().unwrap());
    let (cert, key) = identity.store(folder.path(), "one");
    let proxy = proxy::on_one_worker(&format!(
        "listeners:\n  - {{ name: clear, address: 127.0.0.1:0 }}\n  \
         - {{ name: tls, address: 127.0.0.1:0, tls: {{ certificates: [{{ cert: {}, key: {} }}] }} }}\n\
         routes: [{{ upstream: a, heartbeat: 15s }}]\n\
         upstreams: {{ a: {{ endpoints: [\"h2c://{origin}\"], pool: {{ max_connections: {connections} }} }} }}",
        cert.display(),
        key.display()
    ));
    let proxied = listen(by_http1(proxy.address_of("clear"), streams).await, start, events, &gate).await;
    let connector = identity.connector(&["h2"]);
    let open = by_http2(proxy.address_of("tls"), &connector, streams).await;
    let over_http2 = listen(open, start, events, &gate).await;
    eprintln!("{streams} event streams: direct {direct}, through the proxy {proxied}, by HTTP/2 over TLS {over_http2}");
    let log = origin.log();
    assert!(log.connections.len() <= connections, "{} connections", log.connections.len());
    assert_eq!(log.requests.len(), 2 * streams);
    assert!(proxy.faults().is_empty(), "{:?}", proxy.faults());
}

/// Tells the time `events` times on each stream, once all are there, and not on all at the same moment.
fn telling(origin: Builder, start: Instant, events: usize, gate: &Arc<Semaphore>) -> Builder {
    let (gate, opened) = (gate.clone(), Arc::new(AtomicU32::new(0)));
    origin.handler(move |mut exchange: Exchange| {
        let (gate, phase) = (gate.clone(), opened.fetch_add(1, Ordering::Relaxed) % PHASES);
        async move {
            exchange.start(exchange.response(200).header("content-type", "text/event-stream"))?;
            exchange.until(gate.acquire_owned()).await?.expect("an open gate").forget();
            exchange.pause(EVERY * phase / PHASES).await?;
            for event in 0..events {
                exchange.pause(EVERY).await?;
                exchange.send(format!("id: {event}\ndata: {}\n\n", start.elapsed().as_micros())).await?;
            }
            exchange.finish("").await
        }
    })
}

/// A client's end of an event stream whose head has come, before there is anything to tell.
enum Open {
    Http1(Client),
    Http2(Stream),
}

impl Open {
    async fn part(&mut self) -> Option<Bytes> {
        match self {
            Self::Http1(client) => client.part().await.unwrap(),
            Self::Http2(stream) => stream.part().await.unwrap(),
        }
    }
}

async fn by_http1(address: SocketAddr, streams: usize) -> Vec<Open> {
    let mut open = Vec::new();
    for _ in 0..streams {
        let mut client = client::h1(address).await;
        client.start(&Request::get("/").body(()).unwrap(), false).await.unwrap();
        assert_eq!(client.head().await.unwrap().status(), Ok(200));
        open.push(Open::Http1(client));
    }
    open
}

async fn by_http2(address: SocketAddr, connector: &TlsConnector, streams: usize) -> Vec<Open> {
    let mut open = Vec::new();
    for _ in 0..streams / PER_CONNECTION {
        let client = client::h2_tls(address, connector).await;
        for _ in 0..PER_CONNECTION {
            let mut stream = client.open(client.request("/").body(()).unwrap(), true).await.unwrap();
            assert_eq!(stream.head().await.unwrap().status(), 200);
            open.push(Open::Http2(stream));
        }
    }
    open
}

/// Reads all streams to their ends; panics if an event is missing or out of order.
async fn listen(open: Vec<Open>, start: Instant, events: usize, gate: &Semaphore) -> Delays {
    let mut listeners = JoinSet::new();
    let streams = open.len();
    for mut stream in open {
        listeners.spawn(async move {
            let (mut text, mut delays) = (String::new(), Vec::new());
            while let Some(part) = stream.part().await {
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

/// As many streams share a connection, on either side of the proxy.
const PER_CONNECTION: usize = 100;
const PHASES: u32 = 50;
const EVERY: Duration = Duration::from_millis(50);
