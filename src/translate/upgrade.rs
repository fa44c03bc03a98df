//! Another protocol in place of HTTP: how a client asks for it, how the service is asked, and what both are answered.
//!
//! HTTP/1.1 asks with `Upgrade` and is answered with 101 (RFC 9110 §7.8), HTTP/2 asks with extended CONNECT and is answered
//! with 2xx (RFC 8441). A WebSocket in HTTP/1.1 has besides a key, and the answer a hash of it (RFC 6455 §4): for a client
//! of HTTP/2, which has none, the key is made here, and the hash is checked all the same.
//!
//! Decided here, because the RFCs leave it open:
//! - `Upgrade` is heeded only if Connection names it, and never together with `close`.
//! - A list of protocols is heeded for the WebSocket that is in it. Other protocols must be asked for alone.
//! - Other versions of HTTP (`h2c`, deprecated by RFC 9113 §3.1) and TLS concern the client's connection to us, and not
//!   the service: they are not heeded.
//! - A WebSocket's request has neither body nor another method than GET: such is refused, because whoever disagrees about
//!   where its body ends would read frames as requests. For other protocols RFC 9110 §7.8 lets a server go on in HTTP,
//!   and a request with a body is served so.
//! - Of clients of HTTP/2 only WebSockets are carried: what another `:protocol` would be in HTTP/1.1, and whether a service
//!   of HTTP/2 knows it, no RFC says in general. RFC 9220 §3 has 501 for such.

use std::hash::{BuildHasher as _, RandomState};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use h2::ext;
use http::header::{
    self, CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{Method, Request, StatusCode, Version, response};
use sha1::{Digest, Sha1};

use super::fields::{members, parse_length};
use super::response::{ResponseBody, response_for_client, strip};
use crate::error::{DownstreamFault, UpstreamFault};

/// What is spoken after the upgrade.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Protocol {
    WebSocket,
    /// A token, with or without a version.
    Other(Box<str>),
}

impl Protocol {
    /// What the `Upgrade` lines ask for, unless it is none of the service's business.
    fn asked(headers: &HeaderMap) -> Option<Self> {
        let asked = || headers.get_all(UPGRADE).iter().flat_map(members);
        if asked().any(|name| name.eq_ignore_ascii_case(WEBSOCKET.as_bytes())) {
            return Some(Self::WebSocket);
        }
        let mut asked = asked();
        let only = asked.next().filter(|_| asked.next().is_none())?;
        let only = std::str::from_utf8(only).ok()?;
        let (name, version) = only.split_once('/').unwrap_or((only, "1"));
        // A field name is a token too.
        let is_token = |text: &str| HeaderName::from_bytes(text.as_bytes()).is_ok();
        let is_ours = ["h2c", "h2", "http", "tls"].iter().any(|ours| name.eq_ignore_ascii_case(ours));
        (is_token(name) && is_token(version) && !is_ours).then(|| Self::Other(only.into()))
    }

    pub fn name(&self) -> &str {
        match self {
            Self::WebSocket => WEBSOCKET,
            Self::Other(name) => name,
        }
    }

    fn value(&self) -> HeaderValue {
        match self {
            Self::WebSocket => HeaderValue::from_static(WEBSOCKET),
            Self::Other(name) => HeaderValue::from_str(name).expect("a token is a valid field value"),
        }
    }

    /// Whether `answer` names this protocol, be it without the version or in another one.
    fn is_in(&self, answer: &[u8]) -> bool {
        let name = |text: &[u8]| text.split(|byte| *byte == b'/').next().unwrap_or_default().to_ascii_lowercase();
        name(answer) == name(self.name().as_bytes())
    }
}

/// A client's wish that has passed every check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upgrade {
    pub protocol: Protocol,
    /// A WebSocket's `Sec-WebSocket-Key`.
    key: Option<HeaderValue>,
    /// The client has asked by extended CONNECT.
    is_connect: bool,
}

impl Upgrade {
    /// Reads what a client asks for in HTTP/1.1, and takes the key out of `headers`. `None`: nothing that is heeded.
    ///
    /// # Errors
    /// For a WebSocket only: [`DownstreamFault::BadHandshake`], [`DownstreamFault::WebSocketVersion`].
    pub(super) fn of_http1(
        method: &Method,
        version: Version,
        headers: &mut HeaderMap,
        is_chunked: bool,
    ) -> Result<Option<Box<Self>>, DownstreamFault> {
        // RFC 9110 §7.8: must be ignored in HTTP/1.0, and is meant for us only if Connection says so.
        if version != Version::HTTP_11 || !has_option(headers, "upgrade") || has_option(headers, "close") {
            return Ok(None);
        }
        let Some(protocol) = Protocol::asked(headers) else { return Ok(None) };
        let length = headers.get(header::CONTENT_LENGTH).and_then(|length| parse_length(length.as_bytes()));
        let has_body = is_chunked || length.is_some_and(|length| length > 0);
        if protocol != Protocol::WebSocket {
            return Ok((!has_body).then(|| Box::new(Self { protocol, key: None, is_connect: false })));
        }
        if *method != Method::GET || has_body {
            return Err(DownstreamFault::BadHandshake);
        }
        check_version(headers)?;
        let key = only(headers, &SEC_WEBSOCKET_KEY).filter(|key| is_key(key)).cloned();
        headers.remove(SEC_WEBSOCKET_KEY);
        let key = Some(key.ok_or(DownstreamFault::BadHandshake)?);
        Ok(Some(Box::new(Self { protocol, key, is_connect: false })))
    }

    /// Reads what a client asks for by extended CONNECT, with these fields.
    ///
    /// # Errors
    /// [`DownstreamFault::ProtocolNotCarried`], [`DownstreamFault::BadHandshake`], [`DownstreamFault::WebSocketVersion`].
    pub(super) fn of_connect(protocol: &ext::Protocol, headers: &mut HeaderMap) -> Result<Box<Self>, DownstreamFault> {
        if !protocol.as_str().eq_ignore_ascii_case(WEBSOCKET) {
            return Err(DownstreamFault::ProtocolNotCarried);
        }
        // What follows is no content (RFC 9110 §9.3.6), and h2 would count it as such.
        if headers.contains_key(header::CONTENT_LENGTH) {
            return Err(DownstreamFault::BadHandshake);
        }
        check_version(headers)?;
        // RFC 8441 §5: not looked at.
        headers.remove(SEC_WEBSOCKET_KEY);
        Ok(Box::new(Self { protocol: Protocol::WebSocket, key: Some(new_key()), is_connect: true }))
    }

    pub fn is_websocket(&self) -> bool {
        self.protocol == Protocol::WebSocket
    }

    /// Asks an HTTP/1.1 service.
    pub(super) fn ask_http1(&self, headers: &mut HeaderMap) {
        let has_te = headers.contains_key(header::TE);
        headers.insert(CONNECTION, HeaderValue::from_static(if has_te { "te, upgrade" } else { "upgrade" }));
        headers.insert(UPGRADE, self.protocol.value());
        if let Some(key) = &self.key {
            headers.insert(SEC_WEBSOCKET_KEY, key.clone());
        }
    }

    /// Asks an HTTP/2 service, for which neither key nor length have a meaning (RFC 8441 §5).
    pub(super) fn ask_http2(&self, request: &mut Request<()>) {
        *request.method_mut() = Method::CONNECT;
        request.extensions_mut().insert(ext::Protocol::from(self.protocol.name()));
        request.headers_mut().remove(header::CONTENT_LENGTH);
    }

    /// Turns the 101 of an HTTP/1.1 service into the consent that the client is to have.
    ///
    /// # Errors
    /// [`UpstreamFault::MalformedResponse`] if it switches to another protocol, or was not made for this handshake.
    pub fn switched(&self, parts: &mut response::Parts) -> Result<(), UpstreamFault> {
        let headers = &parts.headers;
        let is_named = only(headers, &UPGRADE).is_some_and(|line| {
            let mut named = members(line);
            named.next().is_some_and(|name| self.protocol.is_in(name)) && named.next().is_none()
        });
        let accept = only(headers, &SEC_WEBSOCKET_ACCEPT).map(HeaderValue::as_bytes);
        let is_accepted = self.accept().is_none_or(|right| accept == Some(right.as_bytes()));
        if !is_named || !has_option(headers, "upgrade") || !is_accepted {
            return Err(UpstreamFault::MalformedResponse);
        }
        self.accepted(parts)
    }

    /// Turns the 2xx of an HTTP/2 service into the consent that the client is to have.
    ///
    /// # Errors
    /// [`UpstreamFault::MalformedResponse`] for what is wrong in any head.
    pub fn accepted(&self, parts: &mut response::Parts) -> Result<(), UpstreamFault> {
        let headers = &mut parts.headers;
        // RFC 9110 §8.6, RFC 9112 §6.1: neither is in such an answer, and neither means anything in it.
        headers.remove(header::CONTENT_LENGTH);
        headers.remove(header::TRANSFER_ENCODING);
        strip(headers)?;
        headers.remove(header::TRAILER);
        if self.is_connect {
            headers.remove(SEC_WEBSOCKET_ACCEPT);
            parts.status = StatusCode::OK;
            return Ok(());
        }
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, self.protocol.value());
        match self.accept() {
            Some(accept) => _ = headers.insert(SEC_WEBSOCKET_ACCEPT, accept),
            None => _ = headers.remove(SEC_WEBSOCKET_ACCEPT),
        }
        parts.status = StatusCode::SWITCHING_PROTOCOLS;
        parts.version = Version::HTTP_11;
        Ok(())
    }

    /// Turns the head with which a service stays in HTTP into one for the client.
    ///
    /// # Errors
    /// [`UpstreamFault::NoUpgrade`] for a 2xx that an HTTP/2 client would take for consent; otherwise as
    /// [`response_for_client`].
    pub fn declined(&self, parts: &mut response::Parts, method: &Method) -> Result<ResponseBody, UpstreamFault> {
        if self.is_connect && parts.status.is_success() {
            return Err(UpstreamFault::NoUpgrade);
        }
        response_for_client(parts, method)
    }

    /// What proves that a handshake was read (RFC 6455 §4.2.2).
    fn accept(&self) -> Option<HeaderValue> {
        let mut hash = Sha1::new();
        hash.update(self.key.as_ref()?);
        hash.update(KEY_SUFFIX);
        let accept = BASE64_STANDARD.encode(hash.finalize());
        Some(HeaderValue::try_from(accept).expect("base64 is a valid field value"))
    }
}

/// The value of a field that is there once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

fn has_option(headers: &HeaderMap, option: &str) -> bool {
    let mut options = headers.get_all(CONNECTION).iter().flat_map(members);
    options.any(|member| member.eq_ignore_ascii_case(option.as_bytes()))
}

fn check_version(headers: &HeaderMap) -> Result<(), DownstreamFault> {
    match only(headers, &SEC_WEBSOCKET_VERSION).map(HeaderValue::as_bytes) {
        Some(b"13") => Ok(()),
        None => Err(DownstreamFault::BadHandshake),
        Some(_) => Err(DownstreamFault::WebSocketVersion),
    }
}

/// 16 bytes that nobody knows beforehand (RFC 6455 §4.1).
fn new_key() -> HeaderValue {
    // The hasher's keys are random, and not the same twice.
    let random = RandomState::new();
    let bytes = [random.hash_one(0), random.hash_one(1)].map(u64::to_be_bytes).concat();
    HeaderValue::try_from(BASE64_STANDARD.encode(bytes)).expect("base64 is a valid field value")
}

/// Whether it is 16 bytes in base64 (RFC 6455 §4.2.1).
fn is_key(key: &HeaderValue) -> bool {
    BASE64_STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == 16)
}

const WEBSOCKET: &str = "websocket";
const KEY_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

#[cfg(test)]
mod tests {
    use http::{Response, Uri};

    use super::*;
    use crate::translate::{Hop, RequestHead};

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
    const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

    type Fields<'a> = &'a [(&'static str, &'a str)];

    fn head(method: &Method, fields: Fields<'_>) -> Result<RequestHead, crate::error::Fault> {
        let mut request = Request::builder().method(method).uri(Uri::from_static("/chat")).header("host", "a");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let hop = Hop::new("t".into(), Hop::via("t").unwrap(), [127, 0, 0, 1].into());
        RequestHead::from_http1(request.body(()).unwrap().into_parts().0, &hop)
    }

    fn websocket() -> RequestHead {
        let fields = [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "foo, WebSocket"),
            ("sec-websocket-key", KEY),
            ("sec-websocket-version", "13"),
            ("te", "trailers"),
        ];
        head(&Method::GET, &fields).unwrap()
    }

    fn answer(status: u16, fields: Fields<'_>) -> response::Parts {
        let mut response = Response::builder().status(status);
        for (name, value) in fields {
            response = response.header(*name, *value);
        }
        response.body(()).unwrap().into_parts().0
    }

    #[test]
    fn a_websocket_is_asked_for_in_the_words_of_either_http() {
        let authority = "b".parse().unwrap();
        let http1 = websocket().into_http1(&authority);
        assert_eq!((&http1.method, http1.uri.path()), (&Method::GET, "/chat"));
        for (name, value) in [("connection", "te, upgrade"), ("upgrade", "websocket"), ("sec-websocket-key", KEY)] {
            assert_eq!(http1.headers[name], value);
        }
        let http2 = websocket().into_extended_connect(&http::uri::Scheme::HTTP, &authority);
        assert_eq!((http2.method(), http2.uri().to_string()), (&Method::CONNECT, "http://a/chat".to_owned()));
        assert_eq!(http2.extensions().get::<ext::Protocol>().unwrap().as_str(), "websocket");
        for name in ["connection", "upgrade", "sec-websocket-key"] {
            assert!(!http2.headers().contains_key(name), "{name}");
        }
        assert_eq!(http2.headers()["sec-websocket-version"], "13");
    }

    #[test]
    fn a_copied_head_asks_for_the_same() {
        let copy = crate::translate::HeadCopy::new(&websocket(), Vec::new()).head();
        assert_eq!(copy.upgrade(), websocket().upgrade());
    }

    #[test]
    fn other_protocols_are_heeded_when_they_are_asked_for_alone() {
        for (protocol, is_heeded) in [
            ("SPDY/3.1", true),
            ("tcp", true),
            ("a, b", false),
            ("h2c", false),
            ("HTTP/2.0", false),
            ("TLS/1.0", false),
            ("x/y/z", false),
            ("two words", false),
            ("", false),
        ] {
            let head = head(&Method::POST, &[("connection", "upgrade"), ("upgrade", protocol)]).unwrap();
            assert_eq!(head.upgrade().map(|upgrade| upgrade.protocol.name()), is_heeded.then_some(protocol));
            assert!(!head.headers().contains_key(UPGRADE));
        }
    }

    #[test]
    fn a_handshake_of_websocket_is_right_or_refused() {
        let good = [("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-version", "13")];
        let with = |method: &Method, more: Fields<'_>| head(method, &[&good, more].concat()).map(drop);
        let key = ("sec-websocket-key", KEY);
        assert_eq!(with(&Method::GET, &[key]), Ok(()));
        let bad = Err(DownstreamFault::BadHandshake.into());
        assert_eq!(with(&Method::POST, &[key]), bad);
        assert_eq!(with(&Method::GET, &[]), bad);
        assert_eq!(with(&Method::GET, &[key, key]), bad);
        assert_eq!(with(&Method::GET, &[key, ("content-length", "1")]), bad);
        assert_eq!(with(&Method::GET, &[key, ("content-length", "0")]), Ok(()));
        for short in ["", "AAAA", "dGhlIHNhbXBsZSBub25jZQ", "not base64 at all, really"] {
            assert_eq!(with(&Method::GET, &[("sec-websocket-key", short)]), bad, "{short}");
        }
        let old = [("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-version", "8"), key];
        assert_eq!(head(&Method::GET, &old).map(drop), Err(DownstreamFault::WebSocketVersion.into()));
    }

    #[test]
    fn a_services_consent_becomes_a_101_of_this_hop() {
        let head = websocket();
        let upgrade = head.upgrade().unwrap();
        let http2 = [("sec-websocket-protocol", "mqtt"), ("content-length", "5"), ("sec-websocket-accept", "forged")];
        let http1 = [
            ("connection", "Upgrade, x-hop"),
            ("x-hop", "1"),
            ("upgrade", "WebSocket"),
            ("sec-websocket-accept", ACCEPT),
            ("sec-websocket-protocol", "mqtt"),
        ];
        let (mut accepted, mut switched) = (answer(200, &http2), answer(101, &http1));
        upgrade.accepted(&mut accepted).unwrap();
        upgrade.switched(&mut switched).unwrap();
        for parts in [accepted, switched] {
            assert_eq!((parts.status.as_u16(), parts.headers.len()), (101, 4), "{parts:?}");
            let fields = [("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-accept", ACCEPT)];
            for (name, value) in fields {
                assert_eq!(parts.headers[name], value);
            }
        }
    }

    #[test]
    fn a_101_for_something_else_is_malformed() {
        let head = websocket();
        let upgrade = head.upgrade().unwrap();
        let right = [("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-accept", ACCEPT)];
        assert_eq!(upgrade.switched(&mut answer(101, &right)), Ok(()));
        for (at, wrong) in [(0, "close"), (1, "h2c"), (1, "websocket, h2c"), (2, "AAAA")] {
            let mut fields = right;
            fields[at].1 = wrong;
            assert_eq!(upgrade.switched(&mut answer(101, &fields)), Err(UpstreamFault::MalformedResponse), "{wrong}");
            let missing: Vec<_> = (0..3).filter(|index| *index != at).map(|index| right[index]).collect();
            assert_eq!(upgrade.switched(&mut answer(101, &missing)), Err(UpstreamFault::MalformedResponse));
        }
    }
}
