//! Foreign programs and ours as processes: found, started, watched, ended.

pub mod address;
pub mod certificates;
pub mod chromium;
pub mod curl;
pub mod files;
pub mod h2load;
pub mod nats;
pub mod nghttp;
pub mod nghttpd;
pub mod nginx;
pub mod openssl;
pub mod process;
pub mod programs;
pub mod proxy;
pub mod python;
pub mod rabbitmq;
pub mod sockets;
pub mod strace;
pub mod wrk;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Far above anything that works, so that reaching it means broken and not slow.
pub const BOUND: Duration = Duration::from_secs(20);

/// Keeps the machine for one load at a time: two at once would measure each other.
pub fn alone() -> MutexGuard<'static, ()> {
    static MACHINE: Mutex<()> = Mutex::new(());
    // A failed test says nothing about the next one.
    MACHINE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Looks until there is something; panics with `what` after [`BOUND`].
#[track_caller]
pub fn poll<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    poll_within(BOUND, what, look)
}

/// The same with a bound of its own, for what takes long.
#[track_caller]
pub fn poll_within<T>(bound: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + bound;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "no {what} within {bound:?}");
        // Between looks, not for an effect: the next look decides.
        std::thread::sleep(LOOK_INTERVAL);
    }
}

const LOOK_INTERVAL: Duration = Duration::from_millis(5);
