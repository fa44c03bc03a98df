//! The walk over a request's fields: what is there, what must go, what must not be indexed.
//!
//! One pass notes what the head contains by comparing names, so that the usual head, which contains nothing to
//! remove but Host, costs no hashing. [`Walk::strip`] then removes what was seen, and only that.
//!
//! RFC 9110 §7.6.1 (Connection), RFC 9112 §6 (framing), RFC 9113 §8.2.2 (connection-specific fields).

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::grpc::is_grpc;

/// What one pass over a request's fields found.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// Bits of [`REMOVED`], and [`OTHER_FORWARDED`].
    removed: u16,
    pub(super) host_lines: u32,
    connection_lines: u32,
    pub(super) cookie_lines: u32,
    content_length_lines: u32,
    is_content_length_invalid: bool,
    transfer_encoding_lines: u32,
    is_chunked: bool,
    has_te: bool,
    is_te_trailers: bool,
    /// The first thing that the client accepts is an event stream.
    pub(super) wants_event_stream: bool,
    /// The client sends the body when it is asked for it.
    pub(super) expects_continue: bool,
    /// The request is a call of gRPC's.
    pub(super) is_grpc: bool,
    /// `pseudonym` is among the recipients in Via.
    pub(super) is_loop: bool,
}

/// Whether a media type, or the first of a list, is `text/event-stream`: the answer then ends when somebody leaves.
///
/// Source: HTML, "Server-sent events".
pub fn is_event_stream(value: &HeaderValue) -> bool {
    const TYPE: &[u8] = b"text/event-stream";
    value.as_bytes().get(..TYPE.len()).is_some_and(|start| start.eq_ignore_ascii_case(TYPE))
}

/// How the body is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// A Content-Length, or no body.
    Sized,
    Chunked,
    /// Two recipients could disagree about where the body ends.
    Ambiguous,
}

impl Walk {
    /// Looks at every field once, and marks the values that HPACK shall not index.
    ///
    /// h2 indexes every value that is not marked. A value that never comes back costs an insertion, an eviction and,
    /// on each later request, a comparison, and pushes out the values that do come back (RFC 7541 §4.4). Credentials
    /// are never indexed so that their length and repetition tell nothing (RFC 7541 §7.1.3).
    pub(super) fn new(headers: &mut HeaderMap, pseudonym: &str) -> Self {
        let mut walk = Self::default();
        for (name, value) in headers {
            match *name {
                // What nearly every request carries comes first: no further comparison for these.
                header::ACCEPT => walk.wants_event_stream |= is_event_stream(value),
                header::ACCEPT_ENCODING
                | header::ACCEPT_LANGUAGE
                | header::CACHE_CONTROL
                | header::ORIGIN
                | header::REFERER
                | header::USER_AGENT => {}
                header::CONTENT_TYPE => walk.is_grpc = is_grpc(value.as_bytes()),
                header::HOST => walk.host_lines += 1,
                header::CONNECTION => walk.connection_lines += 1,
                header::CONTENT_LENGTH => {
                    walk.content_length_lines += 1;
                    walk.is_content_length_invalid |= parse_length(value.as_bytes()).is_none();
                }
                header::TRANSFER_ENCODING => {
                    walk.transfer_encoding_lines += 1;
                    walk.is_chunked = value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked");
                    walk.removed |= TRANSFER_ENCODING;
                }
                header::COOKIE => {
                    walk.cookie_lines += 1;
                    value.set_sensitive(true);
                }
                header::AUTHORIZATION
                | header::PROXY_AUTHORIZATION
                | header::DATE
                | header::IF_MATCH
                | header::IF_RANGE
                | header::IF_UNMODIFIED_SINCE
                | header::RANGE => value.set_sensitive(true),
                header::TE => {
                    walk.has_te = true;
                    walk.is_te_trailers |= members(value).any(|member| member.eq_ignore_ascii_case(b"trailers"));
                }
                header::UPGRADE => walk.removed |= UPGRADE,
                header::EXPECT => {
                    walk.expects_continue = value.as_bytes().eq_ignore_ascii_case(CONTINUE.as_bytes());
                    walk.removed |= EXPECT;
                }
                header::FORWARDED => walk.removed |= FORWARDED,
                header::VIA => walk.is_loop |= members(value).any(|member| is_received_by(member, pseudonym)),
                _ => walk.visit_other(name.as_str(), value),
            }
        }
        walk
    }

    /// Names that the `http` crate has no constant for.
    fn visit_other(&mut self, name: &str, value: &mut HeaderValue) {
        match name {
            "keep-alive" => self.removed |= KEEP_ALIVE,
            "proxy-connection" => self.removed |= PROXY_CONNECTION,
            "http2-settings" => self.removed |= HTTP2_SETTINGS,
            "x-real-ip" => self.removed |= X_REAL_IP,
            "x-forwarded-host" => self.removed |= X_FORWARDED_HOST,
            // Overwritten by ours, or added to.
            "x-forwarded-for" | "x-forwarded-proto" => {}
            // New for every request, or nearly.
            "b3"
            | "grpc-timeout"
            | "idempotency-key"
            | "traceparent"
            | "tracestate"
            | "x-amzn-trace-id"
            | "x-b3-parentspanid"
            | "x-b3-spanid"
            | "x-b3-traceid"
            | "x-cloud-trace-context"
            | "x-correlation-id"
            | "x-request-id" => value.set_sensitive(true),
            _ if name.starts_with("x-forwarded-") => self.removed |= OTHER_FORWARDED,
            _ => {}
        }
    }

    /// The head says how long the body is.
    pub(super) fn has_length(&self) -> bool {
        self.content_length_lines > 0
    }

    /// Another protocol is asked for, though it may not be for us to heed.
    pub(super) fn has_upgrade(&self) -> bool {
        self.removed & UPGRADE != 0
    }

    /// How the body is delimited (RFC 9112 §6.1, §6.3).
    ///
    /// hyper has merged equal Content-Length lines and dropped those beside Transfer-Encoding; what it leaves is
    /// judged as if it had not.
    pub(super) fn framing(&self) -> Framing {
        match (self.content_length_lines, self.transfer_encoding_lines) {
            (0, 0) => Framing::Sized,
            (1, 0) if !self.is_content_length_invalid => Framing::Sized,
            // Only `chunked` alone: we neither decode other codings nor tell the service about them.
            (0, 1) if self.is_chunked => Framing::Chunked,
            _ => Framing::Ambiguous,
        }
    }

    /// The peer is trusted: what it says about forwarding stays.
    pub(super) fn keep_forwarding(&mut self) {
        self.removed &= !(FORWARDED | X_FORWARDED_HOST | X_REAL_IP | OTHER_FORWARDED);
    }

    /// Removes everything that was meant for this hop only, or that nobody should believe.
    pub(super) fn strip(&self, headers: &mut HeaderMap) {
        // RFC 9110 §7.6.1: fields named by Connection go first, Connection itself with them. Once it is gone nothing
        // tells us that `x-internal-auth` was meant for this hop only.
        if self.connection_lines > 0 {
            remove_connection(headers, self.connection_lines);
        }
        if self.has_te {
            // After Connection, which names TE whenever TE is used properly (RFC 9110 §10.1.4).
            if self.is_te_trailers {
                headers.insert(header::TE, HeaderValue::from_static("trailers"));
            } else {
                headers.remove(header::TE);
            }
        }
        if self.removed != 0 {
            self.remove_seen(headers);
        }
    }

    #[cold]
    fn remove_seen(&self, headers: &mut HeaderMap) {
        for (bit, name) in REMOVED {
            if self.removed & bit != 0 {
                headers.remove(name);
            }
        }
        if self.removed & OTHER_FORWARDED != 0 {
            let is_ours = |name: &HeaderName| matches!(name.as_str(), "x-forwarded-for" | "x-forwarded-proto");
            let is_removed = |name: &&HeaderName| name.as_str().starts_with("x-forwarded-") && !is_ours(name);
            let names: Vec<HeaderName> = headers.keys().filter(is_removed).cloned().collect();
            for name in names {
                headers.remove(name);
            }
        }
    }
}

/// Removes Connection and the fields that it names; `lines` is how many Connection lines there are.
pub(super) fn remove_connection(headers: &mut HeaderMap, lines: u32) {
    if lines == 1 {
        if let Some(line) = headers.remove(header::CONNECTION) {
            remove_named(headers, &line);
        }
        return;
    }
    let lines: Vec<HeaderValue> = headers.get_all(header::CONNECTION).iter().cloned().collect();
    headers.remove(header::CONNECTION);
    for line in &lines {
        remove_named(headers, line);
    }
}

fn remove_named(headers: &mut HeaderMap, line: &HeaderValue) {
    for option in members(line) {
        // The usual options need no look-up: `close` names no field, the others are dealt with on their own.
        let is_usual = [&b"close"[..], b"keep-alive", b"te", b"upgrade"].iter().any(|o| option.eq_ignore_ascii_case(o));
        if is_usual {
            continue;
        }
        if let Ok(name) = HeaderName::from_bytes(option)
            && !is_for_all_recipients(&name)
        {
            headers.remove(name);
        }
    }
}

/// Whether a field is meant for every recipient, so that no Connection option may take it away (RFC 9110 §7.6.1).
///
/// Otherwise a client could remove what a proxy in front of us has added, or change what the message means.
fn is_for_all_recipients(name: &HeaderName) -> bool {
    match *name {
        header::AUTHORIZATION
        | header::CACHE_CONTROL
        | header::CONTENT_ENCODING
        | header::CONTENT_LENGTH
        | header::CONTENT_RANGE
        | header::CONTENT_TYPE
        | header::COOKIE
        | header::FORWARDED
        | header::HOST
        | header::SET_COOKIE
        | header::TE
        | header::VIA => true,
        _ => name.as_str().starts_with("x-forwarded-") || name.as_str() == "x-real-ip",
    }
}

/// The members of a comma-separated list, without surrounding white space, without empty ones (RFC 9110 §5.6.1).
pub(super) fn members(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|member| !member.is_empty())
}

/// Reads a Content-Length: digits only, no sign (RFC 9110 §8.6).
pub(super) fn parse_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0_u64, |length, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        length.checked_mul(10)?.checked_add(digit)
    })
}

/// Whether a member of Via (`1.1 name (comment)`) names `pseudonym` as the recipient.
fn is_received_by(member: &[u8], pseudonym: &str) -> bool {
    let mut words = member.split(|byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty());
    words.nth(1).is_some_and(|received_by| received_by.eq_ignore_ascii_case(pseudonym.as_bytes()))
}

/// The only expectation there is (RFC 9110 §10.1.1).
pub(super) const CONTINUE: &str = "100-continue";

const KEEP_ALIVE: u16 = 1 << 0;
const PROXY_CONNECTION: u16 = 1 << 1;
const TRANSFER_ENCODING: u16 = 1 << 2;
const UPGRADE: u16 = 1 << 3;
const HTTP2_SETTINGS: u16 = 1 << 4;
const EXPECT: u16 = 1 << 5;
const FORWARDED: u16 = 1 << 6;
const X_FORWARDED_HOST: u16 = 1 << 7;
const X_REAL_IP: u16 = 1 << 8;
/// Any other `x-forwarded-` name.
const OTHER_FORWARDED: u16 = 1 << 9;

const REMOVED: [(u16, &str); 9] = [
    (KEEP_ALIVE, "keep-alive"),
    (PROXY_CONNECTION, "proxy-connection"),
    (TRANSFER_ENCODING, "transfer-encoding"),
    (UPGRADE, "upgrade"),
    (HTTP2_SETTINGS, "http2-settings"),
    (EXPECT, "expect"),
    (FORWARDED, "forwarded"),
    (X_FORWARDED_HOST, "x-forwarded-host"),
    (X_REAL_IP, "x-real-ip"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_digits_only() {
        assert_eq!(parse_length(b"0"), Some(0));
        assert_eq!(parse_length(b"18446744073709551615"), Some(u64::MAX));
        for invalid in [&b""[..], b"+1", b"-1", b" 1", b"1 ", b"0x1", b"1,1", b"18446744073709551616"] {
            assert_eq!(parse_length(invalid), None, "{}", invalid.escape_ascii());
        }
    }

    #[test]
    fn via_names_us_only_as_the_recipient() {
        assert!(is_received_by(b"1.1 me", "me"));
        assert!(is_received_by(b"HTTP/2  Me (comment)", "me"));
        assert!(!is_received_by(b"me other", "me"));
        assert!(!is_received_by(b"1.1 me2", "me"));
        assert!(!is_received_by(b"me", "me"));
    }

    #[test]
    fn every_removable_bit_has_its_own_place_in_the_table() {
        let all = REMOVED.iter().fold(OTHER_FORWARDED, |all, (bit, _)| all | bit);
        assert_eq!(all.count_ones() as usize, REMOVED.len() + 1);
    }
}
