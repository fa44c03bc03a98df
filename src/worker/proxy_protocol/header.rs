//! What a PROXY header says, and how many bytes it has: balancers that pass on connections begin them with one.
//!
//! [`look`] is given what has come, and says how much more surely belongs to the header. Whoever reads no more than that
//! never reads beyond its end: what follows, TLS or a request, is left in the socket. The crate `ppp` reads addresses;
//! it is given whole headers only.
//!
//! Pure. The PROXY protocol, versions 1 and 2, §2.

use std::net::SocketAddr;

use ppp::{v1, v2};

/// What the first bytes of a connection are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// The beginning of a header, or nothing yet. At least so many bytes are missing.
    More(usize),
    /// A whole header, and who the client is. `None`: the connection itself says (health checks of balancers, and
    /// clients that have no IP address).
    Header(Option<SocketAddr>),
    /// Something else.
    Foreign,
    Malformed,
    TooLong,
}

/// Looks at the first bytes of a connection.
pub(super) fn look(bytes: &[u8]) -> Look {
    if is_alike(bytes, v2::PROTOCOL_PREFIX) {
        look_at_v2(bytes)
    } else if is_alike(bytes, V1_PREFIX) {
        look_at_v1(bytes)
    } else {
        Look::Foreign
    }
}

/// Whether one begins with the other.
fn is_alike(bytes: &[u8], prefix: &[u8]) -> bool {
    bytes.iter().zip(prefix).all(|(byte, expected)| byte == expected)
}

fn look_at_v2(bytes: &[u8]) -> Look {
    let Some(head) = bytes.first_chunk::<V2_HEAD_BYTES>() else {
        // The shortest header of version 1 is a byte shorter.
        return Look::More(if bytes.is_empty() { V1_BYTES_MIN } else { V2_HEAD_BYTES - bytes.len() });
    };
    let is_local = match head[12] {
        0x20 => true,
        0x21 => false,
        _ => return Look::Malformed,
    };
    let length = V2_HEAD_BYTES + usize::from(u16::from_be_bytes([head[14], head[15]]));
    if length > V2_BYTES_MAX {
        return Look::TooLong;
    }
    if bytes.len() < length {
        return Look::More(length - bytes.len());
    }
    if is_local {
        // The rest is to be ignored, whatever it says.
        return Look::Header(None);
    }
    let Ok(header) = v2::Header::try_from(bytes) else { return Look::Malformed };
    Look::Header(match (header.protocol, header.addresses) {
        (v2::Protocol::Stream, v2::Addresses::IPv4(of)) => Some((of.source_address, of.source_port).into()),
        (v2::Protocol::Stream, v2::Addresses::IPv6(of)) => Some((of.source_address, of.source_port).into()),
        _ => None,
    })
}

fn look_at_v1(bytes: &[u8]) -> Look {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
        let left = V1_BYTES_MAX.saturating_sub(bytes.len());
        return if left == 0 { Look::TooLong } else { Look::More(missing_of_v1(bytes).min(left)) };
    };
    if end + 1 < bytes.len() {
        // No line is so short.
        return Look::Malformed;
    }
    if bytes == b"PROXY UNKNOWN\r\n" || bytes.starts_with(b"PROXY UNKNOWN ") && bytes.ends_with(b"\r\n") {
        // What else it says is to be ignored.
        return Look::Header(None);
    }
    match v1::Header::try_from(bytes).map(|header| header.addresses) {
        Ok(v1::Addresses::Tcp4(of)) => Look::Header(Some((of.source_address, of.source_port).into())),
        Ok(v1::Addresses::Tcp6(of)) => Look::Header(Some((of.source_address, of.source_port).into())),
        Ok(v1::Addresses::Unknown) | Err(_) => Look::Malformed,
    }
}

/// The fewest bytes that can complete a line which begins so: `PROXY TCP6 :: :: 1 1` and its end.
fn missing_of_v1(line: &[u8]) -> usize {
    const WORD_BYTES_MIN: [usize; 6] = [5, 4, 2, 2, 1, 1];
    const END: usize = 2;
    if line.len() < V1_BYTES_MIN {
        return V1_BYTES_MIN - line.len();
    }
    if line.ends_with(b"\r") {
        return 1;
    }
    if !line.starts_with(b"PROXY TCP") {
        return END;
    }
    let words = line.split(|byte| *byte == b' ').count();
    let last = if line.ends_with(b" ") { WORD_BYTES_MIN.get(words - 1).copied().unwrap_or(0) } else { 0 };
    let following: usize = WORD_BYTES_MIN.iter().skip(words).map(|bytes| 1 + bytes).sum();
    last + following + END
}

const V1_PREFIX: &[u8] = b"PROXY ";
/// `PROXY UNKNOWN` and the end of its line.
const V1_BYTES_MIN: usize = 15;
/// With its end.
const V1_BYTES_MAX: usize = 107;
const V2_HEAD_BYTES: usize = 16;
/// Addresses have 232 bytes at most; the rest is for what balancers tell of themselves and of their clients' certificates.
const V2_BYTES_MAX: usize = 4096;

#[cfg(test)]
mod tests;
