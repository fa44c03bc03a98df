use std::time::Duration;

use proptest::prelude::*;

use super::super::{
    AccessLog, AccessLogFormat, AccessLogOnly, AccessLogOutput, Admin, Balance, CaSource, Endpoint, HeaderEdits,
    ListenAddress, Listener, Location, Logs, Ping, Pool, Protocol, Reconnect, RetryBudget, Route, RouteMatch,
    RouteTimeouts, Runtime, Severity, Shutdown, Upstream, UpstreamTls, Workers,
};
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
                address: ListenAddress::Tcp("127.0.0.1:8080".parse().unwrap()),
                max_connections: 20_000,
                header_timeout: Duration::from_secs(10),
                idle_timeout: Duration::from_secs(75),
                header_bytes_max: 64 << 10,
                headers_max: 100,
                streams_max: 100,
                body_bytes_max: None,
                trust_forwarded_from: [].into(),
                tls: None,
                proxy_protocol: super::super::ProxyProtocol::Disabled,
            }],
            routes: vec![Route {
                name: "route-1".to_owned(),
                matches: RouteMatch::default(),
                upstream: "default".to_owned(),
                timeouts: RouteTimeouts {
                    response_header: Some(Duration::from_mins(1)),
                    stream_idle: Some(Duration::from_mins(5)),
                    request: None,
                },
                heartbeat: None,
                reconnect: Reconnect::Client,
                retry: None,
                request_headers: HeaderEdits::default(),
                rewrite_path_prefix: None,
            }],
            upstreams: vec![Upstream {
                name: "default".to_owned(),
                endpoints: vec![Endpoint {
                    protocol: Protocol::H2c,
                    location: Location::Host { host: "127.0.0.1".to_owned(), port: 9000 },
                    weight: 1
                }],
                balance: Balance::LeastRequests,
                pool: Pool {
                    min_connections: 0,
                    max_connections: 4,
                    max_http1_connections: 4,
                    max_tunnel_connections: 1024,
                    max_streams_per_connection: 100,
                    max_requests_per_connection: 1_000_000_000,
                    max_pending: 1024,
                    pending_timeout: Duration::from_secs(1),
                    idle_timeout: Duration::from_mins(5),
                    max_age: Some(Duration::from_hours(1)),
                    ping: Ping { interval: Some(Duration::from_secs(20)), timeout: Duration::from_secs(5) },
                },
                stream_window_bytes: 256 << 10,
                connect_timeout: Duration::from_secs(1),
                tls: UpstreamTls { ca: CaSource::System, server_name: None, client: None },
                retry_budget: RetryBudget { percent: 20, min_per_second: 3 },
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
    let short = good("listen: 127.0.0.1:8080\nupstream: [h2c://a:1, h2c://b:1]\nadmin: { address: 127.0.0.1:9900 }\n");
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
    let two = format!("{LONG}upstreams: {{ api: {{ endpoints: [h2c://a:1] }}, b: {{ endpoints: [h2c://b:1] }} }}\n");
    let label = "add `routes: [{ upstream: api }]`";
    let message = "the key `routes` is missing; with several upstreams it says which one gets what";
    assert_eq!(bad(&two), [format!("2:1 {message}; {label}")]);
}

#[test]
fn the_default_of_max_connections_is_larger_for_http1() {
    let max = |list: &str| {
        let pool = good(&format!("listen: 1.2.3.4:1\nupstream: {list}\n")).upstreams.remove(0).pool;
        (pool.max_connections, pool.max_http1_connections)
    };
    assert_eq!(max("[h2c://a:1, h2://b:1]"), (4, 4));
    assert_eq!(max("http1://a:1"), (128, 128));
    for found_out in ["[h2c://a:1, http1://b:1]", "http://a:1", "https://a:1"] {
        assert_eq!(max(found_out), (4, 128));
    }
    let given = "upstreams: { a: { endpoints: [\"http://a:1\"], pool: { max_connections: 7 } } }\n";
    let pool = good(&format!("{LONG}{given}")).upstreams.remove(0).pool;
    assert_eq!((pool.max_connections, pool.max_http1_connections), (7, 7));
}

#[test]
fn forms_cannot_be_mixed_or_halved() {
    let mixed = "`listen` is the short form and `upstreams` the long form; they cannot be mixed";
    assert_eq!(
        bad("listen: 1.2.3.4:1\nupstreams: { a: { endpoints: [h2c://a:1] } }\n"),
        [format!("1:1 {mixed}; write it as `listeners: [{{ address: ... }}]`")]
    );
    assert_eq!(
        bad("listeners: [{ address: 1.2.3.4:1 }]\nupstream: h2c://a:1\n"),
        ["2:1 `upstream` is the short form and `listeners` the long form; they cannot be mixed; write it as \
          `upstreams: { service: { endpoints: [...] } }`"]
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
    endpoints: [ \"ftp://10.0.0.11:9000\", { url: \"h2c://10.0.0.12\", weight: 2 } ]
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

error: upstreams.api.endpoints[0]: `ftp://10.0.0.11:9000`: unsupported scheme `ftp`
  --> trunkline.yaml:11:18
   |
11 |     endpoints: [ \"ftp://10.0.0.11:9000\", { url: \"h2c://10.0.0.12\", weight: 2 } ]
   |                  ^^^^^^^^^^^^^^^^^^^^^^ schemes are h2c:// (HTTP/2), h2:// (HTTP/2 over TLS), http1:// (HTTP/1.1), and http:// and https:// (what the service speaks)

error: upstreams.api.endpoints[1].url: `h2c://10.0.0.12` has no port
  --> trunkline.yaml:11:49
   |
11 |     endpoints: [ \"ftp://10.0.0.11:9000\", { url: \"h2c://10.0.0.12\", weight: 2 } ]
   |                                                 ^^^^^^^^^^^^^^^^^ write host:port, for example h2c://10.0.0.12:9000

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
   = allowed: endpoints, balance, pool, http2, timeouts, tls, retry_budget
"
    );
}

#[test]
fn no_number_of_warnings_hides_an_error() {
    let idle: Vec<_> = (0..300).map(|n| format!("  u{n}: {{ endpoints: [h2c://a:1] }}\n")).collect();
    let last = "  last: { endpoints: [h2c://a:1, h2c://a:1] }\n";
    let text = format!("{LONG}routes: [{{ upstream: last }}]\nupstreams:\n{}{last}", idle.concat());
    let errors = read(&text).unwrap_err();
    assert_eq!((errors.count(Severity::Error), errors.count(Severity::Warning)), (1, 101));
    assert_eq!(errors.list.last().unwrap().message, "200 more are not shown");
}

#[test]
fn a_misspelt_key_is_not_missing_as_well() {
    assert_eq!(
        bad("lisen: 1.2.3.4:1\nupstream: h2c://a:1\n"),
        ["1:1 unknown key `lisen` at the top level; did you mean `listen`?"]
    );
    let text = "listeners: [{ adress: 1.2.3.4:1 }]\nupstreams: { api: { endpoints: [h2c://a:1] } }\n";
    assert_eq!(bad(text), ["1:15 unknown key `adress` in listeners[0]; did you mean `address`?"]);
}

#[test]
fn block_scalars_are_values_like_others() {
    assert_eq!(
        good("listen: >\n  1.2.3.4:1\nupstream: |\n  h2c://a:1\n"),
        good("listen: 1.2.3.4:1\nupstream: h2c://a:1\n")
    );
}

#[test]
fn what_is_not_a_configuration_at_all_is_told_apart() {
    for empty in ["", "\n\n", "# only a comment\n", "---\n", "~\n", "\u{feff}"] {
        assert_eq!(bad(empty), ["trunkline.yaml is empty; "], "{empty:?}");
    }
    assert!(
        bad("[1, 2]")[0].starts_with("1:1 the configuration: found a list; expected a mapping with the keys version")
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
            "1:1 listen: found nothing; expected an address, for example 127.0.0.1:8080, or unix:/run/trunkline.sock",
            "3:12 runtime.workers: found nothing; expected auto or a whole number",
        ]
    );
}

#[test]
fn wrong_kinds_of_value_say_what_was_expected() {
    assert_eq!(
        bad("listen: [1.2.3.4:1]\nupstream: {a: b}\nadmin: yes\nruntime: [a]\n"),
        [
            "1:9 listen: found a list; expected an address, for example 127.0.0.1:8080, or unix:/run/trunkline.sock",
            "2:12 upstream: found a mapping; expected a list: [h2c://127.0.0.1:9000, ...]",
            "3:8 admin: found a single value; expected a mapping with the keys address, probes",
            "4:10 runtime: found a list; expected a mapping with the keys workers",
        ]
    );
    assert_eq!(
        bad("listeners: []\nupstreams: {}\nroutes: a\n"),
        [
            "1:12 listeners: the list is empty; give at least one { address: 127.0.0.1:8080 }",
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
    assert_eq!(config.listeners[0].address.tcp(), Some("127.0.0.1:8081".parse().unwrap()));
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
