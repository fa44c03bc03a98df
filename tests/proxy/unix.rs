//! Unix sockets on both sides: who comes over one, and services behind one.
//!
//! A proxy that listens on a path stands in for a service there, so that each request goes over both kinds.

mod clients;
mod life;
mod services;

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::harness::origin::{self, Origin};
use crate::harness::proxy::{self, Proxy};

/// A proxy that listens on a path, before an HTTP/2 service.
struct Inner {
    origin: Origin,
    proxy: Proxy,
    folder: TempDir,
}

impl Inner {
    /// With these keys of the listener.
    fn new(keys: &str) -> Self {
        let (origin, folder) = (origin::h2().start(), tempfile::tempdir().unwrap());
        let proxy = proxy::with(&yaml(&[("unix", &socket(&folder), keys)], &origin));
        Self { origin, proxy, folder }
    }

    fn path(&self) -> PathBuf {
        socket(&self.folder)
    }
}

fn socket(folder: &TempDir) -> PathBuf {
    folder.path().join("proxy.sock")
}

/// Listeners with their names, paths and further keys, before `service`.
fn yaml(listeners: &[(&str, &Path, &str)], service: &Origin) -> String {
    let listener = |(name, path, keys): &(&str, &Path, &str)| {
        format!("{{ name: {name}, address: \"unix:{}\", {keys} }}", path.display())
    };
    let listeners: Vec<_> = listeners.iter().map(listener).collect();
    format!("listeners: [{}]\nupstreams: {{ up: {{ endpoints: [\"h2c://{service}\"] }} }}\n", listeners.join(", "))
}
