//! Instructions per request, as valgrind's callgrind counts them: the same on an idle machine and on a busy one.
//!
//! The test runs this very file again under callgrind, once for each piece of work, and counts only inside functions
//! named `counted_`. Bounds are those of an optimised build with the compiler of the day. `TRUNKLINE_COUNTS_PROFILE=FILE`
//! keeps what callgrind has found, for `callgrind_annotate`.

#![allow(clippy::unwrap_used, reason = "a test: a panic is how it reports")]
#![allow(unreachable_pub, reason = "a test binary exports nothing: `pub` marks what the counts may use")]

mod one_worker;

use std::hint::black_box;
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;

use http::uri::{Authority, Scheme};
use http::{Method, Request, Response, request, response};
use one_worker::{ANSWER_FIELDS, Ask, OneWorker, REQUEST_FIELDS, TARGET, turn};
use tokio::runtime::LocalRuntime;
use trunkline::translate::{Hop, RequestHead, ResponseBody, response_for_client};
use trunkline::worker::LoneWorker;

/// The binary's own, because allocating is a good part of a request.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Some work, how often it is done, and the most instructions that once may cost.
///
/// Three per cent above what `make counts` has found with rustc 1.95 and the profile `profiling`: 2304 (2261 in another
/// build), 367, 193, 83250, 64110 and 76180. Runs of one build differ by 100 in the fourth and by 10 in the others; `.ci/run`
/// compiles otherwise, not incrementally, and finds a few per cent less or more. Before requests could be sent again, with a copy
/// of each head, a GET of 64 clients cost 61380. When there is less, the bounds go down with it; another compiler, C library or
/// processor may move all of them.
const BOUNDS: &[(&str, usize, u64)] = &[
    ("request head", 2000, 2470),
    ("response head", 2000, 392),
    ("place in the pool", 2000, 205),
    ("GET, 1 client", 1000, 85_700),
    ("GET, 64 clients", 6400, 66_000),
    ("POST, 64 clients", 6400, 78_500),
];

/// The work itself; to be run by callgrind.
fn work(name: &str, times: usize) {
    match name {
        "request head" => {
            let (hop, fallback) = (hop(), Authority::from_static("127.0.0.1:9000"));
            for _ in 0..times {
                black_box(counted_request_head(request_parts(), &hop, &fallback));
            }
        }
        "response head" => {
            for _ in 0..times {
                let mut parts = response_parts();
                black_box(counted_response_head(&mut parts));
            }
        }
        "place in the pool" => {
            let one = OneWorker::new(Ask::Get, 1);
            let head = RequestHead::from_http1(request_parts(), &hop()).unwrap();
            assert_eq!(counted_places(&one.worker, &head, times), times);
        }
        "GET, 1 client" => OneWorker::new(Ask::Get, 1).rounds(times, counted_turn),
        "GET, 64 clients" => OneWorker::new(Ask::Get, 64).rounds(times / 64, counted_turn),
        "POST, 64 clients" => OneWorker::new(Ask::Post, 64).rounds(times / 64, counted_turn),
        _ => panic!("no work named {name}"),
    }
}

#[inline(never)]
fn counted_request_head(parts: request::Parts, hop: &Hop, fallback: &Authority) -> Request<()> {
    RequestHead::from_http1(parts, hop).unwrap().into_http2(&Scheme::HTTP, fallback)
}

#[inline(never)]
fn counted_response_head(parts: &mut response::Parts) -> ResponseBody {
    response_for_client(parts, &Method::GET).unwrap()
}

#[inline(never)]
fn counted_places(worker: &LoneWorker, head: &RequestHead, times: usize) -> usize {
    worker.try_places(head, times)
}

#[inline(never)]
fn counted_turn(runtime: &LocalRuntime) {
    turn(runtime);
}

#[test]
fn instructions_per_request_stay_within_their_bounds() {
    if cfg!(debug_assertions) {
        return skip("instructions are counted in an optimised build: make counts");
    }
    if !Command::new(VALGRIND).arg("--version").output().is_ok_and(|output| output.status.success()) {
        return skip("valgrind is not installed");
    }
    let mut excess = Vec::new();
    for (name, times, bound) in BOUNDS {
        let count = callgrind(name) / *times as u64;
        let line = format!("instructions per {name}: {count}, bound {bound}; found with `make counts`");
        println!("{line}");
        excess.extend((count > *bound).then_some(line));
    }
    assert!(excess.is_empty(), "{}", excess.join("\n"));
}

/// Does the work in a process of its own; returns the instructions inside of what counts.
fn callgrind(name: &str) -> u64 {
    let file = std::env::var(PROFILE).map(|file| format!("{file}.{}", name.replace([' ', ','], "")));
    let output = Command::new(VALGRIND)
        .args(["--tool=callgrind", "--toggle-collect=*counted_*"])
        .arg(format!("--callgrind-out-file={}", file.as_deref().unwrap_or("/dev/null")))
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "work_of_the_environment", "--ignored", "--test-threads=1"])
        .env(WORK, name)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    let collected = text.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
    let collected = collected.filter(|collected| output.status.success() && *collected > 0);
    collected.unwrap_or_else(|| panic!("{name}: {text}\n{}", String::from_utf8_lossy(&output.stdout)))
}

#[test]
#[ignore = "what the test of the bounds has callgrind run"]
fn work_of_the_environment() {
    let Ok(name) = std::env::var(WORK) else { return };
    let (_, times, _) = BOUNDS.iter().find(|(known, ..)| *known == name).expect("a known piece of work");
    work(&name, *times);
}

/// Says why nothing was counted, past the test runner, which would show what a passing test prints to nobody.
fn skip(why: &str) {
    _ = writeln!(io::stderr(), "skipped: {why}");
}

fn hop() -> Hop {
    Hop::new("trunkline".into(), Hop::via("trunkline").unwrap(), IpAddr::V4(Ipv4Addr::LOCALHOST))
}

fn request_parts() -> request::Parts {
    let request = Request::get(TARGET);
    let request = REQUEST_FIELDS.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    request.body(()).unwrap().into_parts().0
}

fn response_parts() -> response::Parts {
    let response = Response::builder();
    let response = ANSWER_FIELDS.iter().fold(response, |response, (name, value)| response.header(*name, *value));
    response.body(()).unwrap().into_parts().0
}

const VALGRIND: &str = "valgrind";
const PROFILE: &str = "TRUNKLINE_COUNTS_PROFILE";
/// Names the work for the process under callgrind.
const WORK: &str = "TRUNKLINE_COUNTS_WORK";
