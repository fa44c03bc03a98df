//! What this hop has to know of gRPC: which requests are its, how long they may take, and how a fault is told to its
//! callers.
//!
//! A gRPC client looks at `grpc-status`, not at the status of HTTP, which is 200 for whatever a gRPC server has to say.
//! An answer without one it takes for a broken proxy's. So our own faults are told as a server's would be: a head that
//! is trailers at the same time ("Trailers-Only"). gRPC-Web is plain HTTP to us.
//!
//! Pure. gRPC, "gRPC over HTTP2" (PROTOCOL-HTTP2.md); "Status codes and their use in gRPC" (statuscodes.md).

use std::fmt::Write;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

/// Why a call has failed, in the words of gRPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Cancelled = 1,
    DeadlineExceeded = 4,
    ResourceExhausted = 8,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
}

impl Status {
    /// The value of `grpc-status`.
    pub const fn code(self) -> u8 {
        self as u8
    }
}

/// Whether a Content-Type is gRPC's: `application/grpc`, with a message format (`+proto`) or parameters or without.
pub fn is_grpc(content_type: &[u8]) -> bool {
    const TYPE: &[u8] = b"application/grpc";
    content_type.split_at_checked(TYPE.len()).is_some_and(|(start, rest)| {
        start.eq_ignore_ascii_case(TYPE) && matches!(rest.first(), None | Some(b'+' | b';' | b' ' | b'\t'))
    })
}

/// Reads `grpc-timeout`: up to eight digits and a unit. `None` is for the service to complain about.
pub fn parse_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if !(1..=8).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = digits.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

/// The trailers of a call that has failed.
pub fn trailers(status: Status, message: &str) -> HeaderMap {
    let message = HeaderValue::try_from(encode_message(message)).expect("printable ASCII is a field value");
    let status = HeaderValue::from(u16::from(status.code()));
    HeaderMap::from_iter([
        (HeaderName::from_static("grpc-status"), status),
        (HeaderName::from_static("grpc-message"), message),
    ])
}

/// The value of `grpc-message`: percent-encoded where it is not printable ASCII.
pub fn encode_message(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut encoded, byte| {
        match byte {
            b'%' | ..b' ' | 0x7f.. => write!(encoded, "%{byte:02X}").expect("writing to a string cannot fail"),
            _ => encoded.push(char::from(byte)),
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn grpc_is_told_by_its_content_type_and_grpc_web_is_another_thing() {
        for own in
            ["application/grpc", "application/grpc+proto", "Application/gRPC; charset=utf-8", "application/grpc ;a"]
        {
            assert!(is_grpc(own.as_bytes()), "{own}");
        }
        for other in ["", "application/json", "application/grp", "application/grpc-web", "application/grpc-web+proto"] {
            assert!(!is_grpc(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn a_timeout_is_digits_and_a_unit() {
        for (value, time) in [
            ("1H", Duration::from_hours(1)),
            ("2M", Duration::from_mins(2)),
            ("3S", Duration::from_secs(3)),
            ("150m", Duration::from_millis(150)),
            ("99999999u", Duration::from_micros(99_999_999)),
            ("00000001n", Duration::from_nanos(1)),
            ("0S", Duration::ZERO),
        ] {
            assert_eq!(parse_timeout(value.as_bytes()), Some(time), "{value}");
        }
        for value in ["", "S", "1", "1s", "1h", "+1S", "-1S", "1.5S", " 1S", "1S ", "1 S", "123456789S", "1SS", "１S"]
        {
            assert_eq!(parse_timeout(value.as_bytes()), None, "{value}");
        }
    }

    #[test]
    fn a_message_is_printable_ascii() {
        assert_eq!(encode_message("It took 100 %.\nid: ä~"), "It took 100 %25.%0Aid: %C3%A4~");
    }

    proptest! {
        #[test]
        fn no_value_upsets_the_parser(value in prop::collection::vec(any::<u8>(), 0..12)) {
            if let Some(time) = parse_timeout(&value) {
                prop_assert!(time <= Duration::from_hours(99_999_999));
            }
        }

        #[test]
        fn a_message_is_a_field_value_that_reads_back(text in ".*") {
            let encoded = encode_message(&text);
            prop_assert!(http::HeaderValue::from_str(&encoded).is_ok());
            let mut bytes = encoded.bytes();
            let mut decoded = Vec::new();
            while let Some(byte) = bytes.next() {
                decoded.push(if byte == b'%' {
                    let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
                    u8::from_str_radix(str::from_utf8(&digits).unwrap(), 16).unwrap()
                } else {
                    byte
                });
            }
            prop_assert_eq!(decoded, text.into_bytes());
        }
    }
}
