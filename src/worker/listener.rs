//! Accepting client connections, and giving them to the worker with the least to do.
//!
//! Every worker accepts on a socket of its own for each listener (SO_REUSEPORT). The kernel spreads connections by
//! hash, which is uneven when they are few and live long, so a fresh connection goes to the least loaded worker when the
//! accepting one has clearly more.
//!
//! Lives on one worker; [`ListenerShared`] is shared by all.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::{Command, Worker};
use crate::config;

/// A worker may have this many connections more than the least loaded one before it hands over.
const IMBALANCE_TOLERATED: u32 = 4;
/// After an accept that failed for want of descriptors or memory: one try per pause, no spinning.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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

/// Accepts until the task is aborted.
pub(crate) async fn accept(worker: Rc<Worker>, listener: Arc<ListenerShared>, socket: TcpListener) {
    let mut is_failing = false;
    loop {
        let permit = listener.connect().await;
        match socket.accept().await {
            Ok((stream, peer)) => {
                is_failing = false;
                admit(&worker, &listener, stream, peer, permit);
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                if !is_failing {
                    tracing::error!(listener = listener.settings.name, %error, "cannot accept connections");
                }
                is_failing = true;
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Takes in what waits in the backlog, so that closing the socket refuses nobody who is connected already.
pub(crate) fn accept_waiting(worker: &Rc<Worker>, listener: &Arc<ListenerShared>, socket: &std::net::TcpListener) {
    while let Ok((stream, peer)) = socket.accept() {
        let Some(permit) = listener.try_connect() else { return };
        if stream.set_nonblocking(true).is_ok()
            && let Ok(stream) = TcpStream::from_std(stream)
        {
            admit(worker, listener, stream, peer, permit);
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

fn admit(worker: &Rc<Worker>, listener: &Arc<ListenerShared>, stream: TcpStream, peer: SocketAddr, permit: ConnectionPermit) {
    worker.metrics.downstream_accepted.increment();
    // Answers go out whole; waiting for more to send would only delay them.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    match worker.less_loaded(IMBALANCE_TOLERATED) {
        Some(other) => {
            let Ok(stream) = stream.into_std() else { return };
            worker.metrics.downstream_handed_over.increment();
            worker.send_to(other, Command::Serve { listener: listener.clone(), stream, peer, permit });
        }
        None => worker.serve(listener.clone(), stream, peer, permit),
    }
}
