//! The load and its judge: clean where all is well, and not where it is not.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::harness::load::{self, Load, Outcome, judge};
use crate::harness::origin;
use crate::harness::origin::behaviour::by_path;
use crate::harness::origin::exchange::Exchange;

#[tokio::test]
async fn load_without_faults_is_clean() {
    let origin = origin::h1().start();
    let load = load::start(origin.address(), Load { connections: 20, requests: 2000, ..Load::default() });
    load.wait_for(|progress| progress.finished > 100).await;
    let client = load.finish().await;
    let verdict = judge(&client, [&*origin.log()]);
    verdict.assert_clean();
    assert_eq!((verdict.answered, verdict.failed), (2000, 0));
    assert!(client.latency_us(5000) > 0 && client.latency_us(5000) <= client.latency_us(9900));
    let posts = client.records.iter().filter(|record| record.is_post).count();
    assert!((400..800).contains(&posts), "{posts} POSTs of 30 %");
}

#[tokio::test]
async fn judge_finds_an_answer_with_another_id_or_body() {
    let handler = |mut exchange: Exchange| async move {
        if exchange.id.ends_with("-7") {
            let head = http::Response::builder().status(200).header("x-request-id", "another");
            exchange.body().await?;
            return exchange.answer(head, "").await;
        }
        if exchange.id.ends_with("-8") {
            let head = exchange.response(200);
            exchange.body().await?;
            return exchange.answer(head, "the body of another").await;
        }
        by_path(exchange).await
    };
    let origin = origin::h1().handler(handler).start();
    let client = load::start(origin.address(), Load { requests: 20, ..Load::default() }).finish().await;
    let verdict = judge(&client, [&*origin.log()]);
    assert_eq!((verdict.wrong.len(), verdict.lost.len()), (2, 0), "{verdict:?}");
    assert!(!verdict.is_clean());
}

#[tokio::test]
async fn judge_tells_lost_from_failed() {
    let count = AtomicU32::new(0);
    let handler = move |mut exchange: Exchange| {
        let is_cut = count.fetch_add(1, Ordering::Relaxed) < 20;
        async move { if is_cut { exchange.reset(h2::Reason::CANCEL) } else { by_path(exchange).await } }
    };
    let origin = origin::h1().handler(handler).start();
    let load = Load { connections: 1, requests: 100, post_percent: 50, ..Load::default() };
    let client = load::start(origin.address(), load).finish().await;
    let verdict = judge(&client, [&*origin.log()]);
    // All were begun by the origin, so a cut POST is nobody's fault and a cut GET should have been retried.
    assert_eq!(verdict.lost.len() + verdict.failed, 20, "{verdict:?}");
    assert!(verdict.lost.iter().all(|lost| !lost.record.is_post));
    // Without the origin's log nothing was processed: every failure is lost, every answer invented.
    let verdict = judge(&client, []);
    assert_eq!((verdict.lost.len(), verdict.invented.len()), (20, 80), "{verdict:?}");
}

#[tokio::test]
async fn judge_finds_a_post_that_was_processed_twice() {
    let origin = origin::h1().start();
    let load = Load { requests: 10, post_percent: 100, ..Load::default() };
    let client = load::start(origin.address(), load).finish().await;
    let log = origin.log();
    let verdict = judge(&client, [&*log, &*log]);
    assert_eq!(verdict.doubled.len(), 10, "{verdict:?}");
}

#[tokio::test]
async fn an_address_that_refuses_is_an_outcome_and_not_a_hang() {
    let nobody = origin::ReservedAddress::new();
    let client = load::start(nobody.address(), Load { requests: 5, ..Load::default() }).finish().await;
    assert!(client.records.iter().all(|record| record.outcome == Outcome::NotConnected));
}

/// The size that the list in the design asks for; by hand: `cargo test --release --test proxy -- --ignored million`.
#[tokio::test]
#[ignore = "a minute of load; run it in release mode"]
async fn a_million_tagged_requests() {
    let origin = origin::h1().compact_log().start();
    let load = Load {
        connections: 256,
        requests: 1_000_000,
        body_bytes: 0..=1024,
        delayed_percent: 1,
        request_timeout: Duration::from_mins(1),
        ..Load::default()
    };
    let client = load::start(origin.address(), load).finish().await;
    eprintln!("{:.0} requests/s", 1_000_000.0 / client.took.as_secs_f64());
    judge(&client, [&*origin.log()]).assert_clean();
}
