//! What holds for every head that passes, whatever the client sent.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, Scheme};
use http::{Method, Request, Uri, Version, request, response};
use proptest::prelude::*;

use crate::error::{Fault, ProxyFault};

use super::{Hop, RequestHead, ResponseBody, response_for_client, trailers};

/// Names that matter to translation, in some case, beside any other.
fn name() -> impl Strategy<Value = HeaderName> {
    const KNOWN: [&str; 32] = [
        "connection",
        "Proxy-Connection",
        "keep-alive",
        "transfer-encoding",
        "upgrade",
        "http2-settings",
        "te",
        "trailer",
        "expect",
        "via",
        "forwarded",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-host",
        "x-forwarded-port",
        "x-real-ip",
        "cookie",
        "Authorization",
        "content-length",
        "content-type",
        "x-request-id",
        "traceparent",
        "accept",
        "user-agent",
        "x-a",
        "x-b",
        "max-forwards",
        "date",
        "set-cookie",
        "content-encoding",
        "range",
        "host",
    ];
    prop_oneof![
        4 => prop::sample::select(&KNOWN[..]).prop_map(|name| name.parse().unwrap()),
        1 => "[a-zA-Z0-9_-]{1,12}".prop_map(|name| name.parse().unwrap()),
    ]
}

/// Values that mean something somewhere, beside any bytes.
fn value() -> impl Strategy<Value = HeaderValue> {
    const KNOWN: [&str; 16] = [
        "close",
        "keep-alive, x-a",
        "X-B , te,upgrade",
        "chunked",
        "gzip, chunked",
        "trailers",
        "trailers, deflate",
        "0",
        "7",
        "1.1 other",
        "a.example",
        "100-continue",
        "h2c",
        "host, cookie, via, x-forwarded-for",
        "x-request-id",
        "",
    ];
    prop_oneof![
        4 => prop::sample::select(&KNOWN[..]).prop_map(HeaderValue::from_static),
        1 => prop::collection::vec(prop_oneof![0x20_u8..0x7f, 0x80_u8..=0xff], 0..12)
            .prop_map(|bytes| HeaderValue::from_bytes(&bytes).unwrap()),
    ]
}

fn fields() -> impl Strategy<Value = HeaderMap> {
    prop::collection::vec((name(), value()), 0..12).prop_map(|fields| {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(name, value);
        }
        map
    })
}

fn target() -> impl Strategy<Value = Uri> {
    prop_oneof![
        4 => "/[a-z0-9/%.?&=*~:@-]{0,20}",
        1 => "https?://[a-z.@:0-9]{1,12}[/?]?[a-z/?]{0,6}",
        1 => Just("*".to_owned()),
        1 => "[a-z:/?*@.]{1,8}",
    ]
    .prop_filter_map("not a URI", |text| text.parse().ok())
}

fn parts() -> impl Strategy<Value = request::Parts> {
    let method = prop::sample::select(vec!["GET", "POST", "OPTIONS", "HEAD", "CONNECT", "TRACE", "x-own"]);
    let version = prop::sample::select(vec![Version::HTTP_11, Version::HTTP_11, Version::HTTP_10]);
    let host = prop_oneof![6 => Just(Some("a.example")), 1 => Just(None)];
    (method, target(), version, host, fields()).prop_map(|(method, uri, version, host, mut headers)| {
        // Mostly well-formed, so that most cases get past the checks.
        if let Some(host) = host {
            headers.insert(header::HOST, HeaderValue::from_static(host));
        }
        let (mut parts, ()) = Request::new(()).into_parts();
        parts.method = method.parse().unwrap();
        parts.uri = uri;
        parts.version = version;
        parts.headers = headers;
        parts
    })
}

fn translate(parts: request::Parts) -> Option<RequestHead> {
    try_translate(parts).ok()
}

fn try_translate(parts: request::Parts) -> Result<RequestHead, Fault> {
    let hop = Hop::new("me".into(), Hop::via("me").unwrap(), [192, 0, 2, 7].into());
    RequestHead::from_http1(parts, &hop)
}

/// What h2 0.4 refuses to send, and refuses when it is received.
fn is_malformed_for_http2(headers: &HeaderMap) -> bool {
    let forbidden = ["connection", "transfer-encoding", "upgrade", "keep-alive", "proxy-connection"];
    forbidden.iter().any(|name| headers.contains_key(*name))
        || headers.get_all(header::TE).iter().any(|value| value != "trailers")
}

/// The names in every Connection line that no protection covers.
fn connection_named(headers: &HeaderMap) -> Vec<HeaderName> {
    const KEPT: [&str; 12] = [
        "host",
        "cookie",
        "via",
        "te",
        "authorization",
        "content-length",
        "content-type",
        "content-encoding",
        "set-cookie",
        "cache-control",
        "content-range",
        "forwarded",
    ];
    headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .filter_map(|option| HeaderName::from_bytes(option.trim_ascii()).ok())
        .filter(|name| !KEPT.contains(&name.as_str()) && !name.as_str().starts_with("x-forwarded-"))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn a_head_that_passes_is_never_malformed_for_http2(parts in parts()) {
        if let Some(head) = translate(parts) {
            let request = head.into_http2(&Scheme::HTTP, &Authority::from_static("fallback"));
            prop_assert!(!is_malformed_for_http2(request.headers()));
            prop_assert!(!request.headers().contains_key(header::HOST));
            prop_assert!(request.uri().scheme().is_some() && request.uri().authority().is_some());
        }
    }

    #[test]
    fn no_field_that_connection_names_is_left(parts in parts()) {
        let named = connection_named(&parts.headers);
        if let Some(head) = translate(parts) {
            for name in named {
                prop_assert!(!head.headers().contains_key(&name), "{}", name);
            }
        }
    }

    #[test]
    fn what_is_sent_is_what_routing_saw(parts in parts()) {
        if let Some(head) = translate(parts) {
            let (path, host) = (head.path_and_query().to_owned(), head.host().map(str::to_owned));
            prop_assert!(path.starts_with('/') || (path == "*" && head.method() == Method::OPTIONS));
            let fallback = Authority::from_static("fallback");
            let http1 = head.clone().into_http1(&fallback);
            prop_assert_eq!(http1.uri.to_string(), path.clone());
            let http2 = head.into_http2(&Scheme::HTTP, &fallback);
            prop_assert_eq!(http2.uri().path_and_query().unwrap().as_str(), path);
            prop_assert_eq!(http2.uri().host().unwrap(), host.as_deref().unwrap_or("fallback"));
        }
    }

    #[test]
    fn an_origin_form_target_is_forwarded_byte_by_byte(parts in parts()) {
        let target = parts.uri.path_and_query().map(|path| path.as_str().to_owned());
        let is_origin_form = parts.uri.scheme().is_none();
        if let (true, Some(head)) = (is_origin_form, translate(parts)) {
            prop_assert_eq!(Some(head.path_and_query()), target.as_deref());
        }
    }

    #[test]
    fn http1_gets_exactly_one_host_and_it_comes_first(parts in parts()) {
        if let Some(head) = translate(parts) {
            let fields = head.headers().len();
            let is_te = head.headers().contains_key(header::TE);
            let is_upgrade = head.upgrade().is_some();
            let cookies = head.headers().get_all(header::COOKIE).iter().count();
            let parts = head.into_http1(&Authority::from_static("fallback"));
            prop_assert_eq!(parts.headers.keys().next(), Some(&header::HOST));
            prop_assert_eq!(parts.headers.get_all(header::HOST).iter().count(), 1);
            let is_chunked = parts.headers.contains_key(header::TRANSFER_ENCODING);
            let added = 1 + usize::from(is_te || is_upgrade) + usize::from(is_upgrade) + usize::from(is_chunked);
            prop_assert_eq!(parts.headers.len(), fields + added - cookies.saturating_sub(1));
        }
    }

    #[test]
    fn a_second_pass_through_the_same_process_is_a_loop(parts in parts()) {
        if let Some(head) = translate(parts) {
            let again = try_translate(head.into_http1(&Authority::from_static("fallback")));
            prop_assert_eq!(again.err(), Some(ProxyFault::Loop.into()));
        }
    }

    #[test]
    fn trailers_that_pass_are_never_malformed_for_http2(fields in fields()) {
        let kept = trailers(fields);
        prop_assert!(!is_malformed_for_http2(&kept));
        prop_assert!(!kept.contains_key(header::TE) && !kept.contains_key(header::CONTENT_LENGTH));
    }

    #[test]
    fn a_response_that_passes_has_at_most_one_length_and_no_hop_by_hop_field(
        status in 100_u16..600, fields in fields(), is_head in any::<bool>(),
    ) {
        let (mut parts, ()): (response::Parts, ()) = http::Response::new(()).into_parts();
        parts.status = status.try_into().unwrap();
        parts.headers = fields;
        let method = if is_head { Method::HEAD } else { Method::GET };
        if let Ok(body) = response_for_client(&mut parts, &method) {
            prop_assert!(status >= 200);
            prop_assert!(!is_malformed_for_http2(&parts.headers) && !parts.headers.contains_key(header::TE));
            let lengths: Vec<_> = parts.headers.get_all(header::CONTENT_LENGTH).iter().collect();
            prop_assert!(lengths.len() <= 1);
            match body {
                ResponseBody::None => prop_assert!(is_head || matches!(status, 204 | 304)),
                ResponseBody::Sized(length) => prop_assert_eq!(lengths[0].to_str().unwrap().parse(), Ok(length)),
                ResponseBody::Unsized => prop_assert!(lengths.is_empty()),
            }
        }
    }
}
