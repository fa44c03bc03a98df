//! Services that vanish under load: killed, or stopped where they are, which no FIN and no RST tells of.
//!
//! A request that was written to one that vanished may have been processed, so it is answered with a fault, once, and each
//! client has one at a time. All others are answered, by whoever is there.

use crate::harness::nghttpd::Nghttpd;
use crate::harness::nginx::{ENDLESS, Nginx};
use crate::harness::programs::are_installed;
use crate::harness::proxy::Proxy;
use crate::harness::wrk::{Report, Wrk};
use crate::harness::{alone, poll, sockets};

/// wrk's connections in this file.
const CLIENTS: u32 = 64;

#[test]
fn a_stopped_nginx_is_found_out_while_the_other_one_serves_and_is_used_again_when_it_goes_on() {
    if !are_installed(&["nginx", "wrk"]) {
        return;
    }
    let (stopped, other) = (Nginx::start(ENDLESS), Nginx::start(ENDLESS));
    let mut proxy = before(&[stopped.address(), other.address()]);
    let _alone = alone();
    let wrk = Wrk::start(&proxy.url("/small"), CLIENTS, 10);
    stopped.wait_for_requests(1000);
    stopped.freeze();
    proxy.wait_for_log("given up");
    other.wait_for_requests(1000);
    stopped.thaw();
    stopped.wait_for_requests(1000);
    expect(&wrk.finish(), &mut proxy, &["ping_timeout"], 1);
}

#[test]
fn a_stopped_nghttpd_alone_is_found_out_and_its_clients_are_served_when_it_goes_on() {
    if !are_installed(&["nghttpd", "wrk"]) {
        return;
    }
    let nghttpd = Nghttpd::start();
    let mut proxy = before(&[nghttpd.address()]);
    let _alone = alone();
    let wrk = Wrk::start(&proxy.url("/small"), CLIENTS, 6);
    let port = nghttpd.address().port();
    poll("connections", || (sockets::established_to(port) > 0).then_some(()));
    nghttpd.freeze();
    proxy.wait_for_log("given up");
    // Requests wait meanwhile: the absence is shorter than what they have for it.
    nghttpd.thaw();
    let report = wrk.finish();
    assert!(report.requests > 1000, "{report}");
    expect(&report, &mut proxy, &["ping_timeout"], 1);
}

#[test]
fn a_killed_nginx_costs_what_it_was_working_on_and_serves_again_when_it_is_back() {
    if !are_installed(&["nginx", "wrk"]) {
        return;
    }
    let mut nginx = Nginx::start(ENDLESS);
    let mut proxy = before(&[nginx.address()]);
    let _alone = alone();
    let wrk = Wrk::start(&proxy.url("/small"), CLIENTS, 6);
    for _ in 0..3 {
        nginx.wait_for_requests(1000);
        nginx.kill();
        nginx.restart();
    }
    nginx.wait_for_requests(1000);
    expect(&wrk.finish(), &mut proxy, &["connection_lost"], 3);
}

#[test]
fn a_killed_nginx_leaves_its_clients_to_the_other_one() {
    if !are_installed(&["nginx", "wrk"]) {
        return;
    }
    let (mut killed, other) = (Nginx::start(ENDLESS), Nginx::start(ENDLESS));
    let mut proxy = before(&[killed.address(), other.address()]);
    let _alone = alone();
    let wrk = Wrk::start(&proxy.url("/small"), CLIENTS, 6);
    killed.wait_for_requests(1000);
    killed.kill();
    other.wait_for_requests(1000);
    killed.restart();
    killed.wait_for_requests(1000);
    expect(&wrk.finish(), &mut proxy, &["connection_lost"], 1);
}

/// A wait is longer than nginx needs to start on a busy machine, and shorter than wrk's patience.
fn before(endpoints: &[&impl std::fmt::Display]) -> Proxy {
    let endpoints: Vec<String> = endpoints.iter().map(|address| format!("h2c://{address}")).collect();
    Proxy::run(&format!(
        "listeners: [{{ name: http, address: 127.0.0.1:0 }}]\nupstreams:\n  service:\n    endpoints: [{}]\n    \
         pool: {{ pending_timeout: 4s, ping: {{ interval: 500ms, timeout: 500ms }} }}\n",
        endpoints.join(", ")
    ))
}

/// Each client has seen one fault at most each time, of these kinds, and lost its connection only where a kill came between
/// the head and the body of its answer.
#[track_caller]
fn expect(report: &Report, proxy: &mut Proxy, reasons: &[&str], times: u64) {
    proxy.stop();
    let failures = proxy.failures();
    println!("{report}; {failures:?}");
    let cut = if reasons == ["connection_lost"] { failures.get("body_cut").copied().unwrap_or(0) } else { 0 };
    assert_eq!(report.socket_errors, [0, cut, 0, 0], "{report}; {failures:?}");
    let is_known = |reason: &str| reasons.contains(&reason) || cut > 0 && reason == "body_cut";
    assert!(failures.keys().all(|reason| is_known(reason)), "{report}; {failures:?}");
    assert!(report.refused <= times * u64::from(CLIENTS), "{report}; {failures:?}");
}
