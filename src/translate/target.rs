//! The request target: which of its four forms it has, and what it becomes.
//!
//! RFC 9112 §3.2, RFC 9113 §8.3.1. authority-form is CONNECT's alone and therefore always refused.

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Uri, uri};

use crate::error::DownstreamFault;

/// A target whose path is what goes upstream.
#[derive(Debug)]
pub(super) struct Target {
    /// Of an absolute-form target, or an `:authority`: with its scheme's port.
    pub(super) authority: Option<(Authority, u16)>,
    /// Starts with `/`, or is `*` (OPTIONS only).
    pub(super) path: PathAndQuery,
}

impl Target {
    /// Takes a target apart.
    ///
    /// # Errors
    /// [`DownstreamFault::MalformedHead`] unless it is origin-form, absolute-form with scheme `http` or `https`, or
    /// `*` with OPTIONS. The authority of an absolute-form target has not been checked.
    pub(super) fn parse(method: &Method, uri: Uri) -> Result<Self, DownstreamFault> {
        let uri::Parts { scheme, authority, path_and_query, .. } = uri.into_parts();
        match (scheme, authority, path_and_query) {
            (None, None, Some(path)) if path.as_str().starts_with('/') => Ok(Self { authority: None, path }),
            (None, None, Some(path)) if path == "*" && method == Method::OPTIONS => Ok(Self { authority: None, path }),
            (Some(scheme), Some(authority), Some(path)) => {
                let default_port = default_port(&scheme)?;
                let path = with_path(method, &authority, path)?;
                Ok(Self { authority: Some((authority, default_port)), path })
            }
            _ => Err(DownstreamFault::MalformedHead),
        }
    }

    /// Takes `:scheme`, `:authority` and `:path` apart, of which h2 has made a URI.
    ///
    /// # Errors
    /// [`DownstreamFault::MalformedHead`] unless the scheme is `http` or `https` and the path starts with `/`, or is `*`
    /// with OPTIONS. The authority has not been checked.
    pub(super) fn of_http2(method: &Method, uri: Uri) -> Result<Self, DownstreamFault> {
        let uri::Parts { scheme, authority, path_and_query, .. } = uri.into_parts();
        let path = path_and_query.ok_or(DownstreamFault::MalformedHead)?;
        if !(path.as_str().starts_with('/') || path == "*" && method == Method::OPTIONS) {
            return Err(DownstreamFault::MalformedHead);
        }
        // h2 drops the scheme where there is no authority.
        let default_port = scheme.as_ref().map_or(Ok(80), default_port)?;
        Ok(Self { authority: authority.map(|authority| (authority, default_port)), path })
    }
}

fn default_port(scheme: &Scheme) -> Result<u16, DownstreamFault> {
    match scheme {
        _ if *scheme == Scheme::HTTP => Ok(80),
        _ if *scheme == Scheme::HTTPS => Ok(443),
        _ => Err(DownstreamFault::MalformedHead),
    }
}

/// Gives an absolute-form target without a path its path: `/`, or `*` if OPTIONS asks about the whole server.
fn with_path(method: &Method, authority: &Authority, path: PathAndQuery) -> Result<PathAndQuery, DownstreamFault> {
    let text = path.as_str();
    if text.starts_with('?') {
        // `http::Uri` keeps `http://a?b` as the path and query `?b`, which no `:path` may be.
        return PathAndQuery::try_from(format!("/{text}")).map_err(|_| DownstreamFault::UriTooLong);
    }
    // RFC 9112 §3.2.4. `http::Uri` shows a `/` of its own where the target had none; the client's own follows the
    // authority in memory, since both are slices of one buffer.
    if text == "/" && authority.as_str().as_bytes().as_ptr_range().end != text.as_ptr() {
        // Replaced even by `/`: what `http://a#b` leaves behind reads as `/` but is written as nothing.
        return Ok(PathAndQuery::from_static(if method == Method::OPTIONS { "*" } else { "/" }));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(method: &Method, target: &'static str) -> Option<(String, Option<String>)> {
        let target = Target::parse(method, Uri::from_static(target)).ok()?;
        Some((target.path.as_str().to_owned(), target.authority.map(|(authority, _)| authority.to_string())))
    }

    fn get(target: &'static str) -> Option<(String, Option<String>)> {
        parse(&Method::GET, target)
    }

    #[test]
    fn origin_form_is_taken_as_it_is() {
        for target in ["/", "/a?b=c", "//a", "/a/../b", "/%2e%2e/", "/?", "/a*", "/http://b/"] {
            assert_eq!(get(target), Some((target.to_owned(), None)));
        }
    }

    #[test]
    fn absolute_form_gives_authority_and_path() {
        let on_a = |path: &str| Some((path.to_owned(), Some("a".to_owned())));
        assert_eq!(get("http://a/b?c"), on_a("/b?c"));
        assert_eq!(get("HTTPS://a/"), on_a("/"));
        assert_eq!(get("http://a"), on_a("/"));
        assert_eq!(get("http://a?b"), on_a("/?b"));
        assert_eq!(get("http://a#b"), on_a("/"));
        assert_eq!(get("ftp://a/"), None);
    }

    #[test]
    fn a_target_that_is_all_fragment_is_written_with_its_path() {
        let target = Target::parse(&Method::GET, Uri::from_static("http://a#b")).unwrap();
        assert_eq!(Uri::from(target.path).to_string(), "/");
    }

    #[test]
    fn asterisk_is_for_options_only() {
        assert_eq!(parse(&Method::OPTIONS, "*"), Some(("*".to_owned(), None)));
        assert_eq!(get("*"), None);
    }

    #[test]
    fn options_for_a_whole_server_becomes_asterisk() {
        let options = |target| parse(&Method::OPTIONS, target).unwrap().0;
        assert_eq!(options("http://a"), "*");
        assert_eq!(options("http://a/"), "/");
        assert_eq!(options("http://a?b"), "/?b");
        assert_eq!(options("/"), "/");
    }

    #[test]
    fn authority_form_is_refused() {
        assert_eq!(get("a:80"), None);
        assert_eq!(get("a"), None);
    }
}
