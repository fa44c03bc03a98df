//! What the YAML says, made into a [`Config`].
//!
//! The keys are decoded first, all of them, then put together here and checked against each other in
//! [`check`](super::check). Every section is taken apart in full, so that a new key does not compile until it has
//! a place in [`Config`].
//!
//! Pure, except for the certificate files that a configuration names: [`load`] reads them through `files`.

use std::io;
use std::path::Path;

use super::check::check;
use super::decode::{Decoder, Fields, Section};
use super::diagnostic::{Diagnostic, Diagnostics};
use super::keys::{
    AccessKeys, AdminKeys, EditKeys, Http2Keys, LimitKeys, ListenerKeys, ListenerTimeoutKeys, LogsKeys, MatchKeys,
    PoolKeys, RewriteKeys, RootKeys, RouteKeys, RouteTimeoutKeys, RuntimeKeys, ShutdownKeys, TlsKeys, UpstreamKeys,
    UpstreamTimeoutKeys,
};
use super::source::{Environment, Source, Span, Spanned};
use super::yaml::{self, Node, NodeValue};
use super::{
    AccessLog, Admin, Config, Endpoint, HeaderEdits, Listener, Logs, Pool, Protocol, Route, RouteMatch, RouteTimeouts,
    Runtime, Shutdown, Upstream, UpstreamTls,
};

/// Reads the files that a configuration names.
pub(super) type Files<'a> = &'a dyn Fn(&Path) -> io::Result<Vec<u8>>;

/// Turns a text into a configuration, with the warnings about it.
///
/// # Errors
/// Everything that is wrong, at once, in the order of the text; warnings among it.
pub fn load(source: &Source, env: Environment<'_>) -> Result<(Config, Diagnostics), Diagnostics> {
    load_with(source, env, &|path| std::fs::read(path))
}

/// As [`load`], with the named files read by `files`.
pub(super) fn load_with(
    source: &Source,
    env: Environment<'_>,
    files: Files<'_>,
) -> Result<(Config, Diagnostics), Diagnostics> {
    let root = yaml::parse(source)?;
    if matches!(root.value, NodeValue::Null) {
        return Err(Diagnostic::error(format!("{} is empty", source.name))
            .note("the smallest configuration is two lines:")
            .note("listen: 127.0.0.1:8080")
            .note("upstream: h2c://127.0.0.1:9000")
            .into());
    }
    build(&root, Decoder::new(source, Some(env)), files)
}

/// Decodes `root`, puts the parts together and checks them.
pub(super) fn build(root: &Node, mut cx: Decoder<'_>, files: Files<'_>) -> Result<(Config, Diagnostics), Diagnostics> {
    let keys: RootKeys = cx.section(root, root.span);
    let draft = Draft::assemble(keys, root, &mut cx);
    check(&draft, files, &mut cx);
    let diagnostics = cx.finish();
    if diagnostics.has_errors() {
        return Err(diagnostics);
    }
    Ok((draft.config, diagnostics))
}

/// A configuration in which parts may be missing because they were wrong, and where its parts were written.
pub(super) struct Draft {
    pub(super) config: Config,
    pub(super) listeners: Vec<ListenerMarks>,
    pub(super) routes: Vec<RouteMarks>,
    pub(super) upstreams: Vec<UpstreamMarks>,
    pub(super) admin: AdminMarks,
}

/// Where the parts of a listener were written.
pub(super) struct ListenerMarks {
    pub(super) name: Span,
    pub(super) address: Span,
}

pub(super) struct RouteMarks {
    pub(super) whole: Span,
    pub(super) name: Span,
    pub(super) upstream: Option<Span>,
    pub(super) rewrite: Option<Span>,
    /// Each field that the route sets or removes.
    pub(super) edits: Vec<(http::HeaderName, Span)>,
}

pub(super) struct UpstreamMarks {
    pub(super) whole: Span,
    pub(super) endpoints: Vec<Span>,
    pub(super) min_connections: Span,
    /// What made the connection's window: the number of streams if it was written, else the window of each.
    pub(super) window: Span,
    /// If any TLS setting was written.
    pub(super) tls: Option<Span>,
    pub(super) ca: Span,
    /// Whether the endpoints were understood, so that what follows from them can be judged.
    pub(super) has_endpoints: bool,
}

pub(super) struct AdminMarks {
    pub(super) address: Span,
    pub(super) probes: Span,
}

impl Draft {
    fn assemble(keys: RootKeys, root: &Node, cx: &mut Decoder<'_>) -> Self {
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
        // What was written counts, not what was understood: a wrong `listen` is still the short form.
        let written = |name: &str| match &root.value {
            NodeValue::Map(entries) => entries.iter().find(|entry| entry.key == name).map(|entry| entry.key_span),
            _ => None,
        };
        let short = SHORT.iter().find_map(|name| Some((*name, written(name)?)));
        let long = LONG.iter().find_map(|name| Some((*name, written(name)?)));
        let is_root_a_map = matches!(root.value, NodeValue::Map(_));
        match (short, long) {
            (Some((name, at)), Some((other, _))) => {
                let message = format!("`{name}` is the short form and `{other}` the long form; they cannot be mixed");
                let label = "move it into the long form: `trunkline check --print effective` shows how";
                cx.note(at, Diagnostic::error(message).label(label));
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
            let keys = ListenerKeys { address: Some(address), ..absent(address.span, cx) };
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

        let (admin, admin_marks) = admin_part(admin);
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

/// A section of which nothing was written; its required keys are filled in by the caller.
fn absent<S: Section>(span: Span, cx: &Decoder<'_>) -> S {
    S::decode(&Fields::empty(span), &mut Decoder::muted(cx))
}

fn listener(keys: ListenerKeys, position: usize) -> Option<(Listener, ListenerMarks)> {
    let ListenerKeys { whole: Spanned { span, .. }, name, address, max_connections, timeouts, limits } = keys;
    let ListenerTimeoutKeys { whole: _, header, idle } = timeouts;
    let LimitKeys { whole: _, header_bytes, headers, body_bytes } = limits;
    let address = address?;
    let marks = ListenerMarks { name: name.as_ref().map_or(span, |name| name.span), address: address.span };
    let listener = Listener {
        name: name.map_or_else(|| format!("listener-{}", position + 1), |name| name.value),
        address: address.value,
        max_connections: max_connections.value,
        header_timeout: header.value,
        idle_timeout: idle.value,
        header_bytes_max: usize::try_from(header_bytes.value).expect("the rule's range fits"),
        headers_max: headers.value as usize,
        body_bytes_max: body_bytes.value,
    };
    Some((listener, marks))
}

fn route(keys: RouteKeys, position: usize) -> (Route, RouteMarks) {
    let RouteKeys { whole: Spanned { span, .. }, name, r#match, upstream, timeouts, request_headers, rewrite } = keys;
    let MatchKeys { whole: _, hosts, path_prefix, methods, headers } = r#match;
    let RouteTimeoutKeys { whole: _, response_header, stream_idle, request } = timeouts;
    let EditKeys { whole: _, set, remove } = request_headers;
    let RewriteKeys { whole: _, path_prefix: rewrite } = rewrite;

    let set = set.map(|set| set.value).unwrap_or_default();
    let remove = remove.map(|remove| remove.value).unwrap_or_default();
    let edits = set.iter().map(|(name, _)| name).chain(&remove).map(|name| (name.value.clone(), name.span)).collect();
    let marks = RouteMarks {
        whole: span,
        name: name.as_ref().map_or(span, |name| name.span),
        upstream: upstream.as_ref().map(|upstream| upstream.span),
        rewrite: rewrite.as_ref().map(|rewrite| rewrite.span),
        edits,
    };
    let route = Route {
        name: name.map_or_else(|| format!("route-{}", position + 1), |name| name.value),
        matches: RouteMatch {
            hosts: hosts.map(values).unwrap_or_default(),
            path_prefix: path_prefix.map(|prefix| prefix.value),
            methods: methods.map(values).unwrap_or_default(),
            headers: headers.map(|headers| fields(headers.value)).unwrap_or_default(),
        },
        upstream: upstream.map(|upstream| upstream.value).unwrap_or_default(),
        timeouts: RouteTimeouts {
            response_header: response_header.value,
            stream_idle: stream_idle.value,
            request: request.value,
        },
        request_headers: HeaderEdits { set: fields(set), remove: remove.into_iter().map(|name| name.value).collect() },
        rewrite_path_prefix: rewrite.map(|prefix| prefix.value),
    };
    (route, marks)
}

fn upstream_long((name, keys): (Spanned<String>, UpstreamKeys)) -> (Upstream, UpstreamMarks) {
    let UpstreamKeys { whole: Spanned { span, .. }, endpoints, balance, pool, http2, timeouts, tls } = keys;
    let PoolKeys {
        whole: _,
        min_connections,
        max_connections,
        max_streams_per_connection,
        max_pending,
        pending_timeout,
        idle_timeout,
    } = pool;
    let Http2Keys { whole: _, stream_window } = http2;
    let UpstreamTimeoutKeys { whole: _, connect } = timeouts;
    let TlsKeys { whole: tls, ca, server_name } = tls;

    let endpoints = endpoints.map(|endpoints| endpoints.value).unwrap_or_default();
    let marks = UpstreamMarks {
        whole: span,
        endpoints: endpoints.iter().map(|endpoint| endpoint.span).collect(),
        min_connections: min_connections.span,
        window: if max_streams_per_connection.is_given { max_streams_per_connection.span } else { stream_window.span },
        tls: tls.is_given.then_some(tls.span),
        ca: ca.span,
        has_endpoints: !endpoints.is_empty(),
    };
    let endpoints: Vec<Endpoint> = endpoints.into_iter().map(|endpoint| endpoint.value).collect();
    let is_http1 = |endpoint: &Endpoint| endpoint.protocol == Protocol::Http1;
    let default = if endpoints.iter().any(is_http1) { HTTP1_CONNECTIONS } else { HTTP2_CONNECTIONS };
    let upstream = Upstream {
        name: name.value,
        endpoints,
        balance: balance.value,
        pool: Pool {
            min_connections: min_connections.value,
            max_connections: max_connections.map_or(default, |max| max.value),
            max_streams_per_connection: max_streams_per_connection.value,
            max_pending: max_pending.value,
            pending_timeout: pending_timeout.value,
            idle_timeout: idle_timeout.value,
        },
        stream_window_bytes: u32::try_from(stream_window.value).expect("the rule's range fits"),
        connect_timeout: connect.value,
        tls: UpstreamTls { ca: ca.value, server_name: server_name.map(|name| name.value) },
    };
    (upstream, marks)
}

fn admin_part(keys: AdminKeys) -> (Admin, AdminMarks) {
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

fn fields(headers: super::keys::Headers) -> Vec<(http::HeaderName, http::HeaderValue)> {
    headers.into_iter().map(|(name, value)| (name.value, value)).collect()
}

const SHORT: [&str; 2] = ["listen", "upstream"];
const LONG: [&str; 3] = ["listeners", "routes", "upstreams"];
/// What the short form's upstream is called in logs and metrics.
pub(super) const SHORT_UPSTREAM: &str = "default";
const HTTP2_CONNECTIONS: u32 = 4;
const HTTP1_CONNECTIONS: u32 = 128;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::{AccessLogFormat, AccessLogOnly, AccessLogOutput, Balance, CaSource, Workers};
    use super::*;

    fn env(name: &str) -> Option<String> {
        (name == "TRUNKLINE_LISTEN").then(|| "127.0.0.1:8081".to_owned())
    }

    fn read(text: &str) -> Result<(Config, Diagnostics), Diagnostics> {
        let files = |path: &Path| match path.to_str() {
            Some("ca.pem") => Ok(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_vec()),
            Some("key.pem") => Ok(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n".to_vec()),
            _ => Err(io::Error::from(io::ErrorKind::NotFound)),
        };
        load_with(&Source::new("trunkline.yaml", text), &env, &files)
    }

    fn good(text: &str) -> Config {
        let (config, warnings) = read(text).unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(warnings.list, [], "{warnings}");
        config
    }

    /// What each diagnostic says, with its label.
    fn bad(text: &str) -> Vec<String> {
        said(&read(text).map(|(config, _)| config).expect_err("errors"))
    }

    fn said(diagnostics: &Diagnostics) -> Vec<String> {
        let one = |it: &Diagnostic| {
            let place =
                it.place.as_ref().map_or(String::new(), |place| format!("{}:{} ", place.line.unwrap(), place.column));
            format!("{place}{}; {}", it.message, it.label.as_deref().unwrap_or(&it.allowed.join(", ")))
        };
        diagnostics.list.iter().map(one).collect()
    }

    const LONG: &str = "listeners: [{ address: 127.0.0.1:8080 }]\n";

    #[test]
    fn two_lines_make_a_configuration_with_every_default() {
        let config = good("listen: 127.0.0.1:8080\nupstream: h2c://127.0.0.1:9000\n");
        assert_eq!(
            config,
            Config {
                listeners: vec![Listener {
                    name: "listener-1".to_owned(),
                    address: "127.0.0.1:8080".parse().unwrap(),
                    max_connections: 20_000,
                    header_timeout: Duration::from_secs(10),
                    idle_timeout: Duration::from_secs(75),
                    header_bytes_max: 64 << 10,
                    headers_max: 128,
                    body_bytes_max: None,
                }],
                routes: vec![Route {
                    name: "route-1".to_owned(),
                    matches: RouteMatch::default(),
                    upstream: "default".to_owned(),
                    timeouts: RouteTimeouts {
                        response_header: Some(Duration::from_secs(60)),
                        stream_idle: Some(Duration::from_secs(300)),
                        request: None,
                    },
                    request_headers: HeaderEdits::default(),
                    rewrite_path_prefix: None,
                }],
                upstreams: vec![Upstream {
                    name: "default".to_owned(),
                    endpoints: vec![Endpoint {
                        protocol: Protocol::H2c,
                        host: "127.0.0.1".to_owned(),
                        port: 9000,
                        weight: 1
                    }],
                    balance: Balance::LeastRequests,
                    pool: Pool {
                        min_connections: 0,
                        max_connections: 4,
                        max_streams_per_connection: 100,
                        max_pending: 1024,
                        pending_timeout: Duration::from_secs(1),
                        idle_timeout: Duration::from_secs(300),
                    },
                    stream_window_bytes: 256 << 10,
                    connect_timeout: Duration::from_secs(1),
                    tls: UpstreamTls { ca: CaSource::System, server_name: None },
                }],
                admin: Admin::default(),
                shutdown: Shutdown { delay: Duration::ZERO, timeout: Duration::from_secs(25) },
                logs: Logs {
                    level: tracing::Level::INFO,
                    access: AccessLog {
                        only: AccessLogOnly::Failures,
                        format: AccessLogFormat::Json,
                        output: AccessLogOutput::Stdout
                    },
                },
                runtime: Runtime { workers: Workers::Auto },
            }
        );
    }

    #[test]
    fn short_and_long_form_mean_the_same() {
        let short =
            good("listen: 127.0.0.1:8080\nupstream: [h2c://a:1, h2c://b:1]\nadmin: { address: 127.0.0.1:9900 }\n");
        let long = good(
            "\u{feff}listeners: [{ address: 127.0.0.1:8080 }]\r\nroutes: [{ upstream: default }]\r\n\
             upstreams: { default: { endpoints: [h2c://a:1, { url: h2c://b:1 }] } }\r\nadmin: { address: 127.0.0.1:9900 }\r\n",
        );
        assert_eq!(short, long);
    }

    #[test]
    fn routes_may_be_left_out_for_one_upstream_only() {
        let config = good(&format!("{LONG}upstreams: {{ api: {{ endpoints: [h2c://a:1] }} }}\n"));
        assert_eq!((config.routes.len(), config.routes[0].upstream.as_str()), (1, "api"));
        let two =
            format!("{LONG}upstreams: {{ api: {{ endpoints: [h2c://a:1] }}, b: {{ endpoints: [h2c://b:1] }} }}\n");
        let label = "add `routes: [{ upstream: api }]`";
        let message = "the key `routes` is missing; with several upstreams it says which one gets what";
        assert_eq!(bad(&two), [format!("2:1 {message}; {label}")]);
    }

    #[test]
    fn an_http1_endpoint_raises_the_default_of_max_connections() {
        let pool =
            |list: &str| good(&format!("listen: 1.2.3.4:1\nupstream: {list}\n")).upstreams[0].pool.max_connections;
        assert_eq!(pool("[h2c://a:1, h2://b:1]"), 4);
        assert_eq!(pool("http1://a:1"), 128);
        assert_eq!(pool("[h2c://a:1, http1://b:1]"), 128);
    }

    #[test]
    fn forms_cannot_be_mixed_or_halved() {
        let mixed = "`listen` is the short form and `upstreams` the long form; they cannot be mixed";
        let label = "move it into the long form: `trunkline check --print effective` shows how";
        assert_eq!(
            bad("listen: 1.2.3.4:1\nupstreams: { a: { endpoints: [h2c://a:1] } }\n"),
            [format!("1:1 {mixed}; {label}")]
        );
        assert_eq!(
            bad("listen: 1.2.3.4:1\n"),
            ["1:1 the key `upstream` is missing beside `listen`; add `upstream: h2c://127.0.0.1:9000`"]
        );
        assert_eq!(
            bad("version: 1\n"),
            [
                "1:1 the key `listeners` is missing; add `listeners: [{ address: 127.0.0.1:8080 }]`",
                "1:1 the key `upstreams` is missing; add `upstreams: { api: { endpoints: [\"h2c://127.0.0.1:9000\"] } }`",
            ]
        );
    }

    #[test]
    fn all_errors_of_a_file_are_shown_at_once_in_its_order() {
        let text = "\
version: 1
listeners:
  - name: http
    address: ${TRUNKLINE_LISTEN:-0.0.0.0:8080}
    timeouts: { header: 15 }
    limits: { header_bytes: \"${HEADER_BYTES}\" }
routes:
  - upstream: apo
upstreams:
  api:
    endpoints: [ \"http://10.0.0.11:9000\", { url: \"h2c://10.0.0.12\", weight: 2 } ]
    balance: random
    pool:
      max_conections: 4
      max_pending: many
    zebra: true
";
        assert_eq!(
            read(text).unwrap_err().render(false),
            "\
error: listeners[0].timeouts.header: `15` has no unit
 --> trunkline.yaml:5:25
  |
5 |     timeouts: { header: 15 }
  |                         ^^ write 15s

error: listeners[0].limits.header_bytes: ${HEADER_BYTES} is not set
 --> trunkline.yaml:6:29
  |
6 |     limits: { header_bytes: \"${HEADER_BYTES}\" }
  |                             ^^^^^^^^^^^^^^^^^ set it, or give a default: ${HEADER_BYTES:-value}

error: routes[0].upstream: there is no upstream called `apo`
 --> trunkline.yaml:8:15
  |
8 |   - upstream: apo
  |               ^^^ did you mean `api`?

error: upstreams.api.endpoints[0]: `http://10.0.0.11:9000`: the scheme `http` does not say which HTTP
  --> trunkline.yaml:11:18
   |
11 |     endpoints: [ \"http://10.0.0.11:9000\", { url: \"h2c://10.0.0.12\", weight: 2 } ]
   |                  ^^^^^^^^^^^^^^^^^^^^^^^ write http1://10.0.0.11:9000 for HTTP/1.1, or h2c://10.0.0.11:9000 for HTTP/2 in the clear

error: upstreams.api.endpoints[1].url: `h2c://10.0.0.12` has no port
  --> trunkline.yaml:11:50
   |
11 |     endpoints: [ \"http://10.0.0.11:9000\", { url: \"h2c://10.0.0.12\", weight: 2 } ]
   |                                                  ^^^^^^^^^^^^^^^^^ write host:port, for example h2c://10.0.0.12:9000

error: upstreams.api.balance: `random` is not one of the allowed words
  --> trunkline.yaml:12:14
   |
12 |     balance: random
   |              ^^^^^^
   = allowed: least_requests, round_robin

error: unknown key `max_conections` in upstreams.api.pool
  --> trunkline.yaml:14:7
   |
14 |       max_conections: 4
   |       ^^^^^^^^^^^^^^ did you mean `max_connections`?

error: upstreams.api.pool.max_pending: `many` is not a whole number
  --> trunkline.yaml:15:20
   |
15 |       max_pending: many
   |                    ^^^^ write a whole number from 0 to 1000000

error: unknown key `zebra` in upstreams.api
  --> trunkline.yaml:16:5
   |
16 |     zebra: true
   |     ^^^^^
   = allowed: endpoints, balance, pool, http2, timeouts, tls
"
        );
    }

    #[test]
    fn what_is_not_a_configuration_at_all_is_told_apart() {
        for empty in ["", "\n\n", "# only a comment\n", "---\n", "~\n", "\u{feff}"] {
            assert_eq!(bad(empty), ["trunkline.yaml is empty; "], "{empty:?}");
        }
        assert!(
            bad("[1, 2]")[0]
                .starts_with("1:1 the configuration: found a list; expected a mapping with the keys version")
        );
        assert!(bad("listen 127.0.0.1")[0].starts_with("1:1 the configuration: found a single value; "));
        assert!(bad(&"#".repeat(super::super::source::TEXT_BYTES_MAX + 1))[0].contains("is too large"));
        assert!(bad("listen: \"")[0].contains("not valid YAML"));
    }

    #[test]
    fn a_key_without_value_is_an_empty_section_but_not_a_value() {
        good("listen: 1.2.3.4:1\nupstream: h2c://a:1\nadmin:\nlogs: { access: }\n");
        assert_eq!(
            bad("listen:\nupstream: h2c://a:1\nruntime: { workers: ~ }\n"),
            [
                "1:1 listen: found nothing; expected an address, for example 127.0.0.1:8080",
                "3:12 runtime.workers: found nothing; expected auto or a whole number",
            ]
        );
    }

    #[test]
    fn wrong_kinds_of_value_say_what_was_expected() {
        assert_eq!(
            bad("listen: [1.2.3.4:1]\nupstream: {a: b}\nadmin: yes\nruntime: [a]\n"),
            [
                "1:9 listen: found a list; expected an address, for example 127.0.0.1:8080",
                "2:12 upstream: found a mapping; expected a list: [h2c://127.0.0.1:9000, ...]",
                "3:8 admin: found a single value; expected a mapping with the keys address, probes",
                "4:10 runtime: found a list; expected a mapping with the keys workers",
            ]
        );
        assert_eq!(
            bad("listeners: []\nupstreams: {}\nroutes: a\n"),
            [
                "1:12 listeners: the list is empty; give at least one { address: 127.0.0.1:8080 }, or leave the key out",
                "2:12 upstreams: the mapping is empty; give at least one: api: { endpoints: [\"h2c://127.0.0.1:9000\"] }",
                "3:9 routes: found a single value; expected a list: [{ upstream: api }, ...]",
            ]
        );
        assert_eq!(
            bad(&format!("{LONG}upstreams: {{ api: {{ balance: round_robin }} }}\nroutes: [{{ match: }}]\n")),
            [
                "2:14 upstreams.api: the key `endpoints` is missing; add `endpoints: [\"h2c://127.0.0.1:9000\"]`",
                "3:12 routes[0]: the key `upstream` is missing; add `upstream: api`",
            ]
        );
    }

    #[test]
    fn values_from_the_environment_obey_the_same_rules() {
        let config = good("listen: ${TRUNKLINE_LISTEN}\nupstream: \"${SERVICE:-h2c://a:1}\"\n");
        assert_eq!(config.listeners[0].address, "127.0.0.1:8081".parse().unwrap());
        assert_eq!(
            bad("listen: \"${LISTEN:-80}\"\nupstream: ${SERVICE:?name the service}\n"),
            [
                "1:9 listen: `80` has no IP address; write 127.0.0.1:80 for this machine only, or 0.0.0.0:80 for every interface",
                "2:11 upstream: ${SERVICE} is not set: name the service; set it in the environment",
            ]
        );
    }

    #[test]
    fn secrets_in_field_values_are_not_repeated_by_messages() {
        let text = format!(
            "{LONG}upstreams: {{ api: {{ endpoints: [h2c://a:1] }} }}\n\
             routes: [{{ upstream: api, request_headers: {{ set: {{ authorization: \"${{TOKEN:-hunter2é}}\" }} }} }}]\n"
        );
        let errors = read(&text).unwrap_err();
        assert!(errors.list[0].message.contains("holds a character that HTTP does not allow"));
        assert!(!errors.list[0].message.contains("hunter2"));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "\\PC{0,200}") {
            let _ = read(&text);
        }

        #[test]
        fn no_text_made_of_our_own_words_makes_the_reader_panic(
            parts in proptest::collection::vec(proptest::sample::select(PARTS), 0..40)
        ) {
            if let Err(errors) = read(&parts.concat()) {
                prop_assert!(errors.has_errors());
                prop_assert!(!errors.render(true).is_empty());
            }
        }
    }

    const PARTS: &[&str] = &[
        "listen",
        "upstream",
        "listeners",
        "routes",
        "upstreams",
        "admin",
        "logs",
        "address",
        "endpoints",
        "pool",
        "match",
        "tls",
        ": ",
        ":",
        "\n",
        "\n  ",
        "\n    ",
        "\n  - ",
        "- ",
        "[",
        "]",
        "{",
        "}",
        ", ",
        "\"",
        "'",
        "${X}",
        "${X:-",
        "$",
        "&a ",
        "*a",
        "127.0.0.1:8080",
        "h2c://a:1",
        "h2://b:2",
        "10s",
        "64KiB",
        "é",
        "\t",
        "~",
        "|\n",
        "#",
        "---\n",
        "!t ",
        "? ",
        "\r\n",
    ];
}
