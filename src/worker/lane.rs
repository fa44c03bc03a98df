//! How long a stream will occupy its connection, as far as a head or the bytes so far can tell.
//!
//! Pure. What nobody announces (long polls, slow answers) the pool learns from the stream's age.

use http::header::{CONTENT_TYPE, HeaderMap};

use crate::translate::{RequestHead, ResponseBody, is_event_stream};

/// What a stream shares its connection with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    Short,
    /// It lives long or carries bulk.
    Long,
}

/// A body from here on is bulk, in bytes: it keeps a connection of 1 GB/s for a millisecond.
const BULK_BYTES: u64 = 1 << 20;

impl Lane {
    /// By the request's head; `body_bytes` is the length of its body, if it says so.
    pub(crate) fn of_request(head: &RequestHead, body_bytes: Option<u64>) -> Self {
        Self::long_if(head.wants_event_stream() || body_bytes.is_some_and(|bytes| bytes >= BULK_BYTES))
    }

    /// By the response's head.
    pub(crate) fn of_response(framing: ResponseBody, fields: &HeaderMap) -> Self {
        match framing {
            ResponseBody::None => Self::Short,
            ResponseBody::Sized(bytes) => Self::of_body(bytes),
            ResponseBody::Unsized => Self::long_if(fields.get(CONTENT_TYPE).is_some_and(is_event_stream)),
        }
    }

    /// By the bytes that have come.
    pub(crate) const fn of_body(bytes: u64) -> Self {
        Self::long_if(bytes >= BULK_BYTES)
    }

    const fn long_if(is_long: bool) -> Self {
        if is_long { Self::Long } else { Self::Short }
    }
}
