//! Chance in a time, so that what began together does not go on together.

use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::time::Duration;

/// `time`, multiplied by something of `range`.
pub(crate) fn spread(time: Duration, range: Range<f64>) -> Duration {
    // The hasher's keys are random, and not the same twice.
    let chance = RandomState::new().hash_one(()) as f64 / u64::MAX as f64;
    time.mul_f64(range.start + (range.end - range.start) * chance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_spread_over_the_range_and_no_further() {
        let second = Duration::from_secs(1);
        let spreads: Vec<_> = (0..1000).map(|_| spread(second, 0.9..1.1).as_secs_f64()).collect();
        assert!(spreads.iter().all(|time| (0.9..=1.1).contains(time)), "{spreads:?}");
        assert!(spreads.iter().any(|time| *time < 0.95) && spreads.iter().any(|time| *time > 1.05), "{spreads:?}");
    }
}
