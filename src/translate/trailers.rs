//! Which fields may come after a body.
//!
//! A trailer is read when everything that it could have steered has already happened, and a recipient that merges it
//! into the head would let it overwrite what was checked there. So only fields that merely add something pass:
//! names nobody has reserved (`grpc-status`, `x-checksum`), and of the reserved ones those made for it.
//!
//! It also keeps streams alive: h2 refuses trailers with a connection-specific field and leaves the stream open,
//! which then never ends. RFC 9110 §6.5.1, RFC 9113 §8.2.2.

use http::header::{self, HeaderMap, HeaderName};

/// Removes the fields that may not be trailers; the usual trailers are returned as they came.
#[must_use]
pub fn trailers(fields: HeaderMap) -> HeaderMap {
    if fields.keys().all(may_trail) {
        return fields;
    }
    let mut kept = HeaderMap::new();
    let mut latest = None;
    for (name, value) in fields {
        // Further values of a name come without it.
        if name.is_some() {
            latest = name;
        }
        if let Some(name) = latest.as_ref().filter(|name| may_trail(name)) {
            kept.append(name, value);
        }
    }
    kept
}

fn may_trail(name: &HeaderName) -> bool {
    match *name {
        // Framing and the connection.
        header::CONNECTION
        | header::TE
        | header::TRAILER
        | header::TRANSFER_ENCODING
        | header::UPGRADE
        // Routing and request modifiers.
        | header::EXPECT
        | header::FORWARDED
        | header::HOST
        | header::MAX_FORWARDS
        | header::PRAGMA
        | header::RANGE
        | header::VIA
        // Authentication and state.
        | header::AUTHORIZATION
        | header::COOKIE
        | header::PROXY_AUTHENTICATE
        | header::PROXY_AUTHORIZATION
        | header::SET_COOKIE
        | header::WWW_AUTHENTICATE
        // Control of the response.
        | header::AGE
        | header::CACHE_CONTROL
        | header::DATE
        | header::EXPIRES
        | header::LOCATION
        | header::ORIGIN
        | header::REFRESH
        | header::RETRY_AFTER
        | header::STRICT_TRANSPORT_SECURITY
        | header::VARY
        | header::WARNING => false,
        _ => may_other_trail(name.as_str()),
    }
}

/// Families of names, and names that the `http` crate has no constant for.
fn may_other_trail(name: &str) -> bool {
    const RESERVED: [&str; 6] = ["access-control-", "content-", "if-", "proxy-", "sec-", "x-forwarded-"];
    match name {
        // Made to be sent after what it describes (RFC 9530 §2).
        "content-digest" => true,
        "http2-settings" | "keep-alive" | "x-real-ip" => false,
        _ => !RESERVED.iter().any(|prefix| name.starts_with(prefix)),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn filter(fields: &[(&'static str, &'static str)]) -> Vec<(String, String)> {
        let append = |mut map: HeaderMap, (name, value): &(&'static str, &'static str)| {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
            map
        };
        let kept = trailers(fields.iter().fold(HeaderMap::new(), append));
        kept.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect()
    }

    #[test]
    fn grpc_and_checksum_trailers_pass_untouched() {
        let fields = [("grpc-status", "0"), ("grpc-message", ""), ("etag", "\"a\""), ("content-digest", "sha-256=:a:")];
        assert_eq!(filter(&fields).len(), fields.len());
    }

    #[test]
    fn a_field_that_could_hang_the_stream_is_removed_and_the_rest_is_kept_with_all_values() {
        let kept = filter(&[
            ("x-a", "1"),
            ("transfer-encoding", "chunked"),
            ("x-a", "2"),
            ("connection", "x-a"),
            ("transfer-encoding", "gzip"),
            ("x-b", "3"),
        ]);
        assert_eq!(kept, [("x-a", "1"), ("x-a", "2"), ("x-b", "3")].map(|(n, v)| (n.to_owned(), v.to_owned())));
    }

    #[test]
    fn fields_that_steer_the_message_cannot_come_after_it() {
        for name in [
            "content-length",
            "content-type",
            "content-encoding",
            "host",
            "authorization",
            "set-cookie",
            "if-match",
            "keep-alive",
            "proxy-connection",
            "upgrade",
            "te",
            "trailer",
            "via",
            "x-forwarded-for",
            "sec-fetch-mode",
            "access-control-allow-origin",
            "cache-control",
        ] {
            assert_eq!(filter(&[(name, "1")]), [], "{name}");
        }
    }
}
