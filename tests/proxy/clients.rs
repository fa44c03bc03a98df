//! Every kind of client, every way to talk: HTTP/1.1 and HTTP/2, in the clear and over TLS, through one service connection.

use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use tokio::sync::Semaphore;

use crate::harness::client::{Client, H2Client};
use crate::harness::origin::Origin;
use crate::harness::origin::behaviour::{by_path, pattern};
use crate::harness::origin::exchange::Exchange;
use crate::harness::origin::log::Ending;
use crate::harness::process::{self, Growth};
use crate::harness::proxy::Proxy;
use crate::harness::tls::Identity;
use crate::harness::{client, origin, proxy};

#[derive(Debug, Clone, Copy)]
enum Kind {
    Http1,
    Http1Tls,
    Http2,
    Http2Tls,
}

const KINDS: [Kind; 4] = [Kind::Http1, Kind::Http1Tls, Kind::Http2, Kind::Http2Tls];

#[tokio::test]
async fn each_kind_of_client_has_short_answers_held_ones_and_early_ones() {
    let serving = Serving::start();
    for kind in KINDS {
        let mut client = serving.client(kind).await;
        assert_eq!(client.get("/bytes/3000").await, (200, pattern("", 3000)), "{kind:?}");
        assert_eq!(client.get("/delay/100").await, (200, "slow".into()), "{kind:?}");
        assert_eq!(client.post("/echo", "hello").await, (200, "hello".into()), "{kind:?}");
        assert_eq!(client.get("/status/404").await.0, 404, "{kind:?}");
        assert_eq!(client.post("/early/413", vec![b'x'; 100]).await, (413, "early".into()), "{kind:?}");
    }
    assert_eq!(serving.origin.log().connections.len(), 1);
    assert!(serving.proxy.faults().is_empty(), "{:?}", serving.proxy.faults());
}

#[tokio::test]
async fn each_kind_of_client_has_its_events_one_by_one() {
    let serving = Serving::start();
    for kind in KINDS {
        let mut client = serving.client(kind).await;
        let mut text = String::new();
        let mut events = Vec::new();
        serving.events.add_permits(1);
        client
            .read("/events", |piece| {
                text.push_str(str::from_utf8(&piece).unwrap());
                if text.ends_with("\n\n") {
                    events.push(std::mem::take(&mut text));
                    // The next one is sent only now.
                    serving.events.add_permits(1);
                }
                true
            })
            .await;
        assert_eq!(events, (0..EVENTS).map(|event| format!("data: {event}\n\n")).collect::<Vec<_>>(), "{kind:?}");
        serving.events.forget_permits(1);
    }
}

#[tokio::test]
async fn each_kind_of_client_sends_and_takes_bulk_in_little_memory() {
    check_bulk("clients::each_kind_of_client_sends_and_takes_bulk_in_little_memory", 16 << 20).await;
}

#[tokio::test]
#[ignore = "long in debug: `make test` runs it in release mode"]
async fn each_kind_of_client_sends_and_takes_a_gibibyte_in_little_memory() {
    check_bulk("clients::each_kind_of_client_sends_and_takes_a_gibibyte_in_little_memory", 1 << 30).await;
}

async fn check_bulk(name: &str, length: u64) {
    if !process::is_alone(name) {
        return;
    }
    let serving = Serving::start();
    for kind in KINDS {
        let mut client = serving.client(kind).await;
        // What a kind needs once is not what grows with the length.
        client.get("/bytes/1000000").await;
        let mut growth = Growth::from_here();
        let mut received = 0;
        client
            .read("/flood", |piece| {
                growth.look();
                received += piece.len() as u64;
                received < length
            })
            .await;
        eprint!("{kind:?} down: ");
        growth.assert_below(32 << 20);
        let client = serving.client(kind).await;
        let mut growth = Growth::from_here();
        let (status, taken) = client.upload("/upload", length, || growth.look()).await;
        assert_eq!((status, taken), (200, length.to_string().into()), "{kind:?}");
        eprint!("{kind:?} up: ");
        growth.assert_below(32 << 20);
    }
}

struct Serving {
    origin: Origin,
    /// Each lets one event of `/events` go.
    events: Arc<Semaphore>,
    proxy: Proxy,
    identity: Identity,
}

impl Serving {
    fn start() -> Self {
        let events = Arc::new(Semaphore::new(0));
        let gate = events.clone();
        let origin = origin::h2().handler(move |exchange| answer(exchange, gate.clone()));
        let origin = origin.windows(1 << 18, 1 << 24).start();
        let identity = Identity::new();
        let folder = tempfile::tempdir().unwrap();
        let (cert, key) = identity.store(folder.path(), "one");
        let proxy = proxy::with(&format!(
            "runtime: {{ workers: 1 }}\nlisteners:\n  - {{ name: clear, address: 127.0.0.1:0 }}\n  \
             - {{ name: tls, address: 127.0.0.1:0, tls: {{ certificates: [{{ cert: {}, key: {} }}] }} }}\n\
             upstreams: {{ up: {{ endpoints: [\"h2c://{origin}\"], pool: {{ max_connections: 1 }} }} }}",
            cert.display(),
            key.display()
        ));
        Self { origin, events, proxy, identity }
    }

    async fn client(&self, kind: Kind) -> AnyClient {
        let (clear, tls) = (self.proxy.address_of("clear"), self.proxy.address_of("tls"));
        match kind {
            Kind::Http1 => AnyClient::Http1(client::h1(clear).await),
            Kind::Http1Tls => AnyClient::Http1(client::h1_tls(tls, &self.identity.connector(&["http/1.1"])).await),
            Kind::Http2 => AnyClient::Http2(client::h2(clear).await),
            Kind::Http2Tls => AnyClient::Http2(client::h2_tls(tls, &self.identity.connector(&["h2"])).await),
        }
    }
}

async fn answer(mut exchange: Exchange, events: Arc<Semaphore>) -> Result<(), Ending> {
    match exchange.path() {
        "/events" => {
            exchange.start(exchange.response(200))?;
            for event in 0..EVENTS {
                exchange.until(events.acquire()).await?.expect("an open gate").forget();
                exchange.send(format!("data: {event}\n\n")).await?;
            }
            exchange.finish("").await
        }
        "/flood" => {
            exchange.start(exchange.response(200))?;
            let piece = Bytes::from(vec![b'x'; 64 * 1024]);
            loop {
                exchange.send(piece.clone()).await?;
            }
        }
        _ => by_path(exchange).await,
    }
}

enum AnyClient {
    Http1(Client),
    Http2(H2Client),
}

impl AnyClient {
    async fn get(&mut self, target: &str) -> (u16, Bytes) {
        match self {
            Self::Http1(client) => {
                let answer = client.get(target).await;
                (answer.status(), answer.body)
            }
            Self::Http2(client) => {
                let answer = client.get(target).await;
                (answer.status(), answer.body)
            }
        }
    }

    async fn post(&mut self, target: &str, body: impl Into<Bytes>) -> (u16, Bytes) {
        match self {
            Self::Http1(client) => {
                let answer = client.post(target, body).await;
                (answer.status(), answer.body)
            }
            Self::Http2(client) => {
                let answer = client.post(target, body).await;
                (answer.status(), answer.body)
            }
        }
    }

    /// Reads an answer piece by piece until its end, or until `take` has enough.
    async fn read(&mut self, target: &str, mut take: impl FnMut(Bytes) -> bool) {
        match self {
            Self::Http1(client) => {
                client.start(&Request::get(target).body(()).unwrap(), false).await.unwrap();
                client.head().await.unwrap();
                while let Some(piece) = client.part().await.unwrap()
                    && take(piece)
                {}
            }
            Self::Http2(client) => {
                let mut stream = client.open(client.request(target).body(()).unwrap(), true).await.unwrap();
                stream.head().await.unwrap();
                while let Some(piece) = stream.part().await.unwrap()
                    && take(piece)
                {}
            }
        }
    }

    /// Sends `length` bytes without saying how many, and reads the answer.
    async fn upload(mut self, target: &str, length: u64, mut each: impl FnMut()) -> (u16, Bytes) {
        let piece = Bytes::from(vec![b'x'; 64 * 1024]);
        let pieces = length / piece.len() as u64;
        match &mut self {
            Self::Http1(client) => {
                client.start(&Request::post(target).body(()).unwrap(), true).await.unwrap();
                for _ in 0..pieces {
                    client.send_chunk(&piece).await.unwrap();
                    each();
                }
                client.end_chunks().await.unwrap();
                let status = client.head().await.unwrap().status().unwrap();
                (status, client.body().await.unwrap())
            }
            Self::Http2(client) => {
                let request = client.request(target).method("POST").body(()).unwrap();
                let mut stream = client.open(request, false).await.unwrap();
                for number in 1..=pieces {
                    stream.upload(piece.clone(), number == pieces).await.unwrap();
                    each();
                }
                let answer = stream.answer().await.unwrap();
                (answer.status(), answer.body)
            }
        }
    }
}

const EVENTS: usize = 20;
