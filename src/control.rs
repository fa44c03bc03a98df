//! The control plane: one thread that starts the workers, publishes configurations, answers operators and ends the
//! process in order.
//!
//! A [`Process`] is the handle of whoever started it. A configuration is taken whole or not at all: everything that can
//! fail (sockets, certificates, files) is made before the first worker hears of it.

pub mod admin;
mod life;
mod reload;
mod renewal;
mod sockets;
mod watch;

pub use reload::targets;

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use crate::access_log::{self, AccessSink, Writer};
use crate::config::{Config, ListenAddress, Workers};
use crate::metrics::figures::{CertificateFigures, EndpointState, Figures, Standing};
use crate::metrics::process::ProcessFigures;
use crate::metrics::{EndpointKey, Registry};
use crate::tls::{CertificateEnd, ClientTls};
use crate::worker::{Crew, ListenerShared, LoneWorker, Snapshot};

/// Where a reload gets the configuration from; a function that reads it is one.
pub trait Reader: Send + Sync {
    /// # Errors
    /// Why there is none, in words for the operator.
    fn read(&self) -> Result<Config, String>;

    /// What was read is served.
    fn taken(&self, _config: &Config) {}
}

impl<F: Fn() -> Result<Config, String> + Send + Sync> Reader for F {
    fn read(&self) -> Result<Config, String> {
        self()
    }
}

/// Why a configuration could not be taken.
#[derive(Debug)]
pub enum StartError {
    /// An address cannot be listened on.
    Bind {
        what: String,
        address: ListenAddress,
        error: io::Error,
    },
    /// Certificates, keys or CAs cannot be used.
    Tls {
        /// Whose: as the configuration calls it.
        what: String,
        why: String,
    },
    AccessLog {
        path: String,
        error: io::Error,
    },
    /// Threads or runtimes cannot be had.
    Threads(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind { what, address, error } if error.kind() == io::ErrorKind::AddrInUse => {
                write!(f, "{what}: {address} is in use by another process: choose another address or stop it")
            }
            Self::Bind { what, address, error } => write!(f, "{what}: cannot listen on {address}: {error}"),
            Self::Tls { what, why } => write!(f, "{what}.tls: {why}"),
            Self::AccessLog { path, error } => write!(f, "logs.access.output: cannot write {path}: {error}"),
            Self::Threads(error) => write!(f, "cannot start threads: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

/// Where the process is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Starting,
    Serving,
    Draining,
}

impl Stage {
    /// The stage in logs and pages.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::Draining => "draining",
        }
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending {
    /// Client connections that were cut because they had not finished in time.
    pub cut_connections: u32,
}

/// What the control thread is asked to do.
enum Ask {
    Drain,
    Stop,
    Reload(Option<oneshot::Sender<Result<String, String>>>),
    /// Files with certificates may have changed.
    Renew,
}

/// What control knows; read by the admin server, written by the control thread.
pub struct Control {
    crew: Arc<Crew>,
    stage: AtomicU8,
    started: Instant,
    asks: UnboundedSender<Ask>,
    reader: Option<Box<dyn Reader>>,
    applied: Mutex<Applied>,
    /// See [`Control::cold_endpoints`].
    is_warm: AtomicBool,
}

/// The configuration that is served.
struct Applied {
    config: Config,
    generation: u64,
    /// Whether the latest attempt to reload succeeded.
    is_reloaded: bool,
    snapshot: Arc<Snapshot>,
    /// By configured address and name: what identifies a listener over reloads.
    listeners: BTreeMap<reload::ListenerKey, Arc<ListenerShared>>,
    sink: Arc<AccessSink>,
    writers: Vec<JoinHandle<()>>,
    /// How the endpoints of an upstream are spoken to, by its name, where they speak TLS.
    client_tls: BTreeMap<String, Arc<ClientTls>>,
    /// Why changed files were not taken, by whose they are, so that it is told once.
    refused: BTreeMap<String, String>,
    unix_bindings: reload::UnixBindings,
}

impl Applied {
    /// When the certificates in use end.
    fn certificates(&self) -> Vec<CertificateFigures> {
        let listeners = self.listeners.values().flat_map(|listener| {
            let ends = listener.tls.iter().flat_map(|tls| &tls.ends);
            ends.map(|end| ("listener", &listener.settings.name, end))
        });
        let upstreams = self.client_tls.iter().filter_map(|(name, tls)| Some(("upstream", name, tls.end.as_ref()?)));
        let figures = |(side, owner, end): (&'static str, &String, &CertificateEnd)| {
            let CertificateEnd { name, not_after } = end.clone();
            CertificateFigures { side: side.into(), owner: owner.clone(), name, not_after }
        };
        listeners.chain(upstreams).map(figures).collect()
    }

    /// Lets go of what keeps the access log's writer waiting.
    fn retire_sink(&mut self) {
        let (sink, _) = access_log::none();
        self.snapshot = Arc::new(Snapshot {
            routes: Vec::new(),
            upstreams: Vec::new(),
            drain_timeout: Duration::ZERO,
            access: sink.clone(),
        });
        self.sink = sink;
    }
}

impl Control {
    fn applied(&self) -> MutexGuard<'_, Applied> {
        self.applied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Acquire) {
            0 => Stage::Starting,
            1 => Stage::Serving,
            _ => Stage::Draining,
        }
    }

    pub fn registry(&self) -> &Arc<Registry> {
        self.crew.registry()
    }

    pub fn started(&self) -> Instant {
        self.started
    }

    /// The configuration that is served, and the number of times that one has been taken.
    pub fn config(&self) -> (Config, u64) {
        let applied = self.applied();
        (applied.config.clone(), applied.generation)
    }

    /// Whether the latest attempt to reload succeeded; true before the first.
    pub fn is_reloaded(&self) -> bool {
        self.applied().is_reloaded
    }

    /// Name and address of every listener.
    pub fn listeners(&self) -> Vec<(String, ListenAddress)> {
        let applied = self.applied();
        applied.listeners.values().map(|listener| (listener.settings.name.clone(), listener.address.clone())).collect()
    }

    /// Each endpoint with whether it has been away for a while.
    pub fn endpoints(&self) -> Vec<(String, String, bool)> {
        let snapshot = self.applied().snapshot.clone();
        let upstreams = snapshot.upstreams.iter();
        upstreams
            .flat_map(|upstream| {
                upstream
                    .endpoints
                    .iter()
                    .map(|endpoint| (upstream.name.clone(), endpoint.target.endpoint.to_string(), endpoint.is_down()))
            })
            .collect()
    }

    /// Endpoints whose `min_connections` are still to be opened for the first time. None when all have been open once: what
    /// is opened anew after a reload, or because of another certificate, is no reason to send clients away.
    pub fn cold_endpoints(&self) -> Vec<String> {
        if self.is_warm.load(Ordering::Acquire) {
            return Vec::new();
        }
        let snapshot = self.applied().snapshot.clone();
        let endpoints = snapshot.upstreams.iter().flat_map(|upstream| &upstream.endpoints);
        let cold = endpoints.filter(|endpoint| !endpoint.is_warm());
        let cold: Vec<_> = cold.map(|endpoint| endpoint.target.endpoint.to_string()).collect();
        if cold.is_empty() {
            self.is_warm.store(true, Ordering::Release);
        }
        cold
    }

    /// Everything that is counted and known, at this moment. Reads `/proc`: not for a worker.
    pub fn figures(&self) -> Figures {
        let (generation, is_reloaded, certificates, renewals_refused) = {
            let applied = self.applied();
            (applied.generation, applied.is_reloaded, applied.certificates(), applied.refused.len() as u64)
        };
        let standing = Standing {
            version: env!("CARGO_PKG_VERSION").into(),
            stage: self.stage().word().into(),
            uptime_seconds: self.started.elapsed().as_secs_f64(),
            config_generation: generation,
            is_reloaded,
            certificates,
            renewals_refused,
        };
        let states: BTreeMap<EndpointKey, EndpointState> = self
            .endpoints()
            .into_iter()
            .map(|(upstream, endpoint, is_down)| {
                ((upstream, endpoint), if is_down { EndpointState::Down } else { EndpointState::Up })
            })
            .collect();
        let state = |key: &EndpointKey| states.get(key).copied().unwrap_or(EndpointState::Removed);
        Figures::merge(self.registry(), standing, ProcessFigures::read(), state)
    }

    /// Starts to drain: not ready, then no new connections, then the end. Asked again while it drains: ends now.
    pub fn drain(&self) {
        let _ = self.asks.send(Ask::Drain);
    }

    /// Ends now; running requests are cut.
    pub fn stop(&self) {
        let _ = self.asks.send(Ask::Stop);
    }

    /// Reads the configuration again and takes it if it is valid. Resolves to one line about what changed, or to why
    /// the old one is kept.
    pub async fn reload(&self) -> Result<String, String> {
        let (reply, answer) = oneshot::channel();
        let _ = self.asks.send(Ask::Reload(Some(reply)));
        answer.await.unwrap_or_else(|_| Err("the process is ending".to_owned()))
    }
}

/// A running proxy: its threads, and how to talk to it.
pub struct Process {
    control: Arc<Control>,
    thread: JoinHandle<Ending>,
    admin_address: Option<SocketAddr>,
    probes_address: Option<SocketAddr>,
}

impl Process {
    /// Starts serving `config`; returns when every listener accepts.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running.
    pub fn start(config: Config) -> Result<Self, StartError> {
        Self::start_with(config, None, false)
    }

    /// Like [`Process::start`]. `reader` is asked at a reload; with `has_signals` the process listens to SIGTERM,
    /// SIGINT and SIGHUP.
    pub fn start_with(config: Config, reader: Option<Box<dyn Reader>>, has_signals: bool) -> Result<Self, StartError> {
        let workers = worker_count(config.runtime.workers);
        let registry = Arc::new(Registry::new(workers));
        // Two processes on one way must not take each other for themselves.
        let pseudonym = format!("trunkline-{:08x}", RandomState::new().hash_one(std::process::id()) as u32);
        let plan = reload::Plan::new(&config, None, workers)?;
        let admin = config.admin.address.map(|address| sockets::bind_one("admin.address", address)).transpose()?;
        let probes = config.admin.probes.map(|address| sockets::bind_one("admin.probes", address)).transpose()?;
        let local =
            |socket: &Option<std::net::TcpListener>| socket.as_ref().and_then(|socket| socket.local_addr().ok());
        let (admin_address, probes_address) = (local(&admin), local(&probes));

        let (crew, worker_threads) = Crew::start(registry, &pseudonym, &plan.snapshot).map_err(StartError::Threads)?;
        let (asks, inbox) = unbounded_channel();
        let applied = plan.apply(&config, &crew, None);
        let control = Arc::new(Control {
            crew,
            stage: AtomicU8::new(1),
            started: Instant::now(),
            asks,
            reader,
            applied: Mutex::new(applied),
            is_warm: AtomicBool::new(false),
        });
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(StartError::Threads)?;
        if has_signals {
            // Before anyone is told that the process serves: a signal that comes at once must drain, not kill.
            let _context = runtime.enter();
            if let Err(error) = life::follow_signals(&control) {
                tracing::error!(%error, "cannot listen to signals");
            }
        }
        let thread = std::thread::Builder::new()
            .name("control".to_owned())
            .spawn({
                let control = control.clone();
                move || {
                    let cut_connections = runtime.block_on(async {
                        for (socket, access) in [(admin, admin::Access::Full), (probes, admin::Access::Probes)] {
                            if let Some(socket) = socket {
                                admin::serve(control.clone(), socket, access);
                            }
                        }
                        life::notify(&[sd_notify::NotifyState::Ready]);
                        life::run(&control, inbox).await
                    });
                    life::finish(&control, worker_threads);
                    Ending { cut_connections }
                }
            })
            .map_err(StartError::Threads)?;
        Ok(Self { control, thread, admin_address, probes_address })
    }

    pub fn control(&self) -> &Arc<Control> {
        &self.control
    }

    /// Where the listener of that name accepts, unless that is a Unix socket.
    pub fn listener_address(&self, name: &str) -> Option<SocketAddr> {
        self.control.listeners().into_iter().find(|(known, _)| known == name).and_then(|(_, address)| address.tcp())
    }

    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin_address
    }

    pub fn probes_address(&self) -> Option<SocketAddr> {
        self.probes_address
    }

    /// Waits until the process has ended.
    pub fn join(self) -> Ending {
        self.thread.join().unwrap_or(Ending { cut_connections: 0 })
    }
}

/// The number of workers: as configured, or one per core that the process may use (cgroup quota included).
pub fn worker_count(workers: Workers) -> usize {
    match workers {
        Workers::Count(count) => usize::from(count.max(1)),
        Workers::Auto => std::thread::available_parallelism().map_or(1, usize::from),
    }
}

/// One worker that serves `config` on the caller's thread and nothing beside it, and where its first listener accepts.
///
/// For whoever counts what a request costs (`tests/counts`); must be called on a local runtime.
///
/// # Errors
/// [`StartError`]; nothing is left running.
#[doc(hidden)]
pub fn lone_worker(config: &Config) -> Result<(LoneWorker, SocketAddr), StartError> {
    let plan = reload::Plan::new(config, None, 1)?;
    let (crew, worker) = LoneWorker::start(&plan.snapshot).map_err(StartError::Threads)?;
    let applied = plan.apply(config, &crew, None);
    let first = applied.listeners.values().next().expect("a Config has a listener");
    Ok((worker, first.address.tcp().expect("who counts has a TCP listener")))
}

/// Only this file and `worker.rs` start threads.
fn spawn_writer(writer: Writer) -> Option<JoinHandle<()>> {
    let thread = std::thread::Builder::new().name("access-log".to_owned()).spawn(move || writer.run());
    thread.inspect_err(|error| tracing::error!(%error, "no thread for the access log")).ok()
}
