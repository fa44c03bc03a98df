//! The data plane: one copy per core, single-threaded, without locks on the request path.
//!
//! A worker is an OS thread with its own runtime, listeners, upstream connections and counters. Control speaks to it
//! through [`Command`]s and publishes immutable [`Snapshot`]s; the worker answers only through counters.

mod body;
mod dial;
mod downstream;
mod exchange;
mod exclusive;
mod forward;
mod listener;
mod mux;
mod pool;
mod routing;
mod share;
mod timer;
mod upload;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;

use http::HeaderValue;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::LocalOptions;
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

pub use dial::Target;
pub use listener::{ConnectionPermit, ListenerShared};
pub use share::EndpointShared;

use crate::access_log::{AccessLogger, AccessSink, FLUSH_INTERVAL, Outcome};
use crate::config::{Balance, Route};
use crate::metrics::{Registry, WorkerMetrics};
use crate::translate::Hop;
use downstream::Client;
use listener::Accepting;
use routing::Routing;
use timer::Wheel;

/// An immutable configuration, as the workers use it.
pub struct Snapshot {
    pub routes: Vec<Route>,
    pub upstreams: Vec<UpstreamSnapshot>,
    pub access: Arc<AccessSink>,
}

/// One upstream of a [`Snapshot`]. Endpoints that did not change are the very same as in the snapshot before.
pub struct UpstreamSnapshot {
    pub name: String,
    pub balance: Balance,
    pub endpoints: Vec<Arc<EndpointShared>>,
}

/// What a worker is told.
pub enum Command {
    /// Serve requests by this configuration from now on.
    Apply(Arc<Snapshot>),
    /// Accept on this socket. Non-blocking, listening.
    Listen(Arc<ListenerShared>, std::net::TcpListener),
    /// Serve who connects there by other settings from now on.
    Replace { old: Arc<ListenerShared>, new: Arc<ListenerShared> },
    /// Stop accepting there; retired connections finish what runs.
    Retire(Arc<ListenerShared>),
    /// A connection that another worker has accepted.
    Serve { listener: Arc<ListenerShared>, stream: std::net::TcpStream, peer: SocketAddr, permit: ConnectionPermit },
    /// Stop accepting, finish what runs, then end.
    Drain,
    /// End now.
    Stop,
}

/// What all workers of a process share.
pub struct Crew {
    commands: Vec<UnboundedSender<Command>>,
    /// Client connections, by worker.
    loads: Vec<AtomicU32>,
    registry: Arc<Registry>,
    /// Our name in Via, different in every process.
    pseudonym: Arc<str>,
    via: HeaderValue,
}

impl Crew {
    /// Starts one thread per worker of `registry`.
    ///
    /// # Errors
    /// A thread or its runtime cannot be had.
    pub fn start(
        registry: Arc<Registry>,
        pseudonym: &str,
        snapshot: &Arc<Snapshot>,
    ) -> io::Result<(Arc<Self>, Vec<JoinHandle<()>>)> {
        let workers = registry.workers().len();
        let (commands, inboxes): (Vec<_>, Vec<_>) = (0..workers).map(|_| unbounded_channel()).unzip();
        let via = Hop::via(pseudonym).ok_or_else(|| io::Error::other("the pseudonym is not a token"))?;
        let crew = Arc::new(Self {
            commands,
            loads: (0..workers).map(|_| AtomicU32::new(0)).collect(),
            registry,
            pseudonym: pseudonym.into(),
            via,
        });
        let (ready, is_ready) = std::sync::mpsc::channel();
        let mut threads = Vec::with_capacity(workers);
        for (index, inbox) in inboxes.into_iter().enumerate() {
            let (crew, snapshot, ready) = (crew.clone(), snapshot.clone(), ready.clone());
            let name = format!("worker-{index}");
            threads.push(std::thread::Builder::new().name(name).spawn(move || {
                // A local runtime belongs to the thread that makes it.
                match tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
                    Err(error) => drop(ready.send(Err(error))),
                    Ok(runtime) => {
                        drop(ready.send(Ok(())));
                        runtime.block_on(async move { Worker::new(index, crew, &snapshot).run(inbox).await });
                    }
                }
            })?);
        }
        drop(ready);
        // Each worker says so once; its end of the channel lives as long as the worker.
        is_ready.iter().take(workers).collect::<io::Result<()>>()?;
        Ok((crew, threads))
    }

    /// Tells every worker.
    pub fn broadcast(&self, command: impl Fn() -> Command) {
        for worker in &self.commands {
            // A worker that has ended needs to know nothing more.
            let _ = worker.send(command());
        }
    }

    /// Tells one worker.
    pub fn send(&self, worker: usize, command: Command) {
        let _ = self.commands[worker].send(command);
    }

    /// Open client connections of all workers.
    pub fn connections(&self) -> u32 {
        self.loads.iter().map(|load| load.load(Ordering::Acquire)).sum()
    }

    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }
}

/// A worker, as its own tasks see it.
pub(crate) struct Worker {
    index: usize,
    crew: Arc<Crew>,
    pub(crate) wheel: Rc<Wheel>,
    pub(crate) metrics: Arc<WorkerMetrics>,
    pub(crate) access: AccessLogger,
    /// Told when the access log's buffer holds something that must be flushed.
    access_began: Notify,
    routing: RefCell<Rc<Routing>>,
    /// What this worker accepts for.
    accepting: RefCell<Vec<Rc<Accepting>>>,
    clients: RefCell<BTreeMap<u64, Rc<Client>>>,
    next_client: Cell<u64>,
    next_request: Cell<u64>,
    is_draining: Cell<bool>,
}

impl Worker {
    fn new(index: usize, crew: Arc<Crew>, snapshot: &Snapshot) -> Rc<Self> {
        let metrics = crew.registry.workers()[index].clone();
        Rc::new(Self {
            wheel: Wheel::new(),
            access: AccessLogger::new(snapshot.access.clone(), metrics.clone()),
            access_began: Notify::new(),
            routing: RefCell::new(Rc::new(Routing::new(snapshot, index, &crew.registry, None))),
            accepting: RefCell::default(),
            clients: RefCell::default(),
            next_client: Cell::new(0),
            // Any start will do that another process is unlikely to have.
            next_request: Cell::new(RandomState::new().hash_one(index)),
            is_draining: Cell::new(false),
            index,
            crew,
            metrics,
        })
    }

    async fn run(self: Rc<Self>, mut inbox: UnboundedReceiver<Command>) {
        tokio::task::spawn_local(self.wheel.clone().run());
        tokio::task::spawn_local(flush_access_log(self.clone()));
        while let Some(command) = inbox.recv().await {
            match command {
                Command::Apply(snapshot) => self.apply(&snapshot),
                Command::Listen(listener, socket) => self.listen(listener, socket),
                Command::Replace { old, new } => {
                    let accepting = self.accepting.borrow();
                    for accepting in accepting.iter().filter(|accepting| accepting.is_for(&old)) {
                        accepting.replace(new.clone());
                    }
                }
                Command::Retire(listener) => self.stop_accepting(|accepting| accepting.is_for(&listener)),
                Command::Serve { listener, stream, peer, permit } => {
                    if let Ok(stream) = TcpStream::from_std(stream) {
                        self.spawn(listener, stream, peer, permit);
                    } else {
                        self.crew.loads[self.index].fetch_sub(1, Ordering::AcqRel);
                    }
                }
                Command::Drain => {
                    self.is_draining.set(true);
                    self.stop_accepting(|_| true);
                }
                Command::Stop => break,
            }
        }
        self.access.flush();
    }

    fn apply(&self, snapshot: &Snapshot) {
        let before = self.routing();
        let routing = Routing::new(snapshot, self.index, &self.crew.registry, Some(&before));
        *self.routing.borrow_mut() = Rc::new(routing);
        self.access.replace(snapshot.access.clone());
    }

    fn listen(self: &Rc<Self>, listener: Arc<ListenerShared>, socket: std::net::TcpListener) {
        match TcpListener::from_std(socket) {
            Ok(socket) => {
                let accepting = Rc::new(Accepting { listener: RefCell::new(listener), stop: Notify::new() });
                self.accepting.borrow_mut().push(accepting.clone());
                tokio::task::spawn_local(listener::accept(self.clone(), accepting, socket));
            }
            Err(error) => tracing::error!(listener = listener.settings.name, %error, "cannot accept connections"),
        }
    }

    /// Ends accepting for the listeners that `is_meant` names, and lets their idle connections go.
    fn stop_accepting(&self, is_meant: impl Fn(&Accepting) -> bool) {
        self.accepting.borrow_mut().retain(|accepting| {
            let is_stopped = is_meant(accepting);
            if is_stopped {
                accepting.stop.notify_one();
            }
            !is_stopped
        });
        for client in self.clients.borrow().values() {
            client.wake();
        }
    }

    /// What requests that start now are served by.
    pub(crate) fn routing(&self) -> Rc<Routing> {
        self.routing.borrow().clone()
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining.get()
    }

    /// What this hop says about a client.
    pub(crate) fn hop(&self, client: IpAddr) -> Hop {
        Hop::new(self.crew.pseudonym.clone(), self.crew.via.clone(), client)
    }

    /// An id for a request that came without one.
    pub(crate) fn next_request_id(&self) -> String {
        let id = self.next_request.get().wrapping_add(1);
        self.next_request.set(id);
        format!("{id:016x}")
    }

    pub(crate) fn log(&self, outcome: &Outcome<'_>) {
        if self.access.record(outcome) {
            self.access_began.notify_one();
        }
    }

    /// Gives a fresh connection to the worker that should have it.
    fn place(
        self: &Rc<Self>,
        listener: Arc<ListenerShared>,
        stream: TcpStream,
        peer: SocketAddr,
        permit: ConnectionPermit,
    ) {
        let target = self.least_loaded();
        self.crew.loads[target].fetch_add(1, Ordering::AcqRel);
        if target == self.index {
            self.spawn(listener, stream, peer, permit);
        } else if let Ok(stream) = stream.into_std() {
            self.metrics.downstream_handed_over.increment();
            self.crew.send(target, Command::Serve { listener, stream, peer, permit });
        } else {
            self.crew.loads[target].fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// This worker, unless it has clearly more connections than another one.
    fn least_loaded(&self) -> usize {
        let loads = &self.crew.loads;
        let load = |index: usize| loads[index].load(Ordering::Acquire);
        let least = (0..loads.len()).min_by_key(|index| load(*index)).unwrap_or(self.index);
        if load(self.index) > load(least) + IMBALANCE_TOLERATED { least } else { self.index }
    }

    /// Serves a connection that counts for this worker already.
    fn spawn(
        self: &Rc<Self>,
        listener: Arc<ListenerShared>,
        stream: TcpStream,
        peer: SocketAddr,
        permit: ConnectionPermit,
    ) {
        let load = Load { worker: self.clone() };
        self.metrics.downstream_connections.add(1);
        let worker = self.clone();
        tokio::task::spawn_local(async move {
            let _load = load;
            downstream::serve(worker, listener, stream, peer, permit).await;
        });
    }

    /// Remembers a client until the registration is dropped, so that it can be woken.
    pub(crate) fn register(self: &Rc<Self>, client: &Rc<Client>) -> Registration {
        let key = self.next_client.get();
        self.next_client.set(key + 1);
        self.clients.borrow_mut().insert(key, client.clone());
        Registration { worker: self.clone(), key }
    }
}

/// A connection that counts for a worker.
struct Load {
    worker: Rc<Worker>,
}

impl Drop for Load {
    fn drop(&mut self) {
        self.worker.metrics.downstream_connections.add(-1);
        self.worker.crew.loads[self.worker.index].fetch_sub(1, Ordering::AcqRel);
    }
}

/// A client that the worker remembers.
pub(crate) struct Registration {
    worker: Rc<Worker>,
    key: u64,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.worker.clients.borrow_mut().remove(&self.key);
    }
}

/// Hands lines of the access log on when they have waited for a moment.
async fn flush_access_log(worker: Rc<Worker>) {
    loop {
        worker.access_began.notified().await;
        tokio::time::sleep(FLUSH_INTERVAL).await;
        worker.access.flush();
    }
}

/// A worker may have this many connections more than the least loaded one before it hands over.
const IMBALANCE_TOLERATED: u32 = 4;
