//! What trusted proxies in front of us say about forwarding: who the client is, and what is said on.
//!
//! Lists are read from the right, where the nearest proxy writes, and only as far as the writers are trusted. Whatever a
//! client has written stands to the left of that, so that it can neither choose its address nor, by a quote that it
//! leaves open, hide what others append.
//!
//! `X-Forwarded-For` decides if it is there, `Forwarded` without it.
//!
//! Pure; only for requests of trusted peers. RFC 7239; `X-Forwarded-For` has no RFC.

use std::net::{IpAddr, Ipv6Addr};

use bytes::Bytes;
use http::header::FORWARDED;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::client_address::ClientAddress;
use super::fields::members;
use crate::config::TrustedPeer;

pub(super) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Whether an address is among those whose words are believed.
pub fn is_trusted(address: ClientAddress, trusted: &[TrustedPeer]) -> bool {
    trusted.iter().any(|peer| match (peer, address) {
        (TrustedPeer::Network(network), ClientAddress::Ip(ip)) => network.contains(&ip),
        (TrustedPeer::Unix, ClientAddress::Unix) => true,
        _ => false,
    })
}

/// The client of a request that comes from the trusted `peer`: the rightmost address that is not trusted itself, or the
/// leftmost that can be reached over trusted ones. What cannot be read ends the way.
pub(super) fn client(headers: &HeaderMap, peer: ClientAddress, trusted: &[TrustedPeer]) -> ClientAddress {
    let mut client = peer;
    if headers.contains_key(X_FORWARDED_FOR) {
        let lines = headers.get_all(X_FORWARDED_FOR).iter().rev();
        let nodes = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
        let mut nodes = nodes.map(<[u8]>::trim_ascii).filter(|node| !node.is_empty()).map_while(address);
        nodes.all(|ip| {
            client = ip.into();
            is_trusted(client, trusted)
        });
    } else if let Some(last) = way_of_forwarded(headers, trusted).last() {
        client = *last;
    }
    client
}

/// The addresses in `Forwarded` from the nearest to the client's.
fn way_of_forwarded(headers: &HeaderMap, trusted: &[TrustedPeer]) -> Vec<ClientAddress> {
    let lines = headers.get_all(FORWARDED).iter().rev();
    let mut elements = lines.flat_map(|line| FromRight::new(line.as_bytes()));
    let mut way = Vec::new();
    while let Some((_, element)) = elements.next()
        && let Some(ip) = Element::parse(element).and_then(|element| address(&element.node?))
    {
        way.push(ip.into());
        if !is_trusted(ip.into(), trusted) {
            break;
        }
    }
    way
}

/// The lists of `X-Forwarded-For`, or without them the way that `Forwarded` tells, with `own` behind it in one line;
/// `None` if there is nothing to say.
pub(super) fn joined_forwarded_for(
    headers: &HeaderMap,
    own: Option<&HeaderValue>,
    trusted: &[TrustedPeer],
) -> Option<HeaderValue> {
    if headers.contains_key(X_FORWARDED_FOR) {
        let lines = headers.get_all(X_FORWARDED_FOR).iter().filter(|line| members(line).next().is_some());
        return joined(lines.chain(own).map(HeaderValue::as_bytes));
    }
    let way = way_of_forwarded(headers, trusted);
    let way: Vec<String> = way.iter().rev().map(ToString::to_string).collect();
    joined(way.iter().map(String::as_bytes).chain(own.map(HeaderValue::as_bytes)))
}

/// As much of the lists as can be read from the right, with an element for `peer` behind it.
pub(super) fn joined_forwarded(headers: &HeaderMap, peer: ClientAddress, proto: &str) -> Option<HeaderValue> {
    let mut parts = Vec::new();
    for line in headers.get_all(FORWARDED).iter().rev() {
        let line = line.as_bytes();
        let (mut start, mut is_readable) = (line.len(), true);
        for (at, element) in FromRight::new(line) {
            is_readable = Element::parse(element).is_some();
            if !is_readable {
                break;
            }
            start = at;
        }
        parts.push(line[start..].trim_ascii());
        if !is_readable {
            break;
        }
    }
    let own = match peer {
        ClientAddress::Ip(IpAddr::V4(ip)) => format!("for={ip};proto={proto}"),
        ClientAddress::Ip(IpAddr::V6(ip)) => format!("for=\"[{ip}]\";proto={proto}"),
        ClientAddress::Unix => format!("for=unknown;proto={proto}"),
    };
    joined(parts.into_iter().rev().filter(|part| !part.is_empty()).chain([own.as_bytes()]))
}

fn joined<'a>(parts: impl Iterator<Item = &'a [u8]>) -> Option<HeaderValue> {
    let parts: Vec<&[u8]> = parts.collect();
    if parts.is_empty() {
        return None;
    }
    HeaderValue::from_maybe_shared(Bytes::from(parts.join(&b", "[..]))).ok()
}

/// An address with or without a port: `10.0.0.1`, `10.0.0.1:80`, `::1`, `[::1]`, `[::1]:80`. Neither `unknown` nor a
/// hidden one (`_name`).
fn address(node: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(node).ok()?;
    let (ip, port) = if let Some(rest) = text.strip_prefix('[') {
        let (ip, port) = rest.split_once(']')?;
        (IpAddr::V6(ip.parse::<Ipv6Addr>().ok()?), port)
    } else {
        let colon = text.find(':').filter(|first| text.rfind(':') == Some(*first)).unwrap_or(text.len());
        (text[..colon].parse().ok()?, &text[colon..])
    };
    // RFC 7239 §6.2: a port may be hidden too.
    let is_number = |port: &str| (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit());
    let is_port = |port: &str| is_number(port) || port.starts_with('_');
    (port.is_empty() || port.strip_prefix(':').is_some_and(is_port)).then_some(ip)
}

/// One element of `Forwarded`, as far as it matters here.
struct Element {
    /// What `for` says, without its quotes.
    node: Option<Vec<u8>>,
}

impl Element {
    /// Reads `for=10.0.0.1;proto=https`; `None` if that is not what it is. Values that should be quoted, and are not, are
    /// let pass if nobody can misread them.
    fn parse(element: &[u8]) -> Option<Self> {
        let mut node = None;
        let mut rest = element.trim_ascii();
        while !rest.is_empty() {
            if let Some(behind) = rest.strip_prefix(b";") {
                rest = behind.trim_ascii_start();
                continue;
            }
            let equals = rest.iter().position(|byte| *byte == b'=')?;
            let name = &rest[..equals];
            // A field name is a token too.
            HeaderName::from_bytes(name).ok()?;
            let (value, behind) = value(&rest[equals + 1..])?;
            rest = behind.trim_ascii_start();
            if !rest.is_empty() && !rest.starts_with(b";") {
                return None;
            }
            // RFC 7239 §4: each parameter at most once. Of two, each reader would believe another one.
            if name.eq_ignore_ascii_case(b"for") && node.replace(value).is_some() {
                return None;
            }
        }
        Some(Self { node })
    }
}

/// A value and what is behind it: a quoted string, or visible characters up to the next `;`.
fn value(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let Some(quoted) = text.strip_prefix(b"\"") else {
        let end = text.iter().position(|byte| *byte == b';').unwrap_or(text.len());
        let value = text[..end].trim_ascii_end();
        let is_plain = !value.is_empty() && value.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'"');
        return is_plain.then(|| (value.to_vec(), &text[end..]));
    };
    let mut value = Vec::new();
    let mut bytes = quoted.iter().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'"' => return Some((value, &quoted[at + 1..])),
            b'\\' => value.push(*bytes.next()?.1),
            _ => value.push(*byte),
        }
    }
    None
}

/// The elements of a line from right to left, each with where it starts, without empty ones.
///
/// At the right end nothing is quoted, whatever stands to the left: from there quotes are counted.
struct FromRight<'a>(Option<&'a [u8]>);

impl<'a> FromRight<'a> {
    fn new(line: &'a [u8]) -> Self {
        Self(Some(line))
    }
}

impl<'a> Iterator for FromRight<'a> {
    type Item = (usize, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let line = self.0?;
            let mut is_quoted = false;
            let mut at = line.len();
            let comma = loop {
                if at == 0 {
                    break None;
                }
                at -= 1;
                match line[at] {
                    b',' if !is_quoted => break Some(at),
                    // Within quotes a backslash takes the meaning of what follows, be it another one.
                    b'"' if is_quoted => {
                        is_quoted = line[..at].iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1;
                    }
                    b'"' => is_quoted = true,
                    _ => {}
                }
            };
            self.0 = comma.map(|comma| &line[..comma]);
            let start = comma.map_or(0, |comma| comma + 1);
            let element = &line[start..];
            if !element.trim_ascii().is_empty() {
                return Some((start, element));
            }
        }
    }
}

#[cfg(test)]
mod tests;
