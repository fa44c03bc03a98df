//! What the workers share about one listener: its settings, its certificates, and how many are connected.
//!
//! Used by all workers, once for each connection. Knows no sockets.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use tokio::sync::Notify;

use crate::config::{self, ListenAddress};
use crate::tls::ServerTls;

/// One listener in the whole process.
pub struct ListenerShared {
    pub settings: config::Listener,
    /// Where it really listens: the port that the kernel chose, if 0 was asked for.
    pub address: ListenAddress,
    /// Present where clients speak TLS.
    pub tls: Option<Arc<ServerTls>>,
    places: Arc<Places>,
}

/// Who is connected to a listener, under whichever settings.
#[derive(Default)]
struct Places {
    taken: AtomicU32,
    /// No longer configured: its connections finish what runs and close.
    is_retired: AtomicBool,
    /// Told when one is left, or when there may be more of them.
    changed: Notify,
}

impl ListenerShared {
    pub fn new(settings: config::Listener, tls: Option<Arc<ServerTls>>, address: ListenAddress) -> Arc<Self> {
        Arc::new(Self { settings, address, tls, places: Arc::default() })
    }

    /// The same listener under other settings or with other certificates: who is connected already still counts.
    pub fn with_settings(&self, settings: config::Listener, tls: Option<Arc<ServerTls>>) -> Arc<Self> {
        let (address, places) = (self.address.clone(), self.places.clone());
        Arc::new(Self { settings, address, tls, places })
    }

    /// Told when a place is left, or when there may be more of them.
    pub(crate) fn changed(&self) -> &Notify {
        &self.places.changed
    }

    /// No longer configured: its connections finish what runs and close.
    pub fn retire(&self) {
        self.places.is_retired.store(true, Ordering::Release);
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.places.is_retired.load(Ordering::Acquire)
    }

    pub(crate) fn has_room(&self) -> bool {
        self.places.taken.load(Ordering::Acquire) < self.settings.max_connections
    }

    /// Takes a place, if there is one. Changes nothing otherwise: a place taken and left again would wake those
    /// that wait, this one among them, for ever.
    pub(crate) fn try_connect(&self) -> Option<ConnectionPermit> {
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
