//! Loads by wrk and h2load: every request is answered, over few connections.

use crate::harness::alone;
use crate::harness::h2load;
use crate::harness::nghttpd::Nghttpd;
use crate::harness::nginx::{ENDLESS, Nginx};
use crate::harness::programs::are_installed;
use crate::harness::proxy::Proxy;
use crate::harness::sockets::Sampler;
use crate::harness::wrk::Wrk;

#[test]
fn a_thousand_clients_share_four_connections_to_nginx() {
    if !are_installed(&["nginx", "wrk"]) {
        return;
    }
    let nginx = Nginx::start(ENDLESS);
    let proxy = Proxy::to(&format!("h2c://{}", nginx.address()));
    assert_four_connections(&proxy, nginx.address().port());
}

#[test]
fn a_thousand_clients_share_four_connections_to_nghttpd() {
    if !are_installed(&["nghttpd", "wrk"]) {
        return;
    }
    let nghttpd = Nghttpd::start();
    let proxy = Proxy::to(&format!("h2c://{}", nghttpd.address()));
    assert_four_connections(&proxy, nghttpd.address().port());
}

#[track_caller]
fn assert_four_connections(proxy: &Proxy, port: u16) {
    let _alone = alone();
    let sampler = Sampler::start(port);
    let report = Wrk::start(&proxy.url("/small"), 1000, 4).finish();
    let seen = sampler.finish();
    println!("{report}; at most {} upstream connections in {} looks", seen.most, seen.looks);
    report.assert_clean();
    assert!((1..=4).contains(&seen.most) && seen.looks > 10, "{seen:?}\n{}", proxy.log());
}

#[test]
fn h2load_gets_every_answer_over_http1() {
    if !are_installed(&["nginx", "h2load"]) {
        return;
    }
    let nginx = Nginx::start(ENDLESS);
    let proxy = Proxy::to(&format!("h2c://{}", nginx.address()));
    let _alone = alone();
    let requests = h2load::http1(&proxy.url("/small"), 64, 20_000);
    println!("h2load: {requests}");
    assert!(requests.contains("20000 succeeded, 0 failed, 0 errored, 0 timeout"), "{requests}");
}
