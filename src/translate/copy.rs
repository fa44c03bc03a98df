//! A second request head, for the attempt that may have to follow.
//!
//! Every request needs one and hardly any uses it. So it is not a clone, which would allocate for the map and for each
//! unusual name, but the fields in a row of bytes, in a buffer that is used again.

use http::Method;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery};

use super::RequestHead;
use super::upgrade::Upgrade;

/// What a [`RequestHead`] can be made from once more.
#[derive(Debug)]
pub struct HeadCopy {
    method: Method,
    authority: Option<Authority>,
    path: PathAndQuery,
    /// Of each field the length of its name, twice that of its value and whether that is sensitive; then both.
    fields: Vec<u8>,
    is_chunked: bool,
    has_cookie_crumbs: bool,
    wants_event_stream: bool,
    upgrade: Option<Box<Upgrade>>,
}

impl HeadCopy {
    /// Copies `head` into `buffer`, whose content does not matter.
    pub fn new(head: &RequestHead, mut buffer: Vec<u8>) -> Self {
        buffer.clear();
        for (name, value) in &head.headers {
            let (name, is_sensitive) = (name.as_str().as_bytes(), value.is_sensitive());
            let value = value.as_bytes();
            // A head is much shorter than 2 GiB, and so are its parts.
            let lengths = (name.len() as u32, (value.len() as u32) << 1 | u32::from(is_sensitive));
            buffer.extend_from_slice(&lengths.0.to_ne_bytes());
            buffer.extend_from_slice(&lengths.1.to_ne_bytes());
            buffer.extend_from_slice(name);
            buffer.extend_from_slice(value);
        }
        Self {
            method: head.method.clone(),
            authority: head.authority.clone(),
            path: head.path.clone(),
            fields: buffer,
            is_chunked: head.is_chunked,
            has_cookie_crumbs: head.has_cookie_crumbs,
            wants_event_stream: head.wants_event_stream,
            upgrade: head.upgrade.clone(),
        }
    }

    /// The head, as it was.
    pub fn head(&self) -> RequestHead {
        let mut headers = HeaderMap::new();
        let mut rest = &self.fields[..];
        while let Some((name_length, after)) = rest.split_first_chunk() {
            let (value_length, after) = after.split_first_chunk().expect("both lengths are written");
            let (name_length, value_length) = (u32::from_ne_bytes(*name_length), u32::from_ne_bytes(*value_length));
            let (name, after) = after.split_at(name_length as usize);
            let (value, after) = after.split_at((value_length >> 1) as usize);
            let mut value = HeaderValue::from_bytes(value).expect("it was one");
            value.set_sensitive(value_length & 1 == 1);
            headers.append(HeaderName::from_bytes(name).expect("it was one"), value);
            rest = after;
        }
        RequestHead {
            method: self.method.clone(),
            authority: self.authority.clone(),
            path: self.path.clone(),
            headers,
            is_chunked: self.is_chunked,
            has_cookie_crumbs: self.has_cookie_crumbs,
            wants_event_stream: self.wants_event_stream,
            // Asked before the first attempt.
            expects_continue: false,
            is_grpc: false,
            upgrade: self.upgrade.clone(),
        }
    }

    /// The buffer, to be used again.
    pub fn into_buffer(self) -> Vec<u8> {
        self.fields
    }
}

#[cfg(test)]
mod tests {
    use http::Request;
    use proptest::prelude::*;

    use super::*;
    use crate::translate::Hop;

    fn head(fields: &[(String, Vec<u8>)]) -> RequestHead {
        let mut request = Request::post("http://example.com:8080/a/b?c=d").header("host", "example.com:8080");
        for (name, value) in fields {
            request = request.header(name, HeaderValue::from_bytes(value).unwrap());
        }
        let hop = Hop::new("trunkline".into(), Hop::via("trunkline").unwrap(), [127, 0, 0, 1].into());
        RequestHead::from_http1(request.body(()).unwrap().into_parts().0, &hop).unwrap()
    }

    fn shown(head: &RequestHead) -> Vec<(String, Vec<u8>, bool)> {
        let fields = head.headers.iter();
        fields.map(|(name, value)| (name.to_string(), value.as_bytes().to_vec(), value.is_sensitive())).collect()
    }

    proptest! {
        #[test]
        fn a_copy_has_every_field_in_its_order(
            fields in prop::collection::vec(("(x-[a-z]{0,9}|cookie|accept)", prop::collection::vec(32u8..127, 0..60)), 0..20)
        ) {
            let head = head(&fields);
            let copy = HeadCopy::new(&head, vec![1, 2, 3]).head();
            prop_assert_eq!(shown(&copy), shown(&head));
            prop_assert_eq!(
                (copy.method(), copy.authority(), copy.path_and_query(), copy.is_chunked, copy.has_cookie_crumbs),
                (head.method(), head.authority(), head.path_and_query(), head.is_chunked, head.has_cookie_crumbs)
            );
        }
    }

    #[test]
    fn a_buffer_is_used_again() {
        let buffer = HeadCopy::new(&head(&[("x-long".into(), vec![b'x'; 500])]), Vec::new()).into_buffer();
        let (capacity, place) = (buffer.capacity(), buffer.as_ptr());
        let copy = HeadCopy::new(&head(&[]), buffer);
        assert_eq!(copy.head().headers().get("x-long"), None);
        let buffer = copy.into_buffer();
        assert_eq!((buffer.capacity(), buffer.as_ptr()), (capacity, place));
    }
}
