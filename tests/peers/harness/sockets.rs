//! Established connections as the kernel lists them (`/proc/net/tcp`, proc(5)).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Connections to `port` of 127.0.0.1 that are established on the side which opened them.
pub fn established_to(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    // 127.0.0.1 as the kernel writes it on this machine: the bytes in memory order, read as one number.
    let remote = format!("{:08X}:{port:04X}", u32::from_ne_bytes([127, 0, 0, 1]));
    let lines = table.lines().skip(1).map(|line| line.split_whitespace());
    let established =
        lines.filter(|columns| columns.clone().nth(2) == Some(&remote) && columns.clone().nth(3) == Some(ESTABLISHED));
    // The table is read in parts. While a thousand clients come and go, a row can stand in two of them.
    established.map(|columns| columns.clone().nth(1)).collect::<BTreeSet<_>>().len()
}

/// Looks again and again at how many connections to a port there are.
pub struct Sampler {
    is_stopped: Arc<AtomicBool>,
    thread: JoinHandle<Samples>,
}

#[derive(Debug, Default, Clone, Copy)]
pub struct Samples {
    pub looks: usize,
    pub most: usize,
}

impl Sampler {
    pub fn start(port: u16) -> Self {
        let is_stopped = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let is_stopped = is_stopped.clone();
            move || {
                let mut samples = Samples::default();
                while !is_stopped.load(Ordering::Relaxed) {
                    samples.most = samples.most.max(established_to(port));
                    samples.looks += 1;
                    // The table of some thousand sockets takes the kernel milliseconds to write.
                    std::thread::sleep(INTERVAL);
                }
                samples
            }
        });
        Self { is_stopped, thread }
    }

    pub fn finish(self) -> Samples {
        self.is_stopped.store(true, Ordering::Relaxed);
        self.thread.join().expect("the sampler does not panic")
    }
}

const ESTABLISHED: &str = "01";
const INTERVAL: Duration = Duration::from_millis(20);
