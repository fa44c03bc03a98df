use super::*;

type Fields = &'static [(&'static str, &'static str)];

fn hop() -> Hop {
    Hop::new("me".into(), Hop::via("me").unwrap(), [192, 0, 2, 7].into())
}

fn parts(method: &str, target: &'static str, version: Version, fields: Fields) -> request::Parts {
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.method = method.parse().unwrap();
    parts.uri = Uri::from_static(target);
    parts.version = version;
    for (name, value) in fields {
        parts.headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    parts
}

fn parse(method: &str, target: &'static str, version: Version, fields: Fields) -> Result<RequestHead, Fault> {
    RequestHead::from_http1(parts(method, target, version, fields), &hop())
}

/// A GET with `Host: a` and these fields.
fn with(fields: Fields) -> Result<RequestHead, Fault> {
    let mut parts = parts("GET", "/x", Version::HTTP_11, fields);
    parts.headers.append(header::HOST, HeaderValue::from_static("a"));
    RequestHead::from_http1(parts, &hop())
}

fn is_malformed(result: &Result<RequestHead, Fault>) -> bool {
    matches!(result, Err(Fault::Downstream(DownstreamFault::MalformedHead)))
}

fn http2(head: RequestHead) -> Request<()> {
    head.into_http2(&Scheme::HTTP, &Authority::from_static("fallback:9000"))
}

fn http1(head: RequestHead) -> request::Parts {
    head.into_http1(&Authority::from_static("fallback:9000"))
}

fn values<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
    headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
}

#[test]
fn a_plain_request_becomes_four_pseudo_headers_and_three_fields_of_ours() {
    let head = parse("GET", "/v1/x?y=%20", Version::HTTP_11, &[("host", "a.example:80"), ("accept", "*/*")]).unwrap();
    assert_eq!((head.host(), head.path(), head.path_and_query()), (Some("a.example"), "/v1/x", "/v1/x?y=%20"));
    let request = http2(head);
    assert_eq!(request.method(), Method::GET);
    assert_eq!(request.uri(), "http://a.example:80/v1/x?y=%20");
    assert_eq!(request.version(), Version::HTTP_2);
    let mut names: Vec<_> = request.headers().keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["accept", "via", "x-forwarded-for", "x-forwarded-proto"]);
    assert_eq!(request.headers()["via"], "1.1 me");
    assert_eq!(request.headers()["x-forwarded-for"], "192.0.2.7");
}

#[test]
fn fields_named_by_any_connection_line_are_removed() {
    let head = with(&[
        ("connection", "close, X-Internal-Auth"),
        ("x-internal-auth", "secret"),
        ("connection", " keep-alive ,,\tx-other, not a token, TE"),
        ("x-other", "1"),
        ("x-other", "2"),
        ("te", "trailers"),
        ("x-kept", "1"),
    ])
    .unwrap();
    for name in ["connection", "x-internal-auth", "x-other"] {
        assert!(!head.headers().contains_key(name), "{name}");
    }
    assert_eq!(values(head.headers(), "te"), ["trailers"]);
    assert_eq!(values(head.headers(), "x-kept"), ["1"]);
}

#[test]
fn connection_cannot_remove_what_is_meant_for_everyone_nor_what_we_add() {
    let mut fields = parts(
        "POST",
        "/",
        Version::HTTP_11,
        &[
            ("host", "a"),
            ("connection", "host, cookie, authorization, content-length, content-type, via, x-forwarded-for"),
            ("connection", "x-forwarded-proto, te"),
            ("cookie", "a=b"),
            ("authorization", "Basic x"),
            ("content-length", "3"),
            ("content-type", "text/plain"),
        ],
    );
    fields.headers.append("via", HeaderValue::from_static("1.0 other"));
    let head = RequestHead::from_http1(fields, &hop()).unwrap();
    assert_eq!(head.host(), Some("a"));
    for name in ["cookie", "authorization", "content-length", "content-type", "x-forwarded-for", "x-forwarded-proto"] {
        assert!(head.headers().contains_key(name), "{name}");
    }
    assert_eq!(values(head.headers(), "via"), ["1.0 other", "1.1 me"]);
}

#[test]
fn the_expectation_of_a_body_goes_on_and_of_none_does_not() {
    let mut head = with(&[("expect", "100-Continue")]).unwrap();
    assert!(head.clone().expects_continue(true));
    assert_eq!(values(head.headers(), "expect"), ["100-continue"]);
    assert!(!head.expects_continue(false));
    assert!(!head.headers().contains_key("expect"));
}

#[test]
fn a_grpc_caller_says_how_long_it_waits() {
    let timeout = |fields| with(fields).unwrap().grpc_timeout();
    let quarter = Some(Duration::from_millis(250));
    assert_eq!(timeout(&[("content-type", "application/grpc+proto"), ("grpc-timeout", "250m")]), quarter);
    assert_eq!(timeout(&[("content-type", "application/grpc"), ("grpc-timeout", "soon")]), None);
    assert_eq!(timeout(&[("content-type", "application/json"), ("grpc-timeout", "250m")]), None);
}

#[test]
fn fields_for_this_hop_are_removed_even_if_connection_does_not_name_them() {
    let head = with(&[
        ("proxy-connection", "keep-alive"),
        ("keep-alive", "timeout=5"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "websocket"),
        ("http2-settings", "AAMAAABk"),
        ("expect", "the worst"),
        ("te", "gzip"),
    ])
    .unwrap();
    let names: Vec<_> = head.headers().keys().map(HeaderName::as_str).collect();
    assert_eq!(names.len(), 3, "{names:?}");
}

#[test]
fn te_is_trailers_or_nothing() {
    assert_eq!(values(with(&[("te", "gzip, Trailers;q=0")]).unwrap().headers(), "te"), [""; 0]);
    assert_eq!(values(with(&[("te", "gzip"), ("te", "deflate, Trailers")]).unwrap().headers(), "te"), ["trailers"]);
    assert_eq!(values(with(&[("te", "trailersx")]).unwrap().headers(), "te"), [""; 0]);
}

#[test]
fn what_the_client_says_about_forwarding_is_not_believed() {
    let head = with(&[
        ("forwarded", "for=1.2.3.4"),
        ("x-forwarded-for", "1.2.3.4"),
        ("x-forwarded-for", "5.6.7.8"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "evil"),
        ("x-forwarded-port", "1"),
        ("x-forwarded-client-cert", "Subject=admin"),
        ("x-real-ip", "1.2.3.4"),
    ])
    .unwrap();
    let names: Vec<_> = head.headers().keys().map(HeaderName::as_str).collect();
    assert_eq!(names.len(), 3, "{names:?}");
    assert_eq!(values(head.headers(), "x-forwarded-for"), ["192.0.2.7"]);
    assert_eq!(values(head.headers(), "x-forwarded-proto"), ["http"]);
}

#[test]
fn a_request_that_passed_here_before_is_a_loop() {
    let is_loop = |via| {
        let mut parts = parts("GET", "/", Version::HTTP_11, &[("host", "a")]);
        parts.headers.append(header::VIA, HeaderValue::from_static(via));
        matches!(RequestHead::from_http1(parts, &hop()), Err(Fault::Proxy(ProxyFault::Loop)))
    };
    assert!(is_loop("1.1 me"));
    assert!(is_loop("1.0 other (a comment), HTTP/2 ME"));
    assert!(!is_loop("1.1 you"));
    assert!(!is_loop("1.1 you (1.1 me)"));
}

#[test]
fn exactly_one_valid_host_is_required() {
    for fields in [&[][..], &[("host", "a"), ("host", "a")], &[("host", "")], &[("host", "a@b")], &[("host", "a b")]] {
        assert!(is_malformed(&parse("GET", "/", Version::HTTP_11, fields)), "{fields:?}");
    }
    assert!(is_malformed(&parse("GET", "http://a/", Version::HTTP_11, &[])));
}

#[test]
fn an_absolute_target_must_name_the_same_place_as_host() {
    let host_of = |target, host: Fields| {
        parse("GET", target, Version::HTTP_11, host).ok().map(|head| http2(head).uri().to_string())
    };
    assert_eq!(host_of("http://A.example/x", &[("host", "a.example:80")]), Some("http://A.example/x".into()));
    assert_eq!(host_of("https://a:443/x", &[("host", "a")]), Some("http://a:443/x".into()));
    assert_eq!(host_of("http://a:8080/", &[("host", "a")]), None);
    assert_eq!(host_of("http://b/", &[("host", "a")]), None);
    assert_eq!(host_of("http://u:p@a/", &[("host", "a")]), None);
    assert_eq!(host_of("http://a:0/", &[("host", "a:0")]), None);
    assert_eq!(host_of("ftp://a/", &[("host", "a")]), None);
}

#[test]
fn http10_may_leave_host_out_and_is_named_in_via() {
    let head = parse("GET", "/", Version::HTTP_10, &[]).unwrap();
    assert_eq!((head.host(), head.authority()), (None, None));
    assert_eq!(head.headers()["via"], "1.0 me");
    assert_eq!(http2(head.clone()).uri(), "http://fallback:9000/");
    assert_eq!(http1(head).headers[header::HOST], "fallback:9000");
    assert_eq!(parse("GET", "http://a/", Version::HTTP_10, &[]).unwrap().host(), Some("a"));
    assert!(is_malformed(&parse("GET", "/", Version::HTTP_10, &[("host", "a"), ("host", "a")])));
    assert!(is_malformed(&parse("GET", "/", Version::HTTP_10, &[("host", "")])));
}

#[test]
fn connect_and_trace_are_not_carried() {
    for (method, target) in [("CONNECT", "a:80"), ("TRACE", "/")] {
        let result = parse(method, target, Version::HTTP_11, &[("host", "a")]);
        assert!(matches!(result, Err(Fault::Downstream(DownstreamFault::MethodNotAllowed))), "{method}");
    }
}

#[test]
fn options_asterisk_stays_asterisk_on_both_sides() {
    let head = parse("OPTIONS", "*", Version::HTTP_11, &[("host", "a")]).unwrap();
    assert_eq!(head.path(), "*");
    assert_eq!(http2(head.clone()).uri().path_and_query().unwrap(), "*");
    assert_eq!(http1(head).uri.to_string(), "*");
}

#[test]
fn options_counts_max_forwards_down_and_is_not_answered_for_the_service() {
    let head = |value: Fields| parse("OPTIONS", "/", Version::HTTP_11, value);
    assert_eq!(head(&[("host", "a"), ("max-forwards", "10")]).unwrap().headers()["max-forwards"], "9");
    let last = head(&[("host", "a"), ("max-forwards", "0")]);
    assert!(matches!(last, Err(Fault::Downstream(DownstreamFault::MethodNotAllowed))));
    assert!(is_malformed(&head(&[("host", "a"), ("max-forwards", "-1")])));
    assert_eq!(with(&[("max-forwards", "0")]).unwrap().headers()["max-forwards"], "0");
}

#[test]
fn ambiguous_framing_is_malformed() {
    let cases: [Fields; 10] = [
        &[("content-length", "1"), ("transfer-encoding", "chunked")],
        &[("content-length", "1"), ("content-length", "1")],
        &[("content-length", "+1")],
        &[("content-length", "1, 1")],
        &[("content-length", "")],
        &[("transfer-encoding", "xchunked")],
        &[("transfer-encoding", "chunked, chunked")],
        &[("transfer-encoding", "gzip, chunked")],
        &[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
        &[("transfer-encoding", "identity")],
    ];
    for fields in cases {
        assert!(is_malformed(&with(fields)), "{fields:?}");
    }
    assert!(is_malformed(&parse("POST", "/", Version::HTTP_10, &[("host", "a"), ("transfer-encoding", "chunked")])));
}

#[test]
fn values_that_never_come_back_and_credentials_are_not_indexed() {
    let head = with(&[
        ("x-request-id", "1"),
        ("traceparent", "2"),
        ("cookie", "a=b"),
        ("authorization", "x"),
        ("accept", "*/*"),
        ("user-agent", "curl"),
        ("x-tenant", "a"),
    ])
    .unwrap();
    let is_sensitive = |name: &str| head.headers()[name].is_sensitive();
    for name in ["x-request-id", "traceparent", "cookie", "authorization", "x-forwarded-for"] {
        assert!(is_sensitive(name), "{name}");
    }
    for name in ["accept", "user-agent", "x-tenant", "via", "x-forwarded-proto"] {
        assert!(!is_sensitive(name), "{name}");
    }
}

#[test]
fn http1_gets_one_host_first_and_every_other_field_once() {
    let head = with(&[("x-a", "1"), ("accept", "*/*"), ("x-a", "2"), ("connection", "close")]).unwrap();
    let parts = http1(head);
    let fields: Vec<_> = parts.headers.iter().map(|(n, v)| (n.as_str(), v.to_str().unwrap())).collect();
    assert_eq!(fields[0], ("host", "a"));
    assert_eq!(fields.iter().filter(|(name, _)| *name == "host").count(), 1);
    assert_eq!(values(&parts.headers, "x-a"), ["1", "2"]);
    assert_eq!(fields.len(), 7);
    assert_eq!((parts.uri.to_string().as_str(), parts.version), ("/x", Version::HTTP_11));
}

#[test]
fn services_get_cookie_crumbs_in_one_line() {
    let head = with(&[("cookie", "a=b"), ("accept", "*/*"), ("cookie", "c=d; e=f")]).unwrap();
    assert_eq!(values(http2(head.clone()).headers(), "cookie"), ["a=b; c=d; e=f"]);
    let parts = http1(head);
    assert_eq!(values(&parts.headers, "cookie"), ["a=b; c=d; e=f"]);
    assert!(parts.headers["cookie"].is_sensitive());
}

#[test]
fn http1_is_told_of_a_chunked_body_and_of_te() {
    let head = with(&[("transfer-encoding", "Chunked"), ("te", "trailers")]).unwrap();
    assert!(!http2(head.clone()).headers().contains_key("transfer-encoding"));
    let parts = http1(head);
    assert_eq!(values(&parts.headers, "transfer-encoding"), ["chunked"]);
    assert_eq!(values(&parts.headers, "connection"), ["te"]);
}

#[test]
fn edits_remove_then_set() {
    let mut head = with(&[("x-a", "1"), ("x-b", "1"), ("x-b", "2")]).unwrap();
    let edits = HeaderEdits {
        set: vec![
            (HeaderName::from_static("x-b"), HeaderValue::from_static("3")),
            (header::HOST, HeaderValue::from_static("b:1")),
        ],
        remove: vec![HeaderName::from_static("x-a"), HeaderName::from_static("x-b"), header::VIA],
    };
    head.edit(&edits, None).unwrap();
    assert_eq!(values(head.headers(), "x-b"), ["3"]);
    assert!(!head.headers().contains_key("x-a") && !head.headers().contains_key("via"));
    assert_eq!(http2(head).uri(), "http://b:1/x");
}

#[test]
fn edits_cannot_break_the_framing() {
    for name in ["content-length", "transfer-encoding", "connection", "te", "keep-alive", "upgrade"] {
        let edits = HeaderEdits { set: vec![(name.parse().unwrap(), HeaderValue::from_static("1"))], remove: vec![] };
        assert_eq!(with(&[]).unwrap().edit(&edits, None), Err(ProxyFault::Internal.into()), "{name}");
    }
    for name in ["content-length", "host"] {
        let edits = HeaderEdits { set: vec![], remove: vec![name.parse().unwrap()] };
        assert_eq!(with(&[]).unwrap().edit(&edits, None), Err(ProxyFault::Internal.into()), "{name}");
    }
}

#[test]
fn a_prefix_is_replaced_as_whole_segments() {
    let rewrite = |target, prefix, replacement| {
        let mut head = parse("GET", target, Version::HTTP_11, &[("host", "a")]).unwrap();
        let edited = head.edit(&HeaderEdits::default(), Some((prefix, replacement)));
        edited.map(|()| head.path_and_query().to_owned())
    };
    // The table of the Kubernetes Gateway API's ReplacePrefixMatch.
    for (target, prefix, replacement, expected) in [
        ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
        ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
        ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
        ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
        ("/foo", "/foo", "/xyz", "/xyz"),
        ("/foo/", "/foo", "/xyz", "/xyz/"),
        ("/foo/bar", "/foo", "/", "/bar"),
        ("/foo/", "/foo", "/", "/"),
        ("/foo", "/foo", "/", "/"),
    ] {
        assert_eq!(rewrite(target, prefix, replacement), Ok(expected.to_owned()), "{target} {prefix} {replacement}");
    }
    assert_eq!(rewrite("/foo?a=b", "/foo", "/"), Ok("/?a=b".to_owned()));
    assert_eq!(rewrite("/foo//x?/foo", "/foo/", "/"), Ok("//x?/foo".to_owned()));
    assert_eq!(rewrite("/bar", "/foo", "/"), Err(ProxyFault::Internal.into()));
    assert_eq!(rewrite("/foo", "/foo", "/a b"), Err(ProxyFault::Internal.into()));
}

#[test]
fn a_target_that_grows_too_long_is_refused() {
    let mut parts = parts("GET", "/", Version::HTTP_11, &[("host", "a")]);
    parts.uri = format!("/a/{}", "x".repeat(65_000)).parse().unwrap();
    let mut head = RequestHead::from_http1(parts, &hop()).unwrap();
    let long = format!("/{}", "y".repeat(1_000));
    assert_eq!(head.edit(&HeaderEdits::default(), Some(("/a", &long))), Err(DownstreamFault::UriTooLong.into()));
}

#[test]
fn removed_cookie_crumbs_do_not_come_back_empty() {
    let mut head = with(&[("cookie", "a=b"), ("cookie", "c=d")]).unwrap();
    head.edit(&HeaderEdits { set: vec![], remove: vec![header::COOKIE] }, None).unwrap();
    assert!(!http1(head).headers.contains_key(header::COOKIE));
}
