//! The demo's second client: one request at a time, in turn through the sidecar and directly to the service.
//!
//! Both ways are asked from the same thread at the same moments, so that they wait alike for the service; what differs
//! is the sidecar. The difference of the two medians is what it adds under the load, its waiting for a core and for a
//! stream included. It says nothing about the slow ends, and nothing about a machine that has cores to spare.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::SendRequest;
use http::Request;
use tokio::net::TcpStream;

use super::load::{Connection, Tally, Verdict};
use super::service::{ID, answer};
use super::spawn;

/// The middle of both ways.
#[derive(Debug, Clone, Copy)]
pub(super) struct Medians {
    pub(super) through: Duration,
    pub(super) direct: Duration,
}

/// The running client.
pub(super) struct Pair {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    is_stopping: AtomicBool,
    /// Through and direct.
    tallies: Mutex<(Tally, Tally)>,
}

impl Pair {
    /// Asks from now on; counts only while `is_counting`, so that the load is there.
    pub(super) fn start(
        proxy: SocketAddr,
        service: SocketAddr,
        is_counting: impl Fn() -> bool + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let thread = spawn("demo-pair", {
            let shared = shared.clone();
            move || run(proxy, service, shared, is_counting)
        })?;
        Ok(Self { shared, thread })
    }

    pub(super) fn medians(&self) -> Option<Medians> {
        let tallies = self.shared.tallies.lock().unwrap_or_else(PoisonError::into_inner);
        Some(Medians { through: tallies.0.quantile(0.5)?, direct: tallies.1.quantile(0.5)? })
    }

    pub(super) fn stop(self) -> Option<Medians> {
        self.shared.is_stopping.store(true, Ordering::Release);
        let medians = self.medians();
        let _ = self.thread.join();
        medians
    }
}

async fn run(proxy: SocketAddr, service: SocketAddr, shared: Arc<Shared>, is_counting: impl Fn() -> bool) {
    let mut ways = None;
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut id = FIRST_ID;
    while !shared.is_stopping.load(Ordering::Acquire) {
        ticks.tick().await;
        id += 1;
        let asked = tokio::time::timeout(TIMEOUT, async {
            let (mut through, mut direct) = match ways.take() {
                Some(ways) => ways,
                None => (Connection::open(proxy).await?, connect(service).await?),
            };
            let start = Instant::now();
            let verdict = through.exchange(id).await?;
            let middle = Instant::now();
            exchange(&mut direct, id).await?;
            let end = Instant::now();
            if matches!(verdict, Verdict::Right) && is_counting() {
                let mut tallies = shared.tallies.lock().unwrap_or_else(PoisonError::into_inner);
                tallies.0.record_time(middle - start);
                tallies.1.record_time(end - middle);
            }
            Ok::<_, io::Error>((through, direct))
        });
        // What goes wrong is counted by the many, not by this one.
        ways = asked.await.ok().and_then(Result::ok);
    }
}

/// HTTP/2 with prior knowledge, as the sidecar speaks it.
async fn connect(service: SocketAddr) -> io::Result<SendRequest<Bytes>> {
    let stream = TcpStream::connect(service).await?;
    stream.set_nodelay(true)?;
    let (handle, connection) = h2::client::handshake(stream).await.map_err(io::Error::other)?;
    tokio::spawn(connection);
    Ok(handle)
}

async fn exchange(handle: &mut SendRequest<Bytes>, id: u64) -> io::Result<()> {
    let request = Request::get("http://demo/").header(ID, id).body(()).map_err(io::Error::other)?;
    let mut ready = handle.clone().ready().await.map_err(io::Error::other)?;
    let (response, _) = ready.send_request(request, true).map_err(io::Error::other)?;
    let mut body = response.await.map_err(io::Error::other)?.into_body();
    let mut received = Vec::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk.map_err(io::Error::other)?;
        received.extend_from_slice(&chunk);
        body.flow_control().release_capacity(chunk.len()).map_err(io::Error::other)?;
    }
    if received == answer(&id.to_string()).as_bytes() { Ok(()) } else { Err(io::Error::other("a wrong answer")) }
}

/// Rarely enough to be no load itself.
const INTERVAL: Duration = Duration::from_millis(10);
const TIMEOUT: Duration = Duration::from_secs(2);
/// Above whatever the many count to.
const FIRST_ID: u64 = 900_000_000_000;
