//! What addresses, URLs, names and header fields may look like.
//!
//! Each rule refuses what the data plane could not serve, and says what to write instead.
//!
//! Pure. RFC 3986 §3.2, RFC 9110 §5 and §9.1.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use http::{HeaderName, HeaderValue, Method};
use rustls_pki_types::ServerName;

use super::rules::{Parsed, Wrong, quoted, wrong};
use super::{AccessLogOutput, CaSource, Endpoint, Protocol, RetryWhen};

/// An IP address and a port.
pub(super) const ADDRESS: Parsed<SocketAddr> =
    Parsed { wanted: "an address, for example 127.0.0.1:8080", pattern: r"^.+:[0-9]+$", parse: address };

/// An IP address and a port, or `none`.
pub(super) const ADDRESS_OR_NONE: Parsed<Option<SocketAddr>> = Parsed {
    wanted: "an address, for example 127.0.0.1:9900, or none",
    pattern: r"^(none|.+:[0-9]+)$",
    parse: |text| if text == "none" { Ok(None) } else { address(text).map(Some) },
};

/// `scheme://host:port`, weight 1.
pub(super) const ENDPOINT: Parsed<Endpoint> = Parsed {
    wanted: "a URL, for example h2c://10.0.0.11:9000",
    pattern: r"^(h2c|h2|http1|https?)://[^/?#@]+:[0-9]+$",
    parse: endpoint,
};

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

fn address(text: &str) -> Result<SocketAddr, Wrong> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(address);
    }
    let found = quoted(text);
    if let Ok(ip) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        return wrong(format!("{found} has no port"), format!("write {}", SocketAddr::new(ip, 8080)));
    }
    if let Ok(port) = text.trim_start_matches("*:").trim_start_matches(':').parse::<u16>() {
        let (any, local) = (Ipv4Addr::UNSPECIFIED, Ipv4Addr::LOCALHOST);
        return wrong(
            format!("{found} has no IP address"),
            format!("write {local}:{port} for this machine only, or {any}:{port} for every interface"),
        );
    }
    if let Some(port) = text.strip_prefix("localhost:") {
        return wrong(
            format!("{found} has a name where an IP address is needed"),
            format!("write {}:{port} or [{}]:{port}", Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST),
        );
    }
    if text.contains("://") {
        return wrong(format!("{found} is a URL"), "write IP:PORT, for example 127.0.0.1:8080");
    }
    wrong(format!("{found} is not an address"), "write IP:PORT, for example 127.0.0.1:8080 or [::1]:8080")
}

fn endpoint(text: &str) -> Result<Endpoint, Wrong> {
    let found = quoted(text);
    let Some((scheme, rest)) = text.split_once("://") else {
        let rest = if text.is_empty() { "10.0.0.11:9000" } else { text };
        return wrong(
            format!("{found} has no scheme"),
            format!("write h2c://{rest} for HTTP/2, or http1://{rest} for HTTP/1.1"),
        );
    };
    let protocol = match scheme {
        "h2c" => Protocol::H2c,
        "h2" => Protocol::H2Tls,
        "http1" => Protocol::Http1,
        "http" => Protocol::Http,
        "https" => Protocol::Https,
        _ => return wrong(format!("{found}: unsupported scheme {}", quoted(scheme)), SCHEMES),
    };
    if let Some(at) = rest.rfind('@') {
        return wrong(
            format!("{found} has a user name"),
            format!("write {scheme}://{}; credentials go into request_headers", &rest[at + 1..]),
        );
    }
    if let Some(at) = rest.find(['/', '?', '#']) {
        return wrong(
            format!("{found} has a path or a query"),
            format!("write {scheme}://{}; a path goes into a route's rewrite", &rest[..at]),
        );
    }
    let (host, port) = match rest.rsplit_once(':') {
        // In `::1` the last colon belongs to the address.
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, port),
        _ if rest.parse::<Ipv6Addr>().is_ok() => {
            return wrong(
                format!("{found} has an IPv6 address without brackets"),
                format!("write host:port, for example {scheme}://[{rest}]:9000"),
            );
        }
        _ => {
            let rest = if rest.is_empty() { "127.0.0.1" } else { rest };
            return wrong(
                format!("{found} has no port"),
                format!("write host:port, for example {scheme}://{rest}:9000"),
            );
        }
    };
    let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(inner) => match inner.parse::<Ipv6Addr>() {
            Ok(ip) => ip.to_string(),
            Err(_) => return wrong(format!("{found}: {} is not an IPv6 address", quoted(inner)), "write [::1]:9000"),
        },
        None if is_host(host) => host.to_ascii_lowercase(),
        None => {
            return wrong(
                format!("{found}: {} is not a host name", quoted(host)),
                format!("write host:port, for example {scheme}://10.0.0.11:9000"),
            );
        }
    };
    match port.parse::<u16>() {
        Ok(port) if port > 0 && !rest.ends_with(|c: char| !c.is_ascii_digit()) && !rest.contains('+') => {
            Ok(Endpoint { protocol, host, port, weight: 1 })
        }
        _ => wrong(format!("{found}: {} is not a port", quoted(port)), "write a port from 1 to 65535"),
    }
}

const SCHEMES: &str = "schemes are h2c:// (HTTP/2), h2:// (HTTP/2 over TLS), http1:// (HTTP/1.1), and http:// and \
                       https:// (what the service speaks)";

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

/// A host with or without a port, as Host carries it.
pub(super) fn is_authority(text: &str) -> bool {
    let with_port = |text: &str| endpoint(&format!("h2c://{text}")).is_ok();
    is_host(text) || with_port(text) || with_port(&format!("{text}:1"))
}

/// Letters, digits, `-` and `_` in labels of 1 to 63, together at most 253.
fn is_host(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said<T: std::fmt::Debug>(result: Result<T, Wrong>) -> String {
        let error = result.expect_err("an error");
        format!("{}; {}", error.message, error.label)
    }

    #[test]
    fn endpoints_are_scheme_host_and_port() {
        for (text, shown) in [
            ("h2c://10.0.0.11:9000", "h2c://10.0.0.11:9000"),
            ("h2://API.internal:443", "h2://api.internal:443"),
            ("http1://[::1]:8080", "http1://[::1]:8080"),
            ("h2c://my_service:1", "h2c://my_service:1"),
            ("http://a:80", "http://a:80"),
            ("https://a:443", "https://a:443"),
        ] {
            assert_eq!(endpoint(text).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn wrong_endpoints_say_what_to_write() {
        for (text, answer) in [
            (
                "10.0.0.1:9000",
                "`10.0.0.1:9000` has no scheme; write h2c://10.0.0.1:9000 for HTTP/2, or http1://10.0.0.1:9000 for HTTP/1.1",
            ),
            (
                "dns://a:1",
                "`dns://a:1`: unsupported scheme `dns`; schemes are h2c:// (HTTP/2), h2:// (HTTP/2 over TLS), http1:// (HTTP/1.1), and http:// and https:// (what the service speaks)",
            ),
            ("h2c://a", "`h2c://a` has no port; write host:port, for example h2c://a:9000"),
            (
                "h2c://::1",
                "`h2c://::1` has an IPv6 address without brackets; write host:port, for example h2c://[::1]:9000",
            ),
            ("h2c://[::1]", "`h2c://[::1]` has no port; write host:port, for example h2c://[::1]:9000"),
            ("h2c://u:p@a:1", "`h2c://u:p@a:1` has a user name; write h2c://a:1; credentials go into request_headers"),
            ("h2c://a:1/x", "`h2c://a:1/x` has a path or a query; write h2c://a:1; a path goes into a route's rewrite"),
            ("h2c://a:1?x", "`h2c://a:1?x` has a path or a query; write h2c://a:1; a path goes into a route's rewrite"),
            ("h2c://a:0", "`h2c://a:0`: `0` is not a port; write a port from 1 to 65535"),
            ("h2c://a:+1", "`h2c://a:+1`: `+1` is not a port; write a port from 1 to 65535"),
            ("h2c://a:65536", "`h2c://a:65536`: `65536` is not a port; write a port from 1 to 65535"),
            (
                "h2c://a b:1",
                "`h2c://a b:1`: `a b` is not a host name; write host:port, for example h2c://10.0.0.11:9000",
            ),
            ("h2c://[x]:1", "`h2c://[x]:1`: `x` is not an IPv6 address; write [::1]:9000"),
        ] {
            assert_eq!(said(endpoint(text)), answer);
        }
    }

    #[test]
    fn wrong_addresses_say_what_to_write() {
        for (text, answer) in [
            (
                ":8080",
                "`:8080` has no IP address; write 127.0.0.1:8080 for this machine only, or 0.0.0.0:8080 for every interface",
            ),
            (
                "8080",
                "`8080` has no IP address; write 127.0.0.1:8080 for this machine only, or 0.0.0.0:8080 for every interface",
            ),
            ("localhost:80", "`localhost:80` has a name where an IP address is needed; write 127.0.0.1:80 or [::1]:80"),
            ("::1", "`::1` has no port; write [::1]:8080"),
            ("10.0.0.1", "`10.0.0.1` has no port; write 10.0.0.1:8080"),
            ("http://1.2.3.4:80", "`http://1.2.3.4:80` is a URL; write IP:PORT, for example 127.0.0.1:8080"),
            ("unix:/a", "`unix:/a` is not an address; write IP:PORT, for example 127.0.0.1:8080 or [::1]:8080"),
        ] {
            assert_eq!(said(address(text)), answer);
        }
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
