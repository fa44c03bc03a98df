use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

/// What comes of a connection that begins with `bytes`, and how many of them have been read; `None` if more are missing.
fn read(bytes: &[u8], mut piece: impl FnMut(usize) -> usize) -> (Option<Look>, usize) {
    let mut taken = 0;
    loop {
        match look(&bytes[..taken]) {
            Look::More(missing) => {
                assert!(missing > 0);
                if taken == bytes.len() {
                    return (None, taken);
                }
                taken += piece(missing).clamp(1, missing).min(bytes.len() - taken);
            }
            found => return (Some(found), taken),
        }
    }
}

fn whole(bytes: &[u8]) -> (Option<Look>, usize) {
    read(bytes, |missing| missing)
}

fn header(source: &str) -> Look {
    Look::Header(Some(source.parse().unwrap()))
}

fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [v2::PROTOCOL_PREFIX, &[command, family], &length, rest].concat()
}

const V4: [u8; 12] = [203, 0, 113, 9, 10, 0, 0, 1, 0xc7, 0x38, 1, 0xbb];

#[test]
fn version_1_names_the_source() {
    for (line, source) in [
        ("PROXY TCP4 203.0.113.9 10.0.0.1 51000 443\r\n", "203.0.113.9:51000"),
        ("PROXY TCP4 1.1.1.1 2.2.2.2 0 0\r\n", "1.1.1.1:0"),
        ("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", "255.255.255.255:65535"),
        ("PROXY TCP6 :: :: 1 1\r\n", "[::]:1"),
        ("PROXY TCP6 2001:db8::9 2001:db8::1 51000 443\r\n", "[2001:db8::9]:51000"),
    ] {
        assert_eq!(whole(line.as_bytes()), (Some(header(source)), line.len()), "{line}");
    }
}

#[test]
fn what_has_no_source_leaves_the_connections_own() {
    let unix = [b'/'; 216];
    for bytes in [
        b"PROXY UNKNOWN\r\n".to_vec(),
        b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535 and so on\r\n".to_vec(),
        // LOCAL, whatever else it says.
        v2(0x20, 0x00, &[]),
        v2(0x20, 0x11, &V4),
        v2(0x20, 0x11, &[]),
        v2(0x20, 0xff, &[1, 2, 3]),
        // UNSPEC, with what may follow; datagrams; Unix sockets.
        v2(0x21, 0x00, &[]),
        v2(0x21, 0x00, &[4, 0, 1, 0]),
        v2(0x21, 0x12, &V4),
        v2(0x21, 0x31, &unix),
    ] {
        assert_eq!(whole(&bytes), (Some(Look::Header(None)), bytes.len()), "{}", bytes.escape_ascii());
    }
}

#[test]
fn version_2_names_the_source_whatever_follows_the_addresses() {
    let tlvs = [0x03, 0, 4, 1, 2, 3, 4, 0xee, 0, 0];
    let v6 = [[0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]; 2].concat();
    for (bytes, source) in [
        (v2(0x21, 0x11, &V4), "203.0.113.9:51000"),
        (v2(0x21, 0x11, &[&V4[..], &tlvs].concat()), "203.0.113.9:51000"),
        // What is wrong with them is not ours to judge.
        (v2(0x21, 0x11, &[&V4[..], &[1, 0xff]].concat()), "203.0.113.9:51000"),
        (v2(0x21, 0x21, &[&v6[..], &[0xc7, 0x38, 1, 0xbb]].concat()), "[2001:db8::9]:51000"),
        (v2(0x21, 0x11, &[&V4[..], &[0; V2_BYTES_MAX - V2_HEAD_BYTES - 12]].concat()), "203.0.113.9:51000"),
    ] {
        assert_eq!(whole(&bytes), (Some(header(source)), bytes.len()), "{}", bytes.escape_ascii());
    }
}

#[test]
fn what_is_no_header_is_known_by_its_first_bytes() {
    for bytes in [
        &b"GET / HTTP/1.1\r\n"[..],
        b"POST / HTTP",
        b"PRI * HTTP/2.0\r\n\r\n",
        b"PROXYTCP4 1.1.1.1",
        b"\r\nGET / HTTP",
        b"\x16\x03\x01\x02\x00",
    ] {
        let (found, taken) = whole(bytes);
        assert_eq!(found, Some(Look::Foreign), "{}", bytes.escape_ascii());
        assert!(taken <= V1_BYTES_MIN);
    }
    assert_eq!(read(b"PROPFIND / HTTP/1.1\r\n", |_| 1), (Some(Look::Foreign), 4));
}

#[test]
fn what_breaks_the_rules_is_malformed() {
    for line in [
        "PROXY TCP4 203.0.113.9 10.0.0.1 51000 443\n",
        "PROXY TCP4 203.0.113.9 10.0.0.1 51000\r\n",
        "PROXY TCP4 203.0.113.9 10.0.0.1 51000 443 1\r\n",
        "PROXY TCP4 203.0.113.9 10.0.0.1 51000 65536\r\n",
        "PROXY TCP4 203.0.113.9  10.0.0.1 51000 443\r\n",
        "PROXY TCP4 203.0.113.256 10.0.0.1 51000 443\r\n",
        "PROXY TCP4 2001:db8::9 10.0.0.1 51000 443\r\n",
        "PROXY TCP6 203.0.113.9 10.0.0.1 51000 443\r\n",
        "PROXY TCP4 203.0.113.9 10.0.0.1 051000 443\r\n",
        "PROXY UDP4 203.0.113.9 10.0.0.1 51000 443\r\n",
        "PROXY UNKNOWNS 1\r\n",
        "PROXY UNKNOWN\rx\n",
        "PROXY \u{e4} 203.0.113.9 10.0.0.1 51000 443\r\n",
        "PROXY \n         ",
    ] {
        assert_eq!(whole(line.as_bytes()).0, Some(Look::Malformed), "{line:?}");
    }
    for bytes in [
        v2(0x11, 0x11, &V4),
        v2(0x22, 0x11, &V4),
        v2(0x21, 0x41, &V4),
        v2(0x21, 0x13, &V4),
        v2(0x21, 0x11, &V4[..11]),
        v2(0x21, 0x21, &V4),
        v2(0x21, 0x31, &V4),
    ] {
        assert_eq!(whole(&bytes).0, Some(Look::Malformed), "{}", bytes.escape_ascii());
    }
}

#[test]
fn headers_are_bounded() {
    let line = format!("PROXY UNKNOWN {}\r\n", "x".repeat(V1_BYTES_MAX - 16));
    assert_eq!((line.len(), whole(line.as_bytes())), (V1_BYTES_MAX, (Some(Look::Header(None)), V1_BYTES_MAX)));
    let line = format!("PROXY UNKNOWN {}\r\n", "x".repeat(V1_BYTES_MAX - 15));
    assert_eq!(whole(line.as_bytes()), (Some(Look::TooLong), V1_BYTES_MAX));
    let bytes = v2(0x21, 0x11, &[0; V2_BYTES_MAX - V2_HEAD_BYTES + 1]);
    assert_eq!(whole(&bytes), (Some(Look::TooLong), V2_HEAD_BYTES), "known before the rest is read");
}

fn sources() -> impl Strategy<Value = (IpAddr, u16)> {
    let ip = prop_oneof![
        any::<u32>().prop_map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits))),
        any::<u128>().prop_map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits))),
        Just(IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
    ];
    (ip, any::<u16>())
}

fn encoded(source: (IpAddr, u16), is_v2: bool, more: &[u8]) -> Vec<u8> {
    let family = if source.0.is_ipv4() { 4 } else { 6 };
    let (ip, port) = source;
    if !is_v2 {
        return format!("PROXY TCP{family} {ip} {ip} {port} {port}\r\n").into_bytes();
    }
    let ip = match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let port = port.to_be_bytes();
    v2(0x21, if family == 4 { 0x11 } else { 0x21 }, &[&ip[..], &ip, &port, &port, more].concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn a_header_is_read_to_its_end_and_no_further_however_it_comes(
        source in sources(),
        is_v2 in any::<bool>(),
        more in prop::collection::vec(any::<u8>(), 0..64),
        behind in prop::collection::vec(any::<u8>(), 0..64),
        pieces in prop::collection::vec(1_usize..40, 1..20),
    ) {
        let bytes = encoded(source, is_v2, &more);
        let mut pieces = pieces.into_iter().cycle();
        let read = read(&[&bytes[..], &behind].concat(), |_| pieces.next().unwrap());
        prop_assert_eq!(read, (Some(Look::Header(Some(source.into()))), bytes.len()));
    }

    #[test]
    fn whatever_comes_an_answer_is_found_within_the_bounds(
        begin in prop::sample::select(vec![&b""[..], b"PROXY ", b"PROXY TCP4 ", b"PROXY UNKNOWN ", v2::PROTOCOL_PREFIX]),
        bytes in prop::collection::vec(any::<u8>(), 0..6000),
    ) {
        let (found, taken) = whole(&[begin, &bytes].concat());
        prop_assert!(taken <= V2_BYTES_MAX);
        prop_assert!(found.is_some() || taken == begin.len() + bytes.len());
    }
}
