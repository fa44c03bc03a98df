//! TLS on both sides.

use std::collections::BTreeMap;

use rustls::DEFAULT_VERSIONS;
use rustls::version::TLS12;

use super::recipe;
use crate::harness::tls::Identity;
use crate::harness::{client, origin};

#[tokio::test]
async fn tls_serves_by_name_knows_its_internal_clients_and_trusts_its_service() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Identity::named("authority");
    authority.store(folder.path(), "ca");
    authority.issue(&["localhost"]).store(folder.path(), "tls");
    authority.issue(&["other.example"]).store(folder.path(), "other");
    // It serves nobody who shows no certificate.
    let service = authority.issue(&["localhost"]).server_for(&authority, &["h2"], DEFAULT_VERSIONS);
    let origin = origin::h2().tls(service).start();
    let proxy = recipe(
        "tls.yaml",
        &[
            ("SERVICE", &format!("h2://{origin}")),
            ("CERTIFICATES", &folder.path().display().to_string()),
            ("LISTEN_INTERNAL", "127.0.0.1:0"),
        ],
    );
    let anybody = authority.connector(&[]);
    for name in ["localhost", "other.example"] {
        let mut client = client::try_h1_tls(proxy.address(), &anybody, name).await.unwrap();
        assert_eq!(client.get("/status/200").await.status(), 200, "{name}");
    }
    let internal = proxy.address_of("internal");
    let known = authority.connector_as(&authority.issue(&["client"]));
    assert_eq!(client::h1_tls(internal, &known).await.get("/status/200").await.status(), 200);
    // In TLS 1.3 a client hears of it only after its own part of the handshake.
    if let Ok(client) = client::try_h1_tls(internal, &anybody, "localhost").await {
        let mut client = client.into_raw();
        client.send("GET /status/200 HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert!(client.response_to("GET").await.is_err());
    }
    let old = authority.connector_by(&TLS12);
    assert_eq!(client::h1_tls(proxy.address(), &old).await.get("/status/200").await.status(), 200);
    assert!(client::try_h1_tls(internal, &old, "localhost").await.is_err());
    let failures = BTreeMap::from([("client_certificate", 1), ("version", 1)]);
    proxy.wait_for(|counts| counts.tls_handshake_failures == failures).await;
}
