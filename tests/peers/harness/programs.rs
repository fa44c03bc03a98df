//! Which foreign programs there are.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// Where a program is; call [`are_installed`] first.
pub fn path(program: &str) -> PathBuf {
    find(program).unwrap_or_else(|| panic!("{program} is not installed"))
}

/// Whether a test that needs these programs can run; says why not.
///
/// Panics instead with `TRUNKLINE_PEERS=required`.
pub fn are_installed(programs: &[&str]) -> bool {
    let mode = std::env::var("TRUNKLINE_PEERS").unwrap_or_default();
    if mode == "skip" {
        return false;
    }
    let missing: Vec<_> = programs.iter().filter(|program| find(program).is_none()).collect();
    for program in &missing {
        // Past the test runner, which would show what a passing test prints to nobody.
        _ = writeln!(io::stderr(), "skipped: {program} is not installed");
    }
    assert!(missing.is_empty() || mode != "required", "TRUNKLINE_PEERS=required, but {missing:?} are not installed");
    missing.is_empty()
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Services live in sbin, which is not on everybody's path.
    let folders = std::env::split_paths(&path).chain(SBIN.iter().map(PathBuf::from));
    folders.map(|folder| folder.join(program)).find(|candidate| Path::is_file(candidate))
}

const SBIN: &[&str] = &["/usr/local/sbin", "/usr/sbin", "/sbin"];
