//! TLS: towards upstreams (`client`) and towards clients (`server`).
//!
//! A shared edge: both are built by control, when a configuration arrives and when a file that it names has changed, and
//! used by the workers. RFC 8446, RFC 7301.

mod client;
mod server;

pub use client::{ClientTls, connector, explained, handshake_fault, refusal_in};
pub use server::{CertificateEnd, HANDSHAKE_FAILURES, ServerTls, handshake_failure};

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::path::Path;

use rustls::sign::CertifiedKey;

use crate::config::Identity;
use crate::config::certificates::{self, Flaw, Subject};

/// Reads files, and remembers what was in them, so that a change is told from a mere touch.
#[derive(Default)]
struct Files(DefaultHasher);

impl Files {
    /// The bytes of a file, made into something. A failure is a sentence for the operator.
    fn read<T>(&mut self, path: &Path, make: impl FnOnce(&[u8]) -> Result<T, Flaw>) -> Result<T, String> {
        let bytes = std::fs::read(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
        bytes.hash(&mut self.0);
        make(&bytes).map_err(|flaw| sentence(path, &flaw))
    }

    /// A certificate with its key, and what it says about itself.
    fn identity(&mut self, identity: &Identity) -> Result<(CertifiedKey, Subject), String> {
        let (chain, subject) = self.read(&identity.cert, certificates::chain_and_subject)?;
        let key = self.read(&identity.key, certificates::key)?;
        let certified = certificates::certified(chain, key).map_err(|flaw| sentence(&identity.key, &flaw))?;
        Ok((certified, subject))
    }

    /// The same for the same contents.
    fn fingerprint(self) -> u64 {
        self.0.finish()
    }
}

fn sentence(path: &Path, Flaw { reason, advice }: &Flaw) -> String {
    format!("{} {reason}: {advice}", path.display())
}

/// ALPN names (RFC 7301 §6).
pub const HTTP2: &[u8] = b"h2";
pub const HTTP1: &[u8] = b"http/1.1";
