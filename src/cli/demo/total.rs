//! What the demo has shown when it ends.

use std::fmt;
use std::time::Duration;

use super::super::text::{count, per_second, thousands, time};
use super::load::Tally;
use super::pair::Medians;
use super::sidecar::Reading;

/// The whole run.
#[derive(Default)]
pub(super) struct Total {
    pub(super) tally: Tally,
    /// The latest look, with the highest numbers of connections of all looks.
    pub(super) figures: Reading,
    pub(super) pair: Option<Medians>,
    pub(super) elapsed: Duration,
    /// Cut by the sidecar at the end.
    pub(super) cut_connections: u32,
    /// As the service has counted them.
    pub(super) service_connections: u64,
    /// The requests were the user's.
    pub(super) is_own_load: bool,
}

impl Total {
    pub(super) fn add(&mut self, tally: &Tally, figures: Reading) {
        self.tally.add(tally);
        let Reading { client_connections, upstream_connections, .. } = self.figures;
        self.figures = Reading {
            client_connections: figures.client_connections.max(client_connections),
            upstream_connections: figures.upstream_connections.max(upstream_connections),
            ..figures
        };
    }

    /// Nothing went wrong that the built-in client saw; of other clients nobody knows what they did on purpose.
    pub(super) fn is_clean(&self) -> bool {
        self.is_own_load || (self.tally.errors == 0 && self.tally.wrong == 0 && self.tally.answers > 0)
    }
}

impl fmt::Display for Total {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tally, figures, pair, elapsed, cut_connections, service_connections, is_own_load } = self;
        let seconds = elapsed.as_secs_f64();
        if *is_own_load {
            writeln!(
                f,
                "total: {} requests of yours in {seconds:.1} s, {} faults",
                thousands(figures.requests),
                thousands(figures.faults)
            )?;
        } else {
            writeln!(
                f,
                "total: {} requests in {seconds:.1} s ({}/s), {} errors, {} wrong answers",
                thousands(tally.answers),
                thousands(per_second(tally.answers, *elapsed)),
                thousands(tally.errors),
                thousands(tally.wrong)
            )?;
        }
        if let Some(first) = &tally.first {
            writeln!(f, "  the first that went wrong: {first}")?;
        }
        // One of them is the direct one of the second client.
        let from_sidecar = service_connections.saturating_sub(u64::from(!is_own_load));
        writeln!(
            f,
            "  at most {} client connections at a time; the service saw {} from the sidecar",
            thousands(figures.client_connections),
            count(usize::try_from(from_sidecar).unwrap_or(usize::MAX), "connection"),
        )?;
        if let (Some(p50), Some(p99)) = (tally.quantile(0.5), tally.quantile(0.99)) {
            let max = Duration::from_nanos(tally.latency_ns.max());
            writeln!(f, "  latency at the client: p50 {}, p99 {}, at most {}", time(p50), time(p99), time(max))?;
        }
        if let Some(pair) = pair {
            writeln!(f, "  one at a time: {pair}, waiting included")?;
        }
        if *cut_connections > 0 {
            writeln!(f, "  {cut_connections} client connections were still busy at the end and were cut")?;
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        writeln!(
            f,
            "  Client, sidecar and service share the {} of this machine: this shows that it\n  works, and how many \
             connections it takes. It is not a benchmark.",
            count(cores, "core")
        )
    }
}

impl fmt::Display for Medians {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { through, direct } = self;
        write!(
            f,
            "p50 {} through, {} direct: the sidecar adds {}",
            time(*through),
            time(*direct),
            time(through.saturating_sub(*direct))
        )
    }
}
