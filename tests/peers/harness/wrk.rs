//! wrk as a client: many keep-alive connections, each with its next request as soon as it has its answer.

use std::fmt;
use std::process::Command;

use super::process::Process;
use super::programs;

/// A running wrk; dropping it kills it.
pub struct Wrk {
    process: Process,
}

impl Wrk {
    pub fn start(url: &str, connections: u32, seconds: u32) -> Self {
        // A thousand connections need more descriptors than the usual soft limit of 1024 leaves.
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -n 4096 2>/dev/null; exec \"$@\"", "sh"]).arg(programs::path("wrk"));
        command.args([format!("-c{connections}"), format!("-d{seconds}s")]).args(["-t1", "--timeout", "5s", url]);
        Self { process: Process::start("wrk", &mut command) }
    }

    /// Waits for its end.
    #[track_caller]
    pub fn finish(mut self) -> Report {
        let status = self.process.wait();
        let text = self.process.text();
        assert!(status.success(), "wrk, {status}:\n{text}");
        Report::parse(&text)
    }
}

/// What wrk has counted.
#[derive(Debug, PartialEq, Eq)]
pub struct Report {
    pub requests: u64,
    /// Answers with a status of 400 and above; wrk calls them "Non-2xx or 3xx".
    pub refused: u64,
    /// Connect, read, write and timeout.
    pub socket_errors: [u64; 4],
    pub per_second: u64,
}

impl Report {
    pub fn parse(text: &str) -> Self {
        let numbers = |marker: &str| -> Vec<u64> {
            let line = text.lines().find(|line| line.contains(marker)).unwrap_or_default();
            line.split(|c: char| !c.is_ascii_digit() && c != '.').filter_map(whole).collect()
        };
        let requests = *numbers(" requests in ").first().unwrap_or_else(|| panic!("wrk counted nothing:\n{text}"));
        let errors = numbers("Socket errors:");
        Self {
            requests,
            // The line's own "2xx or 3xx" are not numbers of answers.
            refused: numbers("Non-2xx or 3xx responses:").last().copied().unwrap_or(0),
            socket_errors: errors.try_into().unwrap_or_default(),
            per_second: numbers("Requests/sec:").first().copied().unwrap_or(0),
        }
    }

    /// Every request was answered, and none with a refusal.
    #[track_caller]
    pub fn assert_clean(&self) {
        assert!(self.refused == 0 && self.socket_errors == [0; 4] && self.requests > 0, "{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { requests, refused, socket_errors: [connect, read, write, timeout], per_second } = self;
        write!(f, "wrk: {requests} requests, {per_second}/s, {refused} refused, ")?;
        write!(f, "errors: connect {connect}, read {read}, write {write}, timeout {timeout}")
    }
}

/// The whole part of `12.34`.
fn whole(number: &str) -> Option<u64> {
    number.split('.').next()?.parse().ok()
}

#[test]
fn a_report_is_read_with_all_its_errors() {
    let text = "  38112 requests in 3.05s, 4.75MB read\n  Socket errors: connect 1, read 20, write 3, timeout 4\n  \
                Non-2xx or 3xx responses: 17\nRequests/sec:  12505.64\nTransfer/sec:      1.56MB\n";
    let report = Report { requests: 38112, refused: 17, socket_errors: [1, 20, 3, 4], per_second: 12505 };
    assert_eq!(Report::parse(text), report);
}
