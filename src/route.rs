//! Host, path, method and fields to a route; first match wins.
//!
//! A table is immutable and made from one configuration. What a route leads to is the caller's `T`; this module only
//! knows conditions. The usual table, one route without conditions, costs one look at a flag.
//!
//! Matching looks at the very bytes that go upstream, so nothing can match one thing here and mean another there by
//! our doing:
//! - Paths are not decoded: `/%761` does not match `/v1`, although a service may treat them alike.
//! - Paths are not normalised: `//` is an empty segment, and `/v1/../admin` (or `%2e%2e`) matches `/v1`. Where two
//!   routes separate what is public from what is not, the service behind the public one must not resolve dots.
//! - A prefix covers whole segments, and a slash at its end does not count: `/v1` and `/v1/` both match `/v1`,
//!   `/v1/` and `/v1/x`, not `/v10`. `*` (OPTIONS about the whole server) matches only routes without a prefix.
//! - Hosts are compared without regard to case and port; one trailing dot on either side does not count. A request
//!   without a host (HTTP/1.0) matches only routes without hosts.
//! - Fields are those that go upstream: Host is not among them, and forwarding fields are ours.
//!
//! Pure; on each worker. RFC 9110 §7.4, RFC 3986 §6.2 (what is *not* done here).

use http::{HeaderName, HeaderValue, Method};

use crate::config::RouteMatch;
use crate::translate::RequestHead;

/// Routes in the order of the configuration.
#[derive(Debug, Clone)]
pub struct RouteTable<T> {
    entries: Box<[Entry<T>]>,
}

impl<T> RouteTable<T> {
    /// Makes a table of conditions and what they lead to.
    pub fn new(routes: impl IntoIterator<Item = (RouteMatch, T)>) -> Self {
        Self { entries: routes.into_iter().map(|(conditions, to)| Entry::new(conditions, to)).collect() }
    }

    /// The first route whose conditions all hold.
    pub fn find(&self, head: &RequestHead) -> Option<&T> {
        self.entries.iter().find(|entry| entry.is_catch_all || entry.is_match(head)).map(|entry| &entry.to)
    }
}

#[derive(Debug, Clone)]
struct Entry<T> {
    is_catch_all: bool,
    hosts: Box<[HostPattern]>,
    /// Without the slash at its end; empty: any path that starts with a slash.
    path_prefix: Option<Box<str>>,
    methods: Box<[Method]>,
    headers: Box<[(HeaderName, HeaderValue)]>,
    to: T,
}

impl<T> Entry<T> {
    fn new(conditions: RouteMatch, to: T) -> Self {
        let RouteMatch { hosts, path_prefix, methods, headers } = conditions;
        Self {
            is_catch_all: hosts.is_empty() && path_prefix.is_none() && methods.is_empty() && headers.is_empty(),
            hosts: hosts.iter().map(|host| HostPattern::new(host)).collect(),
            path_prefix: path_prefix.map(|prefix| prefix.strip_suffix('/').unwrap_or(&prefix).into()),
            methods: methods.into(),
            headers: headers.into(),
            to,
        }
    }

    fn is_match(&self, head: &RequestHead) -> bool {
        self.path_prefix.as_deref().is_none_or(|prefix| is_path_below(head.path(), prefix))
            && (self.hosts.is_empty() || head.host().is_some_and(|host| self.is_host_match(host)))
            && (self.methods.is_empty() || self.methods.contains(head.method()))
            && self.headers.iter().all(|(name, value)| head.headers().get_all(name).iter().any(|line| line == value))
    }

    fn is_host_match(&self, host: &str) -> bool {
        let host = without_root(host);
        self.hosts.iter().any(|pattern| pattern.is_match(host))
    }
}

#[derive(Debug, Clone)]
enum HostPattern {
    Exact(Box<str>),
    /// `.example.com`: any name that ends so and has at least one character more.
    Below(Box<str>),
}

impl HostPattern {
    fn new(host: &str) -> Self {
        let host = without_root(host);
        match host.strip_prefix('*') {
            Some(suffix) => Self::Below(suffix.into()),
            None => Self::Exact(host.into()),
        }
    }

    fn is_match(&self, host: &str) -> bool {
        match self {
            Self::Exact(name) => host.eq_ignore_ascii_case(name),
            Self::Below(suffix) => host
                .len()
                .checked_sub(suffix.len())
                .is_some_and(|start| start > 0 && host.as_bytes()[start..].eq_ignore_ascii_case(suffix.as_bytes())),
        }
    }
}

/// `example.com.` is `example.com`, said in full.
fn without_root(host: &str) -> &str {
    host.strip_suffix('.').unwrap_or(host)
}

/// Whether `path` starts with the segments of `prefix`, which has no slash at its end.
fn is_path_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/') || (rest.is_empty() && !prefix.is_empty()))
}

#[cfg(test)]
mod tests;
