//! The decoded sections put together into a [`Config`], with the places where its parts were written.
//!
//! Every section is taken apart in full, so that a new key does not compile until it has a place in [`Config`].
//! The two forms of a configuration become one here: the short form is a long form with one of everything.
//!
//! Pure.

use super::decode::{Decoder, Fields, Section, names};
use super::diagnostic::{Diagnostic, nearest};
use super::keys::{
    AccessKeys, AdminKeys, CertificateKeys, EditKeys, Headers, Http2Keys, LimitKeys, ListenerKeys, ListenerTimeoutKeys,
    ListenerTlsKeys, LogsKeys, MatchKeys, PingKeys, PoolKeys, RetryBudgetKeys, RetryKeys, RewriteKeys, RootKeys,
    RouteKeys, RouteTimeoutKeys, RuntimeKeys, ShutdownKeys, TlsKeys, UpstreamKeys, UpstreamTimeoutKeys,
};
use super::marks::{AdminMarks, IdentityMarks, ListenerMarks, ListenerTlsMarks, RouteMarks, UpstreamMarks};
use super::source::{Span, Spanned};
use super::yaml::{Node, NodeValue};
use super::{
    AccessLog, Admin, Alpn, Config, Endpoint, HeaderEdits, Identity, Listener, ListenerTls, Logs, Ping, Pool, Protocol,
    Retry, RetryBudget, Route, RouteMatch, RouteTimeouts, Runtime, Shutdown, Upstream, UpstreamTls,
};

/// A configuration in which parts may be missing because they were wrong, and where its parts were written.
pub(super) struct Draft {
    pub(super) config: Config,
    pub(super) listeners: Vec<ListenerMarks>,
    pub(super) routes: Vec<RouteMarks>,
    pub(super) upstreams: Vec<UpstreamMarks>,
    pub(super) admin: AdminMarks,
}

impl Draft {
    /// Puts the sections together; `root` says which keys were written.
    pub(super) fn assemble(keys: RootKeys, root: &Node, cx: &mut Decoder<'_>) -> Self {
        let RootKeys {
            whole: Spanned { span, .. },
            version: Spanned { value: _one, .. },
            listen,
            upstream,
            listeners,
            routes,
            upstreams,
            admin,
            shutdown,
            logs,
            runtime,
        } = keys;
        // What was written counts, not what was understood: a wrong or misspelt `listen` is still the short form.
        let written = |name: &str| match &root.value {
            NodeValue::Map(entries) => entries.iter().find(|entry| meant(&entry.key) == name).map(|it| it.key_span),
            _ => None,
        };
        let short = SHORT.iter().find_map(|name| Some((*name, written(name)?)));
        let long = LONG.iter().find_map(|name| Some((*name, written(name)?)));
        let is_root_a_map = matches!(root.value, NodeValue::Map(_));
        match (short, long) {
            (Some((name, at)), Some((other, _))) => {
                let message = format!("`{name}` is the short form and `{other}` the long form; they cannot be mixed");
                let long = match name {
                    "listen" => "listeners: [{ address: ... }]",
                    _ => "upstreams: { service: { endpoints: [...] } }",
                };
                cx.note(at, Diagnostic::error(message).label(format!("write it as `{long}`")));
            }
            (Some((name, at)), None) => {
                for (missing, example) in [("listen", "127.0.0.1:8080"), ("upstream", "h2c://127.0.0.1:9000")] {
                    if written(missing).is_none() {
                        let message = format!("the key `{missing}` is missing beside `{name}`");
                        cx.note(at, Diagnostic::error(message).label(format!("add `{missing}: {example}`")));
                    }
                }
            }
            (None, _) if is_root_a_map => {
                for (missing, example) in [
                    ("listeners", "listeners: [{ address: 127.0.0.1:8080 }]"),
                    ("upstreams", "upstreams: { api: { endpoints: [\"h2c://127.0.0.1:9000\"] } }"),
                ] {
                    if written(missing).is_none() {
                        let message = format!("the key `{missing}` is missing");
                        let mut error = Diagnostic::error(message).label(format!("add `{example}`"));
                        if long.is_none() {
                            error = error.note("or use the short form: `listen:` and `upstream:`");
                        }
                        cx.note(span, error);
                    }
                }
            }
            (None, _) => {}
        }

        let listeners = listeners.map(|listeners| listeners.value).unwrap_or_default();
        let (mut listeners, mut listener_marks): (Vec<_>, Vec<_>) =
            listeners.into_iter().enumerate().filter_map(|(position, keys)| listener(keys, position)).unzip();
        let (mut upstreams, mut upstream_marks): (Vec<_>, Vec<_>) =
            upstreams.map(|upstreams| upstreams.value).unwrap_or_default().into_iter().map(upstream_long).unzip();
        if let Some(address) = listen {
            let span = address.span;
            let keys = ListenerKeys { address: Some(address), ..absent(span, cx) };
            let (listener, marks) = listener(keys, listeners.len()).expect("the address is there");
            listeners.push(listener);
            listener_marks.push(marks);
        }
        if let Some(endpoints) = upstream {
            let span = endpoints.span;
            let name = Spanned { value: SHORT_UPSTREAM.to_owned(), span, is_given: false };
            let keys = UpstreamKeys { endpoints: Some(endpoints), ..absent(span, cx) };
            let (upstream, marks) = upstream_long((name, keys));
            upstreams.push(upstream);
            upstream_marks.push(marks);
        }
        let (mut routes, mut route_marks): (Vec<_>, Vec<_>) = routes
            .map(|routes| routes.value)
            .unwrap_or_default()
            .into_iter()
            .enumerate()
            .map(|(position, keys)| route(keys, position))
            .unzip();
        if written("routes").is_none() {
            match &upstreams[..] {
                [only] => {
                    let upstream = Some(Spanned { value: only.name.clone(), span, is_given: false });
                    let (route, marks) = route(RouteKeys { upstream, ..absent(span, cx) }, 0);
                    routes.push(route);
                    route_marks.push(marks);
                }
                [] => {}
                [first, ..] => {
                    let label = format!("add `routes: [{{ upstream: {} }}]`", first.name);
                    let message = "the key `routes` is missing; with several upstreams it says which one gets what";
                    cx.note(written("upstreams").unwrap_or(span), Diagnostic::error(message).label(label));
                }
            }
        }

        let (admin, admin_marks) = admin_part(&admin);
        let ShutdownKeys { whole: _, delay, timeout } = shutdown;
        let RuntimeKeys { whole: _, workers } = runtime;
        Self {
            config: Config {
                listeners,
                routes,
                upstreams,
                admin,
                shutdown: Shutdown { delay: delay.value, timeout: timeout.value },
                logs: logs_part(logs),
                runtime: Runtime { workers: workers.value },
            },
            listeners: listener_marks,
            routes: route_marks,
            upstreams: upstream_marks,
            admin: admin_marks,
        }
    }
}

/// The root key that `key` is, or is likely to be.
fn meant(key: &str) -> &str {
    if names::<RootKeys>().any(|name| name == key) { key } else { nearest(key, names::<RootKeys>()).unwrap_or(key) }
}

/// A section of which nothing was written; its required keys are filled in by the caller.
fn absent<S: Section>(span: Span, cx: &Decoder<'_>) -> S {
    S::decode(&Fields::empty(span), &mut Decoder::muted(cx))
}

fn listener(keys: ListenerKeys, position: usize) -> Option<(Listener, ListenerMarks)> {
    let ListenerKeys {
        whole: Spanned { span, .. },
        name,
        address,
        max_connections,
        trust_forwarded_from,
        proxy_protocol,
        timeouts,
        limits,
        tls,
    } = keys;
    let ListenerTimeoutKeys { whole: _, header, idle } = timeouts;
    let LimitKeys { whole: _, header_bytes, headers, streams, body_bytes } = limits;
    let address = address?;
    let trusted = trust_forwarded_from.map(|trusted| trusted.value).unwrap_or_default();
    let (tls, tls_marks) = listener_tls(tls);
    let marks = ListenerMarks {
        position,
        name: name.as_ref().map_or(span, |name| name.span),
        address: address.span,
        trusted: trusted.iter().map(|peer| peer.span).collect(),
        tls: tls_marks,
        proxy_protocol: proxy_protocol.span,
    };
    let listener = Listener {
        name: name.map_or_else(|| format!("listener-{}", position + 1), |name| name.value),
        address: address.value,
        max_connections: max_connections.value,
        header_timeout: header.value,
        idle_timeout: idle.value,
        header_bytes_max: usize::try_from(header_bytes.value).expect("the rule's range fits"),
        headers_max: headers.value as usize,
        streams_max: streams.value,
        body_bytes_max: body_bytes.value,
        trust_forwarded_from: trusted.into_iter().map(|peer| peer.value).collect(),
        tls,
        proxy_protocol: proxy_protocol.value,
    };
    Some((listener, marks))
}

fn listener_tls(keys: ListenerTlsKeys) -> (Option<ListenerTls>, ListenerTlsMarks) {
    let ListenerTlsKeys { whole, certificates, alpn, min_version, client_ca } = keys;
    let mut marks = ListenerTlsMarks {
        whole: whole.is_given.then_some(whole.span),
        certificates: Vec::new(),
        has_certificates: certificates.is_some(),
        alpn: alpn.iter().flat_map(|alpn| alpn.value.iter().map(|word| word.span)).collect(),
        client_ca: client_ca.as_ref().map_or(whole.span, |client_ca| client_ca.span),
    };
    let mut identities = Vec::new();
    let certificates = certificates.map(|list| list.value).unwrap_or_default();
    for (number, CertificateKeys { whole: _, cert, key }) in certificates.into_iter().enumerate() {
        let (Some(cert), Some(key)) = (cert, key) else { continue };
        marks.certificates.push((number, IdentityMarks { cert: cert.span, key: key.span }));
        identities.push(Identity { cert: cert.value, key: key.value });
    }
    let tls = ListenerTls {
        certificates: identities,
        alpn: alpn.map_or_else(|| vec![Alpn::H2, Alpn::Http1], values),
        min_version: min_version.value,
        client_ca: client_ca.map(|client_ca| client_ca.value),
    };
    (whole.is_given.then_some(tls), marks)
}

fn route(keys: RouteKeys, position: usize) -> (Route, RouteMarks) {
    let RouteKeys {
        whole: Spanned { span, .. },
        name,
        r#match,
        upstream,
        timeouts,
        heartbeat,
        reconnect,
        retry,
        request_headers,
        rewrite,
    } = keys;
    let MatchKeys { whole: _, hosts, path_prefix, methods, headers } = r#match;
    let RouteTimeoutKeys { whole: _, response_header, stream_idle, request } = timeouts;
    let RetryKeys { whole: _, attempts, when, per_try_timeout } = retry;
    let EditKeys { whole: _, set, remove } = request_headers;
    let RewriteKeys { whole: _, path_prefix: rewrite } = rewrite;

    let set = set.map(|set| set.value).unwrap_or_default();
    let remove = remove.map(|remove| remove.value).unwrap_or_default();
    let headers = headers.map(|headers| headers.value).unwrap_or_default();
    let spans = |fields: &Headers| fields.iter().map(|(name, _)| name.span).collect();
    let marks = RouteMarks {
        whole: span,
        name: name.as_ref().map_or(span, |name| name.span),
        upstream: upstream.as_ref().map(|upstream| upstream.span),
        rewrite: rewrite.as_ref().map(|rewrite| rewrite.span),
        attempts: attempts.as_ref().map(|attempts| attempts.span),
        per_try_timeout: per_try_timeout.span,
        heartbeat: heartbeat.span,
        headers: spans(&headers),
        set: spans(&set),
        remove: remove.iter().map(|name| name.span).collect(),
    };
    let route = Route {
        name: name.map_or_else(|| format!("route-{}", position + 1), |name| name.value),
        matches: RouteMatch {
            hosts: hosts.map(values).unwrap_or_default(),
            path_prefix: path_prefix.map(|prefix| prefix.value),
            methods: methods.map(values).unwrap_or_default(),
            headers: fields(headers),
        },
        upstream: upstream.map(|upstream| upstream.value).unwrap_or_default(),
        timeouts: RouteTimeouts {
            response_header: response_header.value,
            stream_idle: stream_idle.value,
            request: request.value,
        },
        heartbeat: heartbeat.value,
        reconnect: reconnect.value,
        retry: (when.is_some() || per_try_timeout.value.is_some()).then(|| Retry {
            attempts: attempts.map_or(ATTEMPTS, |attempts| attempts.value),
            when: when.map(values).unwrap_or_default(),
            per_try_timeout: per_try_timeout.value,
        }),
        request_headers: HeaderEdits { set: fields(set), remove: remove.into_iter().map(|name| name.value).collect() },
        rewrite_path_prefix: rewrite.map(|prefix| prefix.value),
    };
    (route, marks)
}

fn upstream_long((name, keys): (Spanned<String>, UpstreamKeys)) -> (Upstream, UpstreamMarks) {
    let UpstreamKeys { whole: Spanned { span, .. }, endpoints, balance, pool, http2, timeouts, tls, retry_budget } =
        keys;
    let PoolKeys {
        whole: _,
        min_connections,
        max_connections,
        max_streams_per_connection,
        max_requests_per_connection,
        max_pending,
        max_tunnel_connections,
        pending_timeout,
        idle_timeout,
        max_age,
        ping: PingKeys { whole: _, interval: ping_interval, timeout: ping_timeout },
    } = pool;
    let Http2Keys { whole: _, stream_window } = http2;
    let UpstreamTimeoutKeys { whole: _, connect } = timeouts;
    let TlsKeys { whole: tls, ca, server_name, client_cert, client_key } = tls;
    let RetryBudgetKeys { whole: _, percent, min_per_second } = retry_budget;

    let endpoints = endpoints.map(|endpoints| endpoints.value).unwrap_or_default();
    let marks = UpstreamMarks {
        whole: span,
        endpoints: endpoints.iter().map(|endpoint| endpoint.span).collect(),
        min_connections: min_connections.span,
        window: if max_streams_per_connection.is_given { max_streams_per_connection.span } else { stream_window.span },
        tls: tls.is_given.then_some(tls.span),
        ca: ca.span,
        client_cert: client_cert.as_ref().map(|cert| cert.span),
        client_key: client_key.as_ref().map(|key| key.span),
        has_endpoints: !endpoints.is_empty(),
    };
    // One without the other is an error, told by `check`.
    let client = client_cert.zip(client_key).map(|(cert, key)| Identity { cert: cert.value, key: key.value });
    let endpoints: Vec<Endpoint> = endpoints.into_iter().map(|endpoint| endpoint.value).collect();
    let max_connections = connections_max(&endpoints, max_connections.map(|max| max.value));
    let upstream = Upstream {
        name: name.value,
        endpoints,
        balance: balance.value,
        pool: Pool {
            min_connections: min_connections.value,
            max_connections: max_connections.0,
            max_http1_connections: max_connections.1,
            max_tunnel_connections: max_tunnel_connections.value,
            max_streams_per_connection: max_streams_per_connection.value,
            max_requests_per_connection: max_requests_per_connection.value,
            max_pending: max_pending.value,
            pending_timeout: pending_timeout.value,
            idle_timeout: idle_timeout.value,
            max_age: max_age.value,
            ping: Ping { interval: ping_interval.value, timeout: ping_timeout.value },
        },
        stream_window_bytes: u32::try_from(stream_window.value).expect("the rule's range fits"),
        connect_timeout: connect.value,
        tls: UpstreamTls { ca: ca.value, server_name: server_name.map(|name| name.value), client },
        retry_budget: RetryBudget { percent: percent.value, min_per_second: min_per_second.value },
    };
    (upstream, marks)
}

/// The most connections to an endpoint while it speaks HTTP/2, and while it speaks HTTP/1.1.
fn connections_max(endpoints: &[Endpoint], given: Option<u32>) -> (u32, u32) {
    let has_only = |what: fn(Protocol) -> bool| endpoints.iter().all(|endpoint| what(endpoint.protocol));
    match given {
        Some(given) => (given, given),
        None if has_only(|protocol| matches!(protocol, Protocol::H2c | Protocol::H2Tls)) => {
            (HTTP2_CONNECTIONS, HTTP2_CONNECTIONS)
        }
        None if has_only(|protocol| protocol == Protocol::Http1) => (HTTP1_CONNECTIONS, HTTP1_CONNECTIONS),
        None => (HTTP2_CONNECTIONS, HTTP1_CONNECTIONS),
    }
}

pub(super) fn admin_part(keys: &AdminKeys) -> (Admin, AdminMarks) {
    let AdminKeys { whole: _, address, probes } = keys;
    let marks = AdminMarks { address: address.span, probes: probes.span };
    (Admin { address: address.value, probes: probes.value }, marks)
}

fn logs_part(keys: LogsKeys) -> Logs {
    let LogsKeys { whole: _, level, access } = keys;
    let AccessKeys { whole: _, only, format, output } = access;
    let access = AccessLog { only: only.value, format: format.value, output: output.value };
    Logs { level: level.value, access }
}

fn values<T>(list: Spanned<Vec<Spanned<T>>>) -> Vec<T> {
    list.value.into_iter().map(|item| item.value).collect()
}

fn fields(headers: Headers) -> Vec<(http::HeaderName, http::HeaderValue)> {
    headers.into_iter().map(|(name, value)| (name.value, value)).collect()
}

const SHORT: [&str; 2] = ["listen", "upstream"];
const LONG: [&str; 3] = ["listeners", "routes", "upstreams"];
/// What the short form's upstream is called in logs and metrics.
pub(super) const SHORT_UPSTREAM: &str = "default";
/// The first one and another.
const ATTEMPTS: u32 = 2;
const HTTP2_CONNECTIONS: u32 = 4;
const HTTP1_CONNECTIONS: u32 = 128;
