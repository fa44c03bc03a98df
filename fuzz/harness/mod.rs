//! What the fuzz targets run on their input; `tests/seeds.rs` runs the same on the seeds.
//!
//! Each function panics if the input shows a defect, and returns otherwise.

use bytes::Bytes;
use h2::ext::Protocol;
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, SEC_WEBSOCKET_KEY, TE, TRANSFER_ENCODING, UPGRADE};
use http::uri::{self, Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, request};
use trunkline::config::{RouteMatch, Secrets, Source};
use trunkline::route::RouteTable;
use trunkline::translate::{Hop, RequestHead, Upgrade};

/// Translates the bytes of an HTTP/1 head in both directions, as if hyper had parsed it.
pub(crate) fn request_head(bytes: &[u8]) {
    if let Some(head) = parse(bytes).and_then(translate) {
        expect_sound(&head);
    }
}

/// The same of an HTTP/2 head, as if h2 had parsed it. Input: a field per line; a line `:body` says that a body follows.
pub(crate) fn http2_head(bytes: &[u8]) {
    let Some((parts, has_body)) = parse_http2(bytes) else { return };
    let protocol = parts.extensions.get::<Protocol>().cloned();
    let is_connect = parts.method == Method::CONNECT;
    let Ok(head) = RequestHead::from_http2(parts, has_body, &hop()) else { return };
    assert_eq!(head.upgrade().is_some(), is_connect);
    assert!(protocol.is_none_or(|protocol| protocol.as_str().eq_ignore_ascii_case("websocket")));
    expect_sound(&head);
}

/// Neither HTTP is told what it must not be told, and both are told the same.
fn expect_sound(head: &RequestHead) {
    let path = head.path_and_query().to_owned();
    assert!(path.starts_with('/') || (path == "*" && head.method() == Method::OPTIONS));
    let fallback = Authority::from_static("fallback");

    let http1 = head.clone().into_http1(&fallback);
    assert_eq!(http1.uri.to_string(), path);
    assert_eq!(http1.headers.keys().next(), Some(&HOST));
    assert_eq!(http1.headers.get_all(HOST).iter().count(), 1);
    assert!(!(http1.headers.contains_key(CONTENT_LENGTH) && http1.headers.contains_key(TRANSFER_ENCODING)));
    assert_eq!(http1.headers.contains_key(UPGRADE), head.upgrade().is_some());

    let http2 = head.clone().into_http2(&Scheme::HTTP, &fallback);
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

    if head.upgrade().is_some_and(Upgrade::is_websocket) {
        assert_eq!((&http1.method, http1.headers.get_all(SEC_WEBSOCKET_KEY).iter().count()), (&Method::GET, 1));
        assert!(!http1.headers.contains_key(TRANSFER_ENCODING));
        let connect = head.clone().into_extended_connect(&Scheme::HTTP, &fallback);
        assert_eq!(connect.method(), Method::CONNECT);
        assert_eq!(connect.extensions().get::<Protocol>().map(Protocol::as_str), Some("websocket"));
        for name in [&SEC_WEBSOCKET_KEY, &CONTENT_LENGTH] {
            assert!(!connect.headers().contains_key(name), "{name}");
        }
    }
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
    RequestHead::from_http1(parts, &hop()).ok()
}

fn hop() -> Hop {
    Hop::new("me".into(), Hop::via("me").expect("a token"), [192, 0, 2, 7].into())
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

/// What h2 makes of fields, and whether a body follows. It lets no field about the connection through.
fn parse_http2(bytes: &[u8]) -> Option<(request::Parts, bool)> {
    let (mut parts, ()) = Request::new(()).into_parts();
    let (mut method, mut scheme, mut target) = (None, None, uri::Parts::default());
    let mut has_body = false;
    for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        // The first character may be the colon of a pseudo-header.
        let (name, value) = match line.iter().skip(1).position(|byte| *byte == b':') {
            Some(at) => (&line[..=at], line[at + 2..].trim_ascii()),
            None => (line, &b""[..]),
        };
        let text = || Some(Bytes::copy_from_slice(std::str::from_utf8(value).ok()?.as_bytes()));
        match name {
            b":body" => has_body = true,
            b":method" => method = Some(Method::from_bytes(value).ok()?),
            b":scheme" => scheme = Some(Scheme::try_from(value).ok()?),
            b":authority" => target.authority = Some(Authority::from_maybe_shared(text()?).ok()?),
            b":path" if value.is_empty() => return None,
            b":path" => target.path_and_query = Some(PathAndQuery::from_maybe_shared(text()?).ok()?),
            b":protocol" => _ = parts.extensions.insert(Protocol::from(std::str::from_utf8(value).ok()?)),
            b"connection" | b"keep-alive" | b"proxy-connection" | b"transfer-encoding" | b"upgrade" => return None,
            b"te" if value != b"trailers" => return None,
            name => {
                let name = HeaderName::from_lowercase(name).ok()?;
                parts.headers.append(name, HeaderValue::from_bytes(value).ok()?);
            }
        }
    }
    parts.method = method?;
    let (is_connect, has_protocol) = (parts.method == Method::CONNECT, parts.extensions.get::<Protocol>().is_some());
    let has_target = scheme.is_some() && (target.path_and_query.is_some() || !is_connect);
    if has_protocol && !is_connect || has_target == (is_connect && !has_protocol) {
        return None;
    }
    // There is no `Uri` of a scheme and a path alone.
    target.scheme = scheme.filter(|_| target.authority.is_some());
    parts.uri = Uri::from_parts(target).ok()?;
    parts.version = Version::HTTP_2;
    Some((parts, has_body))
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
