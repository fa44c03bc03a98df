//! TLS towards upstreams: roots, ALPN, and what a failed handshake means.
//!
//! A shared edge: built by control when a configuration arrives, used by the workers. RFC 8446, RFC 7301.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::config::CaSource;
use crate::error::UpstreamFault;

/// The client side of `h2://`: verifies against `ca`, offers `h2` only.
///
/// # Errors
/// A sentence for the operator when there is no usable root.
pub fn client_config(ca: &CaSource) -> Result<Arc<ClientConfig>, String> {
    let roots = match ca {
        CaSource::System => system_roots()?,
        CaSource::File(path) => file_roots(path)?,
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
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

/// Tells a certificate that was refused from any other end of a handshake.
pub fn handshake_fault(error: &io::Error) -> UpstreamFault {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented) => {
            UpstreamFault::CertificateRejected
        }
        Some(rustls::Error::AlertReceived(rustls::AlertDescription::NoApplicationProtocol)) => {
            UpstreamFault::NoHttp2ByAlpn
        }
        _ => UpstreamFault::TlsFailed,
    }
}
