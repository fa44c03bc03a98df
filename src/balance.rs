//! The pick among the endpoints of one upstream.
//!
//! A [`Picker`] belongs to one worker and counts only what this worker does; the workers' picks add up because the
//! kernel spreads connections over them. It keeps weights and whose turn it is, and asks for everything else (health,
//! exclusion after a failed attempt, requests in flight) at each pick.
//!
//! Single-threaded by `Cell`. No allocation and no clock; one endpoint costs one question.

use std::cell::Cell;

use crate::config::Balance;

/// Picks endpoints by one policy.
#[derive(Debug)]
pub struct Picker {
    policy: Balance,
    endpoints: Box<[Turn]>,
}

/// One endpoint's place in the smooth weighted order.
#[derive(Debug)]
struct Turn {
    weight: u32,
    /// How much this endpoint is owed, in weights; all of them together are owed nothing.
    owed: Cell<i64>,
}

impl Picker {
    /// Makes a picker for endpoints with these weights, in this order; a weight of 0 counts as 1.
    pub fn new(policy: Balance, weights: impl IntoIterator<Item = u32>) -> Self {
        let turn = |weight: u32| Turn { weight: weight.max(1), owed: Cell::new(0) };
        Self { policy, endpoints: weights.into_iter().map(turn).collect() }
    }

    /// The position of the endpoint that the next request goes to; `None` if none may be used.
    ///
    /// `in_flight` gives the requests that this worker has in flight on the endpoint at a position, or `None` if it
    /// may not be used now: down, ejected, or tried already for this request. It must give the same answer
    /// throughout one pick.
    pub fn pick(&self, in_flight: impl Fn(usize) -> Option<u32>) -> Option<usize> {
        if self.endpoints.len() == 1 {
            return in_flight(0).map(|_| 0);
        }
        match self.policy {
            Balance::RoundRobin => self.pick_in_turn(|position| in_flight(position).is_some()),
            Balance::LeastRequests => self.pick_least(in_flight),
        }
    }

    /// nginx's smooth weighted round robin: each candidate is owed its weight more, the one that is owed most is
    /// picked and pays the sum. Weights 5, 1, 1 give a a b a c a a, not a a a a a b c.
    fn pick_in_turn(&self, is_candidate: impl Fn(usize) -> bool) -> Option<usize> {
        let mut sum = 0;
        let mut best: Option<(usize, &Turn)> = None;
        for (position, turn) in self.endpoints.iter().enumerate().filter(|(position, _)| is_candidate(*position)) {
            let weight = i64::from(turn.weight);
            turn.owed.set(turn.owed.get() + weight);
            sum += weight;
            if best.is_none_or(|(_, best)| turn.owed.get() > best.owed.get()) {
                best = Some((position, turn));
            }
        }
        let (position, turn) = best?;
        turn.owed.set(turn.owed.get() - sum);
        Some(position)
    }

    /// The fewest requests in flight per weight; those that are level take turns by weight, so that the weights
    /// also hold when nothing is in flight.
    fn pick_least(&self, in_flight: impl Fn(usize) -> Option<u32>) -> Option<usize> {
        let mut least: Option<Load> = None;
        let mut position_of_least = 0;
        let mut is_level = false;
        for (position, turn) in self.endpoints.iter().enumerate() {
            let Some(in_flight) = in_flight(position) else { continue };
            let load = Load { in_flight, weight: turn.weight };
            match least {
                Some(least) if least.is_less(load) => {}
                Some(least) if !load.is_less(least) => is_level = true,
                _ => {
                    least = Some(load);
                    position_of_least = position;
                    is_level = false;
                }
            }
        }
        let least = least?;
        if !is_level {
            return Some(position_of_least);
        }
        self.pick_in_turn(|position| {
            let weight = self.endpoints[position].weight;
            in_flight(position).is_some_and(|n| !least.is_less(Load { in_flight: n, weight }))
        })
    }
}

/// Requests in flight per weight, compared without dividing.
#[derive(Clone, Copy)]
struct Load {
    in_flight: u32,
    weight: u32,
}

impl Load {
    fn is_less(self, other: Self) -> bool {
        u64::from(self.in_flight) * u64::from(other.weight) < u64::from(other.in_flight) * u64::from(self.weight)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn picks(picker: &Picker, count: usize) -> String {
        (0..count).map(|_| char::from(b'a' + picker.pick(|_| Some(0)).unwrap() as u8)).collect()
    }

    #[test]
    fn round_robin_spreads_weights_smoothly() {
        assert_eq!(picks(&Picker::new(Balance::RoundRobin, [5, 1, 1]), 14), "aabacaaaabacaa");
        assert_eq!(picks(&Picker::new(Balance::RoundRobin, [1, 1, 1]), 6), "abcabc");
    }

    #[test]
    fn an_endpoint_that_may_not_be_used_is_never_picked() {
        for policy in [Balance::RoundRobin, Balance::LeastRequests] {
            let picker = Picker::new(policy, [1, 1, 1]);
            assert!((0..10).all(|_| picker.pick(|position| (position != 1).then_some(3)) != Some(1)));
            assert_eq!(picker.pick(|_| None), None);
        }
    }

    #[test]
    fn one_endpoint_is_picked_if_it_may_be_used() {
        let picker = Picker::new(Balance::LeastRequests, [7]);
        assert_eq!(picker.pick(|_| Some(u32::MAX)), Some(0));
        assert_eq!(picker.pick(|_| None), None);
        assert_eq!(Picker::new(Balance::RoundRobin, []).pick(|_| Some(0)), None);
    }

    #[test]
    fn least_requests_compares_per_weight() {
        let picker = Picker::new(Balance::LeastRequests, [1, 4]);
        assert_eq!(picker.pick(|position| Some([1, 3][position])), Some(1));
        assert_eq!(picker.pick(|position| Some([1, 5][position])), Some(0));
    }

    #[test]
    fn level_endpoints_take_turns_by_weight() {
        assert_eq!(picks(&Picker::new(Balance::LeastRequests, [1, 1, 1]), 6), "abcabc");
        let weighted = picks(&Picker::new(Balance::LeastRequests, [3, 1]), 8);
        assert_eq!(weighted.matches('a').count(), 6);
    }

    proptest! {
        #[test]
        fn round_robin_gives_every_endpoint_exactly_its_share(weights in prop::collection::vec(1_u32..50, 1..8)) {
            let picker = Picker::new(Balance::RoundRobin, weights.iter().copied());
            let mut counts = vec![0_u32; weights.len()];
            for _ in 0..weights.iter().sum() {
                counts[picker.pick(|_| Some(0)).unwrap()] += 1;
            }
            prop_assert_eq!(counts, weights);
        }

        #[test]
        fn least_requests_never_picks_a_busier_endpoint(
            endpoints in prop::collection::vec((1_u32..1000, prop::option::of(0_u32..u32::MAX)), 1..8),
        ) {
            let picker = Picker::new(Balance::LeastRequests, endpoints.iter().map(|(weight, _)| *weight));
            let load = |position: usize| endpoints[position].1.map(|n| f64::from(n) / f64::from(endpoints[position].0));
            let picked = picker.pick(|position| endpoints[position].1);
            let least = (0..endpoints.len()).filter_map(load).min_by(f64::total_cmp);
            prop_assert_eq!(picked.and_then(load), least);
        }
    }
}
