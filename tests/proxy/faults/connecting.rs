//! Services that cannot be reached, and what does not let itself be spoken to.

use std::io::Write;

use super::{Asking, GONE, proxy_before, row};
use crate::harness::origin::ReservedAddress;
use crate::harness::tls::Identity;
use crate::harness::{client, origin};

#[tokio::test]
async fn a_service_that_refuses_connections() {
    let nobody = ReservedAddress::new();
    for protocol in ["h2c", "http1"] {
        let proxy = proxy_before(&format!("{protocol}://{}", nobody.address()), "");
        let row = row(502, "connection_refused", "connect_refused", GONE);
        Asking::new(&proxy).await.expect(&proxy, row).await;
    }
}

/// RFC 6761 §6.4: nothing resolves `invalid`, with or without a resolver.
#[tokio::test]
async fn a_name_that_does_not_resolve() {
    for protocol in ["h2c", "http1"] {
        let proxy = proxy_before(&format!("{protocol}://something.invalid:80"), "timeouts: { connect: 5s }");
        Asking::new(&proxy).await.expect(&proxy, row(502, "dns_error", "dns_failed", GONE)).await;
    }
}

#[tokio::test]
async fn a_service_that_answers_http1_to_the_preface() {
    let service = origin::raw_h1().await.answer_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
    let proxy = proxy_before(&format!("h2c://{service}"), "");
    Asking::new(&proxy).await.expect(&proxy, row(502, "http_protocol_error", "not_http2", GONE)).await;
}

#[tokio::test]
async fn a_service_without_tls() {
    let origin = origin::h2().start();
    let proxy = proxy_before(&format!("h2://{origin}"), "");
    Asking::new(&proxy).await.expect(&proxy, row(502, "tls_protocol_error", "tls_failed", GONE)).await;
}

#[tokio::test]
async fn a_certificate_of_nobody_that_is_trusted() {
    let origin = origin::h2_tls(&Identity::new(), &["h2"]).start();
    let other = certificate_file(&Identity::new());
    let proxy = proxy_before(&localhost(&origin), &format!("tls: {{ ca: {} }}", other.path().display()));
    let row = row(502, "tls_certificate_error", "certificate_rejected", GONE);
    Asking::new(&proxy).await.expect(&proxy, row).await;
}

#[tokio::test]
async fn a_certificate_for_another_name() {
    let identity = Identity::new();
    let origin = origin::h2_tls(&identity, &["h2"]).start();
    let ca = certificate_file(&identity);
    let tls = format!("tls: {{ ca: {}, server_name: other.example }}", ca.path().display());
    let proxy = proxy_before(&localhost(&origin), &tls);
    let row = row(502, "tls_certificate_error", "certificate_rejected", GONE);
    Asking::new(&proxy).await.expect(&proxy, row).await;
}

#[tokio::test]
async fn a_service_that_does_not_offer_http2_by_alpn() {
    for alpn in [&["http/1.1"][..], &[]] {
        let identity = Identity::new();
        let origin = origin::h2_tls(&identity, alpn).start();
        let ca = certificate_file(&identity);
        let proxy = proxy_before(&localhost(&origin), &format!("tls: {{ ca: {} }}", ca.path().display()));
        let row = row(502, "http_upgrade_failed", "no_http2_by_alpn", GONE);
        Asking::new(&proxy).await.expect(&proxy, row).await;
    }
}

#[tokio::test]
async fn a_service_with_a_trusted_certificate_and_http2_is_served_as_https() {
    let identity = Identity::new();
    let origin = origin::h2_tls(&identity, &["h2"]).start();
    let ca = certificate_file(&identity);
    let proxy = proxy_before(&localhost(&origin), &format!("tls: {{ ca: {} }}", ca.path().display()));
    let seen = client::h1(proxy.address()).await.get("/head").await.json();
    assert_eq!(seen["scheme"], "https");
}

fn localhost(origin: &origin::Origin) -> String {
    format!("h2://localhost:{}", origin.address().port())
}

fn certificate_file(identity: &Identity) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(identity.certificate_pem.as_bytes()).unwrap();
    file
}
