//! The proxy under test, in this process: the only file that knows how it is started and ended.
//!
//! `proxy::with(&format!("upstream: h2c://{origin}"))` listens on a free port; dropping it drains and joins.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::panic::Location;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use trunkline::config::{Config, Source, load};
use trunkline::control::{Control, Ending, Process, Reader};

use super::client;
use super::counts::Counts;
use super::said;
use super::samples::Samples;
use super::watched::{BOUND, within};
use super::wire::Response;

/// Starts a proxy from YAML; `listen` and `admin` get free ports of 127.0.0.1 unless the text has them, and
/// workers and the shutdown timeout are small.
///
/// Panics with the diagnostics if the text is not valid: use [`trunkline::config`] itself to test those.
pub fn with(yaml: &str) -> Proxy {
    with_variables(yaml, Vec::new())
}

/// As [`with`], from a text with variables.
pub fn with_variables(yaml: &str, variables: Vec<(&str, &str)>) -> Proxy {
    said::listen();
    let variables: BTreeMap<String, String> =
        variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let text = completed(yaml);
    let config = read(&text, &variables).unwrap_or_else(|errors| panic!("{errors}\n{text}"));
    let listener = config.listeners[0].name.clone();
    let next = Arc::new(Mutex::new(text.clone()));
    let reader: Box<dyn Reader> = Box::new({
        let next = next.clone();
        move || read(&next.lock().unwrap(), &variables)
    });
    let started = block_within("started proxy", move || Process::start_with(config, Some(reader), false));
    let process = started.unwrap_or_else(|error| panic!("{error}\n{text}"));
    Proxy { process: Some(process), listener, next }
}

fn read(text: &str, variables: &BTreeMap<String, String>) -> Result<Config, String> {
    let source = Source::new("test.yaml", text);
    load(&source, &|name| variables.get(name).cloned())
        .map(|(config, _warnings)| config)
        .map_err(|errors| errors.to_string())
}

/// `yaml` with what tests leave out.
fn completed(yaml: &str) -> String {
    let has = |key: &str| yaml.lines().any(|line| line.starts_with(key));
    let mut text = String::new();
    if !has("listen:") && !has("listeners:") {
        let is_short = has("upstream:");
        text.push_str(if is_short { "listen: 127.0.0.1:0\n" } else { "listeners: [{ address: 127.0.0.1:0 }]\n" });
    }
    if !has("admin:") {
        text.push_str("admin: { address: 127.0.0.1:0 }\n");
    }
    if !has("runtime:") {
        // More than one, so that hand-over and the split of limits are always in play.
        text.push_str("runtime: { workers: 2 }\n");
    }
    if !has("logs:") {
        // Clients that leave are part of many tests; their lines would bury the message of a failure.
        text.push_str("logs: { access: { only: none } }\n");
    }
    if !has("shutdown:") {
        // The default of 25 s would make every test slow that leaves a stream open at its end.
        text.push_str("shutdown: { timeout: 2s }\n");
    }
    text.push_str(yaml);
    text
}

/// As [`with`], on one worker: a service that plays a script has the one connection that every request takes.
pub fn on_one_worker(yaml: &str) -> Proxy {
    with(&format!("{yaml}\nruntime: {{ workers: 1 }}\n"))
}

/// A running proxy, written as its address.
pub struct Proxy {
    /// `None` after [`Proxy::stop`].
    process: Option<Process>,
    /// The name of the first listener.
    listener: String,
    /// What the next reload reads.
    next: Arc<Mutex<String>>,
}

impl Proxy {
    /// The first listener's address.
    pub fn address(&self) -> SocketAddr {
        self.address_of(&self.listener)
    }

    pub fn address_of(&self, listener: &str) -> SocketAddr {
        self.process().listener_address(listener).expect("a listener of this name")
    }

    pub fn admin(&self) -> SocketAddr {
        self.process().admin_address().expect("`with` always opens the admin address")
    }

    /// Asks the admin server for `target` on a connection of its own.
    pub async fn admin_get(&self, target: &str) -> Response {
        client::h1(self.admin()).await.get(target).await
    }

    pub async fn admin_post(&self, target: &str) -> Response {
        client::h1(self.admin()).await.post(target, "").await
    }

    /// One scrape.
    pub async fn metrics(&self) -> Samples {
        Samples::parse(self.admin_get("/metrics").await.text())
    }

    pub async fn stats(&self) -> serde_json::Value {
        self.admin_get("/stats.json").await.json()
    }

    /// Scrapes until a condition holds; panics with the last page after the harness's bound.
    pub async fn wait_for_metrics(&self, mut is_met: impl FnMut(&Samples) -> bool) {
        let mut last = Samples::default();
        let scrapes = async {
            loop {
                last = self.metrics().await;
                if is_met(&last) {
                    return;
                }
                // Between scrapes, not for an effect: the next one decides.
                tokio::time::sleep(SCRAPE_INTERVAL).await;
            }
        };
        let is_met = tokio::time::timeout(BOUND, scrapes).await.is_ok();
        assert!(is_met, "the metrics did not meet the condition within {BOUND:?}: {last:#?}");
    }

    /// Reloads with this text, completed as [`with`] does; the line about what changed, or why the old one is kept.
    pub async fn reload(&self, yaml: &str) -> Result<String, String> {
        *self.next.lock().unwrap() = completed(yaml);
        within("reload", self.control().reload()).await
    }

    pub fn control(&self) -> &Arc<Control> {
        self.process().control()
    }

    /// What the proxy has counted so far.
    pub fn counts(&self) -> Counts {
        Counts::of(self.control().registry())
    }

    /// Looks at the counters until a condition holds; panics with the last ones after the harness's bound.
    pub async fn wait_for(&self, mut is_met: impl FnMut(&Counts) -> bool) {
        let looks = async {
            while !is_met(&self.counts()) {
                // Between looks, not for an effect: the next one decides.
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
        };
        let is_met = tokio::time::timeout(BOUND, looks).await.is_ok();
        assert!(is_met, "the counters did not meet the condition within {BOUND:?}: {:#?}", self.counts());
    }

    /// The faults counted so far, by reason, without those that never happened.
    pub fn faults(&self) -> BTreeMap<&'static str, u64> {
        let mut faults = BTreeMap::new();
        for worker in self.process().control().registry().workers() {
            for (reason, count) in worker.faults.iter().filter(|(_, count)| *count > 0) {
                *faults.entry(reason).or_default() += count;
            }
        }
        faults
    }

    /// Waits until a fault has been counted, and expects it to be the only one, once.
    #[track_caller]
    pub fn expect_fault(&self, reason: &'static str) -> impl Future<Output = ()> {
        let caller = Location::caller();
        async move {
            let counted = async {
                while self.faults().is_empty() {
                    // Between looks, not for an effect: the next one decides.
                    tokio::time::sleep(SCRAPE_INTERVAL).await;
                }
            };
            let is_counted = tokio::time::timeout(BOUND, counted).await.is_ok();
            assert!(is_counted, "{caller}: no fault was counted within {BOUND:?}");
            assert_eq!(self.faults(), BTreeMap::from([(reason, 1)]), "{caller}");
        }
    }

    /// Starts the graceful drain and returns at once.
    pub fn drain(&self) {
        self.process().control().drain();
    }

    /// Drains, waits for the end, and says how. After [`Proxy::drain`] it is the second request, which ends at once.
    pub async fn stop(&mut self) -> Ending {
        self.drain();
        self.join().await
    }

    /// Waits for the end that was asked for before, and says how it came.
    pub async fn join(&mut self) -> Ending {
        let process = self.process.take().expect("joined once");
        // A thread, since the runtime's own would hold its shutdown up if the proxy never ended.
        let (sender, ending) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || sender.send(process.join()));
        within("end of the proxy", ending).await.expect("the proxy's threads do not panic")
    }

    fn process(&self) -> &Process {
        self.process.as_ref().expect("a running proxy")
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let Some(process) = self.process.take() else { return };
        process.control().drain();
        if std::thread::panicking() {
            // The test has failed already: its clients may hold the drain up, and its message matters more.
            return;
        }
        block_within("end of the proxy", move || process.join());
    }
}

/// Blocks on `work`, which is left behind with a panic after [`BOUND`].
fn block_within<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, done) = mpsc::channel();
    std::thread::spawn(move || sender.send(work()));
    done.recv_timeout(BOUND).unwrap_or_else(|_| panic!("no {what} within {BOUND:?}"))
}

impl std::fmt::Display for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.address().fmt(f)
    }
}

const SCRAPE_INTERVAL: Duration = Duration::from_millis(10);
const LOOK_INTERVAL: Duration = Duration::from_millis(1);
