//! Services under `https://`: ALPN decides, each time anew.

use super::{HTTP1, HTTP2, before, found};
use crate::harness::origin::{self, Builder};
use crate::harness::proxy::Proxy;
use crate::harness::tls::Identity;
use crate::harness::{client, said};

/// A proxy that trusts `identity`, before `origin`.
fn secured(origin: &origin::Origin, identity: &Identity) -> Proxy {
    let ca = identity.file();
    before(&endpoint(origin), &format!("tls: {{ ca: {} }}", ca.path().display()))
}

fn endpoint(origin: &origin::Origin) -> String {
    format!("https://localhost:{}", origin.address().port())
}

async fn version(proxy: &Proxy) -> String {
    let seen = client::h1(proxy.address()).await.get("/head").await.json();
    seen["version"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn the_service_chooses_by_alpn() {
    for (builder, version_found, line) in [
        (h2 as fn(&Identity) -> Builder, "HTTP/2.0", HTTP2),
        (h1, "HTTP/1.1", HTTP1),
        (without_alpn, "HTTP/1.1", HTTP1),
    ] {
        let identity = Identity::new();
        let origin = builder(&identity).start();
        let proxy = secured(&origin, &identity);
        assert_eq!(version(&proxy).await, version_found);
        assert_eq!((found(&endpoint(&origin)), proxy.counts().faults), (vec![line], [].into()));
    }
}

#[tokio::test]
async fn a_service_that_changes_its_mind_is_followed() {
    // The last one refuses HTTP/1.1 by ALPN.
    for (first, second) in [(h2 as fn(&Identity) -> Builder, h1 as fn(&Identity) -> Builder), (h1, h2), (h1, h2_only)] {
        let identity = Identity::new();
        let mut origin = first(&identity).start();
        let proxy = secured(&origin, &identity);
        let before = version(&proxy).await;
        origin.stop().await;
        origin.restart_as(second(&identity));
        let after = version(&proxy).await;
        let faults = proxy.counts().faults;
        assert!(before != after && faults.is_empty(), "{before}, then {after}: {faults:?}");
    }
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_says_nothing_about_the_protocol() {
    let origin = h1(&Identity::new()).start();
    let ca = Identity::new().file();
    let tls = format!("tls: {{ ca: {} }}", ca.path().display());
    let proxy = crate::harness::proxy::on_one_worker(&format!(
        "upstreams: {{ a: {{ endpoints: [\"{}\"], pool: {{ pending_timeout: 200ms }}, {tls} }} }}\n",
        endpoint(&origin)
    ));
    assert_eq!(client::h1(proxy.address()).await.get("/head").await.status(), 502);
    proxy.expect_fault("certificate_rejected").await;
    said::line(&[&endpoint(&origin), "endpoint cannot be reached"]).await;
    assert_eq!(found(&endpoint(&origin)), [""; 0]);
}

fn h2(identity: &Identity) -> Builder {
    origin::h2_tls(identity, &["h2", "http/1.1"])
}

fn h2_only(identity: &Identity) -> Builder {
    origin::h2_tls(identity, &["h2"])
}

fn h1(identity: &Identity) -> Builder {
    origin::h1_tls(identity, &["http/1.1"])
}

fn without_alpn(identity: &Identity) -> Builder {
    origin::h1_tls(identity, &[])
}
