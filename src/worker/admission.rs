//! What the workers share about one listener: its settings, and how many are connected.
//!
//! Used by all workers, once for each connection. Knows no sockets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use tokio::sync::Notify;

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

    pub(crate) fn try_connect(self: &Arc<Self>) -> Option<ConnectionPermit> {
        if self.connections.fetch_add(1, Ordering::AcqRel) < self.settings.max_connections {
            Some(ConnectionPermit(self.clone()))
        } else {
            self.leave();
            None
        }
    }

    /// Waits for room below `max_connections`. The kernel's backlog holds who comes meanwhile.
    pub(crate) async fn has_room(&self) {
        loop {
            let room = self.room.notified();
            if self.connections.load(Ordering::Acquire) < self.settings.max_connections {
                return;
            }
            room.await;
        }
    }

    /// Waits for a place.
    pub(crate) async fn connect(self: &Arc<Self>) -> ConnectionPermit {
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
