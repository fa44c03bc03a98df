//! TLS towards a service that fails: the row is the same under `h2://` and `https://`, and the log has the cause.
//!
//! RFC 8446 §6, RFC 7301, RFC 9110 §4.3.4.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::{Asking, GONE, Row, proxy_before, row};
use crate::harness::origin::Origin;
use crate::harness::tls::Identity;
use crate::harness::{client, origin, said};

const FAILED: Row = row(502, "tls_protocol_error", "tls_failed", GONE);
const REJECTED: Row = row(502, "tls_certificate_error", "certificate_rejected", GONE);

/// Asks through a proxy with this TLS section, under both schemes; `cause` is what the operator reads.
async fn expect(port: u16, upstream: &str, row: impl Fn() -> Row, cause: &str) {
    for scheme in ["h2", "https"] {
        let endpoint = format!("{scheme}://localhost:{port}");
        let proxy = proxy_before(&endpoint, upstream);
        Asking::new(&proxy).await.expect(&proxy, row()).await;
        said::line(&[&format!(" endpoint={endpoint} "), "WARN", "endpoint cannot be reached", cause]).await;
    }
}

/// A service that reads the beginning of the handshake, answers with bytes, and then closes if it `is_closing`.
async fn answering(bytes: &'static [u8], is_closing: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut read = [0; 4096];
            if stream.read(&mut read).await.is_ok() && stream.write_all(bytes).await.is_ok() && !is_closing {
                held.push(stream);
            }
        }
    });
    address
}

fn trusting(identity: &Identity, more: &str) -> (tempfile::NamedTempFile, String) {
    let ca = identity.file();
    let tls = format!("tls: {{ ca: {}{more} }}", ca.path().display());
    (ca, tls)
}

fn port(origin: &Origin) -> u16 {
    origin.address().port()
}

#[tokio::test]
async fn a_service_without_tls() {
    let origin = origin::h2().start();
    expect(port(&origin), "", || FAILED, "it answered the TLS handshake with something else").await;
}

#[tokio::test]
async fn a_handshake_that_is_broken_off() {
    let service = answering(b"", true).await;
    expect(service.port(), "", || FAILED, "it broke off the TLS handshake").await;
}

/// By a fatal alert, `handshake_failure`.
#[tokio::test]
async fn a_handshake_that_is_refused() {
    let service = answering(b"\x15\x03\x03\0\x02\x02\x28", true).await;
    expect(service.port(), "", || FAILED, "HandshakeFailure").await;
}

#[tokio::test]
async fn a_handshake_that_is_never_finished() {
    let service = answering(b"", false).await;
    let timed_out = || row(504, "connection_timeout", "connect_timeout", GONE);
    expect(service.port(), "timeouts: { connect: 100ms }", timed_out, "it does not finish the TLS handshake").await;
}

#[tokio::test]
async fn a_certificate_of_nobody_that_is_trusted() {
    let origin = origin::h2_tls(&Identity::new(), &["h2"]).start();
    let (_ca, tls) = trusting(&Identity::named("another authority"), "");
    expect(port(&origin), &tls, || REJECTED, "its certificate is from an unknown issuer").await;
}

/// As a certificate is that was made anew while the proxy trusts the old one.
#[tokio::test]
async fn a_certificate_of_somebody_with_a_trusted_name() {
    let origin = origin::h2_tls(&Identity::new(), &["h2"]).start();
    let (_ca, tls) = trusting(&Identity::new(), "");
    expect(port(&origin), &tls, || REJECTED, "its certificate is not signed by the CA that it names").await;
}

#[tokio::test]
async fn a_certificate_for_another_name() {
    let identity = Identity::new();
    let origin = origin::h2_tls(&identity, &["h2"]).start();
    let (_ca, tls) = trusting(&identity, ", server_name: other.example");
    let cause = "its certificate is for another name (localhost, 127.0.0.1) than other.example";
    expect(port(&origin), &tls, || REJECTED, cause).await;
}

#[tokio::test]
async fn a_certificate_that_has_expired() {
    let identity = Identity::expired();
    let origin = origin::h2_tls(&identity, &["h2"]).start();
    let (_ca, tls) = trusting(&identity, "");
    expect(port(&origin), &tls, || REJECTED, "its certificate has expired").await;
}

#[tokio::test]
async fn a_service_that_does_not_offer_http2_by_alpn() {
    for alpn in [&["http/1.1"][..], &[]] {
        let identity = Identity::new();
        let origin = origin::h2_tls(&identity, alpn).start();
        let (_ca, tls) = trusting(&identity, "");
        let proxy = proxy_before(&format!("h2://localhost:{}", port(&origin)), &tls);
        let row = row(502, "http_upgrade_failed", "no_http2_by_alpn", GONE);
        Asking::new(&proxy).await.expect(&proxy, row).await;
    }
}

#[tokio::test]
async fn a_service_with_a_trusted_certificate_and_http2_is_served_as_https() {
    let identity = Identity::new();
    let origin = origin::h2_tls(&identity, &["h2"]).start();
    let (_ca, tls) = trusting(&identity, "");
    let proxy = proxy_before(&format!("h2://localhost:{}", port(&origin)), &tls);
    let seen = client::h1(proxy.address()).await.get("/head").await.json();
    assert_eq!(seen["scheme"], "https");
}
