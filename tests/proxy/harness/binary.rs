//! The proxy as a process of its own: where memory and descriptors must be its alone.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use super::watched::within;

/// The binary, ended with the test.
pub struct Binary(Child);

impl Binary {
    /// Starts it; returns when `listen`, which the arguments tell it, accepts.
    pub async fn start<S: AsRef<OsStr>>(arguments: &[S], listen: SocketAddr) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trunkline"));
        let binary = Self(command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        within("listening proxy", async { while tokio::net::TcpStream::connect(listen).await.is_err() {} }).await;
        binary
    }

    pub fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Binary {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}
