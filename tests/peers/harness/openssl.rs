//! `openssl s_client`: one TLS handshake, and what came of it.

use std::process::Command;

use super::process::Process;
use super::programs;

/// What `s_client` says about a handshake.
pub struct Handshake(String);

/// Shakes hands with `address`; without stdin, `s_client` ends by itself then.
pub fn s_client(address: &str, arguments: &[&str]) -> Handshake {
    let mut command = Command::new(programs::path("openssl"));
    command.args(["s_client", "-connect", address]).args(arguments);
    let mut process = Process::start("openssl", &mut command);
    process.wait();
    Handshake(process.text())
}

impl Handshake {
    /// The common name of the service's certificate; `None` if there was none.
    pub fn subject(&self) -> Option<&str> {
        self.after("subject=CN = ").or_else(|| self.after("subject=CN="))
    }

    /// `h2`, if that was chosen by ALPN.
    pub fn alpn(&self) -> Option<&str> {
        self.after("ALPN protocol: ")
    }

    /// Whether the service's certificate was found good.
    pub fn is_verified(&self) -> bool {
        self.0.contains("Verify return code: 0 (ok)")
    }

    /// `TLSv1.3`, or `(NONE)` without a handshake.
    pub fn version(&self) -> Option<&str> {
        self.after("New, ").and_then(|line| line.split(',').next())
    }

    pub fn text(&self) -> &str {
        &self.0
    }

    fn after(&self, start: &str) -> Option<&str> {
        self.0.lines().find_map(|line| line.trim().strip_prefix(start))
    }
}
