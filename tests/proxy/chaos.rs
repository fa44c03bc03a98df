//! Services that misbehave under tagged load: nothing is lost that may be sent again, nothing doubled, nothing misled.
//!
//! One list of faults, struck one by one in `rows`, where each has its own claims, and by chance in `soak`. The judge is the
//! join of the clients' and the service's logs. A request that a service had begun when its connection broke is [cut], and
//! so is one that was written to a connection which was then reset before the service read it: nobody could prove that
//! those were not processed. Everything else must be answered.
//!
//! [cut]: Score::cut

mod rows;
mod soak;

use std::fmt;
use std::time::Duration;

use tokio::time::sleep;

use crate::harness::load::{ClientLog, Load, Outcome, Record, judge};
use crate::harness::origin::Unruly;
use crate::harness::origin::unruly::USUAL_LIMIT;

/// What a service does to its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    None,
    GracefulGoaway,
    /// A stream is still open at each GOAWAY, and for some time after it.
    GoawayUnderLongStreams,
    GoawayBelowStreams,
    RefusedStreams,
    Limits,
    EmptyData,
    Crash,
    Absence,
    Silence,
    /// Most of the above, one on top of the other.
    Several,
}

impl Fault {
    /// Those that the soak chooses from.
    const ALL: [Self; 10] = [
        Self::GracefulGoaway,
        Self::GoawayUnderLongStreams,
        Self::GoawayBelowStreams,
        Self::RefusedStreams,
        Self::Limits,
        Self::EmptyData,
        Self::Crash,
        Self::Absence,
        Self::Silence,
        Self::Several,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::GracefulGoaway => "graceful GOAWAY every 100 requests",
            Self::GoawayUnderLongStreams => "GOAWAY while streams stay open",
            Self::GoawayBelowStreams => "GOAWAY below streams in flight",
            Self::RefusedStreams => "REFUSED_STREAM 5 %",
            Self::Limits => "stream limit 100 -> 1 -> 0 -> 100",
            Self::EmptyData => "an empty DATA frame in each answer",
            Self::Crash => "crash (RST)",
            Self::Absence => "service away for 300 ms",
            Self::Silence => "black hole",
            Self::Several => "several at once",
        }
    }

    /// What is asked of the service meanwhile.
    fn load(self) -> Load {
        let usual =
            Load { connections: CLIENTS, requests: u64::MAX, body_bytes: 0..=2048, rate: Some(600), ..Load::default() };
        match self {
            Self::GoawayUnderLongStreams => Load { delay_ms: 100..=300, ..usual },
            _ => usual,
        }
    }

    /// Does it once, and returns when the service is as before. The times are how long the fault lasts.
    async fn strike(self, service: &mut Unruly) {
        match self {
            Self::None => sleep(STROKE).await,
            Self::GracefulGoaway => {
                service.goaway_every(100);
                sleep(STROKE).await;
            }
            Self::GoawayUnderLongStreams => {
                service.goaway();
                sleep(STROKE / 3).await;
            }
            Self::GoawayBelowStreams => {
                service.goaway_below();
                served(service, 100).await;
            }
            Self::RefusedStreams => {
                service.refuse_every(20);
                sleep(STROKE).await;
            }
            Self::Limits => {
                for limit in [1, 0, USUAL_LIMIT] {
                    service.limit(limit);
                    sleep(STROKE / 3).await;
                }
            }
            Self::EmptyData => {
                service.send_empty_data(true);
                sleep(STROKE).await;
            }
            Self::Crash => {
                service.crash();
                sleep(STROKE / 3).await;
            }
            Self::Absence => {
                service.leave().await;
                sleep(Duration::from_millis(300)).await;
                service.come_back();
                served(service, 100).await;
            }
            Self::Silence => {
                service.fall_silent().await;
                sleep(STROKE / 3).await;
                service.look_inside().await;
            }
            Self::Several => {
                service.goaway_every(150);
                service.refuse_every(40);
                service.send_empty_data(true);
                service.limit(8);
                served(service, 50).await;
                service.goaway_below();
                service.limit(0);
                sleep(STROKE / 3).await;
                service.limit(4);
                served(service, 50).await;
                service.crash();
                served(service, 50).await;
            }
        }
        service.calm_down();
    }
}

/// Waits until so many requests more have come.
async fn served(service: &Unruly, requests: usize) {
    let before = service.log().requests.len();
    service.wait_for(|log| log.requests.len() >= before + requests).await;
}

/// The pool before such a service. A wait is far longer than any fault; a PING's answer may take a busy machine's time.
const POOL: &str = "max_connections: 4, pending_timeout: 8s, ping: { interval: 200ms, timeout: 1s }";
/// Connections of the load, each with one request at a time.
const CLIENTS: usize = 32;
const STROKE: Duration = Duration::from_millis(300);

/// How a load has fared.
#[derive(Default)]
struct Score {
    requests: usize,
    /// Should have been answered, in words.
    lost: Vec<String>,
    /// POSTs that were processed more than once, and how often.
    doubled: Vec<(u64, u32)>,
    /// Answers that belong to nobody or somebody else, in words.
    wrong: Vec<String>,
    /// On a connection that broke under them.
    cut: usize,
    /// The longest that one of those was kept waiting.
    cut_after_max: Duration,
    /// Connections that the service has broken.
    broken: usize,
    seed: u64,
}

impl Score {
    /// Joins the clients' log with the service's, which has broken so many connections meanwhile.
    fn of(client: &ClientLog, service: &Unruly, broken: usize) -> Self {
        let (log, tally) = (service.log(), service.tally());
        let verdict = judge(client, [&*log]);
        let mut score = Self { requests: client.records.len(), broken, seed: client.seed, ..Self::default() };
        score.doubled = verdict.doubled;
        score.wrong = verdict.wrong;
        score.wrong.extend(verdict.invented.iter().map(|number| format!("{number} was answered by nobody")));
        // Each client had one request at most on the connections that were reset.
        let mut unread_max = broken * CLIENTS;
        for record in
            client.records.iter().filter(|record| !matches!(record.outcome, Outcome::Answered | Outcome::Wrong))
        {
            let id = format!("{}-{}", client.seed, record.number);
            let mut processed = log.requests_with_id(&id).filter(|request| request.is_processed()).peekable();
            let was_cut = if processed.peek().is_some() {
                processed.all(|request| tally.broken.contains(&request.connection))
            } else if unread_max > 0 {
                unread_max -= 1;
                true
            } else {
                false
            };
            if was_cut && is_cut_honestly(record) {
                score.cut += 1;
                score.cut_after_max = score.cut_after_max.max(Duration::from_micros(record.latency_us.into()));
            } else {
                score.lost.push(format!("{record:?}"));
            }
        }
        score
    }

    fn is_clean(&self) -> bool {
        self.lost.is_empty() && self.doubled.is_empty() && self.wrong.is_empty()
    }

    fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.lost.extend(other.lost);
        self.doubled.extend(other.doubled);
        self.wrong.extend(other.wrong);
        self.cut += other.cut;
        self.cut_after_max = self.cut_after_max.max(other.cut_after_max);
        self.broken += other.broken;
    }
}

/// Told to the client as what it is: no answer, or one that is seen to have been cut.
fn is_cut_honestly(record: &Record) -> bool {
    matches!(record.outcome, Outcome::Status(502 | 504) | Outcome::Cut)
}

impl fmt::Debug for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { requests, lost, doubled, wrong, cut, cut_after_max, broken, seed } = self;
        writeln!(f, "{requests} requests (TRUNKLINE_TEST_SEED={seed})")?;
        writeln!(f, "  cut {cut} on {broken} connections, after {cut_after_max:.1?} at most")?;
        writeln!(f, "  lost {}: {:#?}", lost.len(), lost.iter().take(10).collect::<Vec<_>>())?;
        writeln!(f, "  doubled {}: {:?}", doubled.len(), doubled.iter().take(10).collect::<Vec<_>>())?;
        writeln!(f, "  wrong {}: {:#?}", wrong.len(), wrong.iter().take(10).collect::<Vec<_>>())
    }
}
