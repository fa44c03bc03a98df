//! A [`Config`] as the long form of YAML: complete, and the same configuration when it is read again.
//!
//! Every struct is taken apart in full, so that a new setting does not compile until it is printed.
//!
//! Pure.

mod tree;

use std::path::Path;
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use self::tree::{Tree, map, text};
use super::keys::{ACCESS_FORMAT, ACCESS_ONLY, ALPN, BALANCE, LEVELS, PROXY_PROTOCOL, RECONNECT, TLS_VERSIONS};
use super::{
    AccessLog, AccessLogOutput, Admin, CaSource, Config, Endpoint, HeaderEdits, Identity, Listener, ListenerTls, Logs,
    Ping, Pool, Retry, RetryBudget, Route, RouteMatch, RouteTimeouts, Runtime, Shutdown, Upstream, UpstreamTls,
    Workers,
};

/// What becomes of the values of fields that carry credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secrets {
    /// For whoever can read the file anyway.
    Shown,
    /// For pages: `authorization`, `cookie` and the like become `[redacted]`.
    Redacted,
}

/// Prints the effective configuration.
pub fn print(config: &Config, secrets: Secrets) -> String {
    let Config { listeners, routes, upstreams, admin, shutdown, logs, runtime } = config;
    let Admin { address, probes } = admin;
    let Shutdown { delay, timeout } = shutdown;
    let Logs { level, access: AccessLog { only, format, output } } = logs;
    let Runtime { workers } = runtime;
    let address_text =
        |address: &Option<_>| address.map_or("none".to_owned(), |it: std::net::SocketAddr| it.to_string());
    let output = match output {
        AccessLogOutput::Stdout => "stdout".to_owned(),
        AccessLogOutput::Stderr => "stderr".to_owned(),
        AccessLogOutput::File(path) => path_text(path),
    };
    let workers = match workers {
        Workers::Auto => "auto".to_owned(),
        Workers::Count(count) => count.to_string(),
    };
    let tree = map([
        ("version", text("1")),
        ("listeners", Tree::List(listeners.iter().map(listener).collect())),
        ("routes", Tree::List(routes.iter().map(|it| route(it, secrets)).collect())),
        ("upstreams", Tree::Map(upstreams.iter().map(|it| (it.name.clone(), upstream(it))).collect())),
        ("admin", map([("address", text(address_text(address))), ("probes", text(address_text(probes)))])),
        ("shutdown", map([("delay", text(time_text(*delay))), ("timeout", text(time_text(*timeout)))])),
        (
            "logs",
            map([
                ("level", text(word(LEVELS, *level))),
                (
                    "access",
                    map([
                        ("only", text(word(ACCESS_ONLY, *only))),
                        ("format", text(word(ACCESS_FORMAT, *format))),
                        ("output", text(output)),
                    ]),
                ),
            ]),
        ),
        ("runtime", map([("workers", text(workers))])),
    ]);
    let mut out = String::new();
    tree.write(&mut out, 0);
    out
}

fn listener(listener: &Listener) -> Tree {
    let Listener {
        name,
        address,
        max_connections,
        header_timeout,
        idle_timeout,
        header_bytes_max,
        headers_max,
        streams_max,
        body_bytes_max,
        trust_forwarded_from,
        tls,
        proxy_protocol,
    } = listener;
    let mut parts = vec![
        ("name", text(name)),
        ("address", text(address.to_string())),
        ("max_connections", text(max_connections.to_string())),
    ];
    if !trust_forwarded_from.is_empty() {
        let trusted = trust_forwarded_from.iter().map(ToString::to_string);
        parts.push(("trust_forwarded_from", Tree::Line(trusted.collect())));
    }
    parts.extend([
        ("proxy_protocol", text(word(PROXY_PROTOCOL, *proxy_protocol))),
        ("timeouts", map([("header", text(time_text(*header_timeout))), ("idle", text(time_text(*idle_timeout)))])),
        (
            "limits",
            map([
                ("header_bytes", text(size_text(*header_bytes_max as u64))),
                ("headers", text(headers_max.to_string())),
                ("streams", text(streams_max.to_string())),
                ("body_bytes", text(body_bytes_max.map_or("unlimited".to_owned(), size_text))),
            ]),
        ),
    ]);
    if let Some(ListenerTls { certificates, alpn, min_version, client_ca }) = tls {
        let certificate =
            |Identity { cert, key }: &Identity| map([("cert", text(path_text(cert))), ("key", text(path_text(key)))]);
        let mut keys = vec![
            ("certificates", Tree::List(certificates.iter().map(certificate).collect())),
            ("alpn", Tree::Line(alpn.iter().map(|it| word(ALPN, *it).to_owned()).collect())),
            ("min_version", text(word(TLS_VERSIONS, *min_version))),
        ];
        if let Some(path) = client_ca {
            keys.push(("client_ca", text(path_text(path))));
        }
        parts.push(("tls", map(keys)));
    }
    map(parts)
}

fn route(route: &Route, secrets: Secrets) -> Tree {
    let Route { name, matches, upstream, timeouts, heartbeat, reconnect, retry, request_headers, rewrite_path_prefix } =
        route;
    let RouteMatch { hosts, path_prefix, methods, headers } = matches;
    let RouteTimeouts { response_header, stream_idle, request } = timeouts;
    let HeaderEdits { set, remove } = request_headers;
    let limit = |time: &Option<Duration>| text(time.map_or("none".to_owned(), time_text));

    let mut conditions = Vec::new();
    if !hosts.is_empty() {
        conditions.push(("hosts", Tree::Line(hosts.clone())));
    }
    if let Some(prefix) = path_prefix {
        conditions.push(("path_prefix", text(prefix)));
    }
    if !methods.is_empty() {
        conditions.push(("methods", Tree::Line(methods.iter().map(ToString::to_string).collect())));
    }
    if !headers.is_empty() {
        conditions.push(("headers", fields(headers, secrets)));
    }
    let mut edits = Vec::new();
    if !set.is_empty() {
        edits.push(("set", fields(set, secrets)));
    }
    if !remove.is_empty() {
        edits.push(("remove", Tree::Line(remove.iter().map(ToString::to_string).collect())));
    }
    let mut parts = vec![("name", text(name))];
    if !conditions.is_empty() {
        parts.push(("match", map(conditions)));
    }
    parts.push(("upstream", text(upstream)));
    parts.push((
        "timeouts",
        map([
            ("response_header", limit(response_header)),
            ("stream_idle", limit(stream_idle)),
            ("request", limit(request)),
        ]),
    ));
    parts.push(("heartbeat", limit(heartbeat)));
    parts.push(("reconnect", text(word(RECONNECT, *reconnect))));
    if let Some(Retry { attempts, when, per_try_timeout }) = retry {
        let mut keys = vec![("attempts", text(attempts.to_string()))];
        if !when.is_empty() {
            keys.push(("when", Tree::Line(when.iter().map(ToString::to_string).collect())));
        }
        keys.push(("per_try_timeout", limit(per_try_timeout)));
        parts.push(("retry", map(keys)));
    }
    if !edits.is_empty() {
        parts.push(("request_headers", map(edits)));
    }
    if let Some(prefix) = rewrite_path_prefix {
        parts.push(("rewrite", map([("path_prefix", text(prefix))])));
    }
    map(parts)
}

fn upstream(upstream: &Upstream) -> Tree {
    let Upstream { name: _, endpoints, balance, pool, stream_window_bytes, connect_timeout, tls, retry_budget } =
        upstream;
    let Pool {
        min_connections,
        max_connections,
        max_http1_connections,
        max_tunnel_connections,
        max_streams_per_connection,
        max_requests_per_connection,
        max_pending,
        pending_timeout,
        idle_timeout,
        max_age,
        ping: Ping { interval, timeout },
    } = pool;
    let mut connections = vec![("min_connections", text(min_connections.to_string()))];
    // Where they differ neither was given, and one number cannot say both.
    if max_connections == max_http1_connections {
        connections.push(("max_connections", text(max_connections.to_string())));
    }
    connections.extend([
        ("max_tunnel_connections", text(max_tunnel_connections.to_string())),
        ("max_streams_per_connection", text(max_streams_per_connection.to_string())),
        ("max_requests_per_connection", text(max_requests_per_connection.to_string())),
        ("max_pending", text(max_pending.to_string())),
        ("pending_timeout", text(time_text(*pending_timeout))),
        ("idle_timeout", text(time_text(*idle_timeout))),
        ("max_age", text(max_age.map_or("none".to_owned(), time_text))),
        (
            "ping",
            map([
                ("interval", text(interval.map_or("none".to_owned(), time_text))),
                ("timeout", text(time_text(*timeout))),
            ]),
        ),
    ]);
    let mut parts = vec![
        ("endpoints", Tree::List(endpoints.iter().map(endpoint).collect())),
        ("balance", text(word(BALANCE, *balance))),
        ("pool", map(connections)),
        ("http2", map([("stream_window", text(size_text(u64::from(*stream_window_bytes))))])),
        ("timeouts", map([("connect", text(time_text(*connect_timeout)))])),
    ];
    // Without a TLS endpoint the section is an error.
    if endpoints.iter().any(|endpoint| endpoint.protocol.is_tls()) {
        let UpstreamTls { ca, server_name, client } = tls;
        let ca = match ca {
            CaSource::System => "system".to_owned(),
            CaSource::File(path) => path_text(path),
        };
        let mut settings = vec![("ca", text(ca))];
        if let Some(name) = server_name {
            settings.push(("server_name", text(name)));
        }
        if let Some(Identity { cert, key }) = client {
            settings.extend([("client_cert", text(path_text(cert))), ("client_key", text(path_text(key)))]);
        }
        parts.push(("tls", map(settings)));
    }
    let RetryBudget { percent, min_per_second } = retry_budget;
    let budget = [("percent", percent), ("min_per_second", min_per_second)];
    parts.push(("retry_budget", map(budget.map(|(key, count)| (key, text(count.to_string()))))));
    map(parts)
}

fn endpoint(endpoint: &Endpoint) -> Tree {
    let Endpoint { protocol: _, location: _, weight } = endpoint;
    map([("url", text(endpoint.to_string())), ("weight", text(weight.to_string()))])
}

fn fields(headers: &[(HeaderName, HeaderValue)], secrets: Secrets) -> Tree {
    let shown = |(name, value): &(HeaderName, HeaderValue)| {
        let value = if secrets == Secrets::Redacted && is_secret(name) {
            REDACTED.to_owned()
        } else {
            String::from_utf8_lossy(value.as_bytes()).into_owned()
        };
        (name.to_string(), Tree::Text(value))
    };
    Tree::Map(headers.iter().map(shown).collect())
}

/// Whether fields of this name carry credentials; rather one too many.
fn is_secret(name: &HeaderName) -> bool {
    let name = name.as_str();
    SECRET_PARTS.iter().any(|part| name.contains(part))
}

/// A duration in its largest whole unit: `90s`, `2m`, `1500ms`.
pub(super) fn time_text(time: Duration) -> String {
    let ms = time.as_millis();
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)];
    match units.iter().find(|(_, unit)| ms > 0 && ms.is_multiple_of(*unit)) {
        Some((name, unit)) => format!("{}{name}", ms / unit),
        None if ms == 0 => "0s".to_owned(),
        None => format!("{ms}ms"),
    }
}

/// A size in its largest whole binary unit: `64KiB`, `1000B`.
pub(super) fn size_text(bytes: u64) -> String {
    let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.iter().find(|(_, unit)| bytes > 0 && bytes.is_multiple_of(*unit)) {
        Some((name, unit)) => format!("{}{name}", bytes / unit),
        None => format!("{bytes}B"),
    }
}

fn path_text(path: &Path) -> String {
    path.display().to_string()
}

fn word<T: PartialEq + Copy>(words: &[(&'static str, T)], value: T) -> &'static str {
    words.iter().find(|(_, other)| *other == value).expect("every value has its word").0
}

const REDACTED: &str = "[redacted]";
const SECRET_PARTS: [&str; 11] = [
    "auth",
    "cookie",
    "token",
    "secret",
    "password",
    "passwd",
    "api-key",
    "apikey",
    "session",
    "credential",
    "private",
];

#[cfg(test)]
mod tests;
