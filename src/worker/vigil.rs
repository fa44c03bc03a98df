//! The watch over one upstream connection: its age, and whether its peer is still there.
//!
//! While streams are open and nothing comes, the peer is sent a PING; if nothing comes after that either, the connection
//! is given up, and its requests with it. gRPC servers end a connection for the third PING too many since they last sent
//! a part of an answer, and call any two within five minutes too many: so the third and those after it wait for so long,
//! whatever else comes.
//!
//! A connection that has reached its age takes no new streams and finishes its own.
//!
//! Runs beside the driver of its connection. Knows no requests. RFC 9113 §6.7.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::jitter::spread;
use super::mux::LinkState;
use crate::config;
use crate::metrics::EndpointMetrics;

/// What is watched, and how patiently.
pub(crate) struct Vigil {
    pub(crate) pings: PingPong,
    pub(crate) state: Arc<LinkState>,
    pub(crate) ping: config::Ping,
    /// How long it takes new streams, give or take a tenth.
    pub(crate) max_age: Option<Duration>,
}

/// The time in which nothing has come.
struct Silence {
    since: Instant,
    /// The connection's reads, which a silence leaves as they are.
    reads: u64,
}

/// The PINGs since a part of an answer has come.
#[derive(Default)]
struct Asked {
    /// The parts of answers that had come by then.
    messages: u64,
    times: u32,
    last: Option<Instant>,
}

impl Vigil {
    /// Until `driver` ends by itself or is ended here.
    pub(crate) async fn keep(mut self, mut driver: JoinHandle<()>, metrics: Arc<EndpointMetrics>) {
        let retiring = retire(self.state.clone(), self.max_age);
        tokio::select! {
            _ = &mut driver => return,
            () = retiring => return,
            () = self.loss() => {}
        }
        tracing::warn!(
            connection = self.state.id,
            streams = self.state.in_flight(),
            "connection gives no sign of life, not even to a PING: given up"
        );
        self.state.give_up();
        metrics.closed.increment("unresponsive");
        driver.abort();
    }

    /// Ends when the peer has vanished.
    async fn loss(&mut self) {
        let Some(interval) = self.ping.interval else { return std::future::pending().await };
        // Fine enough that the interval is met to a fifth.
        let step = (interval / 5).max(Duration::from_millis(1));
        let (mut silence, mut asked) = (self.silence(), Asked::default());
        loop {
            sleep(step).await;
            if self.state.in_flight() == 0 || self.state.traffic.reads() != silence.reads {
                silence = self.silence();
                continue;
            }
            let messages = self.state.traffic.messages();
            if messages != asked.messages {
                asked = Asked { messages, ..Asked::default() };
            }
            if silence.since.elapsed() >= interval && asked.bears_another() {
                asked.add_now();
                if !self.is_answered(silence.reads).await {
                    return;
                }
                // What came before the PING's answer may have been sent before the PING came, and forgives it nothing.
                asked.messages = self.state.traffic.messages();
                silence = self.silence();
            }
        }
    }

    fn silence(&self) -> Silence {
        Silence { since: Instant::now(), reads: self.state.traffic.reads() }
    }

    /// Sends a PING; whether anything comes within the timeout.
    async fn is_answered(&mut self, reads: u64) -> bool {
        // One that is still on its way, because other frames came before its answer, does as well.
        let _ = self.pings.send_ping(Ping::opaque());
        let _ = timeout(self.ping.timeout, poll_fn(|cx| self.pings.poll_pong(cx))).await;
        self.state.traffic.reads() != reads
    }
}

impl Asked {
    /// Whether no gRPC server minds one more now.
    fn bears_another(&self) -> bool {
        self.times < AT_INTERVAL || self.last.is_none_or(|last| last.elapsed() >= POLITE_INTERVAL)
    }

    fn add_now(&mut self) {
        self.times += 1;
        self.last = Some(Instant::now());
    }
}

/// Lets no new stream on after `max_age`; never ends, because those that run are still watched.
async fn retire(state: Arc<LinkState>, max_age: Option<Duration>) {
    if let Some(max_age) = max_age {
        sleep(spread(max_age, 0.9..1.1)).await;
        if state.close() {
            tracing::debug!(connection = state.id, "connection has reached its age");
        }
    }
    std::future::pending::<()>().await;
}

/// As many PINGs between two parts of answers as no gRPC server minds.
const AT_INTERVAL: u32 = 2;
/// What gRPC servers want between two more.
const POLITE_INTERVAL: Duration = Duration::from_secs(310);
