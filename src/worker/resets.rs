//! How many streams of one connection may be reset, and when the next one may.
//!
//! Since HTTP/2's rapid reset attack (CVE-2023-44487) servers count the resets that come, and end a connection for
//! too many with every stream on it. Netty and what is built on it bear 200 in 30 s, Envoy that half of 500 streams are
//! reset young, nghttp2 (nghttpd, Node.js, Envoy) 1000 and 33 more each second. A peer with the usual limit of 100
//! streams gets at most 100 resets at once, and 75 more in 30 s; one that allows more streams gets more in proportion.
//!
//! Shared by the workers that use the connection. Asks no clock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// The resets of one connection: a token bucket in which each reset has its turn.
pub(crate) struct ResetBudget {
    start: Instant,
    /// Milliseconds since the start by which what the resets so far have cost will be regained.
    spent_ms: AtomicU64,
}

impl ResetBudget {
    pub(crate) fn new(now: Instant) -> Self {
        Self { start: now, spent_ms: AtomicU64::new(0) }
    }

    /// Takes the next turn on a connection that may carry so many streams; returns how long it is until then.
    pub(crate) fn take_turn(&self, streams: u32, now: Instant) -> Duration {
        let now_ms = now.saturating_duration_since(self.start).as_millis() as u64;
        let after = |spent_ms: u64| spent_ms.max(now_ms) + cost_ms(streams);
        let before = self.spent_ms.fetch_update(Ordering::AcqRel, Ordering::Acquire, |spent_ms| Some(after(spent_ms)));
        let debt_ms = after(before.unwrap_or_else(|spent_ms| spent_ms)) - now_ms;
        Duration::from_millis(debt_ms.saturating_sub(FULL_MS))
    }

    /// A stream has ended before its turn.
    pub(crate) fn give_back(&self, streams: u32) {
        let back = |spent_ms: u64| Some(spent_ms.saturating_sub(cost_ms(streams)));
        _ = self.spent_ms.fetch_update(Ordering::AcqRel, Ordering::Acquire, back);
    }
}

/// As many resets empty a full budget as the connection may carry streams: whoever allows so many at once bears that all
/// of them are given up at once.
fn cost_ms(streams: u32) -> u64 {
    FULL_MS / u64::from(streams.max(STREAMS_MIN))
}

/// In which an empty budget becomes full again.
const FULL_MS: u64 = 40_000;
/// No server minds so many.
const STREAMS_MIN: u32 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    const AT_ONCE: Duration = Duration::ZERO;

    fn budget() -> (ResetBudget, Instant) {
        let start = Instant::now();
        (ResetBudget::new(start), start)
    }

    #[test]
    fn as_many_resets_as_streams_may_come_at_once_and_those_after_them_in_turn() {
        for (streams, at_once, interval_ms) in [(1, 100, 400), (100, 100, 400), (400, 400, 100)] {
            let (budget, start) = budget();
            assert!((0..at_once).all(|_| budget.take_turn(streams, start) == AT_ONCE));
            let turns = [(); 3].map(|()| budget.take_turn(streams, start).as_millis());
            assert_eq!(turns, [1, 2, 3].map(|turn| turn * interval_ms));
        }
    }

    #[test]
    fn no_half_minute_has_200_resets() {
        let (budget, start) = budget();
        let turn = |ms| ms + budget.take_turn(100, start + Duration::from_millis(ms)).as_millis() as u64;
        let turns: Vec<u64> = (0..60_000).step_by(10).map(turn).collect();
        let most =
            turns.iter().map(|from| turns.iter().filter(|ms| (*from..from + 30_000).contains(*ms)).count()).max();
        assert_eq!(most, Some(174));
    }

    #[test]
    fn a_turn_that_was_not_needed_goes_to_the_next() {
        let (budget, start) = budget();
        for _ in 0..1000 {
            budget.take_turn(100, start);
        }
        (0..900).for_each(|_| budget.give_back(100));
        assert_eq!(budget.take_turn(100, start).as_millis(), 400);
        let later = start + Duration::from_hours(1);
        assert!((0..100).all(|_| budget.take_turn(100, later) == AT_ONCE));
        assert!(budget.take_turn(100, later) > AT_ONCE);
    }
}
