//! One thread of the load: some of the connections, each a task that asks, reads and checks in turn.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::time::{sleep_until, timeout};

use super::random::Random;
use super::{ClientLog, Load, Outcome, Progress, Record};
use crate::harness::origin::behaviour::pattern;
use crate::harness::watched::Watched;
use crate::harness::wire::{Broken, Response, Socket, Wire};

pub struct Shared {
    pub load: Load,
    pub address: SocketAddr,
    pub seed: u64,
    /// The number of the next request.
    pub next: AtomicU64,
    pub is_stopped: AtomicBool,
    pub progress: Watched<Progress>,
    pub start: Instant,
}

impl Shared {
    pub fn stop(&self) {
        self.is_stopped.store(true, Ordering::Relaxed);
    }

    fn next(&self) -> Option<u64> {
        if self.is_stopped.load(Ordering::Relaxed) {
            return None;
        }
        Some(self.next.fetch_add(1, Ordering::Relaxed)).filter(|number| *number < self.load.requests)
    }
}

/// Runs every `threads`-th connection to its end.
pub fn run(shared: &Arc<Shared>, thread: usize, threads: usize) -> ClientLog {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let connections = (thread..shared.load.connections).step_by(threads);
        let tasks: Vec<_> = connections.map(|_| tokio::spawn(connection(shared.clone()))).collect();
        let mut log = ClientLog::default();
        for task in tasks {
            let part = task.await.expect("a connection's task does not panic");
            log.records.extend(part.records);
            log.wrong.extend(part.wrong);
        }
        log
    })
}

/// Asks on one connection while it lasts, and on a new one after that.
async fn connection(shared: Arc<Shared>) -> ClientLog {
    let mut log = ClientLog::default();
    let mut wire = None;
    while let Some(number) = shared.next() {
        if let Some(rate) = shared.load.rate {
            sleep_until((shared.start + Duration::from_nanos(number.saturating_mul(1_000_000_000) / rate)).into())
                .await;
        }
        let request = Request::new(&shared, number);
        let began = Instant::now();
        let exchange = exchange(&shared, &mut wire, &request);
        let outcome = match timeout(shared.load.request_timeout, exchange).await {
            Ok(Ok(response)) => {
                if response.head.is_closing() {
                    wire = None;
                }
                request.check(&response, &mut log.wrong)
            }
            Ok(Err(outcome)) => {
                wire = None;
                outcome
            }
            Err(_) => {
                wire = None;
                Outcome::TimedOut
            }
        };
        let latency_us = u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX);
        log.records.push(Record { number, is_post: request.is_post, outcome, latency_us });
        shared.progress.change(|progress| {
            progress.finished += 1;
            progress.failed += u64::from(outcome != Outcome::Answered);
        });
    }
    log
}

async fn exchange(shared: &Shared, wire: &mut Option<Wire>, request: &Request) -> Result<Response, Outcome> {
    let wire = if let Some(wire) = wire {
        wire
    } else {
        let socket = Socket::connect(shared.address).await.map_err(|_| Outcome::NotConnected)?;
        wire.insert(Wire::new(socket))
    };
    let exchange = async {
        wire.write(&request.bytes(shared.address)).await?;
        let response = wire.response(if request.is_post { "POST" } else { "GET" }).await?;
        match wire.leftover() {
            [] => Ok(response),
            leftover => Err(Broken::Malformed(format!("bytes after the answer: {}", leftover.escape_ascii()))),
        }
    };
    exchange.await.map_err(|broken| match broken {
        Broken::Closed => Outcome::Closed,
        Broken::ClosedInHead { .. } | Broken::ClosedInBody { .. } => Outcome::Cut,
        Broken::Reset => Outcome::Reset,
        Broken::Malformed(_) => Outcome::Malformed,
    })
}

/// One request and what must come back.
struct Request {
    id: String,
    is_post: bool,
    delay_ms: u64,
    body: Bytes,
}

impl Request {
    fn new(shared: &Shared, number: u64) -> Self {
        let load = &shared.load;
        let mut random = Random::of(shared.seed, number);
        let is_post = random.percent(load.post_percent);
        let delay_ms = if random.percent(load.delayed_percent) { random.within(&load.delay_ms) } else { 0 };
        let id = format!("{}-{number}", shared.seed);
        let body = pattern(&id, random.within(&load.body_bytes) as usize);
        Self { id, is_post, delay_ms, body }
    }

    fn bytes(&self, address: SocketAddr) -> Vec<u8> {
        let Self { id, is_post, delay_ms, body } = self;
        let length = body.len();
        let delay = if *delay_ms == 0 { String::new() } else { format!("?delay={delay_ms}") };
        let fields = format!("host: {address}\r\nx-request-id: {id}\r\n");
        if *is_post {
            let head = format!("POST /echo{delay} HTTP/1.1\r\n{fields}content-length: {length}\r\n\r\n");
            let mut bytes = head.into_bytes();
            bytes.extend_from_slice(body);
            bytes
        } else {
            format!("GET /bytes/{length}{delay} HTTP/1.1\r\n{fields}\r\n").into_bytes()
        }
    }

    fn check(&self, response: &Response, wrong: &mut Vec<String>) -> Outcome {
        let id = response.header("x-request-id");
        let is_own = if response.status() == 200 { id == Some(&self.id) } else { id.is_none_or(|id| id == self.id) };
        if !is_own {
            wrong.push(format!("{} got the answer of {id:?}: {}", self.id, response.status()));
            return Outcome::Wrong;
        }
        if response.status() != 200 {
            return Outcome::Status(response.status());
        }
        if response.body != self.body {
            let start = String::from_utf8_lossy(&response.body[..response.body.len().min(60)]);
            let (got, expected) = (response.body.len(), self.body.len());
            wrong.push(format!("{} got {got} bytes instead of its {expected}: {start:?}", self.id));
            return Outcome::Wrong;
        }
        Outcome::Answered
    }
}
