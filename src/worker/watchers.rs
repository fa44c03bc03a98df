//! Tasks, of any worker, that want to know when something has changed.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// Told all at once; each looks for itself what has changed.
#[derive(Debug, Default)]
pub(crate) struct Watchers(Mutex<Vec<Arc<Notify>>>);

impl Watchers {
    pub(crate) fn add(&self, watcher: &Arc<Notify>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(watcher.clone());
    }

    pub(crate) fn remove(&self, watcher: &Arc<Notify>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|known| !Arc::ptr_eq(known, watcher));
    }

    pub(crate) fn notify(&self) {
        for watcher in &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            watcher.notify_one();
        }
    }
}
