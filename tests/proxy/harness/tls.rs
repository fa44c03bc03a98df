//! Certificates made on the spot, and both ends' rustls configurations for them.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{CertificateParams, DnType, Issuer, KeyPair};
use rustls::client::WantsClientCert;
use rustls::crypto::aws_lc_rs;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ConfigBuilder, DEFAULT_VERSIONS, RootCertStore, ServerConfig, SupportedProtocolVersion};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::TlsConnector;

/// A self-signed certificate for `localhost` and `127.0.0.1`; it is its own authority.
pub struct Identity {
    pub certificate_pem: String,
    pub key_pem: String,
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Identity {
    pub fn new() -> Self {
        Self::signed(|_| {})
    }

    /// One that calls itself `name`.
    pub fn named(name: &str) -> Self {
        Self::signed(|params| params.distinguished_name.push(DnType::CommonName, name))
    }

    /// One whose time is over.
    pub fn expired() -> Self {
        Self::signed(|params| params.not_after = rcgen::date_time_ymd(2020, 1, 1))
    }

    /// One for these names.
    pub fn of(names: &[&str]) -> Self {
        Self::made(names, None, |_| {})
    }

    /// One for these names, with this one as its authority.
    pub fn issue(&self, names: &[&str]) -> Self {
        Self::made(names, Some(&self.issuer), |_| {})
    }

    fn signed(change: impl FnOnce(&mut CertificateParams)) -> Self {
        Self::made(&["localhost", "127.0.0.1"], None, change)
    }

    fn made(
        names: &[&str],
        issuer: Option<&Issuer<'static, KeyPair>>,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Self {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = match issuer {
            None => params.self_signed(&key).unwrap(),
            Some(issuer) => params.signed_by(&key, issuer).unwrap(),
        };
        Self {
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            certificate: certificate.der().clone(),
            key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            issuer: Issuer::new(params, key),
        }
    }

    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Puts the certificate and its key into a folder, as `NAME.crt` and `NAME.key`.
    pub fn store(&self, folder: &Path, name: &str) -> (PathBuf, PathBuf) {
        let (cert, key) = (folder.join(format!("{name}.crt")), folder.join(format!("{name}.key")));
        std::fs::write(&cert, &self.certificate_pem).unwrap();
        std::fs::write(&key, &self.key_pem).unwrap();
        (cert, key)
    }

    /// The certificate in a file, for the proxy to trust.
    pub fn file(&self) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(self.certificate_pem.as_bytes()).unwrap();
        file
    }

    /// The server side, offering `alpn` in this order (`["h2", "http/1.1"]`; empty: no ALPN at all).
    pub fn server(&self, alpn: &[&str]) -> Arc<ServerConfig> {
        let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let mut config = builder
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.clone()], self.key.clone_key())
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    /// The server side for clients with a certificate from `authority`, by TLS of these versions.
    pub fn server_for(
        &self,
        authority: &Self,
        alpn: &[&str],
        versions: &[&'static SupportedProtocolVersion],
    ) -> Arc<ServerConfig> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(authority.roots()), provider.clone());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(vec![self.certificate.clone()], self.key.clone_key())
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    /// A client that trusts only this certificate.
    pub fn connector(&self, alpn: &[&str]) -> TlsConnector {
        let mut config = self.client(DEFAULT_VERSIONS).with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        TlsConnector::from(Arc::new(config))
    }

    /// The same without ALPN, by TLS of one version.
    pub fn connector_by(&self, version: &'static SupportedProtocolVersion) -> TlsConnector {
        TlsConnector::from(Arc::new(self.client(&[version]).with_no_client_auth()))
    }

    /// The same without ALPN, with a certificate to show.
    pub fn connector_as(&self, client: &Self) -> TlsConnector {
        let config = self.client(DEFAULT_VERSIONS);
        let config = config.with_client_auth_cert(vec![client.certificate.clone()], client.key.clone_key());
        TlsConnector::from(Arc::new(config.unwrap()))
    }

    fn client(&self, versions: &[&'static SupportedProtocolVersion]) -> ConfigBuilder<ClientConfig, WantsClientCert> {
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        builder.with_protocol_versions(versions).unwrap().with_root_certificates(self.roots())
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        roots
    }
}

pub fn server_name() -> ServerName<'static> {
    ServerName::try_from("localhost").unwrap()
}
