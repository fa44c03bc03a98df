//! TLS towards upstreams: roots, our own certificate, ALPN, and what a failed handshake means.
//!
//! Built by control, used by the workers. RFC 8446, RFC 7301.

use std::hash::Hash as _;
use std::io;
use std::sync::Arc;

use rustls::client::ResolvesClientCert;
use rustls::sign::SingleCertAndKey;
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use super::{CertificateEnd, Files};
use crate::config::certificates::{self, Subject};
use crate::config::{CaSource, UpstreamTls};
use crate::error::UpstreamFault;

/// How the endpoints of one upstream are spoken to.
pub struct ClientTls {
    /// Offers nothing by ALPN; [`connector`] does.
    pub config: Arc<ClientConfig>,
    /// When our own certificate ends, if we have one to show.
    pub end: Option<CertificateEnd>,
    fingerprint: u64,
}

impl ClientTls {
    /// Reads the files that `tls` names.
    ///
    /// # Errors
    /// A sentence for the operator when there is no usable root, or no usable certificate of our own.
    pub fn new(tls: &UpstreamTls) -> Result<Self, String> {
        let UpstreamTls { ca, server_name: _, client } = tls;
        let mut files = Files::default();
        let roots = match ca {
            CaSource::System => system_roots(&mut files)?,
            CaSource::File(path) => files.read(path, certificates::roots)?,
        };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots);
        let (config, end) = match client {
            None => (builder.with_no_client_auth(), None),
            Some(identity) => {
                let (certified, Subject { name, not_after, .. }) = files.identity(identity)?;
                let resolver: Arc<dyn ResolvesClientCert> = Arc::new(SingleCertAndKey::from(certified));
                (builder.with_client_cert_resolver(resolver), Some(CertificateEnd { name, not_after }))
            }
        };
        Ok(Self { config: Arc::new(config), end, fingerprint: files.fingerprint() })
    }

    /// Whether the files held the same.
    pub fn is_same_as(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }
}

/// Speaks TLS as `config` says, and offers `protocols` by ALPN, the preferred one first.
pub fn connector(config: &ClientConfig, protocols: &[&[u8]]) -> TlsConnector {
    let mut config = config.clone();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}

fn system_roots(files: &mut Files) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let loaded = rustls_native_certs::load_native_certs();
    loaded.certs.hash(&mut files.0);
    roots.add_parsable_certificates(loaded.certs);
    if roots.is_empty() {
        let why = loaded.errors.first().map_or_else(String::new, |error| format!(" ({error})"));
        return Err(format!("the system has no CA certificates{why}: install ca-certificates or set tls.ca to a file"));
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
        Some(rustls::Error::AlertReceived(alert)) if let Some(cause) = refusal(*alert) => {
            (UpstreamFault::TlsFailed, Some(cause.to_owned()))
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

/// An error of a connection after its handshake, with the refusal in words if it is one: in TLS 1.3 a service looks at the
/// client's certificate when the client takes the handshake for finished.
pub fn explained(error: io::Error) -> io::Error {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::AlertReceived(alert)) if let Some(cause) = refusal(*alert) => {
            io::Error::new(error.kind(), cause)
        }
        _ => error,
    }
}

/// Why a service has refused this connection, if `error` comes from [`explained`]; h2 keeps no more than its words.
pub fn refusal_in(error: &io::Error) -> Option<&'static str> {
    let said = error.get_ref()?.to_string();
    [NONE_SHOWN, NOT_ACCEPTED].into_iter().find(|cause| said == **cause)
}

/// What a service means that does not take our certificate, or wants one (RFC 8446 §6.2).
fn refusal(alert: AlertDescription) -> Option<&'static str> {
    match alert {
        AlertDescription::CertificateRequired => Some(NONE_SHOWN),
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnknownCA
        | AlertDescription::AccessDenied => Some(NOT_ACCEPTED),
        _ => None,
    }
}

const NONE_SHOWN: &str = "it wants a client certificate: give one as upstreams.*.tls.client_cert and client_key";
const NOT_ACCEPTED: &str = "it does not accept our client certificate: check upstreams.*.tls.client_cert";
