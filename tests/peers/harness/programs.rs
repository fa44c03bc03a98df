//! Which foreign programs there are.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::python::PYTHON;

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
        _ = match **program {
            PYTHON => writeln!(io::stderr(), "skipped: the packages of tests/peers/requirements.txt are not installed"),
            program => writeln!(io::stderr(), "skipped: {program} is not installed"),
        };
    }
    assert!(missing.is_empty() || mode != "required", "TRUNKLINE_PEERS=required, but {missing:?} are not installed");
    missing.is_empty()
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Services live in sbin, which is not on everybody's path, and the tests' own Python on nobody's.
    let folders = std::env::split_paths(&path).chain(OTHERS.iter().map(PathBuf::from));
    folders.map(|folder| folder.join(program)).find(|candidate| Path::is_file(candidate))
}

const OTHERS: &[&str] =
    &["/usr/local/sbin", "/usr/sbin", "/sbin", concat!(env!("CARGO_TARGET_TMPDIR"), "/../peers-python/bin")];
