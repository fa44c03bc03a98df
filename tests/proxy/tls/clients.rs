//! What clients must show: a certificate, where `client_ca` asks for one.

use rustls::version::{TLS12, TLS13};
use tokio_rustls::TlsConnector;

use super::{Serving, expect_failure, serving, serving_from};
use crate::harness::client;
use crate::harness::proxy::Proxy;
use crate::harness::tls::Identity;

#[tokio::test]
async fn a_client_with_a_certificate_of_the_ca_is_served() {
    let (serving, authority) = guarded();
    let connector = serving.identity.connector_as(&authority.issue(&["client"]));
    let mut client = client::h1_tls(serving.proxy.address(), &connector).await;
    assert_eq!(client.get("/status/200").await.status(), 200);
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused() {
    let (serving, _) = guarded();
    refused(&serving.proxy, &serving.identity.connector(&[])).await;
    expect_failure(&serving.proxy, "client_certificate").await;
    assert_eq!(serving.origin.log().requests.len(), 0);
}

#[tokio::test]
async fn a_client_with_a_certificate_of_nobody_that_is_trusted_is_refused() {
    let (serving, _) = guarded();
    let stranger = Identity::named("another authority").issue(&["client"]);
    refused(&serving.proxy, &serving.identity.connector_as(&stranger)).await;
    expect_failure(&serving.proxy, "client_certificate").await;
    assert_eq!(serving.origin.log().requests.len(), 0);
}

#[tokio::test]
async fn a_client_of_an_older_version_than_the_oldest_one_is_refused() {
    let serving = serving("min_version: \"1.3\",", "");
    let old = serving.identity.connector_by(&TLS12);
    assert!(client::try_h1_tls(serving.proxy.address(), &old, "localhost").await.is_err());
    expect_failure(&serving.proxy, "version").await;
    let mut client = client::h1_tls(serving.proxy.address(), &serving.identity.connector_by(&TLS13)).await;
    assert_eq!(client.get("/status/200").await.status(), 200);
}

#[tokio::test]
async fn both_versions_are_spoken_by_default() {
    let serving = serving("", "");
    for version in [&TLS12, &TLS13] {
        let mut client = client::h1_tls(serving.proxy.address(), &serving.identity.connector_by(version)).await;
        assert_eq!(client.get("/status/200").await.status(), 200);
    }
}

#[tokio::test]
async fn a_client_with_no_protocol_in_common_is_refused() {
    let serving = serving("alpn: [h2],", "");
    let http1 = serving.identity.connector(&["http/1.1"]);
    assert!(client::try_h1_tls(serving.proxy.address(), &http1, "localhost").await.is_err());
    expect_failure(&serving.proxy, "alpn").await;
}

#[tokio::test]
async fn a_client_that_does_not_trust_the_certificate_is_counted() {
    let serving = serving("", "");
    let stranger = Identity::named("another").connector(&[]);
    assert!(client::try_h1_tls(serving.proxy.address(), &stranger, "localhost").await.is_err());
    expect_failure(&serving.proxy, "refused").await;
}

/// A listener whose clients need a certificate, and who signs them.
fn guarded() -> (Serving, Identity) {
    let (identity, authority) = (Identity::new(), Identity::named("clients"));
    let folder = tempfile::tempdir().unwrap();
    identity.store(folder.path(), "one");
    let (ca, _) = authority.store(folder.path(), "clients");
    let tls = format!("client_ca: {},", ca.display());
    (serving_from(folder, identity, &["one"], &tls, ""), authority)
}

/// In TLS 1.3 the client hears of it only after its own part of the handshake.
async fn refused(proxy: &Proxy, connector: &TlsConnector) {
    let Ok(client) = client::try_h1_tls(proxy.address(), connector, "localhost").await else { return };
    let mut client = client.into_raw();
    client.send("GET /status/200 HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(client.response_to("GET").await.is_err());
}
