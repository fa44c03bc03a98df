//! Accepting client connections, and giving them to the worker with the least to do.
//!
//! Every worker accepts on a socket of its own for each listener (`SO_REUSEPORT`; Unix sockets are shared). The kernel
//! spreads connections by hash, which is uneven when they are few and live long, so a fresh connection goes to the least
//! loaded worker when the accepting one has clearly more.
//!
//! Lives on one worker.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::admission::{ConnectionPermit, ListenerShared};
use super::crew::Command;
use super::downstream;
use super::listening::Listening;
use super::local::{Load, Local};
use super::peer::Peer;
use super::proxy_protocol::introduce;
use super::transport::{Accepted, Transport};
use crate::config::{ListenAddress, ProxyProtocol};

/// A socket of this worker, and what it accepts for.
pub(crate) struct Accepting {
    /// Replaced when a reload changes the listener's settings.
    pub(crate) listener: RefCell<Arc<ListenerShared>>,
    pub(crate) stopped: Notify,
}

impl Accepting {
    pub(crate) fn is_for(&self, listener: &Arc<ListenerShared>) -> bool {
        Arc::ptr_eq(&self.listener.borrow(), listener)
    }

    pub(crate) fn stop(&self) {
        self.stopped.notify_one();
    }

    /// Serves who connects from now on by other settings.
    pub(crate) fn replace(&self, listener: Arc<ListenerShared>) {
        self.listener.replace(listener.clone());
        listener.changed().notify_waiters();
    }

    fn listener(&self) -> Arc<ListenerShared> {
        self.listener.borrow().clone()
    }

    /// Waits until `attempt` succeeds for the present settings. The kernel's backlog holds who comes meanwhile.
    async fn until<T>(&self, attempt: impl Fn(&Arc<ListenerShared>) -> Option<T>) -> T {
        loop {
            let listener = self.listener();
            let changed = listener.changed().notified();
            if let Some(done) = attempt(&listener) {
                return done;
            }
            changed.await;
        }
    }
}

/// Accepts until told to stop; then takes in who is connected already and waits to be accepted.
pub(crate) async fn accept(local: Rc<Local>, accepting: Rc<Accepting>, socket: Listening) {
    let mut is_failing = false;
    loop {
        let accepted = tokio::select! {
            biased;
            () = accepting.stopped.notified() => break,
            accepted = async {
                accepting.until(|listener| listener.has_room().then_some(())).await;
                socket.accept().await
            } => accepted,
        };
        match accepted {
            Ok((transport, peer)) => {
                is_failing = false;
                // Only now: a place must not be held by a worker to which nobody connects.
                let place = |listener: &Arc<ListenerShared>| Some((listener.clone(), listener.try_connect()?));
                let (listener, permit) = accepting.until(place).await;
                admit(&local, &listener, transport, peer, permit);
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                if !is_failing {
                    tracing::error!(listener = accepting.listener().settings.name, %error, "cannot accept connections");
                }
                is_failing = true;
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // Asked directly, because the runtime may not have heard of the latest ones yet.
    let Ok(socket) = socket.into_socket() else { return };
    let listener = accepting.listener();
    if let ListenAddress::Unix(path) = &listener.address
        && path.exists()
    {
        // One queue is for all who listen at a path, and another listener of ours has taken this one over.
        return;
    }
    while let Some(permit) = listener.try_connect() {
        let Ok((transport, peer)) = socket.accept() else { return };
        admit(&local, &listener, transport, peer, permit);
    }
}

/// The peer was gone before we came to it; the next one may be fine.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

/// Gives a fresh connection to the worker that should have it.
fn admit(
    local: &Rc<Local>,
    listener: &Arc<ListenerShared>,
    transport: Transport,
    peer: Peer,
    permit: ConnectionPermit,
) {
    let since = Instant::now();
    local.metrics.downstream_accepted.increment();
    if transport.set_nodelay().is_err() {
        return;
    }
    let target = least_loaded(local);
    local.crew.loads[target].fetch_add(1, Ordering::AcqRel);
    if target == local.index {
        serve(local, listener.clone(), transport, peer, since, permit);
    } else if let Ok(accepted) = transport.into_accepted() {
        local.metrics.downstream_handed_over.increment();
        local.crew.send(target, Command::Serve { listener: listener.clone(), accepted, peer, since, permit });
    } else {
        local.crew.loads[target].fetch_sub(1, Ordering::AcqRel);
    }
}

/// This worker, unless it has clearly more connections than another one.
fn least_loaded(local: &Local) -> usize {
    let loads = &local.crew.loads;
    let load = |index: usize| loads[index].load(Ordering::Acquire);
    let least = (0..loads.len()).min_by_key(|index| load(*index)).unwrap_or(local.index);
    if load(local.index) > load(least) + IMBALANCE_TOLERATED { least } else { local.index }
}

/// Takes a connection that another worker has accepted; it counts for this one already.
pub(crate) fn take_over(
    local: &Rc<Local>,
    listener: Arc<ListenerShared>,
    accepted: Accepted,
    peer: Peer,
    since: Instant,
    permit: ConnectionPermit,
) {
    match Transport::from_accepted(accepted) {
        Ok(transport) => serve(local, listener, transport, peer, since, permit),
        Err(_) => drop(Load::new(local)),
    }
}

fn serve(
    local: &Rc<Local>,
    listener: Arc<ListenerShared>,
    transport: Transport,
    peer: Peer,
    since: Instant,
    permit: ConnectionPermit,
) {
    let places = (Load::new(local), permit);
    if listener.settings.proxy_protocol == ProxyProtocol::Disabled {
        tokio::task::spawn_local(downstream::serve(local, listener, transport, peer, since, places));
        return;
    }
    let local = local.clone();
    tokio::task::spawn_local(async move {
        // Boxed, so that the room which reading a header takes is not kept for as long as the connection lasts.
        let introduced = Box::pin(introduce(&local, &listener, transport, peer, since)).await;
        let Some((transport, peer)) = introduced else { return };
        downstream::serve(&local, listener, transport, peer, since, places).await;
    });
}

/// A worker may have this many connections more than the least loaded one before it hands over.
const IMBALANCE_TOLERATED: u32 = 4;
/// After an accept that failed for want of descriptors or memory: one try per pause, no spinning.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
