//! Held polls: none is cut, and each costs a little memory and nothing else.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use tokio::sync::Semaphore;

use crate::harness::binary::Binary;
use crate::harness::origin::Origin;
use crate::harness::origin::exchange::Exchange;
use crate::harness::{client, origin, process};

#[tokio::test]
async fn a_thousand_held_polls_are_not_cut_by_idle_timeouts() {
    check(Duration::from_secs(3)).await;
}

#[tokio::test]
#[ignore = "a minute: `make test` runs it in release mode"]
async fn a_thousand_held_polls_are_not_cut_in_a_minute() {
    check(Duration::from_mins(1)).await;
}

#[tokio::test]
async fn held_polls_of_http2_clients_cost_less() {
    let (proxy, gate, origin) = Held::start().await;
    let before = process::resident_bytes_of(proxy.id());
    let mut streams = Vec::new();
    for _ in 0..POLLS / 100 {
        let client = client::h2(proxy.address).await;
        for _ in 0..100 {
            streams.push(client.open(client.request("/held").body(()).unwrap(), true).await.unwrap());
        }
    }
    origin.wait_for(|log| log.requests_in_flight() == POLLS).await;
    let per_poll = process::resident_bytes_of(proxy.id()).saturating_sub(before) / POLLS as u64;
    eprintln!("{per_poll} bytes per held poll of an HTTP/2 client");
    gate.add_permits(POLLS);
    for stream in &mut streams {
        assert_eq!(stream.answer().await.unwrap().text(), "news");
    }
    assert!(per_poll < 12 * 1024, "{per_poll} bytes per held poll");
}

async fn check(time: Duration) {
    let (proxy, gate, origin) = Held::start().await;
    let before = process::resident_bytes_of(proxy.id());
    let mut clients = Vec::new();
    for _ in 0..POLLS {
        let mut client = client::h1(proxy.address).await;
        client
            .start(&Request::get("/held").header("accept", "application/json").body(()).unwrap(), false)
            .await
            .unwrap();
        clients.push(client);
    }
    origin.wait_for(|log| log.requests_in_flight() == POLLS).await;
    let per_poll = process::resident_bytes_of(proxy.id()).saturating_sub(before) / POLLS as u64;
    let (ticks, wakeups) = (process::cpu_ticks_of(proxy.id()), process::wakeups_of(proxy.id()));
    // Not for an effect, but for what must not happen meanwhile.
    tokio::time::sleep(time).await;
    let (ticks, wakeups) = (process::cpu_ticks_of(proxy.id()) - ticks, process::wakeups_of(proxy.id()) - wakeups);
    eprintln!("{per_poll} bytes per held poll; {ticks} ticks of CPU and {wakeups} wakeups in {time:?}");
    // The pool's sweep, PINGs and the clock of the workers; a look at each poll in each second would be 1000 a second if
    // they came one by one, and two ticks a second if all came at once.
    let seconds = time.as_secs();
    assert!(wakeups < 50 * seconds && ticks < 10 + seconds, "{ticks} ticks, {wakeups} wakeups");
    assert_eq!(origin.log().requests_in_flight(), POLLS);
    gate.add_permits(POLLS);
    for client in &mut clients {
        assert_eq!(client.head().await.unwrap().status(), Ok(200));
        assert_eq!(client.body().await.unwrap(), "news");
    }
    assert_eq!(origin.log().connections.len(), 1);
    assert!(per_poll < 32 * 1024, "{per_poll} bytes per held poll");
}

/// A proxy of its own process, in front of a service that holds polls until the gate is open.
struct Held {
    binary: Binary,
    address: SocketAddr,
}

impl Held {
    async fn start() -> (Self, Arc<Semaphore>, Origin) {
        rlimit::increase_nofile_limit(u64::MAX).unwrap();
        let gate = Arc::new(Semaphore::new(0));
        let origin = holding(&gate).max_concurrent_streams(u32::MAX).start();
        let address = origin::ReservedAddress::new().address();
        let file = tempfile::NamedTempFile::with_suffix(".yaml").unwrap();
        // Every timeout that a poll could fall victim to is short, but for that which is meant to let it wait.
        let text = format!(
            "listeners: [{{ address: {address}, timeouts: {{ idle: 1s, header: 1s }} }}]\n\
             routes: [{{ upstream: a, timeouts: {{ response_header: none, stream_idle: 1s }} }}]\n\
             upstreams: {{ a: {{ endpoints: [\"h2c://{origin}\"], \
             pool: {{ max_connections: 1, max_streams_per_connection: 2000, idle_timeout: 1s, pending_timeout: 5s }} }} }}\n\
             logs: {{ access: {{ only: none }} }}\n"
        );
        std::fs::write(file.path(), text).unwrap();
        let binary = Binary::start(&["run", "-c", file.path().to_str().unwrap()], address).await;
        let mut warm = client::h1(address).await;
        assert_eq!(warm.get("/answered").await.status(), 200);
        (Self { binary, address }, gate, origin)
    }

    fn id(&self) -> u32 {
        self.binary.id()
    }
}

fn holding(gate: &Arc<Semaphore>) -> origin::Builder {
    let gate = gate.clone();
    origin::h2().handler(move |mut exchange: Exchange| {
        let gate = gate.clone();
        async move {
            if exchange.path() == "/held" {
                exchange.until(gate.acquire()).await?.expect("an open gate").forget();
            }
            exchange.answer(exchange.response(200), "news").await
        }
    })
}

const POLLS: usize = 1000;
