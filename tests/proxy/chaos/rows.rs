//! Each fault of the list under load, some times over, with what it must not cost.

use super::{CLIENTS, Fault, POOL, Score};
use crate::harness::counts::Counts;
use crate::harness::origin::{Unruly, unruly};
use crate::harness::{load, proxy};

/// Strikes until 800 requests have been answered, four times at least.
async fn under(fault: Fault) -> (Score, Unruly, Counts) {
    let mut service = unruly();
    let proxy =
        proxy::with(&format!("upstreams: {{ a: {{ endpoints: [\"h2c://{service}\"], pool: {{ {POOL} }} }} }}\n"));
    let load = load::start(proxy.address(), fault.load());
    load.wait_for(|progress| progress.finished > 0).await;
    let mut strikes = 0;
    while strikes < 4 || load.progress().finished < 800 {
        fault.strike(&mut service).await;
        strikes += 1;
    }
    load.stop();
    let client = load.finish().await;
    let broken = service.tally().broken.len();
    let score = Score::of(&client, &service, broken);
    let counts = proxy.counts();
    eprintln!(
        "{}: {strikes} strikes, {score:?}  {:?} {:?} {:?}",
        fault.name(),
        counts.opened,
        counts.closed,
        counts.retries
    );
    assert!(score.is_clean(), "{}: {score:?}{counts:#?}", fault.name());
    (score, service, counts)
}

#[tokio::test]
async fn a_service_that_ends_its_connections_gracefully_every_hundred_requests_loses_nothing() {
    let (score, service, counts) = under(Fault::GracefulGoaway).await;
    assert_eq!((score.cut, counts.faults), (0, [].into()));
    assert!(service.log().connections.len() > 8, "{}", service.log().connections.len());
}

#[tokio::test]
async fn requests_after_a_goaway_are_answered_and_so_are_those_that_it_lets_finish() {
    let (score, service, counts) = under(Fault::GoawayUnderLongStreams).await;
    assert_eq!((score.cut, counts.faults), (0, [].into()));
    assert!(
        service.log().connections.iter().all(|connection| connection.closed.is_none() || connection.is_goaway_sent)
    );
}

#[tokio::test]
async fn a_goaway_below_streams_in_flight_loses_none_of_them() {
    let (score, service, counts) = under(Fault::GoawayBelowStreams).await;
    assert_eq!((score.cut, counts.faults), (0, [].into()));
    let cut_off = u64::from(service.tally().cut_off);
    assert!(cut_off > 0);
    assert_eq!(counts.retries.get("goaway"), Some(&cut_off));
}

#[tokio::test]
async fn a_service_that_refuses_one_stream_in_twenty_loses_nothing() {
    let (score, service, counts) = under(Fault::RefusedStreams).await;
    let refused = u64::from(service.tally().refused);
    assert_eq!((score.cut, counts.faults, counts.retries), (0, [].into(), [("refused_stream", refused)].into()));
    assert!(refused > 10, "{refused}");
}

#[tokio::test]
async fn a_limit_that_falls_to_nothing_and_rises_again_loses_nothing_and_opens_few_connections() {
    let (score, service, counts) = under(Fault::Limits).await;
    assert_eq!((score.cut, &counts.faults, &counts.rejected), (0, &[].into(), &[].into()));
    // No stream has met a limit that the proxy had acknowledged, on a new connection or an old one.
    assert_eq!((service.tally().in_excess, &counts.retries), (0, &[].into()));
    // What four connections could not carry, a fifth may not, and none is given up for its limit.
    assert!(counts.opened.values().sum::<u64>() <= 4 && counts.closed.is_empty(), "{counts:#?}");
    assert!(service.log().connections.len() <= 4);
}

#[tokio::test]
async fn empty_data_frames_cost_nothing_not_even_their_connection() {
    let (score, service, counts) = under(Fault::EmptyData).await;
    assert_eq!((score.cut, counts.faults, counts.closed), (0, [].into(), [].into()));
    assert!(service.log().connections.iter().any(|connection| connection.requests > 300));
}

#[tokio::test]
async fn a_crash_costs_what_was_on_its_connections_and_nothing_else() {
    let (score, service, counts) = under(Fault::Crash).await;
    let crashed = service.tally().broken.len();
    assert!(score.cut <= crashed * CLIENTS, "{score:?}");
    let faults: u64 = counts.faults.values().sum();
    assert_eq!(faults, score.cut as u64, "{counts:#?}");
}

#[tokio::test]
async fn a_service_that_is_away_for_a_moment_loses_nothing() {
    let (score, service, counts) = under(Fault::Absence).await;
    assert_eq!((score.cut, counts.faults), (0, [].into()));
    assert!(service.log().connections.len() >= 4);
}

#[tokio::test]
async fn a_black_hole_costs_what_was_written_into_it_and_nothing_else() {
    let (score, service, counts) = under(Fault::Silence).await;
    let holes = service.tally().broken.len() as u64;
    assert_eq!(counts.closed, [("unresponsive", holes)].into());
    // Everything that failed stands in the log of what the silent connections were sent.
    assert_eq!(counts.faults, [("ping_timeout", score.cut as u64)].into());
}
