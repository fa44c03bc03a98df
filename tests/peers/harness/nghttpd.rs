//! nghttpd, nghttp2's own server, as an HTTP/2 service in the clear or over TLS; it echoes what is posted.

use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;

use super::address::ReservedAddress;
use super::files::Files;
use super::process::Process;
use super::{poll, programs};

/// A running nghttpd; dropping it kills it.
pub struct Nghttpd {
    pub files: Files,
    address: ReservedAddress,
    process: Process,
}

impl Nghttpd {
    pub fn start() -> Self {
        Self::start_with(Files::new(), &["--no-tls"], &[])
    }

    /// Over TLS with a fresh certificate for `localhost`; the path is the authority to trust.
    pub fn start_tls() -> (Self, PathBuf) {
        let files = Files::new();
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let certificate = files.write("certificate.pem", &made.cert.pem());
        let key = files.write("key.pem", &made.signing_key.serialize_pem());
        let paths = [key.display().to_string(), certificate.display().to_string()];
        (Self::start_with(files, &[], &[&paths[0], &paths[1]]), certificate)
    }

    fn start_with(files: Files, options: &[&str], identity: &[&str]) -> Self {
        let address = ReservedAddress::new();
        let mut command = Command::new(programs::path("nghttpd"));
        command.args(["--address=127.0.0.1", "--echo-upload", "--htdocs"]).arg(files.path());
        command.args(options).arg(address.port().to_string()).args(identity);
        let mut process = Process::start("nghttpd", &mut command);
        poll("nghttpd that accepts", || {
            assert!(!process.has_ended(), "nghttpd ended early:\n{}", process.text());
            TcpStream::connect(address.socket_address()).ok()
        });
        Self { files, address, process }
    }

    /// Stops it where it is, with every connection open; the kernel goes on accepting for it.
    pub fn freeze(&self) {
        self.process.signal_all("STOP");
    }

    pub fn thaw(&self) {
        self.process.signal_all("CONT");
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> &ReservedAddress {
        &self.address
    }
}
