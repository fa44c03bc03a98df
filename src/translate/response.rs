//! The response head: from an upstream of either version to a client of either, in place.
//!
//! What it becomes is right for both: h2 looks only at the status and the fields, and takes none that is meant for a
//! connection. Via is not added: a gateway may leave it out of responses (RFC 9110 §7.6.3). `Trailer` stays, because hyper's
//! server writes only those trailers that the response has named in it, in a chunked answer to a request with
//! `TE: trailers`; a service that sends trailers without announcing them loses them towards HTTP/1.1 clients, which
//! RFC 9110 §6.5.1 permits.
//!
//! RFC 9112 §6 (framing), RFC 9110 §8.6 (Content-Length), §15 (statuses).

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode, Version, response};

use super::fields::{members, parse_length, remove_connection};
use crate::error::UpstreamFault;

/// How many body bytes the client will have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseBody {
    /// No byte, whatever Content-Length says: HEAD, 204, 304. What the service sends nevertheless is dropped.
    None,
    /// Exactly so many; fewer or more is a cut.
    Sized(u64),
    /// Up to the end of the stream: chunked, or closed after it for HTTP/1.0.
    Unsized,
}

/// Turns an upstream's final response head into one for the client.
///
/// # Errors
/// [`UpstreamFault::MalformedResponse`] for 1xx (interim responses are not final, and 101 was not asked for),
/// Content-Length values that are invalid or differ, and transfer codings other than `chunked` alone.
pub fn response_for_client(
    parts: &mut response::Parts,
    request_method: &Method,
) -> Result<ResponseBody, UpstreamFault> {
    if parts.status.is_informational() {
        return Err(UpstreamFault::MalformedResponse);
    }
    let length = strip(&mut parts.headers)?;
    parts.version = Version::HTTP_11;
    match parts.status {
        // RFC 9110 §8.6 forbids it in 204. In 304 it may say what 200 would have had; hyper leaves it out there,
        // with a warning for each.
        StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED => {
            if length.is_some() {
                parts.headers.remove(header::CONTENT_LENGTH);
            }
            Ok(ResponseBody::None)
        }
        _ if request_method == Method::HEAD => Ok(ResponseBody::None),
        _ => Ok(length.map_or(ResponseBody::Unsized, ResponseBody::Sized)),
    }
}

/// Removes what was meant for this hop only, and returns the one Content-Length.
pub(super) fn strip(headers: &mut HeaderMap) -> Result<Option<u64>, UpstreamFault> {
    let mut length = None;
    let mut is_length_repeated = false;
    let mut connection_lines = 0;
    let mut transfer_encoding_lines = 0;
    let mut is_chunked = false;
    let mut has_others = false;
    for (name, value) in &*headers {
        match *name {
            header::CONTENT_TYPE | header::DATE | header::SERVER | header::SET_COOKIE | header::CACHE_CONTROL => {}
            header::CONTENT_LENGTH => {
                is_length_repeated |= length.is_some();
                length = Some(merge_lengths(length, value, &mut is_length_repeated)?);
            }
            header::CONNECTION => connection_lines += 1,
            header::TRANSFER_ENCODING => {
                transfer_encoding_lines += 1;
                is_chunked = value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked");
            }
            header::TE | header::UPGRADE => has_others = true,
            _ => has_others |= matches!(name.as_str(), "keep-alive" | "proxy-connection"),
        }
    }
    if transfer_encoding_lines > 0 {
        // Content-Length beside it would be believed by the client although the body was measured by chunks
        // (RFC 9112 §6.3); other codings cannot be undone here.
        if transfer_encoding_lines > 1 || !is_chunked || length.is_some() {
            return Err(UpstreamFault::MalformedResponse);
        }
        headers.remove(header::TRANSFER_ENCODING);
    }
    if connection_lines > 0 {
        remove_connection(headers, connection_lines);
    }
    if has_others {
        for name in ["te", "upgrade", "keep-alive", "proxy-connection"] {
            headers.remove(name);
        }
    }
    if is_length_repeated && let Some(length) = length {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    Ok(length)
}

/// Reads one Content-Length line, which may repeat its value in a list (RFC 9110 §8.6), beside the earlier ones.
fn merge_lengths(earlier: Option<u64>, line: &HeaderValue, is_repeated: &mut bool) -> Result<u64, UpstreamFault> {
    let mut length = earlier;
    let mut values = 0;
    for value in members(line) {
        let value = parse_length(value).ok_or(UpstreamFault::MalformedResponse)?;
        if length.is_some_and(|length| length != value) {
            return Err(UpstreamFault::MalformedResponse);
        }
        length = Some(value);
        values += 1;
    }
    *is_repeated |= values > 1;
    // A line without any value is not a length.
    if values == 0 { Err(UpstreamFault::MalformedResponse) } else { length.ok_or(UpstreamFault::MalformedResponse) }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, Response};

    use super::*;

    type Turned = Result<(ResponseBody, response::Parts), UpstreamFault>;

    fn turn(status: u16, method: &Method, fields: &[(&'static str, &'static str)]) -> Turned {
        let (mut parts, ()) = Response::new(()).into_parts();
        parts.status = StatusCode::from_u16(status).unwrap();
        parts.version = Version::HTTP_2;
        for (name, value) in fields {
            parts.headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        response_for_client(&mut parts, method).map(|body| (body, parts))
    }

    fn body(status: u16, fields: &[(&'static str, &'static str)]) -> Result<ResponseBody, UpstreamFault> {
        turn(status, &Method::GET, fields).map(|(body, _)| body)
    }

    #[test]
    fn content_length_decides_the_framing() {
        assert_eq!(body(200, &[("content-length", "5")]), Ok(ResponseBody::Sized(5)));
        assert_eq!(body(200, &[]), Ok(ResponseBody::Unsized));
        assert_eq!(body(200, &[("transfer-encoding", "chunked")]), Ok(ResponseBody::Unsized));
    }

    #[test]
    fn a_bodiless_response_has_no_body_whatever_its_length_says() {
        let length = [("content-length", "5")];
        assert_eq!(body(204, &length), Ok(ResponseBody::None));
        assert_eq!(body(304, &length), Ok(ResponseBody::None));
        assert_eq!(turn(200, &Method::HEAD, &length).unwrap().0, ResponseBody::None);
    }

    #[test]
    fn head_keeps_the_length_that_get_would_have_and_204_loses_it() {
        let length = [("content-length", "5")];
        assert_eq!(turn(200, &Method::HEAD, &length).unwrap().1.headers[header::CONTENT_LENGTH], "5");
        assert!(turn(204, &Method::GET, &length).unwrap().1.headers.is_empty());
    }

    #[test]
    fn equal_lengths_become_one() {
        for lines in [&[("content-length", "5"), ("content-length", "5")][..], &[("content-length", "5, 5")]] {
            let (body, parts) = turn(200, &Method::GET, lines).unwrap();
            assert_eq!(body, ResponseBody::Sized(5));
            let values: Vec<_> = parts.headers.get_all(header::CONTENT_LENGTH).iter().collect();
            assert_eq!(values, ["5"]);
        }
    }

    #[test]
    fn different_or_invalid_lengths_are_malformed() {
        for lines in [
            &[("content-length", "5"), ("content-length", "6")][..],
            &[("content-length", "5, 6")],
            &[("content-length", "+5")],
            &[("content-length", "")],
            &[("content-length", "5"), ("content-length", ",")],
            &[("content-length", "5"), ("transfer-encoding", "chunked")],
        ] {
            assert_eq!(body(200, lines), Err(UpstreamFault::MalformedResponse), "{lines:?}");
        }
    }

    #[test]
    fn other_transfer_codings_are_malformed() {
        for coding in ["gzip, chunked", "xchunked", "identity", ""] {
            assert_eq!(body(200, &[("transfer-encoding", coding)]), Err(UpstreamFault::MalformedResponse), "{coding}");
        }
    }

    #[test]
    fn interim_and_upgrade_responses_are_malformed_as_final_ones() {
        for status in [100, 101, 103] {
            assert_eq!(body(status, &[]), Err(UpstreamFault::MalformedResponse));
        }
    }

    #[test]
    fn fields_of_the_upstream_connection_stay_here() {
        let (_, parts) = turn(
            200,
            &Method::GET,
            &[
                ("connection", "x-hop, close"),
                ("connection", "set-cookie, keep-alive"),
                ("x-hop", "1"),
                ("set-cookie", "a=b"),
                ("set-cookie", "c=d"),
                ("keep-alive", "timeout=5"),
                ("proxy-connection", "close"),
                ("upgrade", "h2c"),
                ("trailer", "x-checksum"),
            ],
        )
        .unwrap();
        let names: Vec<_> = parts.headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(names.len(), 2, "{names:?}");
        assert_eq!(parts.headers.get_all(header::SET_COOKIE).iter().count(), 2);
        assert_eq!(parts.headers[header::TRAILER], "x-checksum");
        assert_eq!(parts.version, Version::HTTP_11);
    }
}
