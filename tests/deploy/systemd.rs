//! The service unit, read by systemd itself.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::{configuration, drain, project};

#[test]
fn the_unit_outlasts_a_drain() {
    let unit = fs::read_to_string(project("deploy/systemd/trunkline.service")).unwrap();
    let seconds = unit.lines().find_map(|line| line.strip_prefix("TimeoutStopSec=")?.strip_suffix('s'));
    let defaults = configuration("defaults", "listen: 127.0.0.1:1\nupstream: h2c://127.0.0.1:2\n");
    assert!(Duration::from_secs(seconds.unwrap().parse().unwrap()) > drain(&defaults));
}

#[test]
fn systemd_finds_nothing_wrong_with_the_unit() {
    if !is_systemd_analyze_installed() {
        return;
    }
    let (_folder, unit) = unit_of_the_built_binary();
    let verified = analyze(&["verify", "--man=no", "--recursive-errors=no"], &unit);
    // It reads the units that ours names as well, and may not like those of the machine.
    let is_fine = |words: &String| !words.contains("trunkline.service");
    assert!(verified.as_ref().is_ok_and(is_fine), "{verified:?}");
}

#[test]
fn systemd_calls_the_unit_well_protected() {
    if !is_systemd_analyze_installed() {
        return;
    }
    let (_folder, unit) = unit_of_the_built_binary();
    // Of 100: 96 is a unit without any protection. What is left is being on the network at all.
    let judged = analyze(&["security", "--offline=yes", "--threshold=20", "--no-pager"], &unit);
    assert!(judged.is_ok(), "{judged:?}");
}

fn is_systemd_analyze_installed() -> bool {
    let is_installed = Command::new("systemd-analyze").arg("--version").stdout(Stdio::null()).status().is_ok();
    if !is_installed {
        // Past the test runner, which would show what a passing test prints to nobody.
        _ = writeln!(io::stderr(), "skipped: systemd-analyze (Debian: systemd) is not installed");
    }
    is_installed
}

/// A copy that starts the binary under test: systemd wants a program that is there.
fn unit_of_the_built_binary() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let unit = fs::read_to_string(project("deploy/systemd/trunkline.service")).unwrap();
    let path = folder.path().join("trunkline.service");
    fs::write(&path, unit.replace("/usr/bin/trunkline", env!("CARGO_BIN_EXE_trunkline"))).unwrap();
    (folder, path)
}

/// What systemd-analyze has to say; an error if it exits with one.
fn analyze(arguments: &[&str], unit: &Path) -> Result<String, String> {
    let output = Command::new("systemd-analyze").args(arguments).arg(unit).output().unwrap();
    let words = [output.stdout, output.stderr].concat();
    let words = String::from_utf8_lossy(&words).into_owned();
    if output.status.success() { Ok(words) } else { Err(words) }
}
