//! TLS towards upstreams: roots, ALPN, and what a failed handshake means.
//!
//! A shared edge: built by control when a configuration arrives, used by the workers. RFC 8446, RFC 7301.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio_rustls::TlsConnector;

use crate::config::CaSource;
use crate::error::UpstreamFault;

/// The client side: verifies against `ca`, and offers nothing by ALPN; [`connector`] does.
///
/// # Errors
/// A sentence for the operator when there is no usable root.
pub fn client_config(ca: &CaSource) -> Result<Arc<ClientConfig>, String> {
    let roots = match ca {
        CaSource::System => system_roots()?,
        CaSource::File(path) => file_roots(path)?,
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Speaks TLS as `config` says, and offers `protocols` by ALPN, the preferred one first.
pub fn connector(config: &ClientConfig, protocols: &[&[u8]]) -> TlsConnector {
    let mut config = config.clone();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}

fn system_roots() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let loaded = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(loaded.certs);
    if roots.is_empty() {
        let why = loaded.errors.first().map_or_else(String::new, |error| format!(" ({error})"));
        return Err(format!("the system has no CA certificates{why}: install ca-certificates or set tls.ca to a file"));
    }
    Ok(roots)
}

fn file_roots(path: &Path) -> Result<RootCertStore, String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| failed(&error))? {
        let certificate = certificate.map_err(|error| failed(&error))?;
        roots.add(certificate).map_err(|error| failed(&error))?;
    }
    if roots.is_empty() {
        return Err(failed(&"holds no certificate"));
    }
    Ok(roots)
}

/// What a failed handshake means, and why the service's operator would say that it failed.
///
/// Tells a certificate that was refused from any other end.
pub fn handshake_fault(error: &io::Error) -> (UpstreamFault, Option<String>) {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(error)) => {
            (UpstreamFault::CertificateRejected, Some(certificate_flaw(error)))
        }
        Some(rustls::Error::NoCertificatesPresented) => {
            (UpstreamFault::CertificateRejected, Some("it has no certificate".to_owned()))
        }
        Some(rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)) => {
            (UpstreamFault::NoHttp2ByAlpn, None)
        }
        Some(rustls::Error::InvalidMessage(_)) => {
            (UpstreamFault::TlsFailed, Some("it answered the TLS handshake with something else".to_owned()))
        }
        _ if error.kind() == io::ErrorKind::UnexpectedEof => {
            (UpstreamFault::TlsFailed, Some("it broke off the TLS handshake".to_owned()))
        }
        _ => (UpstreamFault::TlsFailed, Some(format!("the TLS handshake failed: {error}"))),
    }
}

/// What is wrong with a certificate, and what to do about it.
fn certificate_flaw(error: &CertificateError) -> String {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "its certificate has expired".to_owned(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet: is the clock right?".to_owned()
        }
        CertificateError::UnknownIssuer => {
            "its certificate is from an unknown issuer: give its CA as upstreams.*.tls.ca".to_owned()
        }
        CertificateError::BadSignature => {
            "its certificate is not signed by the CA that it names: is upstreams.*.tls.ca the present one?".to_owned()
        }
        CertificateError::NotValidForName => {
            "its certificate is for another name: check upstreams.*.tls.server_name".to_owned()
        }
        CertificateError::NotValidForNameContext { expected, presented } => format!(
            "its certificate is for another name ({}) than {}: check upstreams.*.tls.server_name",
            presented.iter().map(|name| bare(name)).collect::<Vec<_>>().join(", "),
            expected.to_str(),
        ),
        error => format!("its certificate does not verify: {error}"),
    }
}

/// The name in rustls's `DnsName("name")`.
fn bare(name: &str) -> &str {
    let inner = name.split_once('(').map_or(name, |(_, inner)| inner);
    inner.trim_matches(['"', ')'])
}

/// ALPN names (RFC 7301 §6).
pub const HTTP2: &[u8] = b"h2";
pub const HTTP1: &[u8] = b"http/1.1";
