//! Tagged load: every request carries an id of its own, and every answer is checked against it.
//!
//! ```ignore
//! let load = load::start(proxy.address(), Load { requests: 100_000, ..Load::default() });
//! load.wait_for(|progress| progress.finished > 1000).await;
//! origin.goaway();
//! let client_log = load.finish().await;
//! judge(&client_log, [&*origin.log()]).assert_clean();
//! ```
//!
//! Runs on one thread per core, so that the clients are not what is measured. What a request is follows from
//! the seed and its number alone, not from timing; the seed is printed, and `TRUNKLINE_TEST_SEED` sets it.

mod driver;
pub mod judge;
pub mod random;

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use self::driver::Shared;
pub use self::judge::judge;
use self::random::seed;
use super::watched::Watched;

/// What to send. `GET /bytes/N` or `POST /echo`, so an origin that answers by path is enough.
#[derive(Debug, Clone)]
pub struct Load {
    /// Client connections, each with one request at a time.
    pub connections: usize,
    /// Requests altogether; `u64::MAX` goes on until [`Running::stop`].
    pub requests: u64,
    pub post_percent: u64,
    /// Bytes of a request's or answer's body.
    pub body_bytes: RangeInclusive<u64>,
    /// How many of the answers the origin delays, and by how many milliseconds.
    pub delayed_percent: u64,
    pub delay_ms: RangeInclusive<u64>,
    /// Requests per second over all connections; `None`: as fast as answers come.
    pub rate: Option<u64>,
    /// A request without an answer after this is a failure.
    pub request_timeout: Duration,
    /// `None`: `TRUNKLINE_TEST_SEED`, or a new one.
    pub seed: Option<u64>,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            connections: 64,
            requests: 10_000,
            post_percent: 30,
            body_bytes: 0..=4096,
            delayed_percent: 10,
            delay_ms: 1..=5,
            rate: None,
            request_timeout: Duration::from_secs(30),
            seed: None,
        }
    }
}

/// Starts the load against `address`.
pub fn start(address: SocketAddr, load: Load) -> Running {
    let seed = load.seed.unwrap_or_else(|| {
        let seed = seed("TRUNKLINE_TEST_SEED");
        eprintln!("load: TRUNKLINE_TEST_SEED={seed}");
        seed
    });
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(load.connections);
    let shared = Arc::new(Shared {
        load,
        address,
        seed,
        next: AtomicU64::new(0),
        is_stopped: AtomicBool::new(false),
        progress: Watched::new(Progress::default()),
        start: Instant::now(),
    });
    let run = |thread: usize| {
        let (sender, receiver) = oneshot::channel();
        let shared = shared.clone();
        std::thread::Builder::new()
            .name(format!("load-{thread}"))
            .spawn(move || _ = sender.send(driver::run(&shared, thread, threads)))
            .unwrap();
        receiver
    };
    let threads = (0..threads).map(run).collect();
    Running { shared, threads }
}

/// A load in progress; dropping it stops it after the requests in flight.
pub struct Running {
    shared: Arc<Shared>,
    threads: Vec<oneshot::Receiver<ClientLog>>,
}

#[derive(Debug, Default, Clone, Copy)]
pub struct Progress {
    pub finished: u64,
    /// Those of `finished` that were not answered as they should be.
    pub failed: u64,
}

impl Running {
    /// Waits for a point in the load; see [`Watched::wait_for`].
    #[track_caller]
    pub fn wait_for(&self, is_met: impl FnMut(&Progress) -> bool) -> impl Future<Output = ()> {
        self.shared.progress.wait_for(is_met)
    }

    pub fn progress(&self) -> Progress {
        *self.shared.progress.read()
    }

    /// Begins no further request.
    pub fn stop(&self) {
        self.shared.stop();
    }

    /// Waits for the last answer. Each request is bounded, so this is too.
    pub async fn finish(mut self) -> ClientLog {
        let mut log = ClientLog { seed: self.shared.seed, ..ClientLog::default() };
        for thread in &mut self.threads {
            let part = thread.await.expect("the load's threads do not panic");
            log.records.extend(part.records);
            log.wrong.extend(part.wrong);
        }
        log.took = self.shared.start.elapsed();
        log
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

/// What the clients saw.
#[derive(Debug, Default)]
pub struct ClientLog {
    pub seed: u64,
    pub records: Vec<Record>,
    /// Each answer that was not the request's own, in words.
    pub wrong: Vec<String>,
    pub took: Duration,
}

impl ClientLog {
    /// The latency in microseconds that a share of the answered requests stayed within: 99 % is 9900.
    pub fn latency_us(&self, percent_hundredths: usize) -> u32 {
        let answered = self.records.iter().filter(|record| record.outcome == Outcome::Answered);
        let mut latencies: Vec<u32> = answered.map(|record| record.latency_us).collect();
        latencies.sort_unstable();
        let rank = (latencies.len() * percent_hundredths).div_ceil(100 * 100);
        latencies.get(rank.saturating_sub(1)).copied().unwrap_or(0)
    }
}

/// One request, small enough for millions.
#[derive(Debug, Clone, Copy)]
pub struct Record {
    pub number: u64,
    pub is_post: bool,
    pub outcome: Outcome,
    pub latency_us: u32,
}

/// How a request ended for its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// 200 with its own id and its own body.
    Answered,
    /// 200, or any status with an id, that belongs to another request.
    Wrong,
    /// An answer that says no.
    Status(u16),
    /// The connection could not be opened.
    NotConnected,
    /// The connection ended before the answer.
    Closed,
    /// The answer was cut.
    Cut,
    Reset,
    Malformed,
    TimedOut,
}
