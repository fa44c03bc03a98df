//! Chromium without a window, on one page.

use std::fs;
use std::process::Command;

use tempfile::TempDir;

use super::process::Process;
use super::{poll, programs};

/// A running Chromium; dropping it kills it.
pub struct Chromium {
    // Both are taken when it ends.
    process: Option<Process>,
    folder: Option<TempDir>,
}

impl Chromium {
    /// Opens `url` with a fresh profile, whatever the certificate behind it.
    pub fn open(url: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(programs::path("chromium"));
        command
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"])
            .args(["--disable-background-networking", "--disable-component-update", "--ignore-certificate-errors"])
            .arg(format!("--user-data-dir={}", folder.path().join("profile").display()))
            .arg(url);
        // Nothing of the tester's own, such as a proxy for HTTP; temporary files go with the folder.
        let path = std::env::var_os("PATH").unwrap_or_default();
        command.env_clear().env("PATH", path).env("HOME", folder.path()).env("TMPDIR", folder.path());
        Self { process: Some(Process::start("chromium", &mut command)), folder: Some(folder) }
    }

    /// Panics with what it has written if it is no longer there.
    #[track_caller]
    pub fn assert_runs(&mut self) {
        let process = self.process.as_mut().expect("taken only when it ends");
        assert!(!process.has_ended(), "chromium ended early:\n{}", process.text());
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        drop(self.process.take());
        // Its many processes are killed, but may be gone a moment later only, and one of them may still write.
        let folder = self.folder.take().expect("taken only here").keep();
        poll("end of chromium's files", || fs::remove_dir_all(&folder).is_ok().then_some(()));
    }
}
