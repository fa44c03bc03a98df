//! What this hop knows about a client connection and says about it to the services behind.
//!
//! RFC 9110 §7.6.3 (Via); `X-Forwarded-*` has no RFC, RFC 7239 is its successor.

use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::Arc;

use http::header::VIA;
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Version};

use super::authority;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Who this hop is, the same for every client.
#[derive(Debug)]
pub struct Identity {
    /// Our name in `Via`. Must differ from process to process: a second Trunkline on the way with the same name
    /// would take the request for one of its own and answer 502.
    pub pseudonym: Box<str>,
    /// `1.1 <pseudonym>`.
    via: HeaderValue,
}

impl Identity {
    /// `None` if `pseudonym` is not a token (RFC 9110 §5.6.2).
    pub fn new(pseudonym: &str) -> Option<Self> {
        Some(Self { pseudonym: pseudonym.into(), via: Hop::via(pseudonym)? })
    }
}

/// What this hop adds to requests; made once per client connection, so that values are shared and not formatted
/// for each request.
#[derive(Debug, Clone)]
pub struct Hop {
    pub identity: Arc<Identity>,
    /// The client's address.
    pub forwarded_for: HeaderValue,
    /// `http` or `https`: how the client is connected.
    pub forwarded_proto: &'static str,
    /// The Host of the connection's latest request. The next one nearly always has the same, which then costs
    /// neither a check nor an allocation.
    latest_host: RefCell<Option<Authority>>,
}

impl Hop {
    /// As [`Hop::of`], with an identity of its own. `via` comes from [`Hop::via`].
    pub fn new(pseudonym: Arc<str>, via: HeaderValue, client: IpAddr) -> Self {
        Self::of(&Arc::new(Identity { pseudonym: (&*pseudonym).into(), via }), client)
    }

    /// Describes a connection in the clear from `client`.
    pub fn of(identity: &Arc<Identity>, client: IpAddr) -> Self {
        let forwarded_for = HeaderValue::try_from(client.to_canonical().to_string());
        Self {
            identity: identity.clone(),
            forwarded_for: forwarded_for.expect("an IP address is a valid field value"),
            forwarded_proto: "http",
            latest_host: RefCell::new(None),
        }
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

    /// Says to the next recipient who is here; what the client said about forwarding is overwritten.
    pub(super) fn add_to(&self, headers: &mut HeaderMap, received: Version) {
        let identity = &self.identity;
        let via = match received {
            Version::HTTP_10 => {
                HeaderValue::try_from(format!("1.0 {}", identity.pseudonym)).unwrap_or(identity.via.clone())
            }
            _ => identity.via.clone(),
        };
        headers.append(VIA, via);
        // Indexed, the addresses of a hundred clients would fill the whole HPACK table.
        let mut forwarded_for = self.forwarded_for.clone();
        forwarded_for.set_sensitive(true);
        headers.insert(X_FORWARDED_FOR, forwarded_for);
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(self.forwarded_proto));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_on_an_ipv4_mapped_address_is_named_by_its_ipv4_address() {
        let hop = Hop::new("t".into(), Hop::via("t").unwrap(), "::ffff:10.0.0.1".parse().unwrap());
        assert_eq!(hop.forwarded_for, "10.0.0.1");
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
