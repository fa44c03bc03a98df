//! What the fuzz targets run on their input; `tests/seeds.rs` runs the same on the seeds.
//!
//! Each function panics if the input shows a defect, and returns otherwise.

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TE, TRANSFER_ENCODING};
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, request};
use trunkline::config::{RouteMatch, Secrets, Source};
use trunkline::route::RouteTable;
use trunkline::translate::{Hop, RequestHead};

/// Translates the bytes of an HTTP/1 head in both directions, as if hyper had parsed it.
pub(crate) fn request_head(bytes: &[u8]) {
    let Some(head) = parse(bytes).and_then(translate) else { return };
    let path = head.path_and_query().to_owned();
    assert!(path.starts_with('/') || (path == "*" && head.method() == Method::OPTIONS));
    let fallback = Authority::from_static("fallback");

    let http1 = head.clone().into_http1(&fallback);
    assert_eq!(http1.uri.to_string(), path);
    assert_eq!(http1.headers.keys().next(), Some(&HOST));
    assert_eq!(http1.headers.get_all(HOST).iter().count(), 1);

    let http2 = head.into_http2(&Scheme::HTTP, &fallback);
    assert_eq!(http2.uri().path_and_query().map(ToString::to_string), Some(path));
    for name in [&HOST, &CONNECTION, &TRANSFER_ENCODING] {
        assert!(!http2.headers().contains_key(name), "{name}");
    }
    for name in ["upgrade", "keep-alive", "proxy-connection", "http2-settings", "forwarded"] {
        assert!(!http2.headers().contains_key(name), "{name}");
    }
    assert!(http2.headers().get_all(EXPECT).iter().all(|value| value == "100-continue"));
    assert!(http2.headers().get_all(TE).iter().all(|value| value == "trailers"));
    assert!(http2.headers().get_all(CONTENT_LENGTH).iter().count() <= 1);
    assert_eq!(http2.headers().get_all("x-forwarded-for").iter().count(), 1);
}

/// Compares the route table with a slow, obvious matcher. Input: prefix, host pattern, host and path, one per line.
pub(crate) fn route(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut lines = text.split('\n');
    let (Some(prefix), Some(pattern), Some(host), Some(path)) =
        (lines.next(), lines.next(), lines.next(), lines.next())
    else {
        return;
    };
    let (Ok(uri), Ok(host)) = (Uri::try_from(path), HeaderValue::from_str(host)) else { return };
    if !prefix.starts_with('/') || pattern.is_empty() || uri.scheme().is_some() {
        return;
    }
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.uri = uri;
    parts.headers.insert(HOST, host);
    let Some(head) = translate(parts) else { return };

    let is_found = |conditions| RouteTable::new([(conditions, ())]).find(&head).is_some();
    let by_path = RouteMatch { path_prefix: Some(prefix.to_owned()), ..RouteMatch::default() };
    let wanted: Vec<&str> = prefix.strip_suffix('/').unwrap_or(prefix).split('/').collect();
    let found: Vec<&str> = head.path().split('/').collect();
    assert_eq!(is_found(by_path), found.starts_with(&wanted), "{prefix:?} {:?}", head.path());

    let by_host = RouteMatch { hosts: vec![pattern.to_owned()], ..RouteMatch::default() };
    let plain = |name: &str| name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let (pattern, host) = (plain(pattern), plain(head.host().expect("HTTP/1.1 has a host")));
    let is_expected = match pattern.strip_prefix('*') {
        Some(suffix) => host.ends_with(suffix) && host != suffix,
        None => host == pattern,
    };
    assert_eq!(is_found(by_host), is_expected, "{pattern:?} {host:?}");
}

fn translate(parts: request::Parts) -> Option<RequestHead> {
    let via = Hop::via("me").expect("a token");
    RequestHead::from_http1(parts, &Hop::new("me".into(), via, [192, 0, 2, 7].into())).ok()
}

/// What hyper makes of a head, except for the merging of Content-Length: translation must not rely on that.
fn parse(bytes: &[u8]) -> Option<request::Parts> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut parsed = httparse::Request::new(&mut fields);
    if !parsed.parse(bytes).ok()?.is_complete() {
        return None;
    }
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.method = parsed.method?.parse().ok()?;
    parts.uri = Uri::from_maybe_shared(Bytes::copy_from_slice(parsed.path?.as_bytes())).ok()?;
    parts.version = if parsed.version? == 1 { Version::HTTP_11 } else { Version::HTTP_10 };
    parts.headers = HeaderMap::new();
    for field in parsed.headers {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        parts.headers.append(name, HeaderValue::from_bytes(field.value).ok()?);
    }
    Some(parts)
}

/// Loads a configuration; one that is valid must mean the same when it is printed and loaded again.
pub(crate) fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let load = |text: &str| trunkline::config::load(&Source::new("fuzzed.yaml", text), &|_| None);
    match load(text) {
        Err(errors) => assert!(errors.has_errors() && !errors.render(false).is_empty()),
        Ok((config, _)) => {
            let printed = trunkline::config::print(&config, Secrets::Shown);
            let (again, _) = load(&printed).unwrap_or_else(|errors| panic!("{printed}\n{errors}"));
            assert_eq!(again, config);
        }
    }
}
