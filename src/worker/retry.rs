//! What a route wants to be tried again, and how much of that its upstream is to bear.
//!
//! A request that was provably not processed is always sent again; this is about the others. What may have been
//! processed is repeated only if that does no harm (RFC 9110 §9.2.2), and not for ever. Tries add load just when a
//! service is in trouble, so a [`Budget`] holds them to a share of the requests: what it refuses is answered as it is.
//!
//! Lives on one worker. Asks no clock. Knows faults and statuses, but neither streams nor connections.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use tokio::time::Instant;

use super::jitter::spread;
use crate::config::{Retry as Settings, RetryBudget, RetryWhen};
use crate::error::{Fault, Retry, UpstreamFault};
use crate::metrics::RouteMetrics;

/// A route's wish for further tries.
pub(crate) struct Policy {
    pub(crate) settings: Settings,
    pub(crate) budget: Rc<Budget>,
    pub(crate) metrics: Arc<RouteMetrics>,
}

/// The tries of one request.
pub(crate) struct Tries {
    policy: Rc<Policy>,
    is_idempotent: bool,
    /// How many may follow the present one.
    left: u32,
    /// When the head of the answer must have come, by whichever try. Known when the first one has sent all.
    head_end: Cell<Option<Instant>>,
}

impl Tries {
    /// `None` if the first one is the only one.
    pub(crate) fn begin(policy: &Rc<Policy>, method: &Method, now: Instant) -> Option<Box<Self>> {
        policy.budget.deposit(now);
        let left = policy.settings.attempts.saturating_sub(1);
        let tries =
            Self { policy: policy.clone(), is_idempotent: method.is_idempotent(), left, head_end: Cell::new(None) };
        (left > 0).then(|| Box::new(tries))
    }

    /// How long the present try has for the head of the answer, when all has been sent at `sent`: `response_header`
    /// counts from the first time. `is_replayable` says whether all could be sent once more.
    pub(crate) fn head_timeout(
        &self,
        sent: Instant,
        response_header: Option<Duration>,
        is_replayable: bool,
    ) -> Option<Duration> {
        let end = self.head_end.get().or_else(|| response_header.map(|timeout| sent + timeout));
        self.head_end.set(end);
        let of_all = end.map(|end| end.saturating_duration_since(sent));
        let may_follow = self.left > 0 && self.is_idempotent && is_replayable;
        let of_one = self.policy.settings.per_try_timeout.filter(|_| may_follow);
        [of_all, of_one].into_iter().flatten().min()
    }

    /// Whether an answer with `status` is only for a client that nothing better can be had for.
    pub(crate) fn is_unwanted(&self, status: StatusCode) -> bool {
        self.left > 0 && self.is_idempotent && self.policy.settings.when.contains(&RetryWhen::Status(status.as_u16()))
    }

    /// How long to wait before the next try, if one may follow one that came to nothing: by `fault` or, without, by an
    /// answer that [`Tries::is_unwanted`]. Takes it from the budget, and counts it.
    pub(crate) fn next(&mut self, fault: Option<Fault>, now: Instant) -> Option<Duration> {
        let reason = fault.map_or(Some("status"), |fault| self.reason(fault))?;
        self.take(reason, now)
    }

    /// As [`Tries::next`], after `fault` of a service that nothing was sent to.
    pub(crate) fn next_unsent(&mut self, fault: Fault, now: Instant) -> Option<Duration> {
        let is_wanted = self.policy.settings.when.contains(&RetryWhen::ConnectFailure);
        (is_wanted && matches!(fault, Fault::Upstream(_))).then(|| self.take("connect_failure", now))?
    }

    fn take(&mut self, reason: &'static str, now: Instant) -> Option<Duration> {
        if self.left == 0 || self.head_end.get().is_some_and(|end| end <= now) {
            return None;
        }
        if !self.policy.budget.withdraw(now) {
            self.policy.metrics.retry_budget_exhausted.increment();
            return None;
        }
        self.left -= 1;
        self.policy.metrics.retries.increment(reason);
        let made = self.policy.settings.attempts - self.left;
        // Requests which failed together do not come back together.
        Some(spread(PAUSE_MAX * 2u32.pow(made - 2), 0.0..1.0))
    }

    /// What another try would follow; `None` if none may.
    fn reason(&self, fault: Fault) -> Option<&'static str> {
        let settings = &self.policy.settings;
        let (reason, is_wanted) = match (fault, fault.answer().retry) {
            // Nothing was sent, so nothing is repeated, whatever the method.
            (Fault::Upstream(_), Retry::AnotherEndpoint | Retry::Safe) => {
                ("connect_failure", settings.when.contains(&RetryWhen::ConnectFailure))
            }
            (_, Retry::IdempotentOnly) => ("reset", self.is_idempotent && settings.when.contains(&RetryWhen::Reset)),
            (Fault::Upstream(UpstreamFault::ResponseHeadTimeout), _) => {
                ("per_try_timeout", self.is_idempotent && settings.per_try_timeout.is_some())
            }
            _ => return None,
        };
        is_wanted.then_some(reason)
    }
}

/// The further tries of the last ten seconds beside the requests of the same time, as Finagle and linkerd count them.
pub(crate) struct Budget {
    /// In hundredths of a try: what each request adds, and what there is without any.
    percent: u64,
    reserve: u64,
    start: Instant,
    seconds: RefCell<[Second; SECONDS as usize]>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Second {
    /// Since the start.
    number: u64,
    requests: u64,
    tries: u64,
}

impl Budget {
    /// One worker's share, where there are `workers`.
    pub(crate) fn new(settings: RetryBudget, workers: usize, now: Instant) -> Rc<Self> {
        let reserve = u64::from(settings.min_per_second) * SECONDS * 100 / workers.max(1) as u64;
        Rc::new(Self { percent: settings.percent.into(), reserve, start: now, seconds: RefCell::default() })
    }

    /// A request has begun.
    fn deposit(&self, now: Instant) {
        self.in_second(now, |second| second.requests += 1);
    }

    /// Takes one further try, if there is one left.
    fn withdraw(&self, now: Instant) -> bool {
        let number = self.number(now);
        let seconds = *self.seconds.borrow();
        let recent = seconds.iter().filter(|second| second.number + SECONDS > number);
        let (requests, tries) = recent.fold((0, 0), |sum, it| (sum.0 + it.requests, sum.1 + it.tries));
        let has_room = (tries + 1) * 100 <= requests * self.percent + self.reserve;
        if has_room {
            self.in_second(now, |second| second.tries += 1);
        }
        has_room
    }

    fn in_second(&self, now: Instant, change: impl FnOnce(&mut Second)) {
        let number = self.number(now);
        let second = &mut self.seconds.borrow_mut()[(number % SECONDS) as usize];
        if second.number != number {
            *second = Second { number, ..Second::default() };
        }
        change(second);
    }

    fn number(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.start).as_secs()
    }
}

/// The time that a budget looks back.
const SECONDS: u64 = 10;
/// Before the second try, as in Envoy, and twice as long before each that follows.
const PAUSE_MAX: Duration = Duration::from_millis(25);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ProxyFault;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn tries(method: Method, attempts: u32, when: &[RetryWhen], per_try_timeout: Option<Duration>) -> Tries {
        let now = Instant::now();
        let budget = Budget::new(RetryBudget { percent: 0, min_per_second: 1 }, 1, now);
        let settings = Settings { attempts, when: when.to_vec(), per_try_timeout };
        let policy = Policy { settings, budget, metrics: Arc::default() };
        *Tries::begin(&Rc::new(policy), &method, now).unwrap()
    }

    const ALL: [RetryWhen; 3] = [RetryWhen::ConnectFailure, RetryWhen::Reset, RetryWhen::Status(503)];

    #[test]
    fn methods_that_may_be_repeated_are_those_of_rfc_9110() {
        let lost = UpstreamFault::ConnectionLost.into();
        for method in ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"] {
            let tries = tries(method.parse().unwrap(), 2, &ALL, None);
            assert!(tries.reason(lost) == Some("reset") && tries.is_unwanted(StatusCode::SERVICE_UNAVAILABLE));
        }
        for method in ["POST", "PATCH", "LOCK"] {
            let tries = tries(method.parse().unwrap(), 2, &ALL, Some(seconds(1)));
            assert!(tries.reason(lost).is_none() && !tries.is_unwanted(StatusCode::SERVICE_UNAVAILABLE));
            assert!(tries.reason(UpstreamFault::ResponseHeadTimeout.into()).is_none());
            assert_eq!(tries.reason(UpstreamFault::ConnectRefused.into()), Some("connect_failure"));
        }
    }

    #[test]
    fn every_fault_has_one_reason_or_none() {
        let tries = tries(Method::GET, 2, &ALL, Some(seconds(1)));
        let with = |wanted: &str| {
            let faults = Fault::ALL.into_iter().filter(|fault| tries.reason(*fault) == Some(wanted));
            faults.map(Fault::reason).collect::<Vec<_>>()
        };
        assert_eq!(with("reset"), ["connection_lost", "stream_reset", "ping_timeout"]);
        assert_eq!(with("per_try_timeout"), ["response_head_timeout"]);
        assert_eq!(
            with("connect_failure"),
            [
                "dns_failed",
                "dns_timeout",
                "connect_refused",
                "connect_timeout",
                "unroutable",
                "tls_failed",
                "certificate_rejected",
                "no_http2_by_alpn",
                "not_http2",
                "stream_refused",
            ]
        );
        assert_eq!(tries.reason(ProxyFault::PoolFull.into()), None);
    }

    #[test]
    fn only_what_the_route_names_is_a_reason() {
        let tries = tries(Method::GET, 2, &[RetryWhen::Status(500)], None);
        assert!(Fault::ALL.into_iter().all(|fault| tries.reason(fault).is_none()));
        assert!(tries.is_unwanted(StatusCode::INTERNAL_SERVER_ERROR) && !tries.is_unwanted(StatusCode::BAD_GATEWAY));
    }

    #[test]
    fn the_last_try_takes_any_answer_and_all_the_time_that_is_left() {
        let mut tries = tries(Method::GET, 2, &ALL, Some(seconds(1)));
        let sent = Instant::now();
        assert_eq!(tries.head_timeout(sent, Some(seconds(5)), true), Some(seconds(1)));
        assert!(tries.next(None, sent + seconds(1)).is_some());
        assert_eq!(tries.head_timeout(sent + seconds(1), Some(seconds(5)), true), Some(seconds(4)));
        assert!(!tries.is_unwanted(StatusCode::SERVICE_UNAVAILABLE) && tries.next(None, sent + seconds(1)).is_none());
    }

    #[test]
    fn a_try_that_none_can_follow_has_all_the_time() {
        let limit = Some(seconds(5));
        let get = tries(Method::GET, 2, &[], Some(seconds(1)));
        assert_eq!(get.head_timeout(Instant::now(), limit, false), limit);
        let post = tries(Method::POST, 2, &[], Some(seconds(1)));
        assert_eq!(post.head_timeout(Instant::now(), limit, true), limit);
    }

    #[test]
    fn no_try_follows_when_the_time_for_the_head_is_over() {
        let mut tries = tries(Method::GET, 2, &ALL, None);
        let sent = Instant::now();
        tries.head_timeout(sent, Some(seconds(5)), true);
        assert!(tries.next(None, sent + seconds(5)).is_none() && tries.next(None, sent + seconds(4)).is_some());
    }

    #[test]
    fn pauses_grow() {
        let mut tries = tries(Method::GET, 5, &ALL, None);
        for most_ms in [25, 50, 100, 200] {
            assert!(tries.next(None, Instant::now()).unwrap() <= Duration::from_millis(most_ms));
        }
    }

    fn budget(percent: u32, min_per_second: u32, workers: usize) -> (Rc<Budget>, Instant) {
        let now = Instant::now();
        (Budget::new(RetryBudget { percent, min_per_second }, workers, now), now)
    }

    fn withdrawals(budget: &Budget, now: Instant) -> usize {
        std::iter::repeat_with(|| budget.withdraw(now)).take_while(|is_taken| *is_taken).take(10_000).count()
    }

    #[test]
    fn a_budget_is_a_share_of_the_requests_of_ten_seconds_and_a_reserve() {
        let (budget, start) = budget(20, 3, 1);
        assert_eq!(withdrawals(&budget, start), 30);
        (0..100).for_each(|_| budget.deposit(start + seconds(5)));
        assert_eq!(withdrawals(&budget, start + seconds(9)), 20);
        // The reserve of the first second is free again, the requests still count.
        assert_eq!(withdrawals(&budget, start + seconds(10)), 30);
        assert_eq!(withdrawals(&budget, start + seconds(15)), 0);
        assert_eq!(withdrawals(&budget, start + seconds(60)), 30);
    }

    #[test]
    fn a_budget_may_be_nothing_and_workers_share_it() {
        let (nothing, start) = budget(0, 0, 1);
        (0..100).for_each(|_| nothing.deposit(start));
        assert_eq!(withdrawals(&nothing, start), 0);
        let (shared, start) = budget(0, 3, 4);
        assert_eq!(withdrawals(&shared, start), 7);
    }
}
