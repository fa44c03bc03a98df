//! What only shows when the parts are seen together.
//!
//! Each check points at the part that came last or that is easiest to change. Errors are what the data plane could
//! not serve; warnings are what it can serve but nobody can have meant.
//!
//! Pure, except that a certificate file is read through `files`.

use std::collections::HashSet;
use std::collections::hash_map::{Entry, HashMap};
use std::hash::Hash;
use std::net::SocketAddr;
use std::path::Path;

use http::header;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use super::assemble::{Draft, RouteMarks, UpstreamMarks};
use super::decode::Decoder;
use super::diagnostic::Diagnostic;
use super::parse::is_authority;
use super::print::time_text;
use super::schema::Files;
use super::source::Span;
use super::{CaSource, HeaderEdits, Route, RouteMatch, Upstream};
use crate::translate::{is_removable, is_settable};

/// Notes everything in `draft` that does not fit together.
pub(super) fn check(draft: &Draft, files: Files<'_>, cx: &mut Decoder<'_>) {
    check_listeners(draft, cx);
    check_admin(draft, cx);
    check_routes(draft, cx);
    for (upstream, marks) in draft.config.upstreams.iter().zip(&draft.upstreams) {
        check_endpoints(upstream, marks, cx);
        check_pool(upstream, marks, cx);
        check_tls(upstream, marks, files, cx);
    }
}

fn check_listeners(draft: &Draft, cx: &mut Decoder<'_>) {
    let (mut names, mut addresses) = (HashMap::new(), HashMap::new());
    for (listener, marks) in draft.config.listeners.iter().zip(&draft.listeners) {
        if let Some(earlier) = claim(&mut names, &listener.name, marks.name) {
            let error = Diagnostic::error(format!("two listeners are called `{}`", listener.name));
            cx.note(marks.name, error.label(first(earlier, cx)));
        }
        // Port 0 is a fresh port each time.
        if listener.address.port() != 0
            && let Some((name, earlier)) = claim(&mut addresses, listener.address, (&listener.name, marks.address))
        {
            let message = format!("{} is already the address of the listener `{name}`", listener.address);
            cx.note(marks.address, Diagnostic::error(message).label(first(earlier, cx)));
        }
    }
}

fn check_admin(draft: &Draft, cx: &mut Decoder<'_>) {
    let admin = draft.config.admin.address.map(|address| (cx.call("admin.address"), address, draft.admin.address));
    let probes = draft.config.admin.probes.map(|address| (cx.call("admin.probes"), address, draft.admin.probes));
    for (key, address, span) in [&admin, &probes].into_iter().flatten() {
        if let Some(listener) = draft.config.listeners.iter().find(|listener| clash(listener.address, *address)) {
            let message = format!("{key}: {address} is already the address of the listener `{}`", listener.name);
            cx.note(*span, Diagnostic::error(message).label("operators need a port of their own"));
        }
    }
    if let (Some((_, admin, _)), Some((_, probes, span))) = (&admin, &probes)
        && clash(*admin, *probes)
    {
        let message = format!("admin.probes: {probes} is already admin.address");
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

fn check_endpoints(upstream: &Upstream, marks: &UpstreamMarks, cx: &mut Decoder<'_>) {
    let mut addresses = HashMap::new();
    for (endpoint, span) in upstream.endpoints.iter().zip(&marks.endpoints) {
        if let Some(earlier) = claim(&mut addresses, (&endpoint.host, endpoint.port), *span) {
            let message = format!("{} is twice among the endpoints of `{}`", endpoint.authority(), upstream.name);
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
    let has_tls = upstream.endpoints.iter().any(|endpoint| endpoint.protocol.is_tls());
    if let Some(span) = marks.tls.filter(|_| marks.has_endpoints && !has_tls) {
        let message = format!("upstreams.{name}.tls: no endpoint of `{name}` uses TLS");
        cx.note(span, Diagnostic::error(message).label("write an endpoint as h2:// or https://, or remove tls"));
    }
    if let CaSource::File(path) = &upstream.tls.ca
        && let Err((reason, label)) = check_certificates(path, files)
    {
        let message = format!("upstreams.{name}.tls.ca: {} {reason}", path.display());
        cx.note(marks.ca, Diagnostic::error(message).label(label));
    }
}

/// Reads a PEM file once, so that a wrong one is found now and not at the first handshake.
fn check_certificates(path: &Path, files: Files<'_>) -> Result<(), (String, &'static str)> {
    let bytes = files(path).map_err(|error| (format!("cannot be read: {error}"), "give the path of a PEM file"))?;
    let mut count = 0;
    for certificate in CertificateDer::pem_slice_iter(&bytes) {
        certificate.map_err(|error| (format!("is not PEM: {error}"), "give a file with BEGIN CERTIFICATE lines"))?;
        count += 1;
    }
    if count == 0 {
        return Err(("holds no certificate".to_owned(), "give a file with BEGIN CERTIFICATE lines"));
    }
    Ok(())
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

/// Port 0 is a fresh port each time.
fn clash(one: SocketAddr, other: SocketAddr) -> bool {
    one == other && one.port() != 0
}

fn first(span: Span, cx: &Decoder<'_>) -> String {
    if cx.has_lines() { format!("first given in line {}", cx.line(span)) } else { "it is given before".to_owned() }
}

/// RFC 9113 §6.9.1.
const WINDOW_BYTES_MAX: u64 = (1 << 31) - 1;

#[cfg(test)]
mod tests {
    use std::io;

    use super::super::schema::load_with;
    use super::super::{Config, Diagnostics, Source};
    use super::*;

    fn read(text: &str) -> Result<(Config, Diagnostics), Diagnostics> {
        let files = |path: &Path| match path.to_str() {
            Some("ca.pem") => Ok(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_vec()),
            Some("key.pem") => Ok(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n".to_vec()),
            Some("torn.pem") => Ok(b"-----BEGIN CERTIFICATE-----\nAAAA\n".to_vec()),
            _ => Err(io::Error::from(io::ErrorKind::NotFound)),
        };
        load_with(&Source::new("t.yaml", text), &|_| None, &files)
    }

    fn lines(diagnostics: &Diagnostics) -> Vec<String> {
        let one = |it: &Diagnostic| {
            let place = it.place.as_ref().expect("a place");
            format!("{}:{} {}; {}", place.line.unwrap(), place.column, it.message, it.label.as_deref().unwrap_or(""))
        };
        diagnostics.list.iter().map(one).collect()
    }

    fn errors(text: &str) -> Vec<String> {
        lines(&read(text).expect_err("errors"))
    }

    fn warnings(text: &str) -> Vec<String> {
        lines(&read(text).unwrap_or_else(|errors| panic!("{errors}")).1)
    }

    /// A configuration with the one upstream `api` and `rest`.
    fn with(rest: &str) -> String {
        format!(
            "listeners: [{{ address: 127.0.0.1:8080 }}]\nupstreams: {{ api: {{ endpoints: [h2c://a:1] }} }}\n{rest}\n"
        )
    }

    /// A configuration whose one upstream has `keys`.
    fn upstream(keys: &str) -> String {
        format!("listeners: [{{ address: 127.0.0.1:8080 }}]\nupstreams:\n  api:\n    {keys}\n")
    }

    #[test]
    fn listeners_have_names_and_addresses_of_their_own() {
        let text = "\
listeners:
  - { name: a, address: 127.0.0.1:80 }
  - { name: a, address: 127.0.0.1:81 }
  - { name: b, address: 127.0.0.1:80 }
  - { address: 127.0.0.1:0 }
  - { address: 127.0.0.1:0 }
upstreams: { api: { endpoints: [h2c://a:1] } }
";
        assert_eq!(
            errors(text),
            [
                "3:13 two listeners are called `a`; first given in line 2",
                "4:25 127.0.0.1:80 is already the address of the listener `a`; first given in line 2",
            ]
        );
    }

    #[test]
    fn operators_have_addresses_of_their_own() {
        assert_eq!(
            errors(&with("admin: { address: 127.0.0.1:8080, probes: 127.0.0.1:8080 }")),
            [
                "3:19 admin.address: 127.0.0.1:8080 is already the address of the listener `listener-1`; operators need a port of their own",
                "3:43 admin.probes: 127.0.0.1:8080 is already the address of the listener `listener-1`; operators need a port of their own",
                "3:43 admin.probes: 127.0.0.1:8080 is already admin.address; remove it: admin.address answers the probes too",
            ]
        );
        assert_eq!(
            warnings(&with("admin: { address: 0.0.0.0:9900 }")),
            [
                "3:19 admin.address: 0.0.0.0:9900 is not a loopback address; whoever reaches it can drain and stop the process; \
              for probes and metrics use admin.probes"
            ]
        );
    }

    #[test]
    fn routes_lead_to_upstreams_that_exist_under_names_of_their_own() {
        let text =
            with("routes:\n  - { name: a, upstream: aip, match: { methods: [GET] } }\n  - { name: a, upstream: api }");
        assert_eq!(
            errors(&text),
            [
                "4:26 routes[0].upstream: there is no upstream called `aip`; did you mean `api`?",
                "5:13 two routes are called `a`; first given in line 4",
            ]
        );
    }

    #[test]
    fn routes_after_a_catch_all_and_upstreams_without_route_are_warned_of() {
        let text = "\
listeners: [{ address: 127.0.0.1:8080 }]
upstreams:
  api: { endpoints: [h2c://a:1] }
  old: { endpoints: [h2c://b:1] }
routes:
  - upstream: api
    match:
  - { name: late, upstream: api }
";
        assert_eq!(
            warnings(text),
            [
                "4:3 no route leads to the upstream `old`; remove it, or add a route",
                "8:7 the route `late` never gets a request; `route-1` in line 6 takes every request; move it to the end",
            ]
        );
    }

    #[test]
    fn rewrites_need_a_prefix_to_replace() {
        assert_eq!(
            errors(&with("routes: [{ upstream: api, rewrite: { path_prefix: / } }]")),
            [
                "3:51 routes[0].rewrite.path_prefix: there is no matched prefix to replace; add `match: { path_prefix: / }`"
            ]
        );
    }

    #[test]
    fn edits_that_the_data_plane_would_refuse_are_refused() {
        let edits = "set: { TE: a, host: a/b }, remove: [Host, TE, x-a]";
        let text = with(&format!(
            "routes: [{{ upstream: api, request_headers: {{ {edits} }}, match: {{ headers: {{ host: a }} }} }}]"
        ));
        let framing = "it frames the message or belongs to the connection, which Trunkline sees to itself";
        assert_eq!(
            errors(&text),
            [
                format!("3:53 routes[0].request_headers.set: `te` cannot be set; {framing}"),
                "3:60 routes[0].request_headers.set: the value of `host` is not a host; write a host name, or host:port".to_owned(),
                "3:82 routes[0].request_headers.remove: `host` cannot be removed; the request would mean something else without it".to_owned(),
                "3:120 routes[0].match.headers: `host` never matches here; use match.hosts".to_owned(),
            ]
        );
        assert_eq!(
            warnings(&with("routes: [{ upstream: api, request_headers: { set: { host: \"a.b:80\" } } }]")),
            [""; 0]
        );
    }

    #[test]
    fn fields_are_set_once_whatever_their_case() {
        let text = with("routes: [{ upstream: api, request_headers: { set: { X-A: a, x-a: b } } }]");
        assert_eq!(
            errors(&text),
            [
                "3:61 routes[0].request_headers.set: field `x-a` is given twice; names do not differ by case; first given in line 3"
            ]
        );
    }

    #[test]
    fn an_address_is_one_endpoint_whatever_its_scheme() {
        let label = "first given in line 4; for a larger share give a weight";
        assert_eq!(
            errors(&upstream("endpoints: [h2c://a:1, http1://A:1, h2c://a:2]")),
            [format!("4:28 a:1 is twice among the endpoints of `api`; {label}")]
        );
    }

    #[test]
    fn pools_hold_at_least_what_they_keep_open() {
        assert_eq!(
            errors(&upstream("{ endpoints: [h2c://a:1], pool: { min_connections: 5 } }")),
            [
                "4:56 upstreams.api.pool: min_connections (5) is above max_connections (4); write at most 4, or raise max_connections"
            ]
        );
    }

    #[test]
    fn the_connection_window_fits_http2() {
        let text =
            "{ endpoints: [h2c://a:1], pool: { max_streams_per_connection: 200 }, http2: { stream_window: 16MiB } }";
        assert_eq!(
            errors(&upstream(text)),
            [
                "4:67 upstreams.api: max_streams_per_connection (200) times stream_window (16777216 bytes) is above 2 GiB, the \
              largest connection window of HTTP/2; write at most 127, or a smaller stream_window"
            ]
        );
    }

    #[test]
    fn tls_settings_need_a_tls_endpoint() {
        assert_eq!(
            errors(&upstream("{ endpoints: [h2c://a:1], tls: { ca: system } }")),
            [
                "4:31 upstreams.api.tls: no endpoint of `api` uses TLS; write an endpoint as h2:// or https://, or remove tls"
            ]
        );
        assert_eq!(warnings(&upstream("{ endpoints: [h2c://a:1, h2://b:1], tls: { ca: ca.pem } }")), [""; 0]);
    }

    #[test]
    fn another_try_needs_a_reason_and_a_time_that_can_pass() {
        let retry = |keys: &str| with(&format!("routes: [{{ upstream: api, retry: {{ {keys} }} }}]"));
        assert_eq!(warnings(&retry("when: [connect_failure, reset, 429, \"503\"]")), [""; 0]);
        assert_eq!(warnings(&retry("attempts: 1, per_try_timeout: 59s")), [""; 0]);
        let reasons = "write connect_failure, reset, \"429\", or a status from \"500\" to \"599\"";
        for (keys, said) in [
            (
                "attempts: 3",
                "46 routes[0].retry: nothing says what another try follows; add `when: [connect_failure, reset]`",
            ),
            ("attempts: 0", "46 routes[0].retry.attempts: `0` is out of range; write a whole number from 1 to 5"),
            ("when: [404]", &format!("43 routes[0].retry.when[0]: `404` is no reason to try again; {reasons}")),
            ("when: [timeout]", &format!("43 routes[0].retry.when[0]: `timeout` is no reason to try again; {reasons}")),
            ("per_try_timeout: 5", "53 routes[0].retry.per_try_timeout: `5` has no unit; write 5s, or none"),
        ] {
            assert_eq!(errors(&retry(keys)), [format!("3:{said}")]);
        }
        assert_eq!(
            warnings(&retry("per_try_timeout: 1m")),
            [
                "3:53 routes[0].retry.per_try_timeout: no try is ever given up; write less than timeouts.response_header, \
              which is 1m"
            ]
        );
    }

    #[test]
    fn certificate_files_are_read_before_they_are_needed() {
        for (path, reason, label) in [
            ("none.pem", "cannot be read: entity not found", "give the path of a PEM file"),
            ("key.pem", "holds no certificate", "give a file with BEGIN CERTIFICATE lines"),
            ("torn.pem", "is not PEM: ", "give a file with BEGIN CERTIFICATE lines"),
        ] {
            let said = errors(&upstream(&format!("{{ endpoints: [h2://a:1], tls: {{ ca: {path} }} }}")));
            assert!(said[0].starts_with(&format!("4:41 upstreams.api.tls.ca: {path} {reason}")), "{said:?}");
            assert!(said[0].ends_with(label), "{said:?}");
        }
    }
}
