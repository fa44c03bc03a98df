//! Joins what the clients saw with what the origins saw, and says what went wrong between.

use std::collections::BTreeMap;
use std::fmt;

use super::{ClientLog, Outcome, Record};
use crate::harness::origin::log::Log;

/// What a load showed. A proxy is right when `lost`, `doubled`, `wrong` and `invented` are empty.
pub struct Verdict {
    pub seed: u64,
    pub answered: usize,
    /// Failed for the client although it was safe to retry: GET, or never processed by an origin.
    pub lost: Vec<Lost>,
    /// POSTs that origins processed more than once, and how often.
    pub doubled: Vec<(u64, u32)>,
    /// Answers that belonged to another request, in words.
    pub wrong: Vec<String>,
    /// Answered with 200 although no origin saw them.
    pub invented: Vec<u64>,
    /// POSTs that failed after an origin had begun them: no proxy may retry those.
    pub failed: usize,
    pub outcomes: BTreeMap<Outcome, usize>,
}

/// A request that should have been answered.
#[derive(Debug, Clone, Copy)]
pub struct Lost {
    pub record: Record,
    /// How often origins processed it.
    pub processed: u32,
}

/// Joins the clients' log with the logs of all origins that may have served them.
///
/// Call it when the load has finished. A stream that an origin refused (`REFUSED_STREAM`) was not processed.
pub fn judge<'a>(client: &ClientLog, origins: impl IntoIterator<Item = &'a Log>) -> Verdict {
    let processed = processed_counts(client, origins);
    let processed_of = |record: &Record| processed.get(&record.number).copied().unwrap_or(0);
    let mut verdict = Verdict {
        seed: client.seed,
        answered: 0,
        lost: Vec::new(),
        doubled: Vec::new(),
        wrong: client.wrong.clone(),
        invented: Vec::new(),
        failed: 0,
        outcomes: BTreeMap::new(),
    };
    for record in &client.records {
        let processed = processed_of(record);
        *verdict.outcomes.entry(record.outcome).or_default() += 1;
        if record.is_post && processed > 1 {
            verdict.doubled.push((record.number, processed));
        }
        match record.outcome {
            Outcome::Answered if processed == 0 => verdict.invented.push(record.number),
            Outcome::Answered => verdict.answered += 1,
            Outcome::Wrong => {}
            _ if !record.is_post || processed == 0 => verdict.lost.push(Lost { record: *record, processed }),
            _ => verdict.failed += 1,
        }
    }
    verdict
}

impl Verdict {
    pub fn is_clean(&self) -> bool {
        self.lost.is_empty() && self.doubled.is_empty() && self.wrong.is_empty() && self.invented.is_empty()
    }

    /// Panics with the whole verdict unless nothing was lost, doubled, wrong or invented.
    #[track_caller]
    pub fn assert_clean(&self) {
        assert!(self.is_clean(), "{self:#?}");
    }
}

impl fmt::Debug for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "verdict (TRUNKLINE_TEST_SEED={}): {} answered, {} failed", self.seed, self.answered, self.failed)?;
        writeln!(f, "  outcomes: {:?}", self.outcomes)?;
        list(f, "lost", &self.lost)?;
        list(f, "doubled (number, times)", &self.doubled)?;
        list(f, "wrong", &self.wrong)?;
        list(f, "invented", &self.invented)
    }
}

/// How often each request of this load was processed; other loads' ids have another seed.
fn processed_counts<'a>(client: &ClientLog, origins: impl IntoIterator<Item = &'a Log>) -> BTreeMap<u64, u32> {
    let prefix = format!("{}-", client.seed);
    let mut counts = BTreeMap::new();
    for request in origins.into_iter().flat_map(|log| &log.requests).filter(|request| request.is_processed()) {
        if let Some(number) = request.id.strip_prefix(&prefix).and_then(|number| number.parse().ok()) {
            *counts.entry(number).or_default() += 1;
        }
    }
    counts
}

fn list<T: fmt::Debug>(f: &mut fmt::Formatter<'_>, name: &str, findings: &[T]) -> fmt::Result {
    writeln!(f, "  {name}: {}", findings.len())?;
    for finding in findings.iter().take(FINDINGS_SHOWN_MAX) {
        writeln!(f, "    {finding:?}")?;
    }
    Ok(())
}

const FINDINGS_SHOWN_MAX: usize = 10;
