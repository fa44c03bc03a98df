//! Answers operators and probes over HTTP.

use std::net::TcpListener;
use std::sync::Arc;

use super::Control;

/// What an admin address may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Full,
    Probes,
}

/// Serves on `socket` until the runtime ends.
pub(super) fn serve(_control: Arc<Control>, _socket: TcpListener, _access: Access) {}
