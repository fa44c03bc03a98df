//! A [`Config`] as the long form of YAML: complete, and the same configuration when it is read again.
//!
//! Every struct is taken apart in full, so that a new setting does not compile until it is printed.
//!
//! Pure.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::keys::{ACCESS_FORMAT, ACCESS_ONLY, BALANCE, LEVELS};
use super::{
    AccessLog, AccessLogOutput, Admin, CaSource, Config, Endpoint, HeaderEdits, Listener, Logs, Ping, Pool, Retry,
    RetryBudget, Route, RouteMatch, RouteTimeouts, Runtime, Shutdown, Upstream, UpstreamTls, Workers,
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
        body_bytes_max,
    } = listener;
    map([
        ("name", text(name)),
        ("address", text(address.to_string())),
        ("max_connections", text(max_connections.to_string())),
        ("timeouts", map([("header", text(time_text(*header_timeout))), ("idle", text(time_text(*idle_timeout)))])),
        (
            "limits",
            map([
                ("header_bytes", text(size_text(*header_bytes_max as u64))),
                ("headers", text(headers_max.to_string())),
                ("body_bytes", text(body_bytes_max.map_or("unlimited".to_owned(), size_text))),
            ]),
        ),
    ])
}

fn route(route: &Route, secrets: Secrets) -> Tree {
    let Route { name, matches, upstream, timeouts, retry, request_headers, rewrite_path_prefix } = route;
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
        let UpstreamTls { ca, server_name } = tls;
        let ca = match ca {
            CaSource::System => "system".to_owned(),
            CaSource::File(path) => path_text(path),
        };
        let mut settings = vec![("ca", text(ca))];
        if let Some(name) = server_name {
            settings.push(("server_name", text(name)));
        }
        parts.push(("tls", map(settings)));
    }
    let RetryBudget { percent, min_per_second } = retry_budget;
    let budget = [("percent", percent), ("min_per_second", min_per_second)];
    parts.push(("retry_budget", map(budget.map(|(key, count)| (key, text(count.to_string()))))));
    map(parts)
}

fn endpoint(endpoint: &Endpoint) -> Tree {
    let Endpoint { protocol: _, host: _, port: _, weight } = endpoint;
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

/// YAML on its way out.
enum Tree {
    Text(String),
    /// Single values on one line.
    Line(Vec<String>),
    List(Vec<Tree>),
    Map(Vec<(String, Tree)>),
}

fn text(value: impl Into<String>) -> Tree {
    Tree::Text(value.into())
}

fn map<'k>(entries: impl IntoIterator<Item = (&'k str, Tree)>) -> Tree {
    Tree::Map(entries.into_iter().map(|(key, tree)| (key.to_owned(), tree)).collect())
}

impl Tree {
    /// Writes from where the cursor stands; nested lines are indented by `indent`.
    fn write(&self, out: &mut String, indent: usize) {
        match self {
            Self::Text(value) => out.push_str(&scalar(value)),
            Self::Line(values) => {
                let values: Vec<_> = values.iter().map(|value| scalar(value)).collect();
                write!(out, "[{}]", values.join(", ")).expect("writing to a string cannot fail");
            }
            Self::List(items) => {
                for (position, item) in items.iter().enumerate() {
                    start_line(out, position, indent);
                    out.push_str("- ");
                    item.write(out, indent + 2);
                }
            }
            Self::Map(entries) => {
                for (position, (key, value)) in entries.iter().enumerate() {
                    start_line(out, position, indent);
                    out.push_str(&quote(key));
                    match value {
                        Self::Text(_) | Self::Line(_) => {
                            out.push_str(": ");
                            value.write(out, indent);
                        }
                        Self::List(_) | Self::Map(_) => {
                            writeln!(out, ":\n{:1$}", "", indent + 2).expect("writing to a string cannot fail");
                            out.pop();
                            value.write(out, indent + 2);
                        }
                    }
                }
            }
        }
        if matches!(self, Self::Text(_) | Self::Line(_)) {
            out.push('\n');
        }
    }
}

/// The first line of a collection is already indented by what it stands in.
fn start_line(out: &mut String, position: usize, indent: usize) {
    if position > 0 {
        out.extend(std::iter::repeat_n(' ', indent));
    }
}

/// A value: a dollar is doubled, because reading replaces `${...}` in values, but not in keys.
fn scalar(value: &str) -> String {
    quote(&value.replace('$', "$$"))
}

/// Quotes what YAML would read as anything but the same text.
fn quote(value: &str) -> String {
    let is_plain = value.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/')
        && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_./:-".contains(&byte))
        && !value.ends_with(':')
        && !["null", "true", "false", "yes", "no", "on", "off"].contains(&value.to_ascii_lowercase().as_str());
    if is_plain {
        return value.to_owned();
    }
    let mut out = String::from('"');
    for character in value.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            ' '..='~' => out.push(character),
            _ => write!(out, "\\U{:08x}", u32::from(character)).expect("writing to a string cannot fail"),
        }
    }
    out.push('"');
    out
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
mod tests {
    use std::net::SocketAddr;
    use std::path::PathBuf;

    use http::Method;
    use proptest::collection::{btree_map, vec};
    use proptest::option::of;
    use proptest::prelude::*;
    use proptest::sample::{select, subsequence};

    use super::super::Protocol;
    use super::super::schema::load_with;
    use super::super::{AccessLogFormat, AccessLogOnly, Balance, Diagnostics, RetryWhen, Source};
    use super::*;

    fn read(text: &str) -> Result<Config, Diagnostics> {
        let files = |_: &Path| Ok(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_vec());
        load_with(&Source::new("t.yaml", text), &|_| None, &files).map(|(config, _)| config)
    }

    /// 4 over HTTP/2 and 128 over HTTP/1.1 cannot be said in one number.
    #[test]
    fn a_bound_that_follows_the_protocol_is_left_to_the_default() {
        let config = read("listen: 127.0.0.1:8080\nupstream: http://127.0.0.1:9000\n").unwrap();
        let printed = print(&config, Secrets::Shown);
        // That of the listener.
        assert_eq!(printed.matches("max_connections").count(), 1, "{printed}");
        assert_eq!(read(&printed).unwrap(), config);
    }

    fn times(min_ms: u64) -> impl Strategy<Value = Duration> {
        prop_oneof![
            min_ms..5000,
            (1u64..365).prop_map(|days| days * 86_400_000),
            (1u64..90).prop_map(|min| min * 60_000)
        ]
        .prop_map(Duration::from_millis)
    }

    fn words() -> impl Strategy<Value = String> {
        prop_oneof![
            "[A-Za-z0-9_.-]{1,64}",
            select(vec!["null", "Null", "true", "on", "1", "1e3", "0x1", "-", "."]).prop_map(str::to_owned)
        ]
    }

    fn header_fields() -> impl Strategy<Value = Vec<(HeaderName, HeaderValue)>> {
        let name = "x-[a-z0-9!#$%&'*+.^_`|~-]{0,12}";
        let value = "([!-~]([ -~]{0,12}[!-~])?)?";
        btree_map(name, value, 0..3).prop_map(|fields| {
            let field = |(name, value): (String, String)| (name.parse().unwrap(), value.parse().unwrap());
            fields.into_iter().map(field).collect()
        })
    }

    fn paths() -> impl Strategy<Value = String> {
        "/[!-\"$->@-~]{0,20}"
    }

    fn files() -> impl Strategy<Value = PathBuf> {
        "(/|\\./)[^/]\\PC{0,10}[^/]".prop_map(PathBuf::from)
    }

    prop_compose! {
        fn listeners()(
            (name, port, max_connections) in (words(), 1u16..1000, 1u32..10_000_000),
            (header_timeout, idle_timeout) in (times(1), times(1)),
            header_bytes_max in 8192usize..(1 << 20),
            headers_max in 8usize..1024,
            body_bytes_max in of(0u64..(1 << 50)),
        ) -> Listener {
            let address = SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], port));
            Listener {
                name, address, max_connections, header_timeout, idle_timeout, header_bytes_max, headers_max, body_bytes_max,
            }
        }
    }

    prop_compose! {
        fn routes()(
            (name, upstream) in (words(), 0usize..100),
            hosts in vec("(\\*\\.)?[a-z0-9_]{1,9}(\\.[a-z]{1,5})?", 0..3),
            path_prefix in of(paths()),
            methods in subsequence(vec![Method::GET, Method::POST, Method::from_bytes(b"X-Y").unwrap()], 0..3),
            (headers, set) in (header_fields(), header_fields()),
            remove in header_fields(),
            (response_header, stream_idle, request) in (of(times(1)), of(times(1)), of(times(1))),
            (attempts, when, per_try_timeout) in (1u32..=5, subsequence(WHEN.to_vec(), 0..=WHEN.len()), of(times(1))),
            rewrite in of(paths()),
        ) -> (usize, Route) {
            let rewrite_path_prefix = rewrite.filter(|_| path_prefix.is_some());
            let remove = remove.into_iter().map(|(name, _)| name).collect();
            let has_retry = !when.is_empty() || per_try_timeout.is_some();
            (upstream, Route {
                name,
                matches: RouteMatch { hosts, path_prefix, methods, headers },
                upstream: String::new(),
                timeouts: RouteTimeouts { response_header, stream_idle, request },
                retry: has_retry.then_some(Retry { attempts, when, per_try_timeout }),
                request_headers: HeaderEdits { set, remove },
                rewrite_path_prefix,
            })
        }
    }

    prop_compose! {
        fn upstreams()(
            name in words(),
            list in btree_map((prop_oneof!["[a-z]{1,9}", Just("::1".to_owned())], 1u16..), (0..5usize, 1u32..1000), 1..4),
            balance in select(vec![Balance::RoundRobin, Balance::LeastRequests]),
            (min_connections, more) in (0u32..100, 1u32..100),
            (max_streams_per_connection, max_pending) in (1u32..100, 0u32..1_000_000),
            max_requests_per_connection in 1u32..=1_000_000_000,
            (pending_timeout, idle_timeout, connect_timeout) in (times(1), times(1), times(1)),
            (max_age, interval, timeout) in (of(times(1)), of(times(1)), times(1)),
            stream_window_bytes in (64u32 << 10)..(16 << 20),
            ca in of(files()),
            server_name in of("[a-z]{1,9}\\.[a-z]{1,9}"),
            (percent, min_per_second) in (0u32..=100, 0u32..=10_000),
        ) -> Upstream {
            let protocols = [Protocol::H2c, Protocol::H2Tls, Protocol::Http1, Protocol::Http, Protocol::Https];
            let endpoints: Vec<_> = list
                .into_iter()
                .map(|((host, port), (protocol, weight))| Endpoint { protocol: protocols[protocol], host, port, weight })
                .collect();
            let has_tls = endpoints.iter().any(|endpoint| endpoint.protocol.is_tls());
            let ca = ca.map_or(CaSource::System, CaSource::File);
            Upstream {
                name,
                endpoints,
                balance,
                pool: Pool {
                    min_connections,
                    max_connections: min_connections + more,
                    max_http1_connections: min_connections + more,
                    max_streams_per_connection,
                    max_requests_per_connection,
                    max_pending,
                    pending_timeout,
                    idle_timeout,
                    max_age,
                    ping: Ping { interval, timeout },
                },
                stream_window_bytes,
                connect_timeout,
                tls: if has_tls { UpstreamTls { ca, server_name } } else { UpstreamTls::default() },
                retry_budget: RetryBudget { percent, min_per_second },
            }
        }
    }

    prop_compose! {
        fn configs()(
            mut listeners in vec(listeners(), 1..4),
            routes in vec(routes(), 1..4),
            mut upstreams in vec(upstreams(), 1..4),
            (address, probes) in (of(1000u16..2000), of(2000u16..3000)),
            (delay, timeout) in (times(0), times(0)),
            level in select(LEVELS),
            only in select(ACCESS_ONLY),
            format in select(ACCESS_FORMAT),
            output in prop_oneof![
                Just(AccessLogOutput::Stdout), Just(AccessLogOutput::Stderr), files().prop_map(AccessLogOutput::File)
            ],
            workers in prop_oneof![Just(Workers::Auto), (1u16..=256).prop_map(Workers::Count)],
        ) -> Config {
            // Names and addresses must differ; the position makes them so.
            for (position, listener) in listeners.iter_mut().enumerate() {
                listener.name = format!("{position}{:.60}", listener.name);
                listener.address.set_port(listener.address.port() + 10_000 * position as u16);
            }
            for (position, upstream) in upstreams.iter_mut().enumerate().skip(1) {
                upstream.name = format!("{position}{:.60}", upstream.name);
            }
            let routes = routes.into_iter().enumerate().map(|(position, (upstream, route))| Route {
                name: if position == 0 { route.name } else { format!("{position}{:.60}", route.name) },
                upstream: upstreams[upstream % upstreams.len()].name.clone(),
                ..route
            });
            let local = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
            let (level, only, format): (_, AccessLogOnly, AccessLogFormat) = (level.1, only.1, format.1);
            Config {
                routes: routes.collect(),
                listeners,
                upstreams,
                admin: Admin { address: address.map(local), probes: probes.map(local) },
                shutdown: Shutdown { delay, timeout },
                logs: Logs { level, access: AccessLog { only, format, output } },
                runtime: Runtime { workers },
            }
        }
    }

    const WHEN: [RetryWhen; 4] =
        [RetryWhen::ConnectFailure, RetryWhen::Reset, RetryWhen::Status(429), RetryWhen::Status(503)];

    proptest! {
        #[test]
        fn what_is_printed_is_the_same_configuration_when_read_again(config in configs()) {
            let names: std::collections::HashSet<_> = config.upstreams.iter().map(|upstream| &upstream.name).collect();
            prop_assume!(names.len() == config.upstreams.len());
            let names: std::collections::HashSet<_> = config.routes.iter().map(|route| &route.name).collect();
            prop_assume!(names.len() == config.routes.len());
            let text = print(&config, Secrets::Shown);
            let again = read(&text).map_err(|errors| TestCaseError::fail(format!("{errors}\n{text}")))?;
            prop_assert_eq!(config, again, "{}", text);
        }
    }

    const SMALL: &str = "\
listeners: [{ name: http, address: 127.0.0.1:8080 }]
upstreams: { api: { endpoints: [\"h2c://a:1\", { url: h2://b:2, weight: 3 }] } }
routes:
  - upstream: api
    match: { hosts: [\"*.example.com\"], path_prefix: /v1, headers: { x-api-key: sesame } }
    retry: { when: [reset, \"503\"], per_try_timeout: 5s }
    request_headers: { set: { Authorization: \"Basic $$x\", x-via: trunkline }, remove: [x-internal] }
";

    #[test]
    fn print_shows_everything_in_the_long_form() {
        assert_eq!(
            print(&read(SMALL).unwrap(), Secrets::Shown),
            "\
version: 1
listeners:
  - name: http
    address: 127.0.0.1:8080
    max_connections: 20000
    timeouts:
      header: 10s
      idle: 75s
    limits:
      header_bytes: 64KiB
      headers: 100
      body_bytes: unlimited
routes:
  - name: route-1
    match:
      hosts: [\"*.example.com\"]
      path_prefix: /v1
      headers:
        x-api-key: sesame
    upstream: api
    timeouts:
      response_header: 1m
      stream_idle: 5m
      request: none
    retry:
      attempts: 2
      when: [reset, 503]
      per_try_timeout: 5s
    request_headers:
      set:
        authorization: \"Basic $$x\"
        x-via: trunkline
      remove: [x-internal]
upstreams:
  api:
    endpoints:
      - url: h2c://a:1
        weight: 1
      - url: h2://b:2
        weight: 3
    balance: least_requests
    pool:
      min_connections: 0
      max_connections: 4
      max_streams_per_connection: 100
      max_requests_per_connection: 1000000000
      max_pending: 1024
      pending_timeout: 1s
      idle_timeout: 5m
      max_age: 1h
      ping:
        interval: 20s
        timeout: 5s
    http2:
      stream_window: 256KiB
    timeouts:
      connect: 1s
    tls:
      ca: system
    retry_budget:
      percent: 20
      min_per_second: 3
admin:
  address: none
  probes: none
shutdown:
  delay: 0s
  timeout: 25s
logs:
  level: info
  access:
    only: failures
    format: json
    output: stdout
runtime:
  workers: auto
"
        );
    }

    #[test]
    fn credentials_are_redacted_on_pages() {
        let page = print(&read(SMALL).unwrap(), Secrets::Redacted);
        assert!(page.contains("x-api-key: \"[redacted]\"") && page.contains("authorization: \"[redacted]\""), "{page}");
        assert!(page.contains("x-via: trunkline") && !page.contains("sesame") && !page.contains("Basic"), "{page}");
    }

    #[test]
    fn durations_and_sizes_are_printed_in_their_largest_whole_unit() {
        let times = [0, 1, 1500, 60_000, 90_000, 86_400_000].map(|ms| time_text(Duration::from_millis(ms)));
        assert_eq!(times, ["0s", "1ms", "1500ms", "1m", "90s", "1d"]);
        let sizes = [0, 1000, 1024, 1536 << 10, 1 << 30].map(size_text);
        assert_eq!(sizes, ["0B", "1000B", "1KiB", "1536KiB", "1GiB"]);
    }
}
