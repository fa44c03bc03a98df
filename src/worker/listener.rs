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
    connections: AtomicU32,
    room: Notify,
    is_retired: AtomicBool,
}

impl ListenerShared {
    pub fn new(settings: config::Listener, address: SocketAddr) -> Arc<Self> {
        Arc::new(Self {
            settings,
            address,
            connections: AtomicU32::new(0),
            room: Notify::new(),
            is_retired: AtomicBool::new(false),
        })
    }

    /// No longer configured: its connections finish what runs and close.
    pub fn retire(&self) {
        self.is_retired.store(true, Ordering::Release);
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.is_retired.load(Ordering::Acquire)
    }

    fn try_connect(self: &Arc<Self>) -> Option<ConnectionPermit> {
        if self.connections.fetch_add(1, Ordering::AcqRel) < self.settings.max_connections {
            Some(ConnectionPermit(self.clone()))
        } else {
            self.leave();
            None
        }
    }

    /// Waits for room below `max_connections`. The kernel's backlog holds who comes meanwhile.
    async fn has_room(&self) {
        loop {
            let room = self.room.notified();
            if self.connections.load(Ordering::Acquire) < self.settings.max_connections {
                return;
            }
            room.await;
        }
    }

    /// Waits for a place.
    async fn connect(self: &Arc<Self>) -> ConnectionPermit {
        loop {
            let room = self.room.notified();
            if let Some(permit) = self.try_connect() {
                return permit;
            }
            room.await;
        }
    }

    fn leave(&self) {
        if self.connections.fetch_sub(1, Ordering::AcqRel) >= self.settings.max_connections {
            self.room.notify_waiters();
        }
    }
}

/// The right to one client connection; dropping it frees the place.
#[must_use]
pub struct ConnectionPermit(Arc<ListenerShared>);

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.0.leave();
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

    fn listener(&self) -> Arc<ListenerShared> {
        self.listener.borrow().clone()
    }
}

/// Accepts until told to stop; then takes in who is connected already and waits to be accepted.
pub(crate) async fn accept(worker: Rc<Worker>, accepting: Rc<Accepting>, socket: TcpListener) {
    let mut is_failing = false;
    loop {
        let accepted = tokio::select! {
            biased;
            () = accepting.stop.notified() => break,
            accepted = async { accepting.listener().has_room().await; socket.accept().await } => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                is_failing = false;
                // Only now: a place must not be held by a worker to which nobody connects.
                let listener = accepting.listener();
                let permit = listener.connect().await;
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
