//! The request head: checked once when it comes in, turned into what the upstream speaks at the very end.
//!
//! Between the two it is kept as it is, because an acquire may fail and another endpoint, with another protocol,
//! may be tried. Whoever may have to send it twice keeps a [`HeadCopy`](super::HeadCopy).
//!
//! RFC 9112 §3.2 (Host), RFC 9110 §7.6 (forwarding), RFC 9113 §8.3.1 (pseudo-headers, Host), §8.2.3 (cookies).

use std::time::Duration;

use bytes::Bytes;
use h2::ext;
use http::header::{self, Entry, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, Uri, Version, request, uri};

use super::fields::{CONTINUE, Framing, Walk, parse_length};
use super::target::Target;
use super::upgrade::Upgrade;
use super::{Hop, authority};
use crate::config::HeaderEdits;
use crate::error::{DownstreamFault, Fault, ProxyFault};
use crate::grpc;

/// A request head that has passed every check; hop-by-hop fields are already gone. Routing and forwarding see these
/// same bytes.
#[derive(Debug, Clone)]
pub struct RequestHead {
    pub(super) method: Method,
    /// `None` only for HTTP/1.0 without Host.
    pub(super) authority: Option<Authority>,
    /// Starts with `/`, or is `*`.
    pub(super) path: PathAndQuery,
    /// Without Host, without connection-specific fields; TE is `trailers` or absent.
    pub(super) headers: HeaderMap,
    pub(super) is_chunked: bool,
    pub(super) has_cookie_crumbs: bool,
    pub(super) wants_event_stream: bool,
    pub(super) expects_continue: bool,
    pub(super) is_grpc: bool,
    /// What the client wants to speak instead of HTTP.
    pub(super) upgrade: Option<Box<Upgrade>>,
}

impl RequestHead {
    /// Checks a head that hyper has parsed, removes what was meant for this hop and adds what this hop says.
    ///
    /// # Errors
    /// [`DownstreamFault::MethodNotAllowed`] for CONNECT and TRACE, and for OPTIONS that has reached its last hop
    /// (Max-Forwards 0); [`DownstreamFault::MalformedHead`] if target, Host or framing are invalid or ambiguous;
    /// [`ProxyFault::Loop`] if this process is in Via; for a WebSocket [`DownstreamFault::BadHandshake`] and
    /// [`DownstreamFault::WebSocketVersion`].
    pub fn from_http1(parts: request::Parts, hop: &Hop) -> Result<Self, Fault> {
        let request::Parts { method, uri, version, headers, .. } = parts;
        if !matches!(version, Version::HTTP_10 | Version::HTTP_11) {
            return Err(DownstreamFault::MalformedHead.into());
        }
        let target = if is_carried(&method) { Target::parse(&method, uri)? } else { return Err(not_carried()) };
        Self::new(method, target, version, headers, false, hop)
    }

    /// As [`RequestHead::from_http1`], for a head that h2 has parsed. `has_body` says whether a body follows, which the
    /// fields need not say. A WebSocket, which is asked for by extended CONNECT here, is a GET from now on (RFC 8441).
    ///
    /// # Errors
    /// Besides those of HTTP/1.1, [`DownstreamFault::ProtocolNotCarried`].
    pub fn from_http2(mut parts: request::Parts, has_body: bool, hop: &Hop) -> Result<Self, Fault> {
        if let Some(protocol) = parts.extensions.remove::<ext::Protocol>() {
            let upgrade = Upgrade::of_connect(&protocol, &mut parts.headers)?;
            parts.method = Method::GET;
            let head = Self::from_http2(parts, false, hop)?;
            return Ok(Self { upgrade: Some(upgrade), ..head });
        }
        let request::Parts { method, uri, headers, .. } = parts;
        let target = if is_carried(&method) { Target::of_http2(&method, uri)? } else { return Err(not_carried()) };
        Self::new(method, target, Version::HTTP_2, headers, has_body, hop)
    }

    fn new(
        method: Method,
        target: Target,
        version: Version,
        mut headers: HeaderMap,
        has_body: bool,
        hop: &Hop,
    ) -> Result<Self, Fault> {
        let mut walk = Walk::new(&mut headers, &hop.identity.pseudonym);
        let is_chunked = match (version, walk.framing()) {
            (Version::HTTP_2, Framing::Sized) => has_body && !walk.has_length(),
            (_, Framing::Sized) => false,
            (Version::HTTP_11, Framing::Chunked) => true,
            _ => return Err(DownstreamFault::MalformedHead.into()),
        };
        let host = match (version, walk.host_lines) {
            (_, 1) => headers.remove(header::HOST),
            (Version::HTTP_10, 0) => None,
            // `:authority` takes the place of Host.
            (Version::HTTP_2, 0) if target.authority.is_some() => None,
            _ => return Err(DownstreamFault::MalformedHead.into()),
        };
        let authority = effective_authority(target.authority, host.as_ref(), hop)?;
        if walk.is_loop {
            return Err(ProxyFault::Loop.into());
        }
        if method == Method::OPTIONS {
            count_forward(&mut headers)?;
        }
        if hop.is_peer_trusted() {
            walk.keep_forwarding();
        }
        let upgrade =
            if walk.has_upgrade() { Upgrade::of_http1(&method, version, &mut headers, is_chunked)? } else { None };
        walk.strip(&mut headers);
        // RFC 9110 §10.1.1: what HTTP/1.0 expects is ignored.
        let expects_continue = walk.expects_continue && version != Version::HTTP_10;
        if expects_continue {
            headers.insert(header::EXPECT, HeaderValue::from_static(CONTINUE));
        }
        hop.add_to(&mut headers, version);
        let has_cookie_crumbs = walk.cookie_lines > 1;
        Ok(Self {
            method,
            authority,
            path: target.path,
            headers,
            is_chunked,
            has_cookie_crumbs,
            wants_event_stream: walk.wants_event_stream,
            expects_continue,
            is_grpc: walk.is_grpc,
            upgrade,
        })
    }

    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The host without port, as the client wrote it: compare it without regard to case. IPv6 has its brackets.
    pub fn host(&self) -> Option<&str> {
        self.authority.as_ref().map(Authority::host)
    }

    /// Host and port; `None` for HTTP/1.0 without Host.
    pub fn authority(&self) -> Option<&Authority> {
        self.authority.as_ref()
    }

    /// The client asks for server-sent events.
    pub fn wants_event_stream(&self) -> bool {
        self.wants_event_stream
    }

    /// Whether the client sends the body when it is asked for it. Without a body there is nothing to expect.
    pub fn expects_continue(&mut self, has_body: bool) -> bool {
        if self.expects_continue && !has_body {
            self.headers.remove(header::EXPECT);
        }
        self.expects_continue && has_body
    }

    /// The request is a call of gRPC's.
    pub fn is_grpc(&self) -> bool {
        self.is_grpc
    }

    /// How long a gRPC caller waits; `None` if it does not say so, or not in a way that can be read.
    pub fn grpc_timeout(&self) -> Option<Duration> {
        if !self.is_grpc {
            return None;
        }
        grpc::parse_timeout(self.headers.get("grpc-timeout")?.as_bytes())
    }

    /// What the client wants to speak instead of HTTP.
    pub fn upgrade(&self) -> Option<&Upgrade> {
        self.upgrade.as_deref()
    }

    /// The path without the query, not decoded; `*` for OPTIONS about the whole server.
    pub fn path(&self) -> &str {
        self.path.path()
    }

    pub fn path_and_query(&self) -> &str {
        self.path.as_str()
    }

    /// The fields that go upstream; Host is not among them.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Applies a route's edits: removals, then settings, then the replacement of the matched path prefix.
    ///
    /// Slashes at the end of `rewrite`'s two texts do not count: `/v1/` by `/api/` makes `/api` of `/v1`, and
    /// `/api/x` of `/v1/x`. Setting Host changes the authority.
    ///
    /// # Errors
    /// [`DownstreamFault::UriTooLong`] if the rewritten target is; [`ProxyFault::Internal`] if an edit is not
    /// [settable](is_settable) or [removable](is_removable) or the path does not start with the prefix: the
    /// configuration and the route table must not let that happen. The head is then of no further use.
    pub fn edit(&mut self, edits: &HeaderEdits, rewrite: Option<(&str, &str)>) -> Result<(), Fault> {
        for name in &edits.remove {
            if !is_removable(name) {
                return Err(ProxyFault::Internal.into());
            }
            self.headers.remove(name);
        }
        for (name, value) in &edits.set {
            if *name == header::HOST {
                self.authority = Some(authority::parse(value.as_bytes()).ok_or(ProxyFault::Internal)?);
            } else if is_settable(name) {
                self.headers.insert(name, value.clone());
            } else {
                return Err(ProxyFault::Internal.into());
            }
        }
        if let Some((prefix, replacement)) = rewrite {
            self.replace_prefix(prefix, replacement)?;
        }
        Ok(())
    }

    fn replace_prefix(&mut self, prefix: &str, replacement: &str) -> Result<(), Fault> {
        let old = self.path.as_str();
        let rest = old.strip_prefix(prefix.strip_suffix('/').unwrap_or(prefix)).ok_or(ProxyFault::Internal)?;
        let kept = replacement.strip_suffix('/').unwrap_or(replacement);
        let slash = if kept.is_empty() && !rest.starts_with('/') { "/" } else { "" };
        let new = [kept, slash, rest].concat();
        // The longest that `http::Uri` holds.
        if new.len() >= usize::from(u16::MAX) {
            return Err(DownstreamFault::UriTooLong.into());
        }
        self.path = PathAndQuery::from_maybe_shared(Bytes::from(new)).map_err(|_| ProxyFault::Internal)?;
        Ok(())
    }

    /// The head for an HTTP/2 upstream. `scheme` is `http` or `https`; `fallback` stands in for the Host of an
    /// HTTP/1.0 request that has none.
    ///
    /// h2 takes it as it is: no field is connection-specific, and all four pseudo-headers are there.
    pub fn into_http2(mut self, scheme: &Scheme, fallback: &Authority) -> Request<()> {
        if self.has_cookie_crumbs {
            // They may be apart here, but many a service reads only one line.
            join_cookies(&mut self.headers);
        }
        let mut target = uri::Parts::default();
        target.scheme = Some(scheme.clone());
        target.authority = Some(self.authority.unwrap_or_else(|| fallback.clone()));
        target.path_and_query = Some(self.path);
        let mut request = Request::new(());
        *request.method_mut() = self.method;
        *request.uri_mut() = Uri::from_parts(target).expect("all three parts are there");
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = self.headers;
        request
    }

    /// The head that asks an HTTP/2 upstream for a stream in another protocol: extended CONNECT (RFC 8441 §4).
    pub fn into_extended_connect(mut self, scheme: &Scheme, fallback: &Authority) -> Request<()> {
        let upgrade = self.upgrade.take();
        let mut request = self.into_http2(scheme, fallback);
        if let Some(upgrade) = upgrade {
            upgrade.ask_http2(&mut request);
        }
        request
    }

    /// The head for an HTTP/1.1 upstream: origin-form target, exactly one Host and that first, one Cookie line.
    ///
    /// A chunked body is announced, since hyper drops the body of a GET that does not say it has one.
    pub fn into_http1(self, fallback: &Authority) -> request::Parts {
        let mut headers = self.headers;
        if self.has_cookie_crumbs {
            join_cookies(&mut headers);
        }
        if headers.contains_key(header::TE) {
            // RFC 9110 §10.1.4: whoever sends TE also says that it ends at the next hop.
            headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
        }
        if self.is_chunked {
            headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        if let Some(upgrade) = &self.upgrade {
            upgrade.ask_http1(&mut headers);
        }
        let authority = self.authority.as_ref().unwrap_or(fallback);
        let host = HeaderValue::from_str(authority.as_str()).expect("an authority is a valid field value");
        insert_first(&mut headers, header::HOST, host);
        let (mut parts, ()) = Request::new(()).into_parts();
        parts.method = self.method;
        parts.uri = Uri::from(self.path);
        parts.version = Version::HTTP_11;
        parts.headers = headers;
        parts
    }
}

/// Whether requests with this method go upstream.
fn is_carried(method: &Method) -> bool {
    !matches!(*method, Method::CONNECT | Method::TRACE)
}

fn not_carried() -> Fault {
    DownstreamFault::MethodNotAllowed.into()
}

/// Whether a route may set this field: not what delimits the message or describes the connection.
pub fn is_settable(name: &HeaderName) -> bool {
    match *name {
        header::CONNECTION
        | header::CONTENT_LENGTH
        | header::EXPECT
        | header::TE
        | header::TRAILER
        | header::TRANSFER_ENCODING
        | header::UPGRADE => false,
        _ => !matches!(name.as_str(), "http2-settings" | "keep-alive" | "proxy-connection"),
    }
}

/// Whether a route may remove this field: not what delimits the message or names the host.
pub fn is_removable(name: &HeaderName) -> bool {
    !matches!(*name, header::CONTENT_LENGTH | header::HOST)
}

/// The authority that the request is for (RFC 9112 §3.3): the target's, or else Host's.
///
/// RFC 9112 §3.2.2 lets a proxy ignore Host beside an absolute-form target; two different names are refused here,
/// since the service may have looked at the other one.
fn effective_authority(
    target: Option<(Authority, u16)>,
    host: Option<&HeaderValue>,
    hop: &Hop,
) -> Result<Option<Authority>, DownstreamFault> {
    let host = host.map(|host| hop.authority(host).ok_or(DownstreamFault::MalformedHead)).transpose()?;
    let Some((target, default_port)) = target else {
        return Ok(host);
    };
    let is_same = |host: &Authority| authority::is_same(&target, host, default_port);
    if authority::is_valid(&target) && host.as_ref().is_none_or(is_same) {
        Ok(Some(target))
    } else {
        Err(DownstreamFault::MalformedHead)
    }
}

/// Counts Max-Forwards down (RFC 9110 §7.6.2: OPTIONS and TRACE only).
///
/// At 0 we would have to answer for the service; what we have to say is that we do not carry OPTIONS ourselves.
fn count_forward(headers: &mut HeaderMap) -> Result<(), DownstreamFault> {
    if let Some(value) = headers.get_mut(header::MAX_FORWARDS) {
        match parse_length(value.as_bytes()) {
            None => return Err(DownstreamFault::MalformedHead),
            Some(0) => return Err(DownstreamFault::MethodNotAllowed),
            Some(left) => *value = HeaderValue::from(left - 1),
        }
    }
    Ok(())
}

/// Makes one line of several (RFC 9113 §8.2.3: with a semicolon, not the comma of other fields).
fn join_cookies(headers: &mut HeaderMap) {
    let lines: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if lines.len() < 2 {
        // A route has removed or replaced them.
        return;
    }
    let joined = lines.join(&b"; "[..]);
    let mut joined = HeaderValue::from_maybe_shared(Bytes::from(joined)).expect("made of valid values");
    joined.set_sensitive(true);
    headers.insert(header::COOKIE, joined);
}

/// Inserts a field that is not there yet before all others (RFC 9110 §7.2: Host should come first).
///
/// `HeaderMap` has no such operation. It does fill the place of a removed field with the last one, though, so the
/// first goes out and in again.
fn insert_first(headers: &mut HeaderMap, name: HeaderName, value: HeaderValue) {
    let first = headers.keys().next().cloned();
    headers.insert(name, value);
    let Some(first) = first else { return };
    if let Entry::Occupied(entry) = headers.entry(first) {
        let (first, values) = entry.remove_entry_mult();
        let values: Vec<HeaderValue> = values.collect();
        for value in values {
            headers.append(&first, value);
        }
    }
}

#[cfg(test)]
mod tests;
