//! Held polls: none is cut, and each costs a little memory and nothing else.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use tempfile::TempDir;
use tokio::sync::Semaphore;

use crate::harness::binary::Binary;
use crate::harness::client::Client;
use crate::harness::client::h2::Stream;
use crate::harness::origin::Origin;
use crate::harness::origin::exchange::Exchange;
use crate::harness::tls::Identity;
use crate::harness::{client, origin, process};

#[tokio::test]
async fn a_thousand_held_polls_are_not_cut_by_idle_timeouts() {
    check(Kind::Http1, Duration::from_secs(3)).await;
}

#[tokio::test]
async fn a_thousand_held_polls_of_http2_clients_are_not_cut_by_idle_timeouts() {
    check(Kind::Http2, Duration::from_secs(3)).await;
    check(Kind::Http2Tls, Duration::from_secs(3)).await;
}

#[tokio::test]
#[ignore = "a minute: `make test` runs it in release mode"]
async fn a_thousand_held_polls_of_each_kind_of_client_are_not_cut_in_a_minute() {
    let minute = Duration::from_mins(1);
    tokio::join!(check(Kind::Http1, minute), check(Kind::Http2Tls, minute));
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Http1,
    Http2,
    Http2Tls,
}

impl Kind {
    /// What a held poll may cost: a quarter more than it does.
    fn bytes_max(self) -> u64 {
        match self {
            Self::Http1 => 21 * 1024,
            Self::Http2 | Self::Http2Tls => 10 * 1024 + 512,
        }
    }
}

/// A client's end of a poll.
enum Poll {
    Http1(Client),
    Http2(Stream),
}

impl Poll {
    async fn answer(&mut self) -> (u16, Bytes) {
        match self {
            Self::Http1(client) => {
                let status = client.head().await.unwrap().status().unwrap();
                (status, client.body().await.unwrap())
            }
            Self::Http2(stream) => {
                let answer = stream.answer().await.unwrap();
                (answer.status(), answer.body)
            }
        }
    }
}

async fn check(kind: Kind, time: Duration) {
    let (proxy, gate, origin) = Held::start().await;
    let before = process::resident_bytes_of(proxy.id());
    let mut polls = proxy.ask(kind).await;
    origin.wait_for(|log| log.requests_in_flight() == POLLS).await;
    let per_poll = process::resident_bytes_of(proxy.id()).saturating_sub(before) / POLLS as u64;
    let (ticks, wakeups) = (process::cpu_ticks_of(proxy.id()), process::wakeups_of(proxy.id()));
    // Not for an effect, but for what must not happen meanwhile.
    tokio::time::sleep(time).await;
    let (ticks, wakeups) = (process::cpu_ticks_of(proxy.id()) - ticks, process::wakeups_of(proxy.id()) - wakeups);
    eprintln!("{kind:?}: {per_poll} bytes per held poll; {ticks} ticks of CPU and {wakeups} wakeups in {time:?}");
    // The pool's sweep, PINGs and the clock of the workers; a look at each poll in each second would be 1000 a second if
    // they came one by one, and two ticks a second if all came at once.
    let seconds = time.as_secs();
    assert!(wakeups < 50 * seconds && ticks < 10 + seconds, "{ticks} ticks, {wakeups} wakeups");
    assert_eq!(origin.log().requests_in_flight(), POLLS);
    gate.add_permits(POLLS);
    for poll in &mut polls {
        assert_eq!(poll.answer().await, (200, "news".into()));
    }
    assert_eq!(origin.log().connections.len(), 1);
    assert!(per_poll < kind.bytes_max(), "{kind:?}: {per_poll} bytes per held poll");
}

/// A proxy of its own process, in front of a service that holds polls until the gate is open.
struct Held {
    binary: Binary,
    address: SocketAddr,
    tls_address: SocketAddr,
    identity: Identity,
    _folder: TempDir,
}

impl Held {
    async fn start() -> (Self, Arc<Semaphore>, Origin) {
        rlimit::increase_nofile_limit(u64::MAX).unwrap();
        let gate = Arc::new(Semaphore::new(0));
        let origin = holding(&gate).max_concurrent_streams(u32::MAX).start();
        let reserved = [origin::ReservedAddress::new(), origin::ReservedAddress::new()];
        let [address, tls_address] = reserved.map(|reserved| reserved.address());
        let (identity, folder) = (Identity::new(), tempfile::tempdir().unwrap());
        let (cert, key) = identity.store(folder.path(), "one");
        let file = folder.path().join("trunkline.yaml");
        // Every timeout that a poll could fall victim to is short, but for that which is meant to let it wait.
        let text = format!(
            "listeners:\n  - {{ name: clear, address: {address}, timeouts: {{ idle: 1s, header: 1s }} }}\n  \
             - {{ name: tls, address: {tls_address}, timeouts: {{ idle: 1s, header: 1s }}, \
             tls: {{ certificates: [{{ cert: {}, key: {} }}] }} }}\n\
             routes: [{{ upstream: a, timeouts: {{ response_header: none, stream_idle: 1s }} }}]\n\
             upstreams: {{ a: {{ endpoints: [\"h2c://{origin}\"], \
             pool: {{ max_connections: 1, max_streams_per_connection: 2000, idle_timeout: 1s, pending_timeout: 5s }} }} }}\n\
             logs: {{ access: {{ only: none }} }}\n",
            cert.display(),
            key.display()
        );
        std::fs::write(&file, text).unwrap();
        let binary = Binary::start(&["run", "-c", file.to_str().unwrap()], address).await;
        let mut warm = client::h1(address).await;
        assert_eq!(warm.get("/answered").await.status(), 200);
        (Self { binary, address, tls_address, identity, _folder: folder }, gate, origin)
    }

    /// Sends all polls.
    async fn ask(&self, kind: Kind) -> Vec<Poll> {
        let mut polls = Vec::new();
        while polls.len() < POLLS {
            let client = match kind {
                Kind::Http1 => {
                    let mut client = client::h1(self.address).await;
                    let request = Request::get("/held").header("accept", "application/json").body(()).unwrap();
                    client.start(&request, false).await.unwrap();
                    polls.push(Poll::Http1(client));
                    continue;
                }
                Kind::Http2 => client::h2(self.address).await,
                Kind::Http2Tls => client::h2_tls(self.tls_address, &self.identity.connector(&["h2"])).await,
            };
            for _ in 0..PER_CONNECTION {
                let request = client.request("/held").body(()).unwrap();
                polls.push(Poll::Http2(client.open(request, true).await.unwrap()));
            }
        }
        polls
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
const PER_CONNECTION: usize = 100;
