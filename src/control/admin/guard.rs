//! Whether a request can have been caused by another web site.
//!
//! A browser on the operator's machine reaches loopback, so any page in it could ask our address: by a form or a
//! script (the answer to that is `Origin`), or by pointing its own name at 127.0.0.1 and then reading what it likes
//! (DNS rebinding; the answer is `Host`). Programs such as curl send neither a foreign Host nor an Origin.
//!
//! Pure. RFC 9110 §7.2, RFC 6454 §7, Fetch Metadata (`Sec-Fetch-Site`).

use std::net::{Ipv4Addr, Ipv6Addr};

use http::header::{HOST, ORIGIN};
use http::{HeaderMap, Uri};

/// Refuses a request that was addressed to a name which anyone could have pointed here.
///
/// # Errors
/// Why, for the client. The request must not be answered with anything that is not public.
pub(super) fn check_host(uri: &Uri, headers: &HeaderMap) -> Result<(), &'static str> {
    // An absolute-form target names the host as well, and would win over the field.
    if uri.authority().is_none_or(|authority| is_ours(authority.as_str())) && host(headers).is_some_and(is_ours) {
        Ok(())
    } else {
        Err("Host must be an IP address or localhost: a name could have been pointed here by another web site")
    }
}

/// Refuses a request that a page of another origin has caused. The host must have been checked.
///
/// # Errors
/// Why, for the client. Nothing must be changed.
pub(super) fn check_origin(headers: &HeaderMap) -> Result<(), &'static str> {
    const FOREIGN: &str = "the request was caused by a page of another origin";
    let host = host(headers).unwrap_or_default();
    let is_same = |origin: &str| origin.strip_prefix("http://").is_some_and(|rest| rest.eq_ignore_ascii_case(host));
    let is_allowed = |name: &str, is_good: &dyn Fn(&str) -> bool| {
        headers.get_all(name).iter().all(|value| value.to_str().is_ok_and(is_good))
    };
    // `none`: typed by the user. `same-site` is foreign: another port of localhost is another program.
    let is_own_site = |site: &str| site == "same-origin" || site == "none";
    if is_allowed(ORIGIN.as_str(), &is_same) && is_allowed(SEC_FETCH_SITE, &is_own_site) {
        Ok(())
    } else {
        Err(FOREIGN)
    }
}

/// The only Host field.
fn host(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(HOST).iter();
    let host = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(host)
}

/// An IP address (our own is one) or localhost, with or without port. Browsers never take these from the DNS.
fn is_ours(authority: &str) -> bool {
    let (is_host, port) = match authority.strip_prefix('[').map(|rest| rest.split_once(']')) {
        Some(Some((address, port))) => (address.parse::<Ipv6Addr>().is_ok(), port),
        Some(None) => return false,
        None => {
            let (host, port) = authority.split_at(authority.find(':').unwrap_or(authority.len()));
            (host.eq_ignore_ascii_case("localhost") || host.parse::<Ipv4Addr>().is_ok(), port)
        }
    };
    is_host && (port.is_empty() || port.strip_prefix(':').is_some_and(|digits| digits.parse::<u16>().is_ok()))
}

const SEC_FETCH_SITE: &str = "sec-fetch-site";

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let field = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        fields.iter().map(field).collect()
    }

    fn is_host_allowed(target: &'static str, fields: &[(&'static str, &'static str)]) -> bool {
        check_host(&Uri::from_static(target), &headers(fields)).is_ok()
    }

    #[test]
    fn addresses_and_localhost_are_ours() {
        for host in
            ["127.0.0.1", "127.0.0.1:9900", "10.1.2.3:9900", "localhost", "LocalHost:9900", "[::1]", "[::1]:9900"]
        {
            assert!(is_host_allowed("/drain", &[("host", host)]), "{host}");
        }
    }

    #[test]
    fn names_that_anyone_may_point_here_are_refused() {
        for host in [
            "",
            "evil.example",
            "evil.example:9900",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "user@127.0.0.1",
            "127.0.0.1:x",
            "127.0.0.1:9900:1",
            "0x7f.1",
            "[::1",
            "[::1]x",
            "::1",
            "[evil]",
        ] {
            assert!(!is_host_allowed("/drain", &[("host", host)]), "{host}");
        }
    }

    #[test]
    fn no_host_two_hosts_and_a_foreign_target_are_refused() {
        assert!(!is_host_allowed("/drain", &[]));
        let mut two = headers(&[("host", "127.0.0.1")]);
        two.append(HOST, HeaderValue::from_static("localhost"));
        assert!(check_host(&Uri::from_static("/drain"), &two).is_err());
        assert!(!is_host_allowed("http://evil.example/drain", &[("host", "127.0.0.1")]));
        assert!(is_host_allowed("http://127.0.0.1:9900/drain", &[("host", "127.0.0.1:9900")]));
    }

    #[test]
    fn only_our_own_origin_or_none_may_change_something() {
        let is_allowed = |fields: &[(&'static str, &'static str)]| {
            let mut all = headers(fields);
            all.insert(HOST, HeaderValue::from_static("127.0.0.1:9900"));
            check_origin(&all).is_ok()
        };
        assert!(is_allowed(&[]));
        assert!(is_allowed(&[("origin", "http://127.0.0.1:9900"), ("sec-fetch-site", "same-origin")]));
        assert!(is_allowed(&[("sec-fetch-site", "none")]));
        for origin in
            ["null", "", "http://evil.example", "https://127.0.0.1:9900", "http://127.0.0.1", "http://127.0.0.1:8080"]
        {
            assert!(!is_allowed(&[("origin", origin)]), "{origin}");
        }
        assert!(!is_allowed(&[("sec-fetch-site", "cross-site")]));
        assert!(!is_allowed(&[("sec-fetch-site", "same-site")]));
    }
}
