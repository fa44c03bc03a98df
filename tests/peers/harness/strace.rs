//! strace as a counter of system calls.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::process::Command;

use super::process::Process;
use super::{poll, programs};

/// A strace that counts what all threads of a process do; dropping it leaves the process alone.
pub struct Strace {
    process: Process,
}

impl Strace {
    /// Begins to count; `None` where that is not permitted, which it says.
    pub fn attach(pid: u32) -> Option<Self> {
        let mut command = Command::new(programs::path("strace"));
        let mut process = Process::start("strace", command.args(["-f", "-c", "-p", &pid.to_string()]));
        let is_attached = poll("strace that has attached or given up", || {
            let is_attached = process.text().contains(" attached");
            (is_attached || process.has_ended()).then_some(is_attached)
        });
        if is_attached {
            return Some(Self { process });
        }
        process.wait();
        // Past the test runner, which would show what a passing test prints to nobody.
        _ = writeln!(io::stderr(), "skipped: strace may not trace here: {}", process.text());
        None
    }

    /// How often each system call was made since.
    #[track_caller]
    pub fn finish(mut self) -> BTreeMap<String, u64> {
        self.process.signal("INT");
        // Interrupted, it ends by the same signal once it has written its table.
        self.process.wait();
        let counts = counts(&self.process.text());
        assert!(!counts.is_empty(), "strace counted nothing:\n{}", self.process.text());
        counts
    }
}

/// Reads the table: share, seconds, microseconds per call, calls, errors if there were any, name.
fn counts(table: &str) -> BTreeMap<String, u64> {
    let columns = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let count = |columns: Vec<&str>| match columns[..] {
        [share, _, _, calls, .., name] if name != "total" && share.parse::<f64>().is_ok() => {
            Some((name.to_owned(), calls.parse().ok()?))
        }
        _ => None,
    };
    columns.filter_map(count).collect()
}

#[test]
fn a_table_is_read_with_and_without_errors() {
    let table = "strace: Process 7 attached with 3 threads\n\
                 % time     seconds  usecs/call     calls    errors syscall\n\
                 ------ ----------- ----------- --------- --------- ----------------\n \
                 62.11    0.412345           5     20034         3 recvfrom\n \
                 37.89    0.200000          10     20000           writev\n\
                 ------ ----------- ----------- --------- --------- ----------------\n\
                 100.00    0.612345           5     40034         3 total\n";
    let expected = [("recvfrom", 20034), ("writev", 20000)].map(|(name, calls)| (name.to_owned(), calls));
    assert_eq!(counts(table), BTreeMap::from(expected));
}
