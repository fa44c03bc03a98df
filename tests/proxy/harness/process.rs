//! What a process holds: memory and descriptors, as the kernel counts them.

use std::fs;
use std::process::Command;

/// Resident memory of this process in bytes.
pub fn resident_bytes() -> u64 {
    resident_bytes_of(std::process::id())
}

/// Resident memory of a child in bytes.
///
/// `VmRSS` of `status` is the number of `statm` in a unit that does not depend on the page size.
pub fn resident_bytes_of(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process lives");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a live process has VmRSS");
    let kib: u64 = line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("VmRSS is a number in kB");
    kib * 1024
}

/// The most memory since a moment, looked at now and then.
pub struct Growth {
    base: u64,
    peak: u64,
    looks: u32,
}

impl Growth {
    pub fn from_here() -> Self {
        Self { base: resident_bytes(), peak: 0, looks: 0 }
    }

    pub fn look(&mut self) {
        self.looks += 1;
        if self.looks.is_multiple_of(64) {
            self.peak = self.peak.max(resident_bytes());
        }
    }

    pub fn assert_below(&self, limit: u64) {
        let grown = self.peak.saturating_sub(self.base);
        eprintln!("resident memory grew by {} KiB", grown / 1024);
        assert!(self.peak > 0 && grown < limit, "{grown} bytes more");
    }
}

/// CPU time that a child has used, in ticks of the kernel.
pub fn cpu_ticks_of(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process lives");
    // The name may hold spaces; user and system time are the twelfth and thirteenth field behind it.
    let fields = stat.rsplit_once(") ").expect("a name in parentheses").1.split(' ');
    fields.skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("ticks are a number")).sum()
}

/// How often the threads of a child have stopped waiting.
pub fn wakeups_of(pid: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the process lives");
    let wakeups = |status: String| {
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        line.trim().parse::<u64>().ok()
    };
    tasks.flatten().filter_map(|task| wakeups(fs::read_to_string(task.path().join("status")).ok()?)).sum()
}

/// Open descriptors of this process. Tests of one binary share it: compare only where nothing else runs.
pub fn open_descriptors() -> usize {
    open_descriptors_of(std::process::id())
}

pub fn open_descriptors_of(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).expect("the process lives").count()
}

/// Whether the calling test has this process to itself, so that memory and descriptors are its own.
///
/// Called in the usual run it starts a process that runs the test of this `name` alone, waits for its success, and
/// returns `false`: the caller is done.
pub fn is_alone(name: &str) -> bool {
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let mut command = Command::new(std::env::current_exe().expect("a test binary"));
    command.args(["--exact", name, "--include-ignored", "--nocapture"]).env(ALONE, "1");
    let output = command.output().expect("the test binary starts");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{name} alone:\n{said}");
    eprintln!("{said}");
    false
}

const ALONE: &str = "TRUNKLINE_TEST_ALONE";
