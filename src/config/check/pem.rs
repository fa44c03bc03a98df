//! Whether the certificates, keys and CAs that a configuration names can be used.
//!
//! They are looked at once here, so that a wrong one is found now and not at the first handshake.
//!
//! Pure, except that the files are read through `files`.

use std::path::Path;

use super::super::Identity;
use super::super::certificates::{self, Flaw, Subject};
use super::super::decode::Decoder;
use super::super::diagnostic::Diagnostic;
use super::super::marks::IdentityMarks;
use super::super::schema::Files;
use super::super::source::{self, Span};

/// Notes what is wrong with the CAs that `key` names.
pub(super) fn check_roots(key: &str, file: &Path, span: Span, files: Files<'_>, cx: &mut Decoder<'_>) {
    if let Err(flaw) = read(file, files).and_then(|bytes| certificates::roots(&bytes)) {
        note(key, file, span, &flaw, cx);
    }
}

/// Notes what is wrong with a certificate and its key, or returns what the certificate says about itself.
///
/// `keys` are those of the configuration: the certificate's and its key's.
pub(super) fn check_identity(
    keys: (&str, &str),
    identity: &Identity,
    marks: &IdentityMarks,
    files: Files<'_>,
    cx: &mut Decoder<'_>,
) -> Option<Subject> {
    let chain = read(&identity.cert, files).and_then(|bytes| certificates::chain_and_subject(&bytes));
    let chain = chain.map_err(|flaw| note(keys.0, &identity.cert, marks.cert, &flaw, cx)).ok();
    let key = read(&identity.key, files).and_then(|bytes| certificates::key(&bytes));
    let key = key.map_err(|flaw| note(keys.1, &identity.key, marks.key, &flaw, cx)).ok();
    let (chain, subject) = chain?;
    if let Err(flaw) = certificates::certified(chain, key?) {
        note(keys.1, &identity.key, marks.key, &flaw, cx);
    }
    let now = source::now();
    if subject.not_before > now {
        let message = format!("{}: {} is not valid yet", keys.0, identity.cert.display());
        let label = "nobody takes it before its time; is the clock right?";
        cx.note(marks.cert, Diagnostic::warning(message).label(label));
    }
    let left = subject.not_after - now;
    let days = left / DAY_SECONDS;
    let said = match left {
        ..=0 => Some("has expired".to_owned()),
        _ if days == 0 => Some("expires within a day".to_owned()),
        _ if days < EXPIRES_SOON_DAYS => Some(format!("expires in {days} {}", if days == 1 { "day" } else { "days" })),
        _ => None,
    };
    if let Some(said) = said {
        let message = format!("{}: {} {said}", keys.0, identity.cert.display());
        cx.note(marks.cert, Diagnostic::warning(message).label("renew it; the file is read again when it changes"));
    }
    Some(subject)
}

fn read(file: &Path, files: Files<'_>) -> Result<Vec<u8>, Flaw> {
    let advice = "give the path of a PEM file";
    files(file).map_err(|error| Flaw { reason: format!("cannot be read: {error}"), advice })
}

fn note(key: &str, file: &Path, span: Span, flaw: &Flaw, cx: &mut Decoder<'_>) {
    let message = format!("{key}: {} {}", file.display(), flaw.reason);
    cx.note(span, Diagnostic::error(message).label(flaw.advice));
}

const DAY_SECONDS: i64 = 24 * 60 * 60;
/// Renewal is automatic everywhere by now, and a month before the end: who is so late has not been renewed.
const EXPIRES_SOON_DAYS: i64 = 14;

#[cfg(test)]
mod tests;
