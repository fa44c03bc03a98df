//! Host and port, as `Host` and absolute-form targets carry them.
//!
//! Stricter than RFC 3986 §3.2: userinfo, percent-encoding, sub-delimiters (`a.com,b.com` is two Host lines that
//! somebody joined), empty labels, empty ports and port 0 are refused. What is left means the same to every
//! service behind us, so none can be talked into another virtual host than the one that was routed.

use std::net::Ipv6Addr;

use http::uri::Authority;

/// Makes an authority of a Host value; `None` if it is not valid.
pub(super) fn parse(value: &[u8]) -> Option<Authority> {
    HostPort::parse(value)?;
    Authority::try_from(value).ok()
}

/// Whether an authority that somebody else parsed passes the rules here.
pub(super) fn is_valid(authority: &Authority) -> bool {
    HostPort::parse(authority.as_str().as_bytes()).is_some()
}

/// Whether one authority and another name the same place, an absent port being `default_port`.
pub(super) fn is_same(one: &Authority, other: &Authority, default_port: u16) -> bool {
    match (HostPort::parse(one.as_str().as_bytes()), HostPort::parse(other.as_str().as_bytes())) {
        (Some(one), Some(other)) => one.is_same(other, default_port),
        _ => false,
    }
}

/// A host with its port, both valid.
#[derive(Debug, Clone, Copy)]
struct HostPort<'a> {
    /// IPv6 with its brackets.
    host: &'a str,
    port: Option<u16>,
}

impl<'a> HostPort<'a> {
    /// Reads the whole of `text`; `None` if it is not a host and an optional port.
    fn parse(text: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (address, port) = rest.split_once(']')?;
            address.parse::<Ipv6Addr>().ok()?;
            (&text[..address.len() + 2], port)
        } else {
            let (host, port) = text.split_at(text.find(':').unwrap_or(text.len()));
            if !is_name(host) {
                return None;
            }
            (host, port)
        };
        let port = match port.strip_prefix(':') {
            Some(digits) => Some(parse_port(digits)?),
            None if port.is_empty() => None,
            None => return None,
        };
        Some(Self { host, port })
    }

    /// Whether both name the same place, an absent port being `default_port`.
    fn is_same(self, other: Self, default_port: u16) -> bool {
        self.host.eq_ignore_ascii_case(other.host)
            && self.port.unwrap_or(default_port) == other.port.unwrap_or(default_port)
    }
}

/// Unreserved characters of RFC 3986 in non-empty labels; one trailing dot is a fully qualified name.
fn is_name(host: &str) -> bool {
    let mut previous = b'.';
    for byte in host.bytes() {
        let is_valid = match byte {
            b'.' => previous != b'.',
            _ => byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'~'),
        };
        if !is_valid {
            return false;
        }
        previous = byte;
    }
    !host.is_empty()
}

fn parse_port(digits: &str) -> Option<u16> {
    // `u16::from_str` takes a plus sign.
    if digits.len() > 5 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().filter(|port| *port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_addresses_and_ports_are_taken() {
        for valid in
            ["a", "api.example.com", "API.Example.com:8080", "a.", "10.0.0.1:1", "[::1]", "[::1]:65535", "a_b-c"]
        {
            assert!(parse(valid.as_bytes()).is_some(), "{valid}");
        }
    }

    #[test]
    fn everything_ambiguous_is_refused() {
        for invalid in [
            "",
            ":80",
            "a:",
            "a:0",
            "a:+80",
            "a:65536",
            "a:123456",
            "a:80:80",
            "a:b",
            "user@a",
            "user:pw@a",
            "a/b",
            "a?b",
            "a#b",
            "a b",
            "a,b",
            "a%2eb",
            ".",
            ".a",
            "a..b",
            "[::1",
            "::1",
            "[::1]a",
            "[::1]:",
            "[fe80::1%25eth0]",
            "[]",
            "[a]",
            "a\\b",
            "\u{e4}.example",
            "a\"",
        ] {
            assert!(parse(invalid.as_bytes()).is_none(), "{invalid}");
        }
    }

    #[test]
    fn an_absent_port_equals_the_default_port_only() {
        let parse = |text: &'static str| HostPort::parse(text.as_bytes()).unwrap();
        assert!(parse("A.example").is_same(parse("a.EXAMPLE:80"), 80));
        assert!(!parse("a.example").is_same(parse("a.example:80"), 443));
        assert!(!parse("a.example").is_same(parse("b.example"), 80));
    }
}
