//! nghttp as an HTTP/2 client that shows every frame.

use std::process::Command;

use super::process::Process;
use super::programs;

/// Runs nghttp with these arguments; returns the frames in words, and fails if nghttp calls it a failure.
#[track_caller]
pub fn nghttp(arguments: &[&str]) -> String {
    let mut command = Command::new(programs::path("nghttp"));
    command.args(["--verbose", "--null-out", "--timeout=15"]).args(arguments);
    let mut process = Process::start("nghttp", &mut command);
    let status = process.wait();
    let text = process.text();
    // It ends with 0 although requests were left unanswered.
    assert!(status.success() && !text.contains("not processed"), "nghttp {arguments:?}: {status}\n{text}");
    text
}
