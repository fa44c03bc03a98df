//! The scripts of tests/peers/scripts, run by the Python of the virtual environment that `make peers` has made.
//!
//! What a script has to say is a line of JSON: the only one of a client, the first one of a service.

use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use super::process::Process;
use super::programs;

/// What [`programs::are_installed`] looks for.
pub const PYTHON: &str = "peers-python";

/// A running script; dropping it kills it.
pub struct Script {
    process: Process,
    /// The first line of JSON that it has written.
    pub said: Value,
    _folder: TempDir,
}

impl Script {
    /// Starts a service; returns when it has said where it listens.
    #[track_caller]
    pub fn start(name: &str, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut process = Process::start(name, &mut command(name, arguments, &folder));
        let said = process.wait_for_line("line of JSON", |line| serde_json::from_str(line).ok());
        Self { process, said, _folder: folder }
    }

    /// A port that it has named.
    #[track_caller]
    pub fn port(&self, name: &str) -> u16 {
        let port = self.said[name].as_u64().and_then(|port| port.try_into().ok());
        port.unwrap_or_else(|| panic!("no port {name} in {}", self.said))
    }

    /// All lines of JSON that it has written.
    pub fn lines(&self) -> Vec<Value> {
        self.process.text().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

/// Runs a client to its end and returns what it says.
#[track_caller]
pub fn run(name: &str, arguments: &[&str]) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let mut process = Process::start(name, &mut command(name, arguments, &folder));
    let status = process.wait();
    let text = process.text();
    let said = text.lines().rev().find_map(|line| serde_json::from_str(line).ok());
    match said {
        Some(said) if status.success() => said,
        _ => panic!("{name} {arguments:?}: {status}\n{text}"),
    }
}

fn command(name: &str, arguments: &[&str], folder: &TempDir) -> Command {
    let mut command = Command::new(programs::path(PYTHON));
    command.arg(format!("{}/tests/peers/scripts/{name}", env!("CARGO_MANIFEST_DIR"))).args(arguments);
    // Nothing of the tester's own, such as a proxy for HTTP; temporary files go with the folder.
    command.env_clear().env("HOME", folder.path()).env("TMPDIR", folder.path()).env("PYTHONDONTWRITEBYTECODE", "1");
    command
}
