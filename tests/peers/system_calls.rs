//! System calls per request: the greater part of what a request costs, and batching is what keeps them few.

use std::collections::BTreeMap;

use crate::harness::alone;
use crate::harness::h2load;
use crate::harness::nginx::{ENDLESS, Nginx};
use crate::harness::programs::are_installed;
use crate::harness::proxy::Proxy;
use crate::harness::strace::Strace;
use crate::harness::wrk::Wrk;

/// Calls that do the same, and the most of them that a request may cost with 64 clients on one worker.
///
/// `make counts` has found 1.06, 1.05, 0.06 and 2.2, on an idle machine and on one with four busy loops for two cores: one
/// receive and one send for the client, and what some twenty requests share. The bounds leave room for half of that
/// sharing, because who shares is the scheduler's to say.
const BOUNDS: &[(&str, &[&str], f64)] = &[
    ("receiving calls", &["recvfrom", "recvmsg", "read", "readv"], 1.15),
    ("sending calls", SENDING, 1.15),
    ("looks at the sockets", &["epoll_wait", "epoll_pwait", "epoll_pwait2"], 0.2),
    ("system calls", &[], 2.5),
];

const SENDING: &[&str] = &["sendto", "sendmsg", "write", "writev"];

/// The most sending calls that a MiB for an HTTP/2 client may cost, in nginx's frames of 8 KiB. `make counts` has found 17; it
/// was 130 when each frame went out by itself.
const SENDS_PER_LARGE: f64 = 25.0;

#[test]
fn system_calls_per_request_stay_within_their_bounds() {
    if !are_installed(&["nginx", "wrk", "strace"]) {
        return;
    }
    let (_nginx, proxy) = before_nginx();
    let _alone = alone();
    let Some(strace) = Strace::attach(proxy.pid()) else { return };
    let report = Wrk::start(&proxy.url("/small"), 64, 3).finish();
    let calls = strace.finish();
    report.assert_clean();
    println!("{report}\n{calls:?}");
    let all: Vec<&str> = calls.keys().map(String::as_str).collect();
    let mut excess = Vec::new();
    for (what, names, bound) in BOUNDS {
        let count = sum(&calls, if names.is_empty() { &all } else { names }) / report.requests as f64;
        let line = format!("{what} per request: {count:.3}, bound {bound}; found with `make counts`");
        println!("{line}");
        excess.extend((count > *bound).then_some(line));
    }
    assert!(excess.is_empty(), "{}", excess.join("\n"));
}

#[test]
fn system_calls_per_large_answer_over_http2_stay_within_their_bound() {
    const REQUESTS: u32 = 200;
    if !are_installed(&["nginx", "h2load", "strace"]) {
        return;
    }
    let (_nginx, proxy) = before_nginx();
    let _alone = alone();
    let Some(strace) = Strace::attach(proxy.pid()) else { return };
    let line = h2load::http2(&proxy.url("/large"), 4, 4, REQUESTS);
    let calls = strace.finish();
    assert!(line.contains(&format!("{REQUESTS} succeeded, 0 failed")), "{line}");
    let count = sum(&calls, SENDING) / f64::from(REQUESTS);
    println!("{calls:?}\nsending calls per MiB: {count:.1}, bound {SENDS_PER_LARGE}; found with `make counts`");
    assert!(count <= SENDS_PER_LARGE, "sending calls per MiB: {count:.1}");
}

/// A proxy with one worker before an nginx.
fn before_nginx() -> (Nginx, Proxy) {
    let nginx = Nginx::start(ENDLESS);
    let proxy =
        Proxy::run(&format!("listen: 127.0.0.1:0\nupstream: h2c://{}\nruntime: {{ workers: 1 }}\n", nginx.address()));
    (nginx, proxy)
}

fn sum(calls: &BTreeMap<String, u64>, names: &[&str]) -> f64 {
    names.iter().filter_map(|name| calls.get(*name)).sum::<u64>() as f64
}
