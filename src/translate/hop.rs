//! What this hop knows about a client connection and says about it to the services behind.
//!
//! RFC 9110 §7.6.3 (Via); `X-Forwarded-*` has no RFC, RFC 7239 is its successor.

use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::Arc;

use http::header::{FORWARDED, VIA};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Version};

use super::authority;
use super::client_address::ClientAddress;
use super::forwarded::{self, X_FORWARDED_FOR};
use crate::config::TrustedPeer;

const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Who this hop is, the same for every client.
#[derive(Debug)]
pub struct Identity {
    /// Our name in `Via`. Must differ from process to process: a second Trunkline on the way with the same name
    /// would take the request for one of its own and answer 502.
    pub pseudonym: Box<str>,
    /// `1.1 <pseudonym>`.
    via: HeaderValue,
    /// `2.0 <pseudonym>`.
    via_http2: HeaderValue,
}

impl Identity {
    /// `None` if `pseudonym` is not a token (RFC 9110 §5.6.2).
    pub fn new(pseudonym: &str) -> Option<Self> {
        Some(Self::with_via(pseudonym, Hop::via(pseudonym)?))
    }

    fn with_via(pseudonym: &str, via: HeaderValue) -> Self {
        let via_http2 = HeaderValue::try_from(format!("2.0 {pseudonym}")).unwrap_or_else(|_| via.clone());
        Self { pseudonym: pseudonym.into(), via, via_http2 }
    }
}

/// What this hop adds to requests; made once per client connection, so that values are shared and not formatted
/// for each request.
#[derive(Debug, Clone)]
pub struct Hop {
    pub identity: Arc<Identity>,
    /// Who is connected.
    pub peer: ClientAddress,
    /// Its address; absent for a Unix socket.
    forwarded_for: Option<HeaderValue>,
    /// Whom to believe about forwarding, if the peer is among them.
    trusted: Option<Arc<[TrustedPeer]>>,
    /// `http` or `https`: how the client is connected.
    pub forwarded_proto: &'static str,
    /// The Host of the connection's latest request. The next one nearly always has the same, which then costs
    /// neither a check nor an allocation.
    latest_host: RefCell<Option<Authority>>,
}

impl Hop {
    /// As [`Hop::of`], with an identity of its own, from a peer that nobody trusts. `via` comes from [`Hop::via`].
    pub fn new(pseudonym: Arc<str>, via: HeaderValue, peer: IpAddr) -> Self {
        Self::of(&Arc::new(Identity::with_via(&pseudonym, via)), peer.into(), &Arc::default())
    }

    /// Describes a connection in the clear from `peer`; what those in `trusted` say about forwarding is believed.
    pub fn of(identity: &Arc<Identity>, peer: ClientAddress, trusted: &Arc<[TrustedPeer]>) -> Self {
        let forwarded_for = match peer {
            ClientAddress::Ip(ip) => {
                Some(HeaderValue::try_from(ip.to_string()).expect("an IP address is a valid field value"))
            }
            ClientAddress::Unix => None,
        };
        Self {
            identity: identity.clone(),
            peer,
            forwarded_for,
            trusted: forwarded::is_trusted(peer, trusted).then(|| trusted.clone()),
            forwarded_proto: "http",
            latest_host: RefCell::new(None),
        }
    }

    /// Who has sent a request with these fields: the peer, unless it is trusted and says whom it speaks for.
    pub fn client_of(&self, headers: &HeaderMap) -> ClientAddress {
        match &self.trusted {
            None => self.peer,
            Some(trusted) => forwarded::client(headers, self.peer, trusted),
        }
    }

    /// Whether what the peer says about forwarding is kept.
    pub(super) fn is_peer_trusted(&self) -> bool {
        self.trusted.is_some()
    }

    /// Formats the `Via` value for requests received as HTTP/1.1; `None` if `pseudonym` is not a token (RFC 9110 §5.6.2).
    pub fn via(pseudonym: &str) -> Option<HeaderValue> {
        // A field name is a token too.
        HeaderName::from_bytes(pseudonym.as_bytes()).ok()?;
        HeaderValue::try_from(format!("1.1 {pseudonym}")).ok()
    }

    /// The authority of a Host value; `None` if it is not valid.
    pub(super) fn authority(&self, host: &HeaderValue) -> Option<Authority> {
        if let Some(latest) = &*self.latest_host.borrow()
            && latest.as_str().as_bytes() == host.as_bytes()
        {
            return Some(latest.clone());
        }
        let authority = authority::parse(host.as_bytes())?;
        self.latest_host.replace(Some(authority.clone()));
        Some(authority)
    }

    /// Says to the next recipient who is here; what a peer that is not trusted said about forwarding is overwritten.
    pub(super) fn add_to(&self, headers: &mut HeaderMap, received: Version) {
        let identity = &self.identity;
        let via = match received {
            Version::HTTP_10 => {
                HeaderValue::try_from(format!("1.0 {}", identity.pseudonym)).unwrap_or(identity.via.clone())
            }
            Version::HTTP_2 => identity.via_http2.clone(),
            _ => identity.via.clone(),
        };
        headers.append(VIA, via);
        if let Some(trusted) = &self.trusted {
            self.add_behind_others(headers, trusted);
            return;
        }
        // Indexed, the addresses of a hundred clients would fill the whole HPACK table.
        set_unindexed(headers, X_FORWARDED_FOR, self.forwarded_for.clone());
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(self.forwarded_proto));
    }

    /// Adds to what a trusted peer says.
    #[cold]
    fn add_behind_others(&self, headers: &mut HeaderMap, trusted: &[TrustedPeer]) {
        let forwarded_for = forwarded::joined_forwarded_for(headers, self.forwarded_for.as_ref(), trusted);
        set_unindexed(headers, X_FORWARDED_FOR, forwarded_for);
        if headers.contains_key(FORWARDED) {
            let forwarded = forwarded::joined_forwarded(headers, self.peer, self.forwarded_proto);
            set_unindexed(headers, FORWARDED, forwarded);
        }
        if let Some(real_ip) = headers.get_mut(X_REAL_IP) {
            real_ip.set_sensitive(true);
        }
        if !headers.contains_key(X_FORWARDED_PROTO) {
            headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(self.forwarded_proto));
        }
    }
}

/// Sets a field that HPACK shall not index, or removes it.
fn set_unindexed(headers: &mut HeaderMap, name: HeaderName, value: Option<HeaderValue>) {
    if let Some(mut value) = value {
        value.set_sensitive(true);
        headers.insert(name, value);
    } else {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_on_an_ipv4_mapped_address_is_named_by_its_ipv4_address() {
        let hop = Hop::new("t".into(), Hop::via("t").unwrap(), "::ffff:10.0.0.1".parse().unwrap());
        assert_eq!(hop.forwarded_for.unwrap(), "10.0.0.1");
    }

    #[test]
    fn a_pseudonym_that_is_no_token_is_refused() {
        assert_eq!(Hop::via("trunkline-7f3a").unwrap(), "1.1 trunkline-7f3a");
        assert!(Hop::via("trunk line").is_none());
        assert!(Hop::via("").is_none());
    }

    #[test]
    fn a_changed_host_is_noticed() {
        let hop = Hop::new("t".into(), Hop::via("t").unwrap(), [127, 0, 0, 1].into());
        let authority = |host: &'static str| hop.authority(&HeaderValue::from_static(host)).map(|a| a.to_string());
        assert_eq!(authority("a"), Some("a".into()));
        assert_eq!(authority("a"), Some("a".into()));
        assert_eq!(authority("A"), Some("A".into()));
        assert_eq!(authority("a@b"), None);
        assert_eq!(authority("b"), Some("b".into()));
    }
}
