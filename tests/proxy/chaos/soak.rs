//! Faults in random order under mixed load, for as long as `CHAOS_SECONDS` says: `make chaos`, and a short one in every run.
//!
//! The proxy is a process of its own, so that what it holds at the end can be compared with what it held before. Beside the
//! tagged load there are bodies that come in pieces, clients that read slowly, and clients that leave; of those only what
//! they get is judged. `CHAOS_SEED` repeats the order of the faults and the requests, though not their timing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use http::Request;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::{Fault, POOL, Score};
use crate::harness::binary::Binary;
use crate::harness::load::random::{Random, seed};
use crate::harness::load::{self, Load};
use crate::harness::origin::behaviour::pattern;
use crate::harness::origin::{ReservedAddress, Unruly, unruly};
use crate::harness::samples::Samples;
use crate::harness::watched::BOUND;
use crate::harness::wire::Broken;
use crate::harness::{client, process};

#[tokio::test]
async fn random_faults_lose_double_and_mislead_nothing_and_leave_nothing_behind() {
    let seconds = std::env::var("CHAOS_SECONDS").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(5);
    let seed = seed("CHAOS_SEED");
    eprintln!("chaos: CHAOS_SEED={seed} CHAOS_SECONDS={seconds}");
    let mut service = unruly();
    let proxy = Running::before(&service).await;
    let mut soak = Soak { seed, rounds: 0, service: &mut service, listen: proxy.listen };

    // Threads, code and allocator have had their first use before what is held is looked at.
    let calm = soak.round(Fault::None, Duration::from_millis(500)).await;
    proxy.wait_for_rest().await;
    let (descriptors, memory) = (proxy.descriptors(), proxy.memory_bytes());

    let mut scores = vec![(Fault::None, calm)];
    let end = Instant::now() + Duration::from_secs(seconds);
    // Each of them a few times, if there is the time.
    let length = Duration::from_millis((seconds * 1000 / (3 * Fault::ALL.len() as u64)).max(300));
    loop {
        let mut faults = Fault::ALL;
        Random::of(seed, u64::MAX - soak.rounds).shuffle(&mut faults);
        for fault in faults {
            let score = soak.round(fault, length).await;
            match scores.iter_mut().find(|(known, _)| *known == fault) {
                Some((_, sum)) => sum.add(score),
                None => scores.push((fault, score)),
            }
        }
        if Instant::now() >= end {
            break;
        }
    }

    proxy.wait_for_rest().await;
    scores.sort_by_key(|(fault, _)| *fault);
    print_table(&scores);
    for (fault, score) in &scores {
        assert!(score.is_clean(), "CHAOS_SEED={seed}, {}: {score:?}", fault.name());
    }
    proxy.wait_for_no_more_than(descriptors, memory + MEMORY_GROWTH_BYTES_MAX).await;
}

struct Soak<'a> {
    seed: u64,
    rounds: u64,
    service: &'a mut Unruly,
    listen: SocketAddr,
}

impl Soak<'_> {
    /// One fault, struck again and again at random moments for so long, and once at least.
    async fn round(&mut self, fault: Fault, length: Duration) -> Score {
        self.rounds += 1;
        let mut random = Random::of(self.seed, self.rounds);
        let broken_before = self.service.tally().broken.len();
        let seed = self.seed.wrapping_add(self.rounds);
        let load = load::start(self.listen, Load { seed: Some(seed), ..fault.load() });
        let others = Others::start(self.listen);
        let end = Instant::now() + length;
        load.wait_for(|progress| progress.finished > 0).await;
        loop {
            sleep(Duration::from_millis(random.within(&(0..=100)))).await;
            fault.strike(self.service).await;
            if Instant::now() >= end {
                break;
            }
        }
        load.stop();
        let client = load.finish().await;
        let wrong = others.stop().await;
        let broken = self.service.tally().broken.len() - broken_before;
        let mut score = Score::of(&client, self.service, broken);
        score.wrong.extend(wrong);
        score
    }
}

/// Clients beside the load.
struct Others {
    is_stopped: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<Vec<String>>>,
}

impl Others {
    fn start(proxy: SocketAddr) -> Self {
        let is_stopped = Arc::new(AtomicBool::new(false));
        let task = |number: u32| {
            let is_stopped = is_stopped.clone();
            async move {
                let mut wrong = Vec::new();
                while !is_stopped.load(Ordering::Relaxed) {
                    let id = format!("other-{number}");
                    let got = match number % 3 {
                        0 => uploaded(proxy, &id).await,
                        1 => read_slowly(proxy, &id).await,
                        _ => left(proxy, &id).await,
                    };
                    // A broken or refused exchange is no answer; whatever says that it is one must be the right one.
                    wrong.extend(got.unwrap_or_default());
                }
                wrong
            }
        };
        let tasks = (0..6).map(|number| tokio::spawn(task(number))).collect();
        Self { is_stopped, tasks }
    }

    async fn stop(self) -> Vec<String> {
        self.is_stopped.store(true, Ordering::Relaxed);
        let mut wrong = Vec::new();
        for task in self.tasks {
            wrong.extend(task.await.expect("a client's task does not panic"));
        }
        wrong
    }
}

/// Sends a body in pieces; what is wrong with its echo.
async fn uploaded(proxy: SocketAddr, id: &str) -> Result<Option<String>, Broken> {
    let mut client = client::h1(proxy).await;
    let body = pattern(id, 16 * 1024);
    client.start(&Request::post("/echo").header("x-request-id", id).body(()).unwrap(), true).await?;
    for piece in body.chunks(2048) {
        client.send_chunk(piece).await?;
        sleep(PIECE_PAUSE).await;
    }
    client.end_chunks().await?;
    answered(&mut client, id, &body).await
}

/// Takes a long answer in pieces; what is wrong with it.
async fn read_slowly(proxy: SocketAddr, id: &str) -> Result<Option<String>, Broken> {
    const BYTES: usize = 200_000;
    let mut client = client::h1(proxy).await;
    let target = format!("/bytes/{BYTES}");
    client.start(&Request::get(target).header("x-request-id", id).body(()).unwrap(), false).await?;
    answered(&mut client, id, &pattern(id, BYTES)).await
}

/// Leaves with a reset before the answer has come.
async fn left(proxy: SocketAddr, id: &str) -> Result<Option<String>, Broken> {
    let mut client = client::h1(proxy).await;
    let request = Request::get("/bytes/100?delay=20").header("x-request-id", id).body(()).unwrap();
    client.start(&request, false).await?;
    sleep(PIECE_PAUSE).await;
    client.abort();
    Ok(None)
}

async fn answered(client: &mut client::Client, id: &str, expected: &[u8]) -> Result<Option<String>, Broken> {
    let head = client.head().await?;
    if head.status() != Ok(200) {
        return Ok(None);
    }
    let mut body = Vec::new();
    while let Some(part) = client.part().await? {
        body.extend_from_slice(&part);
        sleep(PIECE_PAUSE).await;
    }
    let is_own = head.header("x-request-id") == Some(id) && body == expected;
    Ok((!is_own).then(|| format!("{id} got {} bytes of {:?}", body.len(), head.header("x-request-id"))))
}

/// The proxy under test.
struct Running {
    binary: Binary,
    listen: SocketAddr,
    admin: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Running {
    async fn before(service: &Unruly) -> Self {
        let [listen, admin] = [(); 2].map(|()| ReservedAddress::new().address());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trunkline.yaml");
        let yaml = format!(
            "listeners: [{{ address: \"{listen}\" }}]\nadmin: {{ address: \"{admin}\" }}\nruntime: {{ workers: 2 }}\n\
             logs: {{ access: {{ only: none }} }}\n\
             upstreams: {{ a: {{ endpoints: [\"h2c://{service}\"], pool: {{ {POOL}, idle_timeout: 500ms }} }} }}\n"
        );
        std::fs::write(&path, yaml).unwrap();
        let path = path.display().to_string();
        let binary = Binary::start(&["run", "--config", &path], listen).await;
        Self { binary, listen, admin, _folder: folder }
    }

    /// Nobody asks any more, and every idle connection has been given up.
    async fn wait_for_rest(&self) {
        let mut last = Vec::new();
        let rest = async {
            loop {
                let page = client::h1(self.admin).await.get("/metrics").await;
                let samples = Samples::parse(page.text());
                last = GAUGES.iter().map(|gauge| (*gauge, samples.sum(gauge, &[]))).collect();
                if last.iter().all(|(_, value)| *value == 0.0) {
                    return;
                }
                // Between scrapes, not for an effect: the next one decides.
                sleep(LOOK_INTERVAL).await;
            }
        };
        let is_at_rest = tokio::time::timeout(BOUND, rest).await.is_ok();
        assert!(is_at_rest, "gauges that do not return to zero: {last:?}");
    }

    fn descriptors(&self) -> usize {
        process::open_descriptors_of(self.binary.id())
    }

    fn memory_bytes(&self) -> u64 {
        process::resident_bytes_of(self.binary.id())
    }

    /// The allocator gives back what is free a moment later.
    async fn wait_for_no_more_than(&self, descriptors: usize, memory: u64) {
        let settled = async {
            while self.descriptors() > descriptors || self.memory_bytes() > memory {
                sleep(LOOK_INTERVAL).await;
            }
        };
        let is_settled = tokio::time::timeout(BOUND, settled).await.is_ok();
        let held = (self.descriptors(), self.memory_bytes());
        println!(
            "held at the end: {} descriptors, {} KiB; allowed: {descriptors}, {} KiB",
            held.0,
            held.1 >> 10,
            memory >> 10
        );
        assert!(is_settled, "descriptors and bytes {held:?}, allowed {:?}", (descriptors, memory));
    }
}

fn print_table(scores: &[(Fault, Score)]) {
    println!("| fault | requests | lost | doubled | wrong | cut |\n|---|---|---|---|---|---|");
    for (fault, score) in scores {
        let Score { requests, lost, doubled, wrong, cut, cut_after_max, broken, .. } = score;
        let name = fault.name();
        print!("| {name} | {requests} | {} | {} | {} | ", lost.len(), doubled.len(), wrong.len());
        if *broken == 0 {
            println!("{cut} |");
        } else {
            println!("{cut} on {broken} connections, told within {cut_after_max:.1?} |");
        }
    }
}

/// Zero while nobody asks and all connections have been idle for long enough.
const GAUGES: [&str; 6] = [
    "trunkline_downstream_connections",
    "trunkline_requests_in_flight",
    "trunkline_upstream_connections",
    "trunkline_upstream_streams",
    "trunkline_upstream_stream_limit",
    "trunkline_pool_pending",
];
/// What the allocator may keep of a minute's work; a request that leaked as much as its head would pass it in seconds.
const MEMORY_GROWTH_BYTES_MAX: u64 = 8 << 20;
const PIECE_PAUSE: Duration = Duration::from_millis(5);
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
