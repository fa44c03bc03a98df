//! Services that want a certificate of the proxy: it is shown, and where there is none, the operator reads so.

use std::net::SocketAddr;

use rustls::SupportedProtocolVersion;
use rustls::version::{TLS12, TLS13};
use tempfile::TempDir;
use trunkline::config::{Source, load};
use trunkline::control;

use crate::harness::origin::Origin;
use crate::harness::tls::Identity;
use crate::harness::{client, origin, proxy, said};

const WANTED: &str = "it wants a client certificate: give one as upstreams.*.tls.client_cert and client_key";
const NOT_ACCEPTED: &str = "it does not accept our client certificate: check upstreams.*.tls.client_cert";

#[tokio::test]
async fn a_service_that_wants_a_certificate_is_shown_it() {
    for version in [&TLS12, &TLS13] {
        for (scheme, alpn) in [("h2", "h2"), ("https", "h2"), ("https", "http/1.1")] {
            let service = Service::new(alpn, version);
            let proxy = proxy::with(&service.yaml(scheme, Some(&service.authority)));
            let mut client = client::h1(proxy.address()).await;
            assert_eq!(client.get("/status/200").await.status(), 200, "{scheme} {alpn} {version:?}");
            let labels = [("upstream", "up"), ("name", "proxy")];
            let end = proxy.metrics().await.sum("trunkline_tls_certificate_not_after_seconds", &labels);
            assert!(end > 1.7e9, "{end}");
        }
    }
}

#[tokio::test]
async fn without_a_certificate_the_answer_is_502_and_the_log_says_what_is_missing() {
    for version in [&TLS12, &TLS13] {
        for scheme in ["h2", "https"] {
            let service = Service::new("h2", version);
            let proxy = proxy::with(&service.yaml(scheme, None));
            let response = client::h1(proxy.address()).await.get("/status/200").await;
            assert_eq!(response.status(), 502, "{scheme} {version:?}");
            let endpoint = format!(" endpoint={} ", service.endpoint(scheme));
            said::line(&[&endpoint, "WARN", "endpoint cannot be reached", WANTED]).await;
        }
    }
}

#[tokio::test]
async fn a_probe_names_what_the_service_refuses() {
    for alpn in ["h2", "http/1.1"] {
        let service = Service::new(alpn, &TLS13);
        let stranger = Identity::named("stranger");
        assert_eq!(probed(&service.yaml("https", Some(&service.authority))).await, None);
        assert_eq!(probed(&service.yaml("https", None)).await.as_deref(), Some(WANTED), "{alpn}");
        assert_eq!(probed(&service.yaml("https", Some(&stranger))).await.as_deref(), Some(NOT_ACCEPTED), "{alpn}");
    }
}

/// Why a probe of the one endpoint fails.
async fn probed(yaml: &str) -> Option<String> {
    let text = format!("listeners: [{{ address: 127.0.0.1:0 }}]\n{yaml}");
    let (config, _) = load(&Source::new("test.yaml", text), &|_| None).unwrap();
    control::targets(&config).unwrap()[0].probe().await.err().map(|failure| failure.why)
}

/// A service whose clients need a certificate of its authority.
struct Service {
    origin: Origin,
    identity: Identity,
    authority: Identity,
    folder: TempDir,
}

impl Service {
    fn new(alpn: &str, version: &'static SupportedProtocolVersion) -> Self {
        let (identity, authority) = (Identity::new(), Identity::named("authority"));
        let config = identity.server_for(&authority, &[alpn], &[version]);
        let builder = if alpn == "h2" { origin::h2() } else { origin::h1() };
        let folder = tempfile::tempdir().unwrap();
        Self { origin: builder.tls(config).start(), identity, authority, folder }
    }

    fn endpoint(&self, scheme: &str) -> String {
        let address: SocketAddr = self.origin.address();
        format!("{scheme}://localhost:{}", address.port())
    }

    /// A configuration that shows it a certificate of `authority`.
    fn yaml(&self, scheme: &str, authority: Option<&Identity>) -> String {
        let (ca, _) = self.identity.store(self.folder.path(), "ca");
        let client = authority.map_or(String::new(), |authority| {
            let (cert, key) = authority.issue(&["proxy"]).store(self.folder.path(), "client");
            format!(", client_cert: {}, client_key: {}", cert.display(), key.display())
        });
        let (endpoint, ca) = (self.endpoint(scheme), ca.display());
        format!("upstreams: {{ up: {{ endpoints: [\"{endpoint}\"], tls: {{ ca: {ca}{client} }} }} }}\n")
    }
}
