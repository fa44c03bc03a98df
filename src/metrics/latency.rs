//! Durations added up: what a latency was for most, and how much came between two looks.
//!
//! Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{BUCKETS_NS, Histogram};

/// What several histograms hold together.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(into = "HistogramShown", from = "HistogramShown")]
pub struct HistogramSum {
    /// The last one holds what is above every bound of [`BUCKETS_NS`].
    pub buckets: [u64; BUCKETS_NS.len() + 1],
    pub sum_ns: u64,
}

impl HistogramSum {
    pub(super) fn of<'a>(parts: impl Iterator<Item = &'a Self>) -> Self {
        let mut sum = Self::default();
        for part in parts {
            sum.buckets.iter_mut().zip(part.buckets).for_each(|(sum, count)| *sum += count);
            sum.sum_ns += part.sum_ns;
        }
        sum
    }

    pub fn add(&mut self, histogram: &Histogram) {
        for (sum, bucket) in self.buckets.iter_mut().zip(&histogram.buckets) {
            *sum += bucket.value();
        }
        self.sum_ns += histogram.sum_ns.value();
    }

    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// What has come since `earlier`, an older sum of the same histograms.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut fresh = self.clone();
        fresh.buckets.iter_mut().zip(earlier.buckets).for_each(|(count, old)| *count = count.saturating_sub(old));
        fresh.sum_ns = self.sum_ns.saturating_sub(earlier.sum_ns);
        fresh
    }

    /// The duration that the fraction `quantile` (0 to 1) of all did not exceed, `None` without any.
    ///
    /// Within a bucket durations are taken as evenly spread, as Prometheus' `histogram_quantile` does; above the last
    /// bound nothing is known, so that bound is the answer.
    pub fn quantile(&self, quantile: f64) -> Option<Duration> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let rank = quantile.clamp(0.0, 1.0) * count as f64;
        let mut below = 0;
        let mut lower_ns = 0;
        for (upper_ns, here) in BUCKETS_NS.into_iter().zip(self.buckets) {
            if here > 0 && (below + here) as f64 >= rank {
                let part = (rank - below as f64) / here as f64;
                let ns = lower_ns as f64 + (upper_ns - lower_ns) as f64 * part;
                return Some(Duration::from_secs_f64(ns / NS_PER_SECOND));
            }
            below += here;
            lower_ns = upper_ns;
        }
        Some(Duration::from_nanos(lower_ns))
    }

    pub fn sum_seconds(&self) -> f64 {
        self.sum_ns as f64 / NS_PER_SECOND
    }
}

/// A [`HistogramSum`] in JSON: with what a reader would compute from it.
#[derive(Serialize, Deserialize)]
struct HistogramShown {
    count: u64,
    sum_seconds: f64,
    p50_seconds: Option<f64>,
    p99_seconds: Option<f64>,
    sum_ns: u64,
    buckets: [u64; BUCKETS_NS.len() + 1],
}

impl From<HistogramSum> for HistogramShown {
    fn from(sum: HistogramSum) -> Self {
        let seconds = |quantile| sum.quantile(quantile).map(|duration| duration.as_secs_f64());
        Self {
            count: sum.count(),
            sum_seconds: sum.sum_seconds(),
            p50_seconds: seconds(0.5),
            p99_seconds: seconds(0.99),
            sum_ns: sum.sum_ns,
            buckets: sum.buckets,
        }
    }
}

impl From<HistogramShown> for HistogramSum {
    fn from(shown: HistogramShown) -> Self {
        Self { buckets: shown.buckets, sum_ns: shown.sum_ns }
    }
}

const NS_PER_SECOND: f64 = 1e9;

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn sum(durations: &[Duration]) -> HistogramSum {
        let histogram = Histogram::default();
        for duration in durations {
            histogram.record(*duration);
        }
        let mut sum = HistogramSum::default();
        sum.add(&histogram);
        sum
    }

    #[test]
    fn quantiles_are_interpolated_within_a_bucket() {
        // 1 to 2.5 ms: the median of evenly spread durations lies in the middle of the bucket.
        assert_eq!(sum(&[ms(2); 10]).quantile(0.5), Some(Duration::from_micros(1750)));
        assert_eq!(sum(&[ms(2); 10]).quantile(1.0), Some(Duration::from_micros(2500)));
        let mixed = sum(&[ms(2), ms(2), ms(2), ms(200)]);
        assert_eq!(mixed.quantile(0.75), Some(Duration::from_micros(2500)));
        assert_eq!(mixed.quantile(0.99), Some(ms(244)));
    }

    #[test]
    fn quantiles_of_nothing_are_unknown_and_those_above_the_bounds_are_the_last_bound() {
        assert_eq!(HistogramSum::default().quantile(0.5), None);
        assert_eq!(sum(&[Duration::from_hours(1)]).quantile(0.5), Some(Duration::from_secs(10)));
    }

    #[test]
    fn a_later_sum_less_an_earlier_one_is_what_came_between() {
        let earlier = sum(&[ms(1)]);
        let later = sum(&[ms(1), ms(30), ms(30)]);
        assert_eq!(later.since(&earlier), sum(&[ms(30), ms(30)]));
    }
}
