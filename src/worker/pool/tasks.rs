//! What a pool does beside its requests: it dials, follows changes elsewhere, lends, and sweeps.
//!
//! Each task holds the pool weakly, and ends with it.

use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::{IDLE_BEFORE_RETURN, Lease, Pool};
use crate::error::{Fault, UpstreamFault};
use crate::worker::dial_failure::{DialFailure, next_failure};
use crate::worker::jitter::spread;
use crate::worker::share::EndpointShared;

/// Dials until one connection is there. Gives up only when others are there that may do instead.
pub(super) async fn dial(pool: Weak<Pool>, reason: &'static str) {
    let mut backoff = BACKOFF_MIN;
    loop {
        let Some((bb8, mut failures)) = pool.upgrade().map(|pool| (pool.bb8.clone(), pool.failures.subscribe())) else {
            return;
        };
        let dialled: Result<Lease, DialFailure> = tokio::select! {
            biased;
            lease = bb8.get_owned() => lease.map_err(|_| UpstreamFault::ConnectTimeout.into()),
            failure = next_failure(&mut failures) => Err(failure),
        };
        drop(bb8);
        let Some(pool) = pool.upgrade() else { return };
        match dialled {
            Ok(lease) => {
                // bb8 may have had it all the while.
                if lease.0.state.is_first_use() {
                    pool.metrics.opened.increment(reason);
                }
                pool.shared.health.dial_succeeded(&pool.shared.target);
                pool.shared.discovery.found_http2(&pool.shared.target);
                pool.adopt(lease);
                pool.is_growing.set(false);
                pool.feed();
                if pool.live.borrow().len() < pool.shared.minimum(pool.worker) as usize {
                    pool.grow("minimum");
                }
                return;
            }
            Err(failure) if pool.shared.health.has_links() => {
                // The service is there and wants no more connections: what there is must do for now.
                pool.metrics.dial_failures.increment(Fault::from(failure.fault).reason());
                pool.shared.set_warm();
                let me = Rc::downgrade(&pool);
                drop(pool);
                tokio::time::sleep(BACKOFF_MAX).await;
                let Some(pool) = me.upgrade() else { return };
                pool.is_growing.set(false);
                pool.feed();
                return;
            }
            Err(failure) if pool.shared.discovery.http2_dial_failed(&pool.shared.target, &failure) => {
                if failure.tells_http1() {
                    pool.shared.health.dial_succeeded(&pool.shared.target);
                }
                pool.is_growing.set(false);
                pool.feed();
                return;
            }
            Err(failure) => {
                pool.metrics.dial_failures.increment(Fault::from(failure.fault).reason());
                pool.shared.health.dial_failed(&pool.shared.target, &failure);
                if pool.shared.health.is_down() {
                    pool.fail_waiters();
                    pool.shared.board(pool.worker).borrowers.notify();
                }
            }
        }
        let pause_max = if pool.queue.is_empty() {
            BACKOFF_MAX
        } else {
            (pool.shared.pool.pending_timeout / DIALS_PER_WAIT).clamp(BACKOFF_MIN, BACKOFF_MAX)
        };
        drop(pool);
        // Workers and replicas that lost a service together do not ask for it together.
        tokio::time::sleep(spread(backoff.min(pause_max), 0.5..1.0)).await;
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

/// Serves the queue when something has changed on another task or worker.
pub(super) async fn follow_changes(pool: Weak<Pool>, changed: Arc<Notify>) {
    loop {
        changed.notified().await;
        let Some(pool) = pool.upgrade() else { return };
        pool.feed();
    }
}

/// Opens connections for workers that have none of their own.
pub(super) async fn answer_borrowers(pool: Weak<Pool>, shared: Arc<EndpointShared>, worker: usize) {
    loop {
        shared.board(worker).wanted.notified().await;
        let Some(pool) = pool.upgrade() else { return };
        pool.grow("waiting");
    }
}

/// Gives abandoned streams a while to end by themselves before the connections that they crowd are replaced.
pub(super) async fn relieve(pool: Weak<Pool>) {
    tokio::time::sleep(CROWDED_TOLERATED).await;
    if let Some(pool) = pool.upgrade() {
        pool.relieve();
    }
}

/// Gives idle connections back, and counts those that bb8 still keeps, until none is left.
pub(super) async fn sweep(pool: Weak<Pool>) {
    loop {
        tokio::time::sleep(IDLE_BEFORE_RETURN).await;
        let Some(pool) = pool.upgrade() else { return };
        pool.return_idle();
        pool.age();
        pool.show();
        if pool.live.borrow().is_empty() && pool.bb8.state().idle_connections == 0 {
            pool.is_sweeping.set(false);
            return;
        }
    }
}

/// Between a failed dial and the next, doubling.
const BACKOFF_MIN: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_millis(500);
/// Shorter than requests wait by default, longer than most answers take.
const CROWDED_TOLERATED: Duration = Duration::from_millis(300);
/// While requests wait they see at least so many dials, or a service that is back in time would be found out too late.
const DIALS_PER_WAIT: u32 = 8;
