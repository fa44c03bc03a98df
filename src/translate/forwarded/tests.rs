use http::header::CONNECTION;
use http::{Request, Version};
use proptest::prelude::*;

use super::super::{Hop, RequestHead};
use super::*;

type Fields<'a> = &'a [(&'a str, &'a str)];

fn trusted(list: &[&str]) -> Vec<TrustedPeer> {
    let one = |text: &&str| match *text {
        "unix" => TrustedPeer::Unix,
        text => TrustedPeer::Network(text.parse().or_else(|_| text.parse::<IpAddr>().map(Into::into)).unwrap()),
    };
    list.iter().map(one).collect()
}

fn ip(text: &str) -> ClientAddress {
    ClientAddress::from(text.parse::<IpAddr>().unwrap())
}

fn headers(fields: Fields<'_>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    headers
}

/// Who the client is behind 10.0.0.1, where 10.0.0.0/8 and `::1` are trusted.
fn client_of(fields: Fields<'_>) -> String {
    client(&headers(fields), ip("10.0.0.1"), &trusted(&["10.0.0.0/8", "::1"])).to_string()
}

fn hop(peer: ClientAddress, list: &[&str]) -> Hop {
    let identity = super::super::Identity::new("me").unwrap();
    Hop::of(&identity.into(), peer, &trusted(list).into())
}

/// What goes on of a request with these fields.
fn passed(hop: &Hop, fields: HeaderMap) -> HeaderMap {
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.version = Version::HTTP_11;
    parts.headers = fields;
    parts.headers.insert("host", HeaderValue::from_static("a"));
    RequestHead::from_http1(parts, hop).unwrap().headers().clone()
}

fn values<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
    headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
}

#[test]
fn the_client_is_the_last_address_that_is_not_trusted() {
    for (list, client) in [
        ("203.0.113.9", "203.0.113.9"),
        ("1.1.1.1, 203.0.113.9", "203.0.113.9"),
        ("1.1.1.1, 203.0.113.9, 10.0.0.7", "203.0.113.9"),
        ("1.1.1.1,203.0.113.9 ,\t::1,10.0.0.7:443", "203.0.113.9"),
        ("203.0.113.9:51000", "203.0.113.9"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:51000", "2001:db8::1"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("1.1.1.1, ::ffff:10.0.0.9", "1.1.1.1"),
        ("203.0.113.9, ,", "203.0.113.9"),
        // Nobody but proxies of ours: the first of them.
        ("10.0.0.9, 10.0.0.8", "10.0.0.9"),
    ] {
        assert_eq!(client_of(&[("x-forwarded-for", list)]), client, "{list}");
    }
}

#[test]
fn a_list_counts_from_the_right_as_far_as_it_can_be_read() {
    for (list, client) in [
        ("", "10.0.0.1"),
        (" , ,", "10.0.0.1"),
        ("1.1.1.1, unknown", "10.0.0.1"),
        ("1.1.1.1, _hidden, 10.0.0.7", "10.0.0.7"),
        ("1.1.1.1, 999.1.1.1, 10.0.0.7", "10.0.0.7"),
        ("1.1.1.1, 2.2.2.2:, 10.0.0.7", "10.0.0.7"),
        ("1.1.1.1, 2.2.2.2:123456, 10.0.0.7", "10.0.0.7"),
        ("1.1.1.1, [::2, 10.0.0.7", "10.0.0.7"),
        ("1.1.1.1, [::2]x, 10.0.0.7", "10.0.0.7"),
        ("1.1.1.1, [2.2.2.2], 10.0.0.7", "10.0.0.7"),
        ("1.1.1.1, fe80::1%eth0, 10.0.0.7", "10.0.0.7"),
        ("1.1.1.1 2.2.2.2, 10.0.0.7", "10.0.0.7"),
        ("1.1.1.1, \u{e4}, 10.0.0.7", "10.0.0.7"),
    ] {
        let mut fields = HeaderMap::new();
        fields.insert(X_FORWARDED_FOR, HeaderValue::from_bytes(list.as_bytes()).unwrap());
        let found = super::client(&fields, ip("10.0.0.1"), &trusted(&["10.0.0.0/8"]));
        assert_eq!(found, ip(client), "{list}");
    }
}

#[test]
fn the_last_line_is_the_nearest() {
    let name = "x-forwarded-for";
    assert_eq!(client_of(&[(name, "1.1.1.1"), (name, "2.2.2.2, 10.0.0.7")]), "2.2.2.2");
    assert_eq!(client_of(&[(name, "1.1.1.1"), (name, "10.0.0.7"), (name, "")]), "1.1.1.1");
    assert_eq!(client_of(&[("forwarded", "for=1.1.1.1"), ("forwarded", "for=10.0.0.7")]), "1.1.1.1");
}

#[test]
fn forwarded_names_the_client_where_there_is_no_x_forwarded_for() {
    for (list, client) in [
        ("for=203.0.113.9", "203.0.113.9"),
        ("For=1.1.1.1;proto=https, proto=http; FOR=203.0.113.9 ;by=_x", "203.0.113.9"),
        ("for=1.1.1.1, for=\"203.0.113.9:51000\", for=10.0.0.7", "203.0.113.9"),
        ("for=\"[2001:db8::1]:_port\";host=\"a,b;c\\\"d\\\\\"", "2001:db8::1"),
        ("for=\"[\\2001:db8::1]\"", "2001:db8::1"),
        // Should be quoted, and cannot be misread.
        ("for=[2001:db8::1]:80", "2001:db8::1"),
        ("for=203.0.113.9:80", "203.0.113.9"),
        ("for=203.0.113.9;;proto=http;, ,", "203.0.113.9"),
        ("for=1.1.1.1, for=unknown", "10.0.0.1"),
        ("for=1.1.1.1, for=_hidden, for=10.0.0.7", "10.0.0.7"),
        ("for=1.1.1.1, proto=https, for=10.0.0.7", "10.0.0.7"),
        ("for=1.1.1.1, for=2.2.2.2;for=3.3.3.3, for=10.0.0.7", "10.0.0.7"),
        ("for=1.1.1.1, for, for=10.0.0.7", "10.0.0.7"),
        ("for=1.1.1.1, for=, for=10.0.0.7", "10.0.0.7"),
        ("for=1.1.1.1, for=\"2.2.2.2\"x, for=10.0.0.7", "10.0.0.7"),
        ("for=1.1.1.1, for=2.2.2.2 proto=http, for=10.0.0.7", "10.0.0.7"),
        ("for=1.1.1.1, f or=2.2.2.2, for=10.0.0.7", "10.0.0.7"),
        // A quote that a client has left open hides nothing.
        ("for=\"1.1.1.1, for=203.0.113.9", "203.0.113.9"),
        ("for=\"1.1.1.1\\\", for=203.0.113.9, for=\"[::1]\"", "203.0.113.9"),
        ("1.1.1.1", "10.0.0.1"),
    ] {
        assert_eq!(client_of(&[("forwarded", list)]), client, "{list}");
    }
    assert_eq!(client_of(&[("forwarded", "for=1.1.1.1"), ("x-forwarded-for", "2.2.2.2")]), "2.2.2.2");
    assert_eq!(client_of(&[("forwarded", "for=1.1.1.1"), ("x-forwarded-for", "unknown")]), "10.0.0.1");
}

#[test]
fn only_trusted_peers_are_asked_who_the_client_is() {
    let fields = headers(&[("x-forwarded-for", "203.0.113.9"), ("forwarded", "for=203.0.113.9")]);
    for (peer, list, client) in [
        (ip("10.0.0.1"), &[][..], ip("10.0.0.1")),
        (ip("192.0.2.1"), &["10.0.0.0/8"], ip("192.0.2.1")),
        (ip("::1"), &["unix", "127.0.0.0/8"], ip("::1")),
        (ClientAddress::Unix, &["0.0.0.0/0", "::/0"], ClientAddress::Unix),
        (ip("10.0.0.1"), &["10.0.0.1"], ip("203.0.113.9")),
        (ip("::ffff:10.0.0.1"), &["10.0.0.0/8"], ip("203.0.113.9")),
        (ClientAddress::Unix, &["unix"], ip("203.0.113.9")),
    ] {
        assert_eq!(hop(peer, list).client_of(&fields), client, "{peer} among {list:?}");
    }
}

#[test]
fn a_trusted_peer_is_added_to_what_it_says() {
    let hop = hop(ip("10.0.0.1"), &["10.0.0.0/8"]);
    let passed = passed(
        &hop,
        headers(&[
            ("x-forwarded-for", "1.1.1.1,2.2.2.2"),
            ("x-forwarded-for", ""),
            ("x-forwarded-for", "3.3.3.3"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "a.example"),
            ("x-forwarded-port", "443"),
            ("x-forwarded-prefix", "/app"),
            ("x-real-ip", "1.1.1.1"),
            ("forwarded", "for=1.1.1.1;proto=https"),
            ("forwarded", "for=\"[::2]\""),
        ]),
    );
    for (name, value) in [
        ("x-forwarded-for", "1.1.1.1,2.2.2.2, 3.3.3.3, 10.0.0.1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "a.example"),
        ("x-forwarded-port", "443"),
        ("x-forwarded-prefix", "/app"),
        ("x-real-ip", "1.1.1.1"),
        ("forwarded", "for=1.1.1.1;proto=https, for=\"[::2]\", for=10.0.0.1;proto=http"),
    ] {
        assert_eq!(values(&passed, name), [value], "{name}");
    }
    for name in ["x-forwarded-for", "forwarded", "x-real-ip"] {
        assert!(passed[name].is_sensitive(), "{name} would fill the HPACK table");
    }
}

#[test]
fn what_a_trusted_peer_leaves_out_is_said_as_to_anybody() {
    let passed = passed(&hop(ip("10.0.0.1"), &["10.0.0.0/8"]), HeaderMap::new());
    assert_eq!(values(&passed, "x-forwarded-for"), ["10.0.0.1"]);
    assert_eq!(values(&passed, "x-forwarded-proto"), ["http"]);
    for name in ["forwarded", "x-real-ip", "x-forwarded-host", "x-forwarded-port"] {
        assert!(!passed.contains_key(name), "{name}");
    }
}

#[test]
fn a_unix_peer_has_no_address_to_add() {
    let fields = || headers(&[("x-forwarded-for", "1.1.1.1"), ("forwarded", "for=1.1.1.1")]);
    let unknown = passed(&hop(ClientAddress::Unix, &[]), fields());
    assert_eq!((values(&unknown, "x-forwarded-for"), values(&unknown, "forwarded")), (vec![], vec![]));
    assert_eq!(values(&unknown, "x-forwarded-proto"), ["http"]);
    let believed = passed(&hop(ClientAddress::Unix, &["unix"]), fields());
    assert_eq!(values(&believed, "x-forwarded-for"), ["1.1.1.1"]);
    assert_eq!(values(&believed, "forwarded"), ["for=1.1.1.1, for=unknown;proto=http"]);
    let silent = passed(&hop(ClientAddress::Unix, &["unix"]), headers(&[("x-forwarded-for", "")]));
    assert_eq!(values(&silent, "x-forwarded-for"), [""; 0]);
}

#[test]
fn what_cannot_be_read_of_forwarded_goes_no_further() {
    for (lines, said) in [
        (&["for=\"1.1.1.1, for=2.2.2.2"][..], "for=2.2.2.2, "),
        (&["for=1.1.1.1", "for=\"x", "for=2.2.2.2"], "for=2.2.2.2, "),
        (&["for=1.1.1.1, nonsense, for=2.2.2.2 , for=3.3.3.3"], "for=2.2.2.2 , for=3.3.3.3, "),
        (&["nonsense"], ""),
        (&[""], ""),
    ] {
        let fields: Vec<_> = lines.iter().map(|line| ("forwarded", *line)).collect();
        let passed = passed(&hop(ip("2001:db8::7"), &["2001:db8::/32"]), headers(&fields));
        assert_eq!(values(&passed, "forwarded"), [format!("{said}for=\"[2001:db8::7]\";proto=http")], "{lines:?}");
    }
}

#[test]
fn who_looks_at_x_forwarded_for_only_learns_what_forwarded_says() {
    let forwarded = "for=1.1.1.1, for=\"[2001:db8::1]:80\";proto=https, for=10.0.0.7";
    let passed = passed(&hop(ip("10.0.0.1"), &["10.0.0.0/8"]), headers(&[("forwarded", forwarded)]));
    assert_eq!(values(&passed, "x-forwarded-for"), ["2001:db8::1, 10.0.0.7, 10.0.0.1"]);
}

#[test]
fn connection_cannot_take_away_what_a_trusted_peer_says() {
    let names =
        ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port", "x-real-ip", "forwarded"];
    let mut fields = HeaderMap::new();
    for name in names {
        fields.insert(name, HeaderValue::from_static("for=1.1.1.1"));
    }
    fields.insert(CONNECTION, HeaderValue::from_str(&names.join(", ")).unwrap());
    let passed = passed(&hop(ip("10.0.0.1"), &["10.0.0.1"]), fields);
    for name in names {
        assert!(values(&passed, name)[0].starts_with("for=1.1.1.1"), "{name}");
    }
}

/// Whatever a client may write into a field, with what matters here more often than by chance.
fn garbage() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        2 => prop::sample::select(vec![
            "for=", "proto=http", "\"", "\\", ",", ";", "=", " ", "1.1.1.1", "10.0.0.9", "[::1]", "unknown", ":80", "for=\"",
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(prop_oneof![0x20_u8..0x7f, 0x80_u8..=0xff], 0..4),
    ];
    prop::collection::vec(part, 0..16).prop_map(|parts| parts.concat())
}

fn addresses() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<u32>().prop_map(|bits| IpAddr::V4(bits.into())),
        any::<u128>().prop_map(|bits| IpAddr::V6(bits.into()))
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn a_client_behind_a_trusted_proxy_cannot_choose_its_address(
        said in garbage(), client in addresses(), has_lines in any::<bool>(), is_rfc in any::<bool>(),
    ) {
        let trust = ["10.0.0.0/8"];
        prop_assume!(!is_trusted(client.into(), &trusted(&trust)));
        let name = if is_rfc { FORWARDED } else { X_FORWARDED_FOR };
        // As the proxy writes it, then another one of ours.
        let node = if is_rfc { element(client) } else { client.to_string() };
        let last = if is_rfc { "for=10.0.0.7" } else { "10.0.0.7" };
        let mut fields = HeaderMap::new();
        if has_lines {
            fields.append(&name, HeaderValue::from_bytes(&said).unwrap());
            fields.append(&name, HeaderValue::from_str(&node).unwrap());
            fields.append(&name, HeaderValue::from_static(last));
        } else {
            let line = [said, node.into_bytes(), last.as_bytes().to_vec()].join(&b", "[..]);
            fields.append(&name, HeaderValue::from_bytes(&line).unwrap());
        }
        let hop = hop(ip("10.0.0.1"), &trust);
        prop_assert_eq!(hop.client_of(&fields), client.into());
        // Nor can it keep the next one from reading the same.
        let passed = passed(&hop, fields);
        prop_assert_eq!(hop.client_of(&passed), client.into());
        prop_assert_eq!(passed.get_all(&name).iter().count(), 1);
    }

    #[test]
    fn whatever_a_trusted_peer_says_the_way_on_can_be_read_and_ends_with_it(
        lists in prop::collection::vec((any::<bool>(), garbage()), 0..4), peer in addresses(),
    ) {
        let mut fields = HeaderMap::new();
        for (is_rfc, line) in lists {
            let name = if is_rfc { FORWARDED } else { X_FORWARDED_FOR };
            fields.append(name, HeaderValue::from_bytes(&line).unwrap());
        }
        let hop = hop(peer.into(), &["0.0.0.0/0", "::/0"]);
        let _never_a_panic = hop.client_of(&fields);
        let passed = passed(&hop, fields.clone());
        let lists: Vec<_> = passed.get_all(X_FORWARDED_FOR).iter().collect();
        prop_assert_eq!(lists.len(), 1);
        let last = lists[0].as_bytes().rsplit(|byte| *byte == b',').next().and_then(|node| address(node.trim_ascii()));
        prop_assert_eq!(last.map(|ip| ip.to_canonical()), Some(peer.to_canonical()));
        prop_assert_eq!(passed.contains_key(FORWARDED), fields.contains_key(FORWARDED));
        for line in passed.get_all(FORWARDED) {
            let elements: Vec<_> = FromRight::new(line.as_bytes()).map(|(_, text)| Element::parse(text)).collect();
            prop_assert!(elements.iter().all(Option::is_some), "{:?}", line);
            let node = elements[0].as_ref().and_then(|element| address(element.node.as_ref()?));
            prop_assert_eq!(node.map(|ip| ip.to_canonical()), Some(peer.to_canonical()));
        }
    }
}

fn element(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => format!("for={ip};proto=https"),
        IpAddr::V6(ip) => format!("proto=https;for=\"[{ip}]:_port\""),
    }
}
