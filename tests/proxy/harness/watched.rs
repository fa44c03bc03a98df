//! Waiting by condition: a value that says when it changes, and a bound on every wait.
//!
//! Works across threads and runtimes: origins change a log on their thread, tests wait on theirs.

use std::fmt::Debug;
use std::future::Future;
use std::panic::Location;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::error::Elapsed;

/// A value behind a lock whose changes wake those who wait for a condition on it.
pub struct Watched<T> {
    value: Mutex<T>,
    changed: Notify,
}

impl<T: Debug> Watched<T> {
    pub fn new(value: T) -> Self {
        Self { value: Mutex::new(value), changed: Notify::new() }
    }

    /// Reads without waiting. Keep the guard short: the origin's thread waits for it.
    pub fn read(&self) -> MutexGuard<'_, T> {
        // A test's condition may panic under the lock; the value is whole all the same.
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn change<R>(&self, edit: impl FnOnce(&mut T) -> R) -> R {
        let result = edit(&mut self.read());
        self.changed.notify_waiters();
        result
    }

    /// Waits until `is_met` holds; panics with the caller's place and the last value after [`BOUND`].
    #[track_caller]
    pub fn wait_for(&self, mut is_met: impl FnMut(&T) -> bool) -> impl Future<Output = ()> {
        let caller = Location::caller();
        let wait = async move {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                // Registers before the look at the value, so that a change in between is not missed.
                changed.as_mut().enable();
                if is_met(&self.read()) {
                    return;
                }
                changed.await;
            }
        };
        async move {
            let is_met = tokio::time::timeout(BOUND, wait).await.is_ok();
            assert!(is_met, "{caller}: the condition was not met within {BOUND:?}; last seen: {:#?}", self.read());
        }
    }
}

/// Awaits `future`; panics with the caller's place and `what` after [`BOUND`].
#[track_caller]
pub fn within<F: Future>(what: &str, future: F) -> impl Future<Output = F::Output> {
    let caller = Location::caller();
    async move {
        match tokio::time::timeout(BOUND, future).await {
            Ok(output) => output,
            Err(Elapsed { .. }) => panic!("{caller}: no {what} within {BOUND:?}"),
        }
    }
}

/// Far above anything that works, so that reaching it means broken and not slow.
pub const BOUND: Duration = Duration::from_secs(10);
