//! Services that are restarted as the other protocol under load: nothing lost, nothing doubled.

use crate::harness::load::{self, Load, judge};
use crate::harness::origin::{self, Builder};
use crate::harness::proxy;
use crate::harness::tls::Identity;

/// Restarts a service in turn as one and the other, four times.
async fn survives(scheme: &str, tls: &str, one: impl Fn() -> Builder, other: impl Fn() -> Builder) {
    let mut origin = one().start();
    let (scheme, port) = (scheme, origin.address().port());
    let proxy = proxy::with(&format!(
        "upstreams: {{ a: {{ endpoints: [\"{scheme}://localhost:{port}\"], pool: {{ pending_timeout: 20s }}, {tls} }} }}\n"
    ));
    let load = load::start(proxy.address(), Load { connections: 32, requests: u64::MAX, ..Load::default() });
    let mut finished = 0;
    for restart in 0..4 {
        finished += 500;
        load.wait_for(|progress| progress.finished > finished).await;
        origin.stop().await;
        origin.restart_as(if restart % 2 == 0 { other() } else { one() });
    }
    load.wait_for(|progress| progress.finished > finished + 500).await;
    load.stop();
    let client = load.finish().await;
    let verdict = judge(&client, [&*origin.log()]);
    verdict.assert_clean();
    assert_eq!((verdict.failed, verdict.answered), (0, client.records.len()), "{verdict:?}");
}

#[tokio::test]
async fn a_service_in_the_clear_that_is_restarted_as_the_other_protocol_loses_nothing() {
    survives("http", "", || origin::h1().patient(), origin::h2).await;
}

#[tokio::test]
async fn a_service_over_tls_that_is_restarted_as_the_other_protocol_loses_nothing() {
    let identity = Identity::new();
    let ca = identity.file();
    let tls = format!("tls: {{ ca: {} }}", ca.path().display());
    let h1 = || origin::h1_tls(&identity, &["http/1.1"]).patient();
    let h2 = || origin::h2_tls(&identity, &["h2"]);
    survives("https", &tls, h1, h2).await;
}
