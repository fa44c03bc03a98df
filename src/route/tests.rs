use http::{Request, Version};
use proptest::prelude::*;

use super::*;
use crate::translate::Hop;

/// A request that has passed translation.
fn head(method: &str, host: &str, path: &str, fields: &[(&'static str, &'static str)]) -> RequestHead {
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.method = method.parse().unwrap();
    parts.uri = path.parse().unwrap();
    parts.version = if host.is_empty() { Version::HTTP_10 } else { Version::HTTP_11 };
    if !host.is_empty() {
        parts.headers.insert("host", host.parse().unwrap());
    }
    for (name, value) in fields {
        parts.headers.append(*name, HeaderValue::from_static(value));
    }
    RequestHead::from_http1(parts, &Hop::new("me".into(), Hop::via("me").unwrap(), [127, 0, 0, 1].into())).unwrap()
}

fn is_match(conditions: RouteMatch, head: &RequestHead) -> bool {
    RouteTable::new([(conditions, ())]).find(head).is_some()
}

fn is_host_match(pattern: &str, host: &str) -> bool {
    is_match(RouteMatch { hosts: vec![pattern.to_owned()], ..RouteMatch::default() }, &head("GET", host, "/", &[]))
}

fn is_path_match(prefix: &str, path: &str) -> bool {
    let method = if path == "*" { "OPTIONS" } else { "GET" };
    let conditions = RouteMatch { path_prefix: Some(prefix.to_owned()), ..RouteMatch::default() };
    is_match(conditions, &head(method, "a", path, &[]))
}

#[test]
fn the_first_match_wins() {
    let on = |prefix: &str| RouteMatch { path_prefix: Some(prefix.to_owned()), ..RouteMatch::default() };
    let table = RouteTable::new([(on("/a/b"), 1), (on("/a"), 2), (on("/a/b/c"), 3), (RouteMatch::default(), 4)]);
    let find = |path| table.find(&head("GET", "a", path, &[])).copied();
    assert_eq!([find("/a/b/c"), find("/a/x"), find("/x")], [Some(1), Some(2), Some(4)]);
}

#[test]
fn a_table_without_a_match_finds_nothing() {
    let none: [(RouteMatch, ()); 0] = [];
    assert!(RouteTable::new(none).find(&head("GET", "a", "/", &[])).is_none());
    assert!(!is_path_match("/a", "/b"));
}

#[test]
fn a_catch_all_takes_every_request() {
    assert!(is_match(RouteMatch::default(), &head("OPTIONS", "", "*", &[])));
}

#[test]
fn hosts_match_without_regard_to_case_port_and_trailing_dot() {
    for host in ["api.example.com", "API.example.COM", "api.example.com:8080", "api.example.com."] {
        assert!(is_host_match("api.example.com", host), "{host}");
    }
    assert!(is_host_match("api.example.com.", "api.example.com"));
    assert!(!is_host_match("api.example.com", "example.com"));
    assert!(!is_host_match("api.example.com", "xapi.example.com"));
    assert!(!is_host_match("api.example.com", ""));
    assert!(is_host_match("[::1]", "[::1]:80"));
}

#[test]
fn a_wildcard_matches_every_subdomain_and_not_the_domain() {
    for host in ["a.example.com", "A.B.EXAMPLE.com:1", "a.example.com."] {
        assert!(is_host_match("*.example.com", host), "{host}");
    }
    for host in ["example.com", "aexample.com", "a.example.com.evil"] {
        assert!(!is_host_match("*.example.com", host), "{host}");
    }
}

#[test]
fn a_prefix_matches_whole_segments() {
    for prefix in ["/v1", "/v1/"] {
        for path in ["/v1", "/v1/", "/v1/x", "/v1//", "/v1?x", "/v1/../v2", "/v1/%2e%2e"] {
            assert!(is_path_match(prefix, path), "{prefix} {path}");
        }
        for path in ["/v10", "/v", "/", "/V1", "/%761", "//v1", "/./v1", "/x?/v1", "/v1%2fx", "*"] {
            assert!(!is_path_match(prefix, path), "{prefix} {path}");
        }
    }
}

#[test]
fn the_root_prefix_matches_every_path_but_asterisk() {
    assert!(is_path_match("/", "/") && is_path_match("/", "/x") && is_path_match("/", "//"));
    assert!(!is_path_match("/", "*"));
}

#[test]
fn methods_and_fields_must_match_exactly() {
    let get = RouteMatch { methods: vec![Method::GET, Method::HEAD], ..RouteMatch::default() };
    assert!(is_match(get.clone(), &head("HEAD", "a", "/", &[])));
    assert!(!is_match(get, &head("POST", "a", "/", &[])));
    let gold = (HeaderName::from_static("x-tier"), HeaderValue::from_static("gold"));
    let gold = RouteMatch { headers: vec![gold], ..RouteMatch::default() };
    assert!(is_match(gold.clone(), &head("GET", "a", "/", &[("x-tier", "silver"), ("x-tier", "gold")])));
    assert!(!is_match(gold.clone(), &head("GET", "a", "/", &[("x-tier", "Gold")])));
    assert!(!is_match(gold, &head("GET", "a", "/", &[])));
}

proptest! {
    #[test]
    fn a_prefix_match_is_a_match_of_its_segments(prefix in "(/[ab.]{0,2}){1,3}", path in "(/[ab.]{0,2}){1,4}") {
        let wanted: Vec<&str> = prefix.strip_suffix('/').unwrap_or(&prefix).split('/').collect();
        let found: Vec<&str> = path.split('/').collect();
        prop_assert_eq!(is_path_match(&prefix, &path), found.starts_with(&wanted) && (wanted.len() > 1 || found.len() > 1));
    }

    #[test]
    fn what_matches_a_prefix_can_be_rewritten(prefix in "(/[ab.]{0,2}){1,3}", path in "(/[ab.]{0,2}){1,4}") {
        if is_path_match(&prefix, &path) {
            let mut head = head("GET", "a", &path, &[]);
            prop_assert!(head.edit(&crate::config::HeaderEdits::default(), Some((&prefix, "/"))).is_ok());
            prop_assert!(head.path().starts_with('/'));
        }
    }
}
