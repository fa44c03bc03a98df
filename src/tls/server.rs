//! TLS towards clients: which certificate for which name, what clients must show, and why a handshake failed.
//!
//! Built by control, used by the workers: one [`ServerTls`] for a listener, replaced as a whole when a file changes, so
//! that a handshake sees either the old files or the new ones. RFC 8446, RFC 6066 §3 (SNI), RFC 7301 (ALPN).

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, NoClientAuth, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{Error, PeerIncompatible, ServerConfig};
use tokio_rustls::TlsAcceptor;

use super::{Files, HTTP1, HTTP2};
use crate::config::certificates::{self, Subject};
use crate::config::{Alpn, ListenerTls, TlsVersion};

/// How one listener speaks TLS.
pub struct ServerTls {
    pub acceptor: TlsAcceptor,
    /// When its certificates end, each name once.
    pub ends: Vec<CertificateEnd>,
    fingerprint: u64,
}

/// When a certificate ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateEnd {
    pub name: String,
    /// Seconds since 1970.
    pub not_after: i64,
}

impl ServerTls {
    /// Reads the files that `tls` names.
    ///
    /// # Errors
    /// A sentence for the operator when one of them cannot be used.
    pub fn new(tls: &ListenerTls) -> Result<Self, String> {
        let ListenerTls { certificates, alpn, min_version, client_ca } = tls;
        let mut files = Files::default();
        let mut choice = Choice::default();
        let mut ends: Vec<CertificateEnd> = Vec::new();
        for identity in certificates {
            let (certified, subject) = files.identity(identity)?;
            // Of an RSA and an ECDSA certificate for the same name the one that ends first matters.
            match ends.iter_mut().find(|end| end.name == subject.name) {
                Some(end) => end.not_after = end.not_after.min(subject.not_after),
                None => ends.push(CertificateEnd { name: subject.name.clone(), not_after: subject.not_after }),
            }
            choice.add(Arc::new(certified), subject);
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = match client_ca {
            None => Arc::new(NoClientAuth),
            Some(path) => {
                let roots = files.read(path, certificates::roots)?;
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                    .build()
                    .map_err(|error| format!("{}: {error}", path.display()))?
            }
        };
        let versions: &[_] = match min_version {
            TlsVersion::Tls12 => &[&TLS13, &TLS12],
            TlsVersion::Tls13 => &[&TLS13],
        };
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .map_err(|error| error.to_string())?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(choice));
        config.alpn_protocols = alpn
            .iter()
            .map(|alpn| match alpn {
                Alpn::H2 => HTTP2.to_vec(),
                Alpn::Http1 => HTTP1.to_vec(),
            })
            .collect();
        // Sessions are resumed by tickets that the clients keep, on any worker. A new record has new keys for them: what
        // the old files let in is looked at again.
        config.ticketer = aws_lc_rs::Ticketer::new().map_err(|error| error.to_string())?;
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), ends, fingerprint: files.fingerprint() })
    }

    /// Whether the files held the same.
    pub fn is_same_as(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }
}

/// The certificates of a listener, by the names in them.
#[derive(Default)]
struct Choice {
    /// In the order of the configuration; the first one is for who asks for no name, or for an unknown one.
    all: Vec<Arc<CertifiedKey>>,
    /// Positions in `all`, by name: `a.example.com`, or `*.example.com`.
    by_name: HashMap<String, Vec<usize>>,
}

impl Choice {
    fn add(&mut self, certified: Arc<CertifiedKey>, subject: Subject) {
        for name in subject.names {
            self.by_name.entry(name).or_default().push(self.all.len());
        }
        self.all.push(certified);
    }

    /// Positions of the certificates for `name`, an exact one before a wildcard of its domain (RFC 6125 §6.4.3).
    fn positions(&self, name: Option<&str>) -> &[usize] {
        let known = |name: &str| self.by_name.get(name).map(Vec::as_slice);
        let by_name = name.map(str::to_ascii_lowercase).and_then(|name| {
            let wildcard = || name.split_once('.').and_then(|(_, domain)| known(&format!("*.{domain}")));
            known(&name).or_else(wildcard)
        });
        by_name.unwrap_or(&[0])
    }
}

impl ResolvesServerCert for Choice {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let candidates = self.positions(hello.server_name()).iter().filter_map(|position| self.all.get(*position));
        // A name may have a certificate for old clients (RSA) beside the one for all others.
        let mut usable = candidates.clone().filter(|it| it.key.choose_scheme(hello.signature_schemes()).is_some());
        usable.next().or_else(|| candidates.clone().next()).cloned()
    }
}

impl fmt::Debug for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Choice").field("names", &self.by_name.keys()).finish_non_exhaustive()
    }
}

/// Why handshakes with clients fail.
///
/// `timeout`: not finished within the listener's header timeout; `closed`: the client left; `plain_http`: it spoke HTTP
/// without TLS; `not_tls`: it spoke something else; `version`: none in common; `alpn`: no protocol in common;
/// `client_certificate`: it showed none, or one that `client_ca` has not signed; `refused`: it did not accept our
/// certificate, or something else of ours.
pub const HANDSHAKE_FAILURES: [&str; 9] =
    ["timeout", "closed", "plain_http", "not_tls", "version", "alpn", "client_certificate", "refused", "other"];

/// One of [`HANDSHAKE_FAILURES`].
pub fn handshake_failure(error: &io::Error) -> &'static str {
    let Some(inner) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else { return "closed" };
    match inner {
        Error::InvalidMessage(_) => "not_tls",
        Error::NoApplicationProtocol => "alpn",
        Error::NoCertificatesPresented | Error::InvalidCertificate(_) => "client_certificate",
        Error::AlertReceived(_) => "refused",
        Error::PeerIncompatible(
            PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled,
        ) => "version",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A choice among certificates with these names.
    fn choice(certificates: &[&[&str]]) -> Choice {
        let mut choice = Choice::default();
        for names in certificates {
            let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
            let made = rcgen::generate_simple_self_signed(names).unwrap();
            let key = certificates::key(made.signing_key.serialize_pem().as_bytes()).unwrap();
            let subject = certificates::subject(made.cert.der()).unwrap();
            choice.add(Arc::new(certificates::certified(vec![made.cert.der().clone()], key).unwrap()), subject);
        }
        choice
    }

    #[test]
    fn an_exact_name_goes_before_a_wildcard_and_all_others_get_the_first_certificate() {
        let choice = choice(&[&["first.test"], &["*.wild.test"], &["A.wild.test", "other.test"], &["other.test"]]);
        for (name, positions) in [
            (None, &[0][..]),
            (Some("first.test"), &[0]),
            (Some("a.wild.test"), &[2]),
            (Some("b.wild.test"), &[1]),
            (Some("B.WILD.TEST"), &[1]),
            (Some("wild.test"), &[0]),
            (Some("b.b.wild.test"), &[0]),
            (Some("other.test"), &[2, 3]),
            (Some("unknown"), &[0]),
        ] {
            assert_eq!(choice.positions(name), positions, "{name:?}");
        }
    }
}
