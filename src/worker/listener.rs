//! Accepting client connections, and giving them to the worker with the least to do.
//!
//! Every worker accepts on a socket of its own for each listener (SO_REUSEPORT). The kernel spreads connections by
//! hash, which is uneven when they are few and live long, so a fresh connection goes to the least loaded worker when the
//! accepting one has clearly more.
//!
//! Lives on one worker; [`ListenerShared`] is shared by all.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::Worker;
use crate::config;

/// One listener in the whole process.
pub struct ListenerShared {
    pub settings: config::Listener,
    /// Where it really listens: the port that the kernel chose, if 0 was asked for.
    pub address: SocketAddr,
    places: Arc<Places>,
    is_retired: AtomicBool,
}

/// Who is connected to a listener, under whichever settings.
#[derive(Default)]
struct Places {
    taken: AtomicU32,
    /// Told when one is left, or when there may be more of them.
    changed: Notify,
}

impl ListenerShared {
    pub fn new(settings: config::Listener, address: SocketAddr) -> Arc<Self> {
        Arc::new(Self { settings, address, places: Arc::default(), is_retired: AtomicBool::new(false) })
    }

    /// The same listener under other settings: who is connected already still counts.
    pub fn with_settings(&self, settings: config::Listener) -> Arc<Self> {
        let (address, places) = (self.address, self.places.clone());
        Arc::new(Self { settings, address, places, is_retired: AtomicBool::new(false) })
    }

    /// No longer configured: its connections finish what runs and close.
    pub fn retire(&self) {
        self.is_retired.store(true, Ordering::Release);
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.is_retired.load(Ordering::Acquire)
    }

    fn has_room(&self) -> bool {
        self.places.taken.load(Ordering::Acquire) < self.settings.max_connections
    }

    /// Takes a place, if there is one. Changes nothing otherwise: a place taken and left again would wake those
    /// that wait, this one among them, for ever.
    fn try_connect(&self) -> Option<ConnectionPermit> {
        let max = self.settings.max_connections;
        let one_more = |taken: u32| (taken < max).then_some(taken + 1);
        let taken = self.places.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more);
        taken.is_ok().then(|| ConnectionPermit(self.places.clone()))
    }
}

/// The right to one client connection; dropping it frees the place.
#[must_use]
pub struct ConnectionPermit(Arc<Places>);

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::AcqRel);
        self.0.changed.notify_waiters();
    }
}

/// A socket of this worker, and what it accepts for.
pub(crate) struct Accepting {
    /// Replaced when a reload changes the listener's settings.
    pub(crate) listener: RefCell<Arc<ListenerShared>>,
    pub(crate) stop: Notify,
}

impl Accepting {
    pub(crate) fn is_for(&self, listener: &Arc<ListenerShared>) -> bool {
        Arc::ptr_eq(&self.listener.borrow(), listener)
    }

    /// Serves who connects from now on by other settings.
    pub(crate) fn replace(&self, listener: Arc<ListenerShared>) {
        self.listener.replace(listener.clone());
        listener.places.changed.notify_waiters();
    }

    fn listener(&self) -> Arc<ListenerShared> {
        self.listener.borrow().clone()
    }

    /// Waits until `attempt` succeeds for the present settings. The kernel's backlog holds who comes meanwhile.
    async fn until<T>(&self, attempt: impl Fn(&Arc<ListenerShared>) -> Option<T>) -> T {
        loop {
            let listener = self.listener();
            let changed = listener.places.changed.notified();
            if let Some(done) = attempt(&listener) {
                return done;
            }
            changed.await;
        }
    }
}

/// Accepts until told to stop; then takes in who is connected already and waits to be accepted.
pub(crate) async fn accept(worker: Rc<Worker>, accepting: Rc<Accepting>, socket: TcpListener) {
    let mut is_failing = false;
    loop {
        let accepted = tokio::select! {
            biased;
            () = accepting.stop.notified() => break,
            accepted = async {
                accepting.until(|listener| listener.has_room().then_some(())).await;
                socket.accept().await
            } => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                is_failing = false;
                // Only now: a place must not be held by a worker to which nobody connects.
                let place = |listener: &Arc<ListenerShared>| Some((listener.clone(), listener.try_connect()?));
                let (listener, permit) = accepting.until(place).await;
                admit(&worker, &listener, stream, peer, permit);
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
    let Ok(socket) = socket.into_std() else { return };
    let listener = accepting.listener();
    while let Some(permit) = listener.try_connect() {
        let Ok((stream, peer)) = socket.accept() else { return };
        if stream.set_nonblocking(true).is_ok()
            && let Ok(stream) = TcpStream::from_std(stream)
        {
            admit(&worker, &listener, stream, peer, permit);
        }
    }
}

/// The peer was gone before we came to it; the next one may be fine.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

fn admit(
    worker: &Rc<Worker>,
    listener: &Arc<ListenerShared>,
    stream: TcpStream,
    peer: SocketAddr,
    permit: ConnectionPermit,
) {
    worker.metrics.downstream_accepted.increment();
    // Answers go out whole; waiting for more to send would only delay them.
    if stream.set_nodelay(true).is_ok() {
        worker.place(listener.clone(), stream, peer, permit);
    }
}

/// After an accept that failed for want of descriptors or memory: one try per pause, no spinning.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
