//! Random numbers that a seed repeats: `SplitMix64`.

use std::ops::RangeInclusive;
use std::time::{SystemTime, UNIX_EPOCH};

pub struct Random(u64);

impl Random {
    /// The numbers that belong to one request of a load, or to whatever else is counted.
    pub fn of(seed: u64, request: u64) -> Self {
        let mut random = Self(seed ^ request.wrapping_mul(0xA24B_AED4_963E_E407));
        random.next();
        random
    }

    pub fn percent(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }

    pub fn within(&mut self, range: &RangeInclusive<u64>) -> u64 {
        range.start() + self.next() % (range.end() - range.start() + 1)
    }

    /// In another order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            items.swap(at, self.within(&(0..=at as u64)) as usize);
        }
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

/// The seed in this environment variable, or a new one.
pub fn seed(variable: &str) -> u64 {
    let fresh = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |now| u64::from(now.subsec_nanos()));
    std::env::var(variable).ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(fresh)
}
