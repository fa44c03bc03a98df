//! What only shows when the parts are seen together.
//!
//! Each check points at the part that came last or that is easiest to change. Errors are what the data plane could
//! not serve; warnings are what it can serve but nobody can have meant.
//!
//! Pure, except that certificate files are read through `files`.

mod pem;

use std::collections::HashSet;
use std::collections::hash_map::{Entry, HashMap};
use std::hash::Hash;

use http::header;

use super::addresses::is_authority;
use super::assemble::Draft;
use super::decode::Decoder;
use super::diagnostic::Diagnostic;
use super::marks::{IdentityMarks, ListenerMarks, RouteMarks, UpstreamMarks};
use super::print::time_text;
use super::schema::Files;
use super::source::Span;
use super::{CaSource, HeaderEdits, ListenAddress, Listener, ProxyProtocol, Route, RouteMatch, TrustedPeer, Upstream};
use crate::translate::{is_removable, is_settable};

/// Notes everything in `draft` that does not fit together.
pub(super) fn check(draft: &Draft, files: Files<'_>, cx: &mut Decoder<'_>) {
    check_listeners(draft, cx);
    for (listener, marks) in draft.config.listeners.iter().zip(&draft.listeners) {
        check_listener_tls(listener, marks, files, cx);
    }
    check_admin(draft, cx);
    check_routes(draft, cx);
    for (upstream, marks) in draft.config.upstreams.iter().zip(&draft.upstreams) {
        check_endpoints(upstream, marks, &draft.config.listeners, cx);
        check_pool(upstream, marks, cx);
        check_tls(upstream, marks, files, cx);
    }
}

fn check_listeners(draft: &Draft, cx: &mut Decoder<'_>) {
    let mut names = HashMap::new();
    for (position, (listener, marks)) in draft.config.listeners.iter().zip(&draft.listeners).enumerate() {
        if let Some(earlier) = claim(&mut names, &listener.name, marks.name) {
            let error = Diagnostic::error(format!("two listeners are called `{}`", listener.name));
            cx.note(marks.name, error.label(first(earlier, cx)));
        }
        let mut earlier = draft.config.listeners.iter().zip(&draft.listeners).take(position);
        if let Some((known, earlier)) = earlier.find(|(known, _)| known.address.overlaps(&listener.address)) {
            let message = taken(&listener.address, known);
            cx.note(marks.address, Diagnostic::error(message).label(first(earlier.address, cx)));
        }
        if listener.proxy_protocol == ProxyProtocol::Optional && listener.trust_forwarded_from.is_empty() {
            let message = format!("the listener `{}` believes every client that sends a PROXY header", listener.name);
            let label = "list the balancers in trust_forwarded_from, or write required where only they can connect";
            cx.note(marks.proxy_protocol, Diagnostic::warning(message).label(label));
        }
        for (peer, span) in listener.trust_forwarded_from.iter().zip(&marks.trusted) {
            if matches!(peer, TrustedPeer::Network(network) if network.prefix_len() == 0) {
                let message = format!("the listener `{}` trusts everybody: {peer}", listener.name);
                let label = "every client can then choose the address that it is known by; list the proxies in front";
                cx.note(*span, Diagnostic::warning(message).label(label));
            }
        }
    }
}

fn check_admin(draft: &Draft, cx: &mut Decoder<'_>) {
    let admin = draft.config.admin.address.map(|address| (cx.call("admin.address"), address, draft.admin.address));
    let probes = draft.config.admin.probes.map(|address| (cx.call("admin.probes"), address, draft.admin.probes));
    for (key, address, span) in [&admin, &probes].into_iter().flatten() {
        let address = ListenAddress::from(*address);
        if let Some(listener) = draft.config.listeners.iter().find(|listener| listener.address.overlaps(&address)) {
            let message = format!("{key}: {}", taken(&address, listener));
            cx.note(*span, Diagnostic::error(message).label("operators need a port of their own"));
        }
    }
    if let (Some((_, admin, _)), Some((_, probes, span))) = (&admin, &probes)
        && ListenAddress::from(*admin).overlaps(&ListenAddress::from(*probes))
    {
        let message = if admin == probes {
            format!("admin.probes: {probes} is already admin.address")
        } else {
            format!("admin.probes: {probes} overlaps {admin}, which is admin.address")
        };
        cx.note(*span, Diagnostic::error(message).label("remove it: admin.address answers the probes too"));
    }
    if let Some((key, address, span)) = admin
        && !address.ip().is_loopback()
    {
        let message = format!("{key}: {address} is not a loopback address");
        let label = "whoever reaches it can drain and stop the process; for probes and metrics use admin.probes";
        cx.note(span, Diagnostic::warning(message).label(label));
    }
}

fn check_routes(draft: &Draft, cx: &mut Decoder<'_>) {
    let upstreams: HashSet<&str> = draft.config.upstreams.iter().map(|upstream| upstream.name.as_str()).collect();
    let routes: Vec<_> = draft.config.routes.iter().zip(&draft.routes).collect();
    let mut names = HashMap::new();
    let mut catch_all = None;
    for (position, (route, marks)) in routes.iter().enumerate() {
        if let Some(earlier) = claim(&mut names, &route.name, marks.name) {
            let error = Diagnostic::error(format!("two routes are called `{}`", route.name));
            cx.note(marks.name, error.label(first(earlier, cx)));
        }
        if let Some(span) = marks.upstream
            && !upstreams.is_empty()
            && !upstreams.contains(route.upstream.as_str())
        {
            let message = format!("routes[{position}].upstream: there is no upstream called `{}`", route.upstream);
            cx.note(span, Diagnostic::error(message).allowed(&route.upstream, in_order(draft)));
        }
        if let Some(span) = marks.rewrite
            && route.matches.path_prefix.is_none()
        {
            let message = format!("routes[{position}].rewrite.path_prefix: there is no matched prefix to replace");
            cx.note(span, Diagnostic::error(message).label("add `match: { path_prefix: / }`"));
        }
        check_retry(position, route, marks, cx);
        check_heartbeat(position, route, marks, cx);
        check_fields(position, route, marks, cx);
        if let Some((name, span)) = catch_all {
            let message = format!("the route `{}` never gets a request", route.name);
            let line = if cx.has_lines() { format!(" in line {}", cx.line(span)) } else { String::new() };
            let label = format!("`{name}`{line} takes every request; move it to the end");
            cx.note(marks.whole, Diagnostic::warning(message).label(label));
        } else if is_catch_all(&route.matches) {
            catch_all = Some((&route.name, marks.whole));
        }
    }
    // Where a route leads is only known once every route names an upstream that exists.
    let used: HashSet<&str> = routes.iter().map(|(route, _)| route.upstream.as_str()).collect();
    let are_resolved = !used.is_empty() && used.is_subset(&upstreams);
    for (upstream, marks) in draft.config.upstreams.iter().zip(&draft.upstreams).filter(|_| are_resolved) {
        if !used.contains(upstream.name.as_str()) {
            let message = format!("no route leads to the upstream `{}`", upstream.name);
            cx.note(marks.whole, Diagnostic::warning(message).label("remove it, or add a route"));
        }
    }
}

fn check_retry(position: usize, route: &Route, marks: &RouteMarks, cx: &mut Decoder<'_>) {
    let Some(retry) = &route.retry else {
        if let Some(span) = marks.attempts {
            let message = format!("routes[{position}].retry: nothing says what another try follows");
            cx.note(span, Diagnostic::error(message).label("add `when: [connect_failure, reset]`"));
        }
        return;
    };
    if let (Some(one), Some(all)) = (retry.per_try_timeout, route.timeouts.response_header)
        && one >= all
    {
        let message = format!("routes[{position}].retry.per_try_timeout: no try is ever given up");
        let label = format!("write less than timeouts.response_header, which is {}", time_text(all));
        cx.note(marks.per_try_timeout, Diagnostic::warning(message).label(label));
    }
}

fn check_heartbeat(position: usize, route: &Route, marks: &RouteMarks, cx: &mut Decoder<'_>) {
    if let (Some(heartbeat), Some(idle)) = (route.heartbeat, route.timeouts.stream_idle)
        && heartbeat >= idle
    {
        let message = format!("routes[{position}].heartbeat: no heartbeat is ever sent");
        let label = format!("write less than timeouts.stream_idle, which is {}", time_text(idle));
        cx.note(marks.heartbeat, Diagnostic::warning(message).label(label));
    }
}

/// Keeps from the data plane every edit that it would refuse at the first request.
fn check_fields(position: usize, route: &Route, marks: &RouteMarks, cx: &mut Decoder<'_>) {
    let Route { matches, request_headers: HeaderEdits { set, remove }, .. } = route;
    for ((name, _), span) in matches.headers.iter().zip(&marks.headers) {
        if *name == header::HOST {
            let message = format!("routes[{position}].match.headers: `host` never matches here");
            cx.note(*span, Diagnostic::error(message).label("use match.hosts"));
        }
    }
    let path = format!("routes[{position}].request_headers");
    for ((name, value), span) in set.iter().zip(&marks.set) {
        if *name == header::HOST {
            if !value.to_str().is_ok_and(is_authority) {
                let message = format!("{path}.set: the value of `host` is not a host");
                cx.note(*span, Diagnostic::error(message).label("write a host name, or host:port"));
            }
        } else if !is_settable(name) {
            let message = format!("{path}.set: `{name}` cannot be set");
            let label = "it frames the message or belongs to the connection, which Trunkline sees to itself";
            cx.note(*span, Diagnostic::error(message).label(label));
        }
    }
    for (name, span) in remove.iter().zip(&marks.remove).filter(|(name, _)| !is_removable(name)) {
        let message = format!("{path}.remove: `{name}` cannot be removed");
        cx.note(*span, Diagnostic::error(message).label("the request would mean something else without it"));
    }
}

fn check_endpoints(upstream: &Upstream, marks: &UpstreamMarks, listeners: &[Listener], cx: &mut Decoder<'_>) {
    let mut addresses = HashMap::new();
    for (endpoint, span) in upstream.endpoints.iter().zip(&marks.endpoints) {
        if let Some(listener) = listeners.iter().find(|listener| listener.address.is_reached_by(&endpoint.location)) {
            let message = format!("{} leads back to the listener `{}`", endpoint.location, listener.name);
            let label = "requests would go round in circles; write the service's own address";
            cx.note(*span, Diagnostic::warning(message).label(label));
        }
        if let Some(earlier) = claim(&mut addresses, &endpoint.location, *span) {
            let message = format!("{} is twice among the endpoints of `{}`", endpoint.location, upstream.name);
            let label = format!("{}; for a larger share give a weight", first(earlier, cx));
            cx.note(*span, Diagnostic::error(message).label(label));
        }
    }
}

fn check_pool(upstream: &Upstream, marks: &UpstreamMarks, cx: &mut Decoder<'_>) {
    let (pool, name) = (&upstream.pool, &upstream.name);
    if marks.has_endpoints && pool.min_connections > pool.max_connections {
        let message = format!(
            "upstreams.{name}.pool: min_connections ({}) is above max_connections ({})",
            pool.min_connections, pool.max_connections
        );
        let label = format!("write at most {}, or raise max_connections", pool.max_connections);
        cx.note(marks.min_connections, Diagnostic::error(message).label(label));
    }
    let window = u64::from(pool.max_streams_per_connection) * u64::from(upstream.stream_window_bytes);
    if window > WINDOW_BYTES_MAX {
        let message = format!(
            "upstreams.{name}: max_streams_per_connection ({}) times stream_window ({} bytes) is above 2 GiB, the \
             largest connection window of HTTP/2",
            pool.max_streams_per_connection, upstream.stream_window_bytes
        );
        let most = WINDOW_BYTES_MAX / u64::from(upstream.stream_window_bytes);
        let label = format!("write at most {most}, or a smaller stream_window");
        cx.note(marks.window, Diagnostic::error(message).label(label));
    }
}

fn check_tls(upstream: &Upstream, marks: &UpstreamMarks, files: Files<'_>, cx: &mut Decoder<'_>) {
    let name = &upstream.name;
    if let Some(span) = marks.tls.filter(|_| marks.has_endpoints && !upstream.has_tls()) {
        let message = format!("upstreams.{name}.tls: no endpoint of `{name}` uses TLS");
        cx.note(span, Diagnostic::error(message).label("write an endpoint as h2:// or https://, or remove tls"));
    }
    let path = format!("upstreams.{name}.tls");
    if let CaSource::File(file) = &upstream.tls.ca {
        pem::check_roots(&format!("{path}.ca"), file, marks.ca, files, cx);
    }
    match (marks.client_cert, marks.client_key, &upstream.tls.client) {
        (Some(cert), Some(key), Some(client)) => {
            let keys = (&*format!("{path}.client_cert"), &*format!("{path}.client_key"));
            pem::check_identity(keys, client, &IdentityMarks { cert, key }, files, cx);
        }
        (Some(span), None, _) => {
            let message = format!("{path}: client_cert has no client_key");
            cx.note(span, Diagnostic::error(message).label("add `client_key: client.key`"));
        }
        (None, Some(span), _) => {
            let message = format!("{path}: client_key has no client_cert");
            cx.note(span, Diagnostic::error(message).label("add `client_cert: client.crt`"));
        }
        _ => {}
    }
}

fn check_listener_tls(
    listener: &Listener,
    ListenerMarks { position, tls: marks, .. }: &ListenerMarks,
    files: Files<'_>,
    cx: &mut Decoder<'_>,
) {
    let (Some(tls), Some(whole)) = (&listener.tls, marks.whole) else { return };
    let path = format!("listeners[{position}].tls");
    if !marks.has_certificates {
        let message = format!("{path}: the key `certificates` is missing");
        let label = "add `certificates: [{ cert: tls.crt, key: tls.key }]`";
        cx.note(whole, Diagnostic::error(message).label(label));
    }
    for (identity, (number, marks)) in tls.certificates.iter().zip(&marks.certificates) {
        let path = format!("{path}.certificates[{number}]");
        let subject =
            pem::check_identity((&format!("{path}.cert"), &format!("{path}.key")), identity, marks, files, cx);
        if *number > 0 && subject.is_some_and(|subject| subject.names.is_empty()) {
            let message =
                format!("{path}.cert: {} has no DNS name that a client could ask for", identity.cert.display());
            let label = "it is never used; the first certificate is for clients that ask for no name";
            cx.note(marks.cert, Diagnostic::warning(message).label(label));
        }
    }
    let mut seen = HashMap::new();
    for (word, span) in tls.alpn.iter().zip(&marks.alpn) {
        if let Some(earlier) = claim(&mut seen, word, *span) {
            cx.note(*span, Diagnostic::error(format!("{path}.alpn: this is given twice")).label(first(earlier, cx)));
        }
    }
    if let Some(file) = &tls.client_ca {
        pem::check_roots(&format!("{path}.client_ca"), file, marks.client_ca, files, cx);
    }
}

fn is_catch_all(matches: &RouteMatch) -> bool {
    let RouteMatch { hosts, path_prefix, methods, headers } = matches;
    hosts.is_empty() && path_prefix.is_none() && methods.is_empty() && headers.is_empty()
}

/// Names of the upstreams as the file gives them, for suggestions.
fn in_order(draft: &Draft) -> impl Iterator<Item = &str> {
    draft.config.upstreams.iter().map(|upstream| upstream.name.as_str())
}

/// Enters `owner` for `key` unless somebody has it, and returns that earlier owner.
fn claim<K: Eq + Hash, V: Copy>(owners: &mut HashMap<K, V>, key: K, owner: V) -> Option<V> {
    match owners.entry(key) {
        Entry::Occupied(entry) => Some(*entry.get()),
        Entry::Vacant(entry) => {
            entry.insert(owner);
            None
        }
    }
}

fn taken(address: &ListenAddress, by: &Listener) -> String {
    if *address == by.address {
        format!("{address} is already the address of the listener `{}`", by.name)
    } else {
        format!("{address} overlaps {}, the address of the listener `{}`", by.address, by.name)
    }
}

fn first(span: Span, cx: &Decoder<'_>) -> String {
    if cx.has_lines() { format!("first given in line {}", cx.line(span)) } else { "it is given before".to_owned() }
}

/// RFC 9113 §6.9.1.
const WINDOW_BYTES_MAX: u64 = (1 << 31) - 1;

#[cfg(test)]
mod tests;
