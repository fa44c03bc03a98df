//! Reloads, restarts and ends under load.
//!
//! nginx names in its GOAWAY the last stream that it has answered while younger ones are on their way: those are sent again.

use crate::harness::nginx::{ENDLESS, Nginx};
use crate::harness::programs::are_installed;
use crate::harness::proxy::Proxy;
use crate::harness::wrk::{Report, Wrk};
use crate::harness::{alone, poll, sockets};

/// wrk's connections in this file.
const CLIENTS: u32 = 64;

#[test]
fn nginx_may_end_a_connection_after_every_thousand_requests() {
    if !are_installed(&["nginx", "wrk"]) {
        return;
    }
    // nginx's default.
    let nginx = Nginx::start("keepalive_requests 1000;");
    let mut proxy = Proxy::to(&format!("h2c://{}", nginx.address()));
    let _alone = alone();
    let report = Wrk::start(&proxy.url("/small"), CLIENTS, 3).finish();
    assert_clean(&report, &mut proxy);
}

#[test]
fn an_nginx_reload_under_load_cuts_no_request() {
    if !are_installed(&["nginx", "wrk"]) {
        return;
    }
    let nginx = Nginx::start(ENDLESS);
    let mut proxy = Proxy::to(&format!("h2c://{}", nginx.address()));
    let _alone = alone();
    let wrk = Wrk::start(&proxy.url("/small"), CLIENTS, 5);
    for _ in 0..3 {
        nginx.wait_for_requests(1000);
        nginx.signal("HUP");
    }
    nginx.wait_for_requests(1000);
    let report = wrk.finish();
    assert_clean(&report, &mut proxy);
}

#[test]
fn a_graceful_restart_of_nginx_under_load_cuts_no_request() {
    if !are_installed(&["nginx", "wrk"]) {
        return;
    }
    let (report, mut proxy) = under_restarts("QUIT");
    assert_clean(&report, &mut proxy);
}

#[test]
fn requests_go_on_after_nginx_was_cut_off_under_load() {
    if !are_installed(&["nginx", "wrk"]) {
        return;
    }
    let (report, mut proxy) = under_restarts("TERM");
    proxy.stop();
    println!("{report}; {:?}", proxy.failures());
    // What was running when nginx ended cannot be saved: one request of each client each time, and one more of those who
    // were quick enough to come to a connection that nginx closed a moment later.
    assert!(report.refused <= 2 * u64::from(CLIENTS) * RESTARTS, "{report}; {:?}", proxy.failures());
    // It may have ended between the head and the body of an answer.
    let cut = proxy.failures().get("body_cut").copied().unwrap_or(0);
    assert_eq!(report.socket_errors, [0, cut, 0, 0], "{report}");
}

/// No client lost its connection, and no request failed.
#[track_caller]
fn assert_clean(report: &Report, proxy: &mut Proxy) {
    proxy.stop();
    let failures = proxy.failures();
    println!("{report}; {failures:?}");
    assert_eq!((report.socket_errors, report.refused), ([0; 4], 0), "{report}; {failures:?}");
    assert!(failures.is_empty(), "{report}; {failures:?}");
}

const RESTARTS: u64 = 3;

/// Stops nginx with `signal` and starts it again, under load.
fn under_restarts(signal: &str) -> (Report, Proxy) {
    let mut nginx = Nginx::start(ENDLESS);
    // Above the time that nginx needs to start on a busy machine: requests wait for it meanwhile.
    let proxy = Proxy::run(&format!(
        "listeners: [{{ name: http, address: 127.0.0.1:0 }}]\nupstreams:\n  service:\n    endpoints: [h2c://{}]\n    \
         pool: {{ pending_timeout: 10s }}\n",
        nginx.address(),
    ));
    let _alone = alone();
    let wrk = Wrk::start(&proxy.url("/small"), CLIENTS, 6);
    for _ in 0..RESTARTS {
        nginx.wait_for_requests(1000);
        nginx.stop(signal);
        nginx.restart();
    }
    nginx.wait_for_requests(1000);
    (wrk.finish(), proxy)
}

#[test]
fn sigterm_under_load_drains_and_exits_with_0() {
    if !are_installed(&["nginx", "wrk"]) {
        return;
    }
    let nginx = Nginx::start(ENDLESS);
    let mut proxy = Proxy::to(&format!("h2c://{}", nginx.address()));
    let _alone = alone();
    let _wrk = Wrk::start(&proxy.url("/small"), CLIENTS, 5);
    let port = proxy.port();
    poll("all clients", || (sockets::established_to(port) >= CLIENTS as usize).then_some(()));
    nginx.wait_for_requests(1000);
    proxy.signal("TERM");
    let status = proxy.wait();
    assert!(status.success(), "{status}\n{}", proxy.log());
    assert!(proxy.log().contains("drained"), "{}", proxy.log());
    assert!(proxy.log().contains("cut_connections=0"), "{}", proxy.log());
}
