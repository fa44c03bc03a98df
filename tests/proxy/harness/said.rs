//! What the proxies of this process have logged, line by line: the operator's view.
//!
//! The log is the process's; a test finds its own lines by an address that only its service has.

use std::io;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use super::watched::BOUND;

/// The lines that hold `part`, so far.
pub fn lines(part: &str) -> Vec<String> {
    said().iter().filter(|line| line.contains(part)).cloned().collect()
}

/// Waits for a line that holds each of `parts`; panics with those that hold the first one after the harness's bound.
pub async fn line(parts: &[&str]) {
    let looks = async {
        while !said().iter().any(|line| parts.iter().all(|part| line.contains(part))) {
            // Between looks, not for an effect: the next one decides.
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    };
    let is_said = tokio::time::timeout(BOUND, looks).await.is_ok();
    assert!(is_said, "no line with {parts:?} within {BOUND:?}: {:#?}", lines(parts[0]));
}

/// Collects what is said from now on. Every proxy does this when it starts.
pub fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let lines = tracing_subscriber::fmt().with_env_filter("warn,trunkline=info").with_ansi(false);
        lines.with_writer(|| Line).init();
    });
}

fn said() -> MutexGuard<'static, Vec<String>> {
    static SAID: Mutex<Vec<String>> = Mutex::new(Vec::new());
    SAID.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes one whole line at a time, as the formatter writes it.
struct Line;

impl io::Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        said().push(String::from_utf8_lossy(bytes).into_owned());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const LOOK_INTERVAL: Duration = Duration::from_millis(1);
