//! What the operating system says about this process: the conventional `process_*` figures.
//!
//! Read from `/proc/self` when someone looks; what cannot be read is absent rather than zero.
//!
//! Runs on control. See `proc_pid_stat(5)`, `proc_pid_status(5)`, `proc_pid_limits(5)`.

use std::fs;

use serde::{Deserialize, Serialize};

/// The process as a whole.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ProcessFigures {
    /// User and system time.
    pub cpu_seconds: Option<f64>,
    pub resident_memory_bytes: Option<u64>,
    pub virtual_memory_bytes: Option<u64>,
    pub open_fds: Option<u64>,
    /// The soft limit; absent when there is none.
    pub max_fds: Option<u64>,
    /// Since 1970.
    pub start_time_seconds: Option<f64>,
    pub threads: Option<u64>,
}

impl ProcessFigures {
    /// Reads what is there.
    pub fn read() -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let (stat, status) = (text("/proc/self/stat"), text("/proc/self/status"));
        let boot_seconds = line(&text("/proc/stat"), "btime ").and_then(|value| value.parse::<f64>().ok());
        let ticks = |number| stat_field(&stat, number).map(|ticks| ticks as f64 / TICKS_PER_SECOND);
        Self {
            cpu_seconds: ticks(UTIME).zip(ticks(STIME)).map(|(user, system)| user + system),
            resident_memory_bytes: kibibytes(&status, "VmRSS:"),
            virtual_memory_bytes: kibibytes(&status, "VmSize:"),
            // Looking takes a descriptor itself.
            open_fds: fs::read_dir("/proc/self/fd").ok().map(|entries| (entries.count() as u64).saturating_sub(1)),
            max_fds: soft_limit(&text("/proc/self/limits"), "Max open files"),
            start_time_seconds: boot_seconds.zip(ticks(START)).map(|(boot, since)| boot + since),
            threads: line(&status, "Threads:").and_then(|value| value.parse().ok()),
        }
    }
}

/// A field of `/proc/self/stat` by its number in `proc_pid_stat(5)`. The second one, the name of the program, may hold
/// spaces and parentheses, so counting starts behind its last parenthesis.
fn stat_field(stat: &str, number: usize) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(number - 3)?.parse().ok()
}

/// The rest of the line that starts with `key`.
fn line<'t>(text: &'t str, key: &str) -> Option<&'t str> {
    text.lines().find_map(|line| line.strip_prefix(key)).map(str::trim)
}

fn kibibytes(status: &str, key: &str) -> Option<u64> {
    let count: u64 = line(status, key)?.strip_suffix("kB")?.trim().parse().ok()?;
    Some(count * 1024)
}

fn soft_limit(limits: &str, key: &str) -> Option<u64> {
    line(limits, key)?.split_whitespace().next()?.parse().ok()
}

/// `USER_HZ`: the unit of times in `/proc`, 100 on every architecture that Rust builds Linux programs for.
const TICKS_PER_SECOND: f64 = 100.0;
const UTIME: usize = 14;
const STIME: usize = 15;
const START: usize = 22;

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "4242 (trunk) line (x) S 1 4242 4242 0 -1 4194560 9000 0 3 0 250 50 0 0 20 0 5 0 123456 104857600 \
                        2560 18446744073709551615";

    #[test]
    fn fields_are_counted_behind_the_programs_name() {
        assert_eq!(stat_field(STAT, UTIME), Some(250));
        assert_eq!(stat_field(STAT, STIME), Some(50));
        assert_eq!(stat_field(STAT, START), Some(123_456));
        assert_eq!(stat_field("", START), None);
    }

    #[test]
    fn lines_are_found_by_their_key() {
        let status = "Name:\ttrunkline\nVmSize:\t  102400 kB\nVmRSS:\t   10240 kB\nThreads:\t5\n";
        assert_eq!(kibibytes(status, "VmRSS:"), Some(10 * 1024 * 1024));
        assert_eq!(line(status, "Threads:"), Some("5"));
        assert_eq!(kibibytes(status, "VmSwap:"), None);
        let limits = "Limit            Soft Limit Hard Limit Units\nMax open files   1024       4096       files\n";
        assert_eq!(soft_limit(limits, "Max open files"), Some(1024));
        assert_eq!(soft_limit("Max open files unlimited unlimited files\n", "Max open files"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_memory_threads_and_descriptors() {
        let ProcessFigures {
            cpu_seconds,
            resident_memory_bytes,
            virtual_memory_bytes,
            open_fds,
            max_fds: _,
            start_time_seconds,
            threads,
        } = ProcessFigures::read();
        assert!(cpu_seconds.is_some_and(|seconds| seconds >= 0.0));
        assert!(
            resident_memory_bytes
                .zip(virtual_memory_bytes)
                .is_some_and(|(resident, all)| 0 < resident && resident <= all)
        );
        assert!(open_fds.is_some_and(|count| count >= 3));
        assert!(start_time_seconds.is_some_and(|seconds| seconds > 1.7e9));
        assert!(threads.is_some_and(|count| count >= 1));
    }
}
