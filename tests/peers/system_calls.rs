//! System calls per request: the greater part of what a request costs, and batching is what keeps them few.

use crate::harness::alone;
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
    ("sending calls", &["sendto", "sendmsg", "write", "writev"], 1.15),
    ("looks at the sockets", &["epoll_wait", "epoll_pwait", "epoll_pwait2"], 0.2),
    ("system calls", &[], 2.5),
];

#[test]
fn system_calls_per_request_stay_within_their_bounds() {
    if !are_installed(&["nginx", "wrk", "strace"]) {
        return;
    }
    let nginx = Nginx::start(ENDLESS);
    let proxy =
        Proxy::run(&format!("listen: 127.0.0.1:0\nupstream: h2c://{}\nruntime: {{ workers: 1 }}\n", nginx.address()));
    let _alone = alone();
    let Some(strace) = Strace::attach(proxy.pid()) else { return };
    let report = Wrk::start(&proxy.url("/small"), 64, 3).finish();
    let calls = strace.finish();
    report.assert_clean();
    println!("{report}\n{calls:?}");
    let per_request = |names: &[&str]| {
        let calls: u64 = names.iter().filter_map(|name| calls.get(*name)).sum();
        calls as f64 / report.requests as f64
    };
    let all: Vec<&str> = calls.keys().map(String::as_str).collect();
    let mut excess = Vec::new();
    for (what, names, bound) in BOUNDS {
        let count = per_request(if names.is_empty() { &all } else { names });
        let line = format!("{what} per request: {count:.3}, bound {bound}; found with `make counts`");
        println!("{line}");
        excess.extend((count > *bound).then_some(line));
    }
    assert!(excess.is_empty(), "{}", excess.join("\n"));
}
