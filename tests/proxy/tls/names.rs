//! Which certificate a client is shown.

use tokio_rustls::TlsConnector;

use super::{Serving, serving_from};
use crate::harness::client;
use crate::harness::tls::Identity;

#[tokio::test]
async fn each_name_gets_its_certificate_and_all_others_the_first_one() {
    let first = Identity::of(&["localhost", "127.0.0.1", "unknown.test"]);
    let others = [Identity::of(&["*.wild.test"]), Identity::of(&["a.wild.test"])];
    let folder = tempfile::tempdir().unwrap();
    first.store(folder.path(), "one");
    others[0].store(folder.path(), "wild");
    others[1].store(folder.path(), "exact");
    let serving = serving_from(folder, first, &["one", "wild", "exact"], "", "");
    // A client refuses what is not for the name that it asks for, and trusts one certificate only.
    for (name, identity) in [
        ("localhost", &serving.identity),
        ("unknown.test", &serving.identity),
        // No name is sent with an address.
        ("127.0.0.1", &serving.identity),
        ("b.wild.test", &others[0]),
        ("B.Wild.Test", &others[0]),
        ("a.wild.test", &others[1]),
    ] {
        assert_eq!(get(&serving, &identity.connector(&[]), name).await, 200, "{name}");
    }
    let seen = serving.proxy.metrics().await;
    for name in ["localhost", "*.wild.test", "a.wild.test"] {
        let labels = [("listener", "web"), ("name", name)];
        assert!(seen.sum("trunkline_tls_certificate_not_after_seconds", &labels) > 1.7e9, "{name}");
    }
}

async fn get(Serving { proxy, .. }: &Serving, connector: &TlsConnector, name: &str) -> u16 {
    let mut client = client::try_h1_tls(proxy.address(), connector, name).await.unwrap();
    client.get("/status/200").await.status()
}
