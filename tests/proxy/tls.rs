//! TLS towards clients and towards services: who proves to be whom, and that nothing else is different under it.
//!
//! RFC 8446, RFC 6066 §3, RFC 7301. What a service's faulty TLS means is in `faults::tls`.

mod clients;
mod handshake;
mod names;
mod renewal;
mod traffic;
mod upstream;

use std::collections::BTreeMap;
use std::path::Path;

use tempfile::TempDir;

use crate::harness::origin::Origin;
use crate::harness::proxy::Proxy;
use crate::harness::tls::Identity;
use crate::harness::{origin, proxy};

/// A proxy whose listener speaks TLS, with the files of its certificates.
struct Serving {
    proxy: Proxy,
    origin: Origin,
    /// The first certificate.
    identity: Identity,
    folder: TempDir,
}

/// Starts one with the certificate `one`, and more keys in the listener's `tls` and in the listener.
fn serving(tls: &str, listener: &str) -> Serving {
    let identity = Identity::new();
    let folder = tempfile::tempdir().unwrap();
    identity.store(folder.path(), "one");
    serving_from(folder, identity, &["one"], tls, listener)
}

fn serving_from(folder: TempDir, identity: Identity, names: &[&str], tls: &str, listener: &str) -> Serving {
    let origin = origin::h2().start();
    let proxy = proxy::with(&yaml(folder.path(), names, tls, listener, &origin));
    Serving { proxy, origin, identity, folder }
}

fn yaml(folder: &Path, names: &[&str], tls: &str, listener: &str, origin: &Origin) -> String {
    let folder = folder.display();
    let certificates: Vec<_> =
        names.iter().map(|name| format!("{{ cert: {folder}/{name}.crt, key: {folder}/{name}.key }}")).collect();
    format!(
        "listeners: [{{ name: web, address: 127.0.0.1:0, {listener} tls: {{ {tls} certificates: [{}] }} }}]\n\
         upstreams: {{ up: {{ endpoints: [\"h2c://{origin}\"] }} }}\n",
        certificates.join(", ")
    )
}

/// Waits until a handshake has failed, and expects it to be the only one.
async fn expect_failure(proxy: &Proxy, reason: &'static str) {
    proxy.wait_for(|counts| !counts.tls_handshake_failures.is_empty()).await;
    assert_eq!(proxy.counts().tls_handshake_failures, BTreeMap::from([(reason, 1)]));
    assert!(proxy.faults().is_empty(), "{:?}", proxy.faults());
}
