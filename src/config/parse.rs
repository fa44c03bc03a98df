//! What names, paths, methods and header fields may look like.
//!
//! Each rule refuses what the data plane could not serve, and says what to write instead.
//!
//! Pure. RFC 9110 §5 and §9.1.

use std::path::PathBuf;

use http::{HeaderName, HeaderValue, Method};
use rustls_pki_types::ServerName;

use super::rules::{Parsed, Wrong, quoted, wrong};
use super::{AccessLogOutput, CaSource, RetryWhen};

/// What things are called in logs, labels and other keys.
pub(super) const NAME: Parsed<String> = Parsed { wanted: "a name", pattern: r"^[A-Za-z0-9_.-]{1,64}$", parse: name };

/// A host name without port, or `*.` and a domain.
pub(super) const HOST: Parsed<String> =
    Parsed { wanted: "a host name", pattern: r"^(\*\.)?[A-Za-z0-9_.-]+$", parse: host_pattern };

/// A path that starts with `/`.
pub(super) const PATH_PREFIX: Parsed<String> =
    Parsed { wanted: "a path, for example /v1", pattern: r"^/[^?#\s]*$", parse: path_prefix };

pub(super) const METHOD: Parsed<Method> =
    Parsed { wanted: "a method, for example GET", pattern: r"^[A-Z][A-Z0-9!#$%&'*+.^_`|~-]*$", parse: method };

pub(super) const HEADER_NAME: Parsed<HeaderName> = Parsed {
    wanted: "a field name, for example x-tier",
    pattern: r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$",
    parse: |text| match HeaderName::from_bytes(text.as_bytes()) {
        Ok(name) if text.len() <= 256 => Ok(name),
        _ => wrong(
            format!("{} is not a field name", quoted(text)),
            "write letters, digits and - only, for example x-tier",
        ),
    },
};

/// A word, or a status that another try may better.
pub(super) const RETRY_WHEN: Parsed<RetryWhen> = Parsed {
    wanted: "connect_failure, reset or a status, for example \"503\"",
    pattern: r"^(connect_failure|reset|429|5[0-9][0-9])$",
    parse: |text| match (text, text.parse()) {
        ("connect_failure", _) => Ok(RetryWhen::ConnectFailure),
        ("reset", _) => Ok(RetryWhen::Reset),
        (_, Ok(status @ (429 | 500..=599))) => Ok(RetryWhen::Status(status)),
        _ => wrong(
            format!("{} is no reason to try again", quoted(text)),
            "write connect_failure, reset, \"429\", or a status from \"500\" to \"599\"",
        ),
    },
};

/// The value is never repeated in a message: it may be a secret from the environment.
pub(super) const HEADER_VALUE: Parsed<HeaderValue> = Parsed {
    wanted: "a field value in one line",
    pattern: r"^([!-~]([ -~\t]*[!-~])?)?$",
    parse: |text| match HeaderValue::from_str(text) {
        Ok(value) if text.is_ascii() && text.trim() == text => Ok(value),
        Ok(_) if text.is_ascii() => {
            wrong("the field value begins or ends with a space", "remove the space: receivers would not see it")
        }
        _ => wrong("the field value holds a character that HTTP does not allow", "write printable ASCII in one line"),
    },
};

pub(super) const CA: Parsed<CaSource> = Parsed {
    wanted: "system, or the path of a PEM file",
    pattern: r".",
    parse: |text| match text {
        "system" => Ok(CaSource::System),
        "" => wrong("the path is empty", "write system, or the path of a PEM file"),
        _ => Ok(CaSource::File(PathBuf::from(text))),
    },
};

pub(super) const PEM_PATH: Parsed<PathBuf> = Parsed {
    wanted: "the path of a PEM file",
    pattern: r".",
    parse: |text| match text {
        "" => wrong("the path is empty", "write the path of a PEM file"),
        _ => Ok(PathBuf::from(text)),
    },
};

pub(super) const SERVER_NAME: Parsed<String> = Parsed {
    wanted: "a host name, for example api.internal",
    pattern: r"^[A-Za-z0-9_.:-]+$",
    parse: |text| match ServerName::try_from(text) {
        Ok(_) => Ok(text.to_ascii_lowercase()),
        Err(_) => {
            wrong(format!("{} is not a host name", quoted(text)), "write the name in the certificate, without port")
        }
    },
};

pub(super) const OUTPUT: Parsed<AccessLogOutput> = Parsed {
    wanted: "stdout, stderr, or the path of a file",
    pattern: r"^(stdout|stderr|.*/.*)$",
    parse: |text| match text {
        "stdout" => Ok(AccessLogOutput::Stdout),
        "stderr" => Ok(AccessLogOutput::Stderr),
        // A word without a slash is more likely a slip than a file in the working directory.
        _ if text.contains('/') && !text.ends_with('/') => Ok(AccessLogOutput::File(PathBuf::from(text))),
        _ => wrong(
            format!("{} is neither a stream nor a path", quoted(text)),
            "write stdout, stderr, or a path with a slash: ./access.log",
        ),
    },
};

pub(super) const VERSION: Parsed<u32> = Parsed {
    wanted: "1",
    pattern: r"^1$",
    parse: |text| match text {
        "1" => Ok(1),
        _ => wrong(format!("{} is not a known version of this format", quoted(text)), "write 1"),
    },
};

fn name(text: &str) -> Result<String, Wrong> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    if (1..=64).contains(&text.len()) && text.bytes().all(is_allowed) {
        Ok(text.to_owned())
    } else {
        wrong(format!("{} is not a name", quoted(text)), "write 1 to 64 letters, digits, `_`, `.` or `-`")
    }
}

fn host_pattern(text: &str) -> Result<String, Wrong> {
    let found = quoted(text);
    if let Some((host, port)) = text.rsplit_once(':')
        && port.bytes().all(|byte| byte.is_ascii_digit())
        && is_host(host)
    {
        return wrong(format!("{found} has a port"), format!("write {host}: every port matches"));
    }
    let domain = text.strip_prefix("*.").unwrap_or(text);
    if is_host(domain) {
        Ok(text.to_ascii_lowercase())
    } else {
        wrong(format!("{found} is not a host name"), "write a name without port, or *.example.com for all sub-domains")
    }
}

fn path_prefix(text: &str) -> Result<String, Wrong> {
    let found = quoted(text);
    if !text.starts_with('/') {
        return wrong(format!("{found} does not start with `/`"), format!("write /{}", text.trim_start()));
    }
    if text.contains(['?', '#']) {
        return wrong(format!("{found} has a query or a fragment"), "only paths are matched; write the part before it");
    }
    if text.bytes().any(|byte| !byte.is_ascii_graphic()) {
        return wrong(format!("{found} holds a character that a path cannot"), "percent-encode it as clients do");
    }
    Ok(text.to_owned())
}

fn method(text: &str) -> Result<Method, Wrong> {
    let found = quoted(text);
    let Ok(method) = Method::from_bytes(text.as_bytes()) else {
        return wrong(format!("{found} is not a method"), "write for example GET or POST");
    };
    let upper = text.to_ascii_uppercase();
    if upper != text {
        return wrong(format!("{found} is not upper-case, and methods differ by case"), format!("write {upper}"));
    }
    if matches!(method, Method::CONNECT | Method::TRACE) {
        return wrong(format!("{found} is never forwarded"), "remove it");
    }
    Ok(method)
}

/// Letters, digits, `-` and `_` in labels of 1 to 63, together at most 253.
pub(super) fn is_host(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::config) fn said<T: std::fmt::Debug>(result: Result<T, Wrong>) -> String {
        let error = result.expect_err("an error");
        format!("{}; {}", error.message, error.label)
    }

    #[test]
    fn hosts_are_lower_cased_and_have_no_port() {
        assert_eq!(host_pattern("*.Example.COM").unwrap(), "*.example.com");
        assert_eq!(said(host_pattern("a.b:80")), "`a.b:80` has a port; write a.b: every port matches");
        for text in ["", "*", "a.*.b", "a..b", "-a.b", "a/b", "[::1]", "ä.de"] {
            assert!(said(host_pattern(text)).contains("is not a host name"), "{text}");
        }
    }

    #[test]
    fn paths_methods_names_and_fields_are_checked() {
        assert_eq!(said(path_prefix("v1")), "`v1` does not start with `/`; write /v1");
        assert!(said(path_prefix("/a?b")).contains("has a query"));
        assert!(said(path_prefix("/a b")).contains("percent-encode"));
        assert_eq!(said(method("get")), "`get` is not upper-case, and methods differ by case; write GET");
        assert_eq!(said(method("TRACE")), "`TRACE` is never forwarded; remove it");
        assert!(said(method("A B")).contains("is not a method"));
        assert!(said(name("a b")).contains("is not a name"));
        assert!(said((HEADER_NAME.parse)("x y")).contains("is not a field name"));
        assert!(said((HEADER_VALUE.parse)("secret\n")).starts_with("the field value holds a character"));
        assert!(said((HEADER_VALUE.parse)(" secret")).starts_with("the field value begins or ends"));
        assert!(said((SERVER_NAME.parse)("a:1")).contains("is not a host name"));
        assert!(said((OUTPUT.parse)("stdot")).contains("is neither a stream nor a path"));
    }
}
