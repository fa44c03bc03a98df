//! What the PEM files of a configuration hold: certificates, their keys, and the CAs that vouch for others.
//!
//! The same eyes look at them when a configuration is checked, when it is taken, and when a file has changed since. RFC
//! 5280, RFC 7468.
//!
//! Pure: the bytes are read by whoever asks.

use rustls::crypto::aws_lc_rs;
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::{Error, RootCertStore};
use rustls_pki_types::pem::{self, PemObject as _};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate, X509Version};

/// What is wrong with a file, and what to do about it.
#[derive(Debug, PartialEq, Eq)]
pub struct Flaw {
    /// Goes on from the file's name.
    pub reason: String,
    pub advice: &'static str,
}

/// What a certificate says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// Its DNS names in lower case, wildcards among them (RFC 6125 §6.4: the subject's common name is none).
    pub names: Vec<String>,
    /// Its first name of any kind, for people.
    pub name: String,
    /// In this and the next one: seconds since 1970.
    pub not_before: i64,
    pub not_after: i64,
}

/// The certificates of a file, at least one; the first one is whose key proves who somebody is.
pub fn chain(bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, Flaw> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    let chain = chain.map_err(|error| flaw(format!("is not PEM: {error}"), CERTIFICATE_ADVICE))?;
    if chain.is_empty() {
        return Err(flaw("holds no certificate", CERTIFICATE_ADVICE));
    }
    Ok(chain)
}

/// The certificates of a file whose first one is to prove who somebody is, and what that one says about itself.
pub fn chain_and_subject(bytes: &[u8]) -> Result<(Vec<CertificateDer<'static>>, Subject), Flaw> {
    let chain = chain(bytes)?;
    let subject = subject(&chain[0])?;
    ParsedCertificate::try_from(&chain[0])
        .map_err(|error| flaw(format!("holds a certificate that cannot be used: {error}"), CERTIFICATE_ADVICE))?;
    Ok((chain, subject))
}

/// The private key of a file.
pub fn key(bytes: &[u8]) -> Result<PrivateKeyDer<'static>, Flaw> {
    PrivateKeyDer::from_pem_slice(bytes).map_err(|error| match error {
        _ if LOCKED.iter().any(|words| find(bytes, words)) => flaw(
            "is encrypted with a passphrase",
            "decrypt it, for example with openssl pkey, and guard it by its mode",
        ),
        pem::Error::NoItemsFound => flaw("holds no private key", KEY_ADVICE),
        error => flaw(format!("is not PEM: {error}"), KEY_ADVICE),
    })
}

/// A certificate with its key, ready to prove who somebody is. The flaw is that of the key.
pub fn certified(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<CertifiedKey, Flaw> {
    let provider = aws_lc_rs::default_provider();
    CertifiedKey::from_der(chain, key, &provider).map_err(|error| match error {
        Error::InconsistentKeys(_) => {
            flaw("is not the key of the certificate", "give the key that the certificate was made for")
        }
        error => flaw(format!("cannot be used: {error}"), "give an RSA, ECDSA or Ed25519 key"),
    })
}

/// The CAs of a file, at least one.
pub fn roots(bytes: &[u8]) -> Result<RootCertStore, Flaw> {
    let mut roots = RootCertStore::empty();
    for certificate in chain(bytes)? {
        roots.add(certificate).map_err(|error| flaw(format!("holds no usable CA: {error}"), CERTIFICATE_ADVICE))?;
    }
    Ok(roots)
}

/// Reads a certificate that is to prove who somebody is.
pub fn subject(certificate: &CertificateDer<'_>) -> Result<Subject, Flaw> {
    let (_, certificate) = X509Certificate::from_der(certificate)
        .map_err(|error| flaw(format!("holds no X.509 certificate: {error}"), CERTIFICATE_ADVICE))?;
    if certificate.version() != X509Version::V3 {
        let X509Version(version) = certificate.version();
        return Err(flaw(
            format!("holds a certificate of X.509 version {}, which nobody takes in TLS", version.saturating_add(1)),
            "have it made anew with a subjectAltName: that is version 3",
        ));
    }
    let alternatives = certificate.subject_alternative_name().ok().flatten();
    let general = alternatives.map(|extension| &extension.value.general_names[..]).unwrap_or_default();
    let names: Vec<String> = general
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        })
        .collect();
    let common = certificate.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    let name = names.first().map(String::as_str).or(common).unwrap_or("unnamed").to_owned();
    let validity = certificate.validity();
    Ok(Subject { names, name, not_before: validity.not_before.timestamp(), not_after: validity.not_after.timestamp() })
}

fn flaw(reason: impl Into<String>, advice: &'static str) -> Flaw {
    Flaw { reason: reason.into(), advice }
}

fn find(bytes: &[u8], words: &[u8]) -> bool {
    memchr::memmem::find(bytes, words).is_some()
}

/// What stands in a file with a key that has a passphrase: PKCS #8, and what OpenSSL made before.
const LOCKED: [&[u8]; 2] = [b"BEGIN ENCRYPTED PRIVATE KEY", b"Proc-Type: 4,ENCRYPTED"];
const CERTIFICATE_ADVICE: &str = "give a file with BEGIN CERTIFICATE lines";
const KEY_ADVICE: &str = "give a file with BEGIN PRIVATE KEY lines";
