//! h2load as a client: a fixed number of requests.

use std::process::Command;

use super::process::Process;
use super::programs;

/// Sends `requests` over `connections` in HTTP/1.1; returns h2load's line about how they ended.
#[track_caller]
pub fn http1(url: &str, connections: u32, requests: u32) -> String {
    run(&["--h1", &format!("-c{connections}"), &format!("-n{requests}"), url])
}

/// The same in HTTP/2, with so many streams at once on each connection.
#[track_caller]
pub fn http2(url: &str, connections: u32, streams: u32, requests: u32) -> String {
    run(&[&format!("-c{connections}"), &format!("-m{streams}"), &format!("-n{requests}"), url])
}

#[track_caller]
fn run(arguments: &[&str]) -> String {
    let mut command = Command::new(programs::path("h2load"));
    let mut process = Process::start("h2load", command.arg("-t1").args(arguments));
    process.wait();
    let text = process.text();
    let line = text.lines().find(|line| line.starts_with("requests:"));
    line.unwrap_or_else(|| panic!("h2load counted nothing:\n{text}")).to_owned()
}
