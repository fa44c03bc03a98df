//! Services that refuse under load: nothing lost, nothing doubled.

use crate::harness::load::{self, Load, judge};
use crate::harness::{origin, proxy};

#[tokio::test]
async fn a_service_that_refuses_each_twentieth_stream_loses_nothing_under_load() {
    let origin = origin::h2().refuse_every(20).start();
    let proxy = proxy::with(&format!(
        "upstreams: {{ a: {{ endpoints: [\"h2c://{origin}\"], pool: {{ max_connections: 2, pending_timeout: 20s }} }} }}\n"
    ));
    let load = Load { connections: 32, requests: 5000, body_bytes: 0..=1024, ..Load::default() };
    let client = load::start(proxy.address(), load).finish().await;
    let verdict = judge(&client, [&*origin.log()]);
    verdict.assert_clean();
    assert_eq!(verdict.answered, 5000, "{verdict:?}");
    let retries = proxy.counts().retries["refused_stream"];
    // 5 % of them, and of the second attempts.
    assert!((250..300).contains(&retries), "{retries}");
}
