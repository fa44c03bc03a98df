//! All workers of a process, and what can be said to them.
//!
//! The one way from control to the workers and from worker to worker; used off the request path.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;

use super::admission::{ConnectionPermit, ListenerShared};
use super::listening::ListeningSocket;
use super::peer::Peer;
use super::snapshot::Snapshot;
use super::transport::Accepted;
use crate::metrics::Registry;
use crate::translate::Identity;

/// What a worker is told.
pub enum Command {
    /// Serve requests by this configuration from now on.
    Apply(Arc<Snapshot>),
    /// Accept on this socket.
    Listen(Arc<ListenerShared>, ListeningSocket),
    /// Serve who connects there by other settings from now on.
    Replace { old: Arc<ListenerShared>, new: Arc<ListenerShared> },
    /// Stop accepting there; retired connections finish what runs.
    Retire(Arc<ListenerShared>),
    /// A connection that another worker has accepted.
    Serve { listener: Arc<ListenerShared>, accepted: Accepted, peer: Peer, since: Instant, permit: ConnectionPermit },
    /// Stop accepting, finish what runs, then end.
    Drain,
    /// End now.
    Stop,
}

/// What all workers of a process share.
pub struct Crew {
    pub(crate) commands: Vec<UnboundedSender<Command>>,
    /// Client connections, by worker.
    pub(crate) loads: Vec<AtomicU32>,
    /// Sockets that accept, of all workers.
    pub(crate) accepting: AtomicU32,
    pub(crate) registry: Arc<Registry>,
    /// Our name in Via, different in every process.
    pub(crate) identity: Arc<Identity>,
}

impl Crew {
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

    /// Nobody is connected, and nobody can connect.
    pub fn is_idle(&self) -> bool {
        self.accepting.load(Ordering::Acquire) == 0 && self.connections() == 0
    }

    /// Open client connections of all workers.
    pub fn connections(&self) -> u32 {
        self.loads.iter().map(|load| load.load(Ordering::Acquire)).sum()
    }

    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }
}
