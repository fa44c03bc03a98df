//! The real `trunkline` binary.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::process::{Command, ExitStatus};

use serde_json::Value;
use tempfile::TempDir;

use super::process::Process;

/// A running `trunkline`, written as its listener's address; dropping it kills it.
pub struct Proxy {
    process: Process,
    /// `None` on a Unix socket.
    address: Option<SocketAddr>,
    _folder: Option<TempDir>,
}

impl Proxy {
    /// `trunkline proxy` with two workers and at most four connections to `url`.
    pub fn to(url: &str) -> Self {
        let options = ["--listen", "127.0.0.1:0", "--to", url, "--connections", "4", "--workers", "2"];
        Self::start(Command::new(BINARY).arg("proxy").args(options), None)
    }

    /// `trunkline run` with a file of this text, which should listen on 127.0.0.1:0 or a Unix socket.
    pub fn run(yaml: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trunkline.yaml");
        std::fs::write(&path, yaml).unwrap();
        Self::start(Command::new(BINARY).args(["run", "--config"]).arg(path), Some(folder))
    }

    fn start(command: &mut Command, folder: Option<TempDir>) -> Self {
        // Nothing of the tester's own TRUNKLINE_ variables.
        let mut process = Process::start("trunkline", command.env_clear());
        let serving = process.wait_for_line("listener", |line| Some(line.split_once(" serving ")?.1.to_owned()));
        let address = serving.split_once("127.0.0.1:").and_then(|(_, address)| {
            let port: String = address.chars().take_while(char::is_ascii_digit).collect();
            Some(SocketAddr::from(([127, 0, 0, 1], port.parse().ok()?)))
        });
        Self { process, address, _folder: folder }
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    pub fn port(&self) -> u16 {
        self.address().port()
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address())
    }

    fn address(&self) -> SocketAddr {
        self.address.expect("a listener on 127.0.0.1")
    }

    /// Waits for a line of its log with this text.
    #[track_caller]
    pub fn wait_for_log(&mut self, text: &str) {
        self.process.wait_for_line(text, |line| line.contains(text).then_some(()));
    }

    pub fn signal(&self, signal: &str) {
        self.process.signal(signal);
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        self.process.wait()
    }

    /// How many requests of others than leaving clients have failed, by reason, as the access log tells it. Complete
    /// after the end of the process.
    pub fn failures(&self) -> BTreeMap<String, u64> {
        let mut failures = BTreeMap::new();
        for line in self.access_lines() {
            let reason = line["reason"].as_str().expect("every line has its reason");
            if reason != "client_gone" {
                *failures.entry(reason.to_owned()).or_default() += 1;
            }
        }
        failures
    }

    /// The access log. Complete after the end of the process.
    pub fn access_lines(&self) -> Vec<Value> {
        let text = self.process.text();
        let lines = text.lines().filter(|line| line.starts_with('{'));
        lines.map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
    }

    /// Ends it and waits for its end.
    #[track_caller]
    pub fn stop(&mut self) {
        self.signal("TERM");
        let status = self.wait();
        assert!(status.success(), "{status}\n{}", self.log());
    }

    /// All that it has logged.
    pub fn log(&self) -> String {
        self.process.text()
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address().fmt(f)
    }
}

const BINARY: &str = env!("CARGO_BIN_EXE_trunkline");
