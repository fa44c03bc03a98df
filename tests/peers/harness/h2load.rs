//! h2load as an HTTP/1.1 client: a fixed number of requests.

use std::process::Command;

use super::process::Process;
use super::programs;

/// Sends `requests` over `connections`; returns h2load's line about how they ended.
#[track_caller]
pub fn http1(url: &str, connections: u32, requests: u32) -> String {
    let mut command = Command::new(programs::path("h2load"));
    command.args(["--h1", "-t1", &format!("-c{connections}"), &format!("-n{requests}"), url]);
    let mut process = Process::start("h2load", &mut command);
    process.wait();
    let text = process.text();
    let line = text.lines().find(|line| line.starts_with("requests:"));
    line.unwrap_or_else(|| panic!("h2load counted nothing:\n{text}")).to_owned()
}
