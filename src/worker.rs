//! The data plane: one copy per core, single-threaded, without locks on the request path.
//!
//! A worker is an OS thread with its own runtime, listeners, upstream connections and counters. Control speaks to it
//! through [`Command`]s and publishes immutable [`Snapshot`]s; the worker answers only through counters.

mod acquire;
mod admission;
mod again;
mod body;
mod call;
mod client;
mod crew;
mod dial;
mod dial_failure;
mod discovery;
mod downstream;
mod event_stream;
mod exchange;
mod exclusive;
mod expectation;
mod forward;
mod frame_filter;
mod gathered;
mod handshake;
mod http1;
mod jitter;
mod lane;
mod listener;
mod listening;
mod local;
mod mux;
mod peer;
mod pool;
mod probe;
mod proxy_protocol;
mod queue;
mod request_body;
mod resets;
mod respond;
mod retry;
mod routing;
mod share;
mod snapshot;
mod socket;
mod stream;
mod timer;
mod transport;
mod tunnel;
mod upgrade;
mod upload;
mod upstream_io;
mod vigil;
mod watchers;

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;

use tokio::runtime::LocalOptions;
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

pub use admission::{ConnectionPermit, ListenerShared};
pub use crew::{Command, Crew};
pub use dial::{Target, TargetTls};
pub use dial_failure::DialFailure;
pub use listening::ListeningSocket;
pub use peer::Peer;
pub use probe::{PeerSettings, ProbeFailure, ProbeReport};
pub use share::EndpointShared;
pub use snapshot::{Snapshot, UpstreamSnapshot};
pub use transport::Accepted;

use crate::metrics::Registry;
use crate::translate::{Identity, RequestHead};
use lane::Lane;
use listener::Accepting;
use listening::Listening;
use local::Local;
use routing::EndpointPool;

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
        let (crew, inboxes) = Self::new(registry, pseudonym)?;
        let workers = inboxes.len();
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
                        runtime.block_on(async {
                            let local = Local::new(index, crew, &snapshot);
                            drop(snapshot);
                            run(local, inbox).await;
                        });
                    }
                }
            })?);
        }
        drop(ready);
        // Each worker says so once; its end of the channel lives as long as the worker.
        is_ready.iter().take(workers).collect::<io::Result<()>>()?;
        Ok((crew, threads))
    }

    /// Nobody works yet: each inbox is for one worker.
    fn new(registry: Arc<Registry>, pseudonym: &str) -> io::Result<(Arc<Self>, Vec<UnboundedReceiver<Command>>)> {
        let workers = registry.workers().len();
        let (commands, inboxes) = (0..workers).map(|_| unbounded_channel()).unzip();
        let identity = Identity::new(pseudonym).ok_or_else(|| io::Error::other("the pseudonym is not a token"))?;
        let crew = Self {
            commands,
            loads: (0..workers).map(|_| AtomicU32::new(0)).collect(),
            accepting: AtomicU32::new(0),
            registry,
            identity: Arc::new(identity),
        };
        Ok((Arc::new(crew), inboxes))
    }
}

/// A worker on the caller's thread, so that whoever counts what a request costs (`tests/counts`) counts nothing else.
#[doc(hidden)]
pub struct LoneWorker(Rc<Local>);

impl LoneWorker {
    /// Must be called on a local runtime, of which the worker becomes a task.
    pub fn start(snapshot: &Snapshot) -> io::Result<(Arc<Crew>, Self)> {
        let (crew, inboxes) = Crew::new(Arc::new(Registry::new(1)), "trunkline")?;
        let local = Local::new(0, crew.clone(), snapshot);
        for inbox in inboxes {
            tokio::task::spawn_local(run(local.clone(), inbox));
        }
        Ok((crew, Self(local)))
    }

    /// Takes a place for `head` without waiting and gives it back, again and again beside another one; returns how
    /// often there was one.
    pub fn try_places(&self, head: &RequestHead, times: usize) -> usize {
        let routing = self.0.routing();
        let Some(route) = routing.table.find(head) else { return 0 };
        let EndpointPool::Http2(pool) = &route.upstream.endpoints[0].pool else { return 0 };
        let _other = pool.try_acquire(Lane::Short);
        (0..times).filter(|_| pool.try_acquire(Lane::Short).is_some()).count()
    }
}

/// One worker's life: it does what it is told until it is told to stop.
async fn run(local: Rc<Local>, mut inbox: UnboundedReceiver<Command>) {
    tokio::task::spawn_local(local.wheel.clone().run());
    tokio::task::spawn_local(local.clone().flush_log_lines());
    tokio::task::spawn_local(local.clone().return_memory());
    let mut accepting: Vec<Rc<Accepting>> = Vec::new();
    while let Some(command) = inbox.recv().await {
        match command {
            Command::Apply(snapshot) => local.apply(&snapshot),
            Command::Listen(listener, socket) => accepting.extend(listen(&local, listener, socket)),
            Command::Replace { old, new } => {
                for accepting in accepting.iter().filter(|accepting| accepting.is_for(&old)) {
                    accepting.replace(new.clone());
                }
            }
            Command::Retire(listener) => {
                accepting
                    .extract_if(.., |accepting| accepting.is_for(&listener))
                    .for_each(|accepting| accepting.stop());
                local.wake_clients();
            }
            Command::Serve { listener, accepted, peer, since, permit } => {
                listener::take_over(&local, listener, accepted, peer, since, permit);
            }
            Command::Drain => {
                accepting.drain(..).for_each(|accepting| accepting.stop());
                local.drain();
            }
            Command::Stop => break,
        }
    }
    local.flush_log();
}

fn listen(local: &Rc<Local>, listener: Arc<ListenerShared>, socket: ListeningSocket) -> Option<Rc<Accepting>> {
    let name = listener.settings.name.clone();
    let socket = Listening::new(socket)
        .inspect_err(|error| tracing::error!(listener = name, %error, "cannot accept connections"))
        .ok()?;
    let accepting = Rc::new(Accepting { listener: RefCell::new(listener), stopped: Notify::new() });
    local.crew.accepting.fetch_add(1, Ordering::AcqRel);
    let task = listener::accept(local.clone(), accepting.clone(), socket);
    let crew = local.crew.clone();
    tokio::task::spawn_local(async move {
        task.await;
        crew.accepting.fetch_sub(1, Ordering::AcqRel);
    });
    Some(accepting)
}
