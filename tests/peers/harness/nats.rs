//! nats-server, a broker that publishes to subscribers over WebSocket.

use std::net::TcpStream;
use std::process::Command;

use tempfile::TempDir;

use super::address::ReservedAddress;
use super::process::Process;
use super::{poll, programs};

/// A running nats-server; dropping it kills it.
pub struct Nats {
    process: Process,
    /// Where it speaks WebSocket.
    pub websocket: ReservedAddress,
    _plain: ReservedAddress,
    _folder: TempDir,
}

impl Nats {
    #[track_caller]
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (plain, websocket) = (ReservedAddress::new(), ReservedAddress::new());
        let file = folder.path().join("nats.conf");
        let text = format!("listen: \"{plain}\"\nwebsocket {{ listen: \"{websocket}\", no_tls: true }}\n");
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new(programs::path("nats-server"));
        let process = Process::start("nats-server", command.arg("--config").arg(file));
        let mut nats = Self { process, websocket, _plain: plain, _folder: folder };
        poll("nats-server that accepts", || {
            assert!(!nats.process.has_ended(), "nats-server ended early:\n{}", nats.process.text());
            TcpStream::connect(nats.websocket.socket_address()).ok()
        });
        nats
    }
}
