//! The demo's client: HTTP/1.1 keep-alive connections, each with one request at a time, as fast as answers come.
//!
//! All on one thread. Every request has an id of its own and every byte of the answer is compared, so that an answer
//! that belongs to somebody else cannot go unnoticed. The reader knows just what the demo's service answers.

use std::cell::Cell;
use std::future::Future;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::service::{ID, answer};
use super::spawn;

/// What came of the requests since somebody looked.
pub(super) struct Tally {
    pub(super) answers: u64,
    /// No answer, or not a 200.
    pub(super) errors: u64,
    /// A 200 that is not the answer to this request.
    pub(super) wrong: u64,
    /// Why the first of the errors and wrong answers was one.
    pub(super) first: Option<String>,
    /// From the first byte of the request to the last of the answer, in ns.
    pub(super) latency_ns: Histogram<u64>,
}

impl Default for Tally {
    fn default() -> Self {
        let latency_ns = Histogram::new(3).expect("three digits are allowed");
        Self { answers: 0, errors: 0, wrong: 0, first: None, latency_ns }
    }
}

impl Tally {
    pub(super) fn add(&mut self, other: &Self) {
        let Self { answers, errors, wrong, first, latency_ns } = other;
        self.answers += answers;
        self.errors += errors;
        self.wrong += wrong;
        if self.first.is_none() {
            self.first.clone_from(first);
        }
        self.latency_ns.add(latency_ns).expect("a histogram that resizes takes every other");
    }

    /// Counts one request that began at `start`.
    pub(super) fn record(&mut self, start: Instant, result: io::Result<Verdict>) {
        let why = match result {
            Ok(Verdict::Right) => return self.record_time(start.elapsed()),
            Ok(Verdict::Wrong(body)) => {
                self.wrong += 1;
                format!("an answer to somebody else: {body}")
            }
            Ok(Verdict::Refused(status)) => {
                self.errors += 1;
                format!("status {status}")
            }
            Err(error) => {
                self.errors += 1;
                error.to_string()
            }
        };
        self.first.get_or_insert(why);
    }

    /// Counts a right answer.
    pub(super) fn record_time(&mut self, latency: Duration) {
        self.answers += 1;
        let ns = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.latency_ns.record(ns).expect("a histogram that resizes takes every value");
    }

    pub(super) fn quantile(&self, quantile: f64) -> Option<Duration> {
        (self.answers > 0).then(|| Duration::from_nanos(self.latency_ns.value_at_quantile(quantile)))
    }
}

/// A running client.
pub(super) struct Load {
    connections: u32,
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    is_stopping: AtomicBool,
    /// Connections that have had an answer.
    up: AtomicU32,
    /// The other side of the lock is taken once in a while, by the view.
    tally: Mutex<Tally>,
}

impl Shared {
    fn tally(&self) -> std::sync::MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Load {
    /// Opens `connections` to `proxy` and keeps each busy.
    pub(super) fn start(proxy: SocketAddr, connections: u32) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let thread = spawn("demo-client", {
            let shared = shared.clone();
            move || run(proxy, connections, shared)
        })?;
        Ok(Self { connections, shared, thread })
    }

    /// Tells whether every connection has had an answer.
    pub(super) fn is_up(&self) -> impl Fn() -> bool + Send + use<> {
        let (shared, connections) = (self.shared.clone(), self.connections);
        move || shared.up.load(Ordering::Acquire) >= connections
    }

    /// What has happened since the last call.
    pub(super) fn take(&self) -> Tally {
        std::mem::take(&mut *self.shared.tally())
    }

    /// Lets the requests that run have their answers, then ends; returns what has happened since the last look.
    pub(super) fn stop(self) -> Tally {
        self.shared.is_stopping.store(true, Ordering::Release);
        let _ = self.thread.join();
        std::mem::take(&mut *self.shared.tally())
    }
}

async fn run(proxy: SocketAddr, connections: u32, shared: Arc<Shared>) {
    let next_id = Rc::new(Cell::new(0));
    let mut clients = JoinSet::new();
    for _ in 0..connections {
        clients.spawn_local(client(proxy, next_id.clone(), shared.clone()));
    }
    // Whoever has no answer by the end of this will never have one.
    let mut unanswered = u64::from(connections);
    let all = async {
        while clients.join_next().await.is_some() {
            unanswered -= 1;
        }
    };
    within_after(&shared.is_stopping, ANSWER_TIMEOUT, all).await;
    if unanswered > 0 {
        let mut tally = shared.tally();
        tally.errors += unanswered;
        tally.first.get_or_insert_with(|| format!("no answer within {ANSWER_TIMEOUT:?}"));
    }
}

/// Awaits `all`, but at most `timeout` from when `is_stopping` is seen.
async fn within_after(is_stopping: &AtomicBool, timeout: Duration, all: impl Future<Output = ()>) {
    let overdue = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(50));
        while !is_stopping.load(Ordering::Acquire) {
            ticks.tick().await;
        }
        tokio::time::sleep(timeout).await;
    };
    tokio::select! {
        () = all => {}
        () = overdue => {}
    }
}

/// One client: a connection for as long as it lasts, then another.
async fn client(proxy: SocketAddr, next_id: Rc<Cell<u64>>, shared: Arc<Shared>) {
    let mut connection = None;
    let mut is_up = false;
    while !shared.is_stopping.load(Ordering::Acquire) {
        let start = Instant::now();
        let result = async {
            let mut open = match connection.take() {
                Some(open) => open,
                None => Connection::open(proxy).await?,
            };
            next_id.set(next_id.get() + 1);
            let verdict = open.exchange(next_id.get()).await?;
            connection = Some(open);
            Ok(verdict)
        }
        .await;
        let is_broken = result.is_err();
        if !is_broken && !is_up {
            is_up = true;
            shared.up.fetch_add(1, Ordering::AcqRel);
        }
        shared.tally().record(start, result);
        if is_broken {
            tokio::time::sleep(RECONNECT_PAUSE).await;
        }
    }
}

/// How an answer was.
pub(super) enum Verdict {
    Right,
    /// Status 200 with this body.
    Wrong(String),
    /// Another status.
    Refused(u16),
}

/// One client connection.
pub(super) struct Connection {
    stream: TcpStream,
    host: SocketAddr,
    /// The request on its way out, then the answer as far as it has come.
    buffer: Vec<u8>,
}

impl Connection {
    pub(super) async fn open(proxy: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(proxy).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, host: proxy, buffer: Vec::with_capacity(1024) })
    }

    /// Sends one request and reads its answer.
    ///
    /// # Errors
    /// The connection is of no further use.
    pub(super) async fn exchange(&mut self, id: u64) -> io::Result<Verdict> {
        self.buffer.clear();
        write!(self.buffer, "GET / HTTP/1.1\r\nHost: {}\r\n{ID}: {id}\r\n\r\n", self.host)?;
        self.stream.write_all(&self.buffer).await?;
        self.buffer.clear();
        loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed before the answer was complete"));
            }
            if let Some((status, body)) = parse(&self.buffer)? {
                return Ok(match status {
                    200 if body == answer(&id.to_string()).as_bytes() => Verdict::Right,
                    200 => Verdict::Wrong(String::from_utf8_lossy(body).trim().to_owned()),
                    status => Verdict::Refused(status),
                });
            }
        }
    }
}

/// Status and body, once all of it is there. The demo's service always states the length.
fn parse(bytes: &[u8]) -> io::Result<Option<(u16, &[u8])>> {
    let invalid = |what| io::Error::new(io::ErrorKind::InvalidData, what);
    let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else { return Ok(None) };
    let (head, body) = (&bytes[..end], &bytes[end + 4..]);
    let text = std::str::from_utf8(head).map_err(|_| invalid("the head is not text"))?;
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok());
    let status = status.ok_or_else(|| invalid("the status line is not HTTP/1.1"))?;
    let mut fields = lines.filter_map(|line| line.split_once(':'));
    let length = fields.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length: usize =
        length.and_then(|(_, value)| value.trim().parse().ok()).ok_or_else(|| invalid("no content-length"))?;
    match body.len() {
        have if have < length => Ok(None),
        have if have == length => Ok(Some((status, body))),
        _ => Err(invalid("more bytes than the answer has")),
    }
}

const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// A proxy that is gone is not asked in a tight loop.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_when_its_length_is_there_and_an_error_when_there_is_more() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nx: y\r\n\r\nok";
        for cut in 0..whole.len() {
            assert!(parse(&whole[..cut]).unwrap().is_none(), "{cut}");
        }
        assert_eq!(parse(whole).unwrap(), Some((200, &b"ok"[..])));
        assert!(parse(&[&whole[..], b"!"].concat()).is_err());
        assert!(parse(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
