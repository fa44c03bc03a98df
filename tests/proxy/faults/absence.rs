//! Services that are away for a moment, for longer, or from the start; all come back by themselves.

use std::time::Duration;

use http::Request;

use super::{Asking, proxy_before, row};
use crate::harness::client::Client;
use crate::harness::origin::ReservedAddress;
use crate::harness::watched::within;
use crate::harness::{client, origin, proxy};

#[tokio::test]
async fn a_service_that_is_down_at_start_is_served_once_it_is_up() {
    for protocol in ["h2c", "http1"] {
        let mut origin = if protocol == "h2c" { origin::h2() } else { origin::h1() }.start();
        origin.crash().await;
        let proxy = proxy_before(&format!("{protocol}://{origin}"), "");
        let mut client = client::h1(proxy.address()).await;
        assert_eq!(client.get("/bytes/1").await.status(), 502);
        origin.restart();
        within("recovery", until_served(&mut client)).await;
    }
}

#[tokio::test]
async fn a_service_that_crashes_is_served_again_once_it_is_up() {
    for protocol in ["h2c", "http1"] {
        let mut origin = if protocol == "h2c" { origin::h2() } else { origin::h1() }.start();
        let proxy = proxy_before(&format!("{protocol}://{origin}"), "");
        let mut client = client::h1(proxy.address()).await;
        assert_eq!(client.get("/bytes/1").await.status(), 200);
        origin.crash().await;
        assert_eq!(client.get("/bytes/1").await.status(), 502);
        origin.restart();
        within("recovery", until_served(&mut client)).await;
    }
}

#[tokio::test]
async fn a_request_outlives_a_short_absence() {
    let mut origin = origin::h2().start();
    origin.crash().await;
    let proxy = proxy::on_one_worker(&format!(
        "listeners: [{{ address: 127.0.0.1:0 }}]\n\
         upstreams: {{ a: {{ endpoints: [h2c://{origin}], pool: {{ pending_timeout: 9s }} }} }}\n"
    ));
    let mut client = client::h1(proxy.address()).await;
    client.start(&Request::post("/bytes/1").header("content-length", "0").body(()).unwrap(), false).await.unwrap();
    proxy.wait_for(|counts| counts.pending == 1).await;
    origin.restart();
    assert_eq!(client.head().await.unwrap().status(), Ok(200));
}

#[tokio::test]
async fn a_long_absence_is_answered_at_once_and_ends_by_itself() {
    let mut origin = origin::h2().start();
    origin.crash().await;
    let proxy = proxy_before(&format!("h2c://{origin}"), "");
    // A look that costs no request.
    within("end of the patience", async {
        while !proxy.control().endpoints().iter().any(|(_, _, is_down)| *is_down) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let row = row(503, "destination_unavailable", "no_healthy_endpoint", "The service is not reachable at the moment.");
    Asking::new(&proxy).await.expect(&proxy, row.retry_after()).await;
    origin.restart();
    within("recovery", until_served(&mut client::h1(proxy.address()).await)).await;
}

/// Asks until the service answers; each failure takes its time.
async fn until_served(client: &mut Client) {
    while client.get("/bytes/1").await.status() != 200 {
        tokio::task::yield_now().await;
    }
}

/// Dials grow rare in a long absence; while somebody waits they do not, or his time would be over before the next.
#[tokio::test]
async fn a_request_that_waits_for_an_absent_service_sees_many_dials() {
    let nobody = ReservedAddress::new();
    let proxy = proxy::on_one_worker(&format!(
        "upstreams: {{ a: {{ endpoints: [\"h2c://{}\"], pool: {{ pending_timeout: 2s }} }} }}\n",
        nobody.address()
    ));
    assert_eq!(client::h1(proxy.address()).await.get("/").await.status(), 502);
    let dials = proxy.metrics().await.sum("trunkline_dial_failures_total", &[]);
    // 11, and 8 if the pause grew to half a second. Those that a busy machine delays may be missing.
    assert!(dials >= 9.0, "{dials}");
}
