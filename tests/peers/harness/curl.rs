//! curl as a client: one request each.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use super::{BOUND, programs};

/// What curl has seen.
pub struct Answer {
    pub status: u16,
    /// Status line and fields of each response, interim ones included.
    pub heads: String,
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of a field in the last head.
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.heads.lines().filter_map(|line| line.split_once(':'));
        fields.rfind(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
}

/// Runs curl with these arguments, `stdin` on its standard input; panics if curl calls it a failure.
#[track_caller]
pub fn curl(arguments: &[&str], stdin: &[u8]) -> Answer {
    let folder = tempfile::tempdir().unwrap();
    let heads = folder.path().join("heads");
    let body = folder.path().join("body");
    let output = run(&folder, arguments, stdin);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "curl {arguments:?}: {errors}");
    Answer {
        status: String::from_utf8_lossy(&output.stdout).parse().expect("curl writes the status"),
        heads: std::fs::read_to_string(heads).unwrap_or_default(),
        body: std::fs::read(body).unwrap_or_default(),
    }
}

/// The code with which curl ends.
#[track_caller]
pub fn curl_code(arguments: &[&str]) -> i32 {
    let output = run(&tempfile::tempdir().unwrap(), arguments, b"");
    output.status.code().expect("nobody kills curl")
}

fn run(folder: &TempDir, arguments: &[&str], stdin: &[u8]) -> Output {
    let mut child = Command::new(programs::path("curl"))
        .args(["--disable", "--silent", "--show-error", "--max-time", &BOUND.as_secs().to_string()])
        .args(["--noproxy", "*", "--write-out", "%{http_code}", "--dump-header"])
        .arg(folder.path().join("heads"))
        .arg("--output")
        .arg(folder.path().join("body"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A curl that has no use for its stdin closes it.
    _ = child.stdin.take().expect("stdin is piped").write_all(stdin);
    child.wait_with_output().unwrap()
}
