use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::LazyLock;

use http::Method;
use ipnet::IpNet;
use proptest::collection::{btree_map, vec};
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::super::Protocol;
use super::super::schema::load_with;
use super::super::{
    AccessLogFormat, AccessLogOnly, Alpn, Balance, Diagnostics, ListenAddress, Location, ProxyProtocol, Reconnect,
    RetryWhen, Source, TlsVersion, TrustedPeer,
};
use super::*;

fn read(text: &str) -> Result<Config, Diagnostics> {
    // Each file is a certificate, its key and a CA.
    static PEM: LazyLock<String> = LazyLock::new(|| {
        let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(["a".to_owned()]).unwrap();
        cert.pem() + &signing_key.serialize_pem()
    });
    let files = |_: &Path| Ok(PEM.as_bytes().to_vec());
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
    prop_oneof![min_ms..5000, (1u64..365).prop_map(|days| days * 86_400_000), (1u64..90).prop_map(|min| min * 60_000)]
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

fn trusted_peers() -> impl Strategy<Value = TrustedPeer> {
    let network = |ip: IpAddr, length: u8| TrustedPeer::Network(IpNet::new_assert(ip, length).trunc());
    prop_oneof![
        Just(TrustedPeer::Unix),
        (any::<Ipv4Addr>(), 0u8..=32).prop_map(move |(ip, length)| network(ip.into(), length)),
        // Never a network of IPv4 addresses in the form of IPv6 ones.
        (any::<Ipv6Addr>(), 0u8..=128)
            .prop_map(move |(ip, length)| network(Ipv6Addr::from_bits(ip.to_bits() | 1 << 127).into(), length)),
    ]
}

fn listen_addresses() -> impl Strategy<Value = ListenAddress> {
    prop_oneof![
        (1u16..1000).prop_map(|port| SocketAddr::from((Ipv6Addr::LOCALHOST, port)).into()),
        unix_paths().prop_map(ListenAddress::Unix),
    ]
}

fn unix_paths() -> impl Strategy<Value = PathBuf> {
    "/[^/\\x00]\\PC{0,10}[^/\\x00]".prop_map(PathBuf::from)
}

prop_compose! {
    fn listeners()(
        (name, address, max_connections) in (words(), listen_addresses(), 1u32..10_000_000),
        (header_timeout, idle_timeout) in (times(1), times(1)),
        header_bytes_max in 8192usize..(1 << 20),
        headers_max in 8usize..1024,
        streams_max in 1u32..10_000,
        body_bytes_max in of(0u64..(1 << 50)),
        trusted in vec(trusted_peers(), 0..4),
        tls in of(listener_tls()),
        proxy_protocol in select(vec![ProxyProtocol::Disabled, ProxyProtocol::Optional, ProxyProtocol::Required]),
    ) -> Listener {
        Listener {
            name, address, max_connections, header_timeout, idle_timeout, header_bytes_max, headers_max, streams_max,
            body_bytes_max,
            trust_forwarded_from: trusted.into(),
            tls,
            proxy_protocol,
        }
    }
}

prop_compose! {
    fn listener_tls()(
        certificates in vec(identities(), 1..3),
        alpn in subsequence(vec![Alpn::H2, Alpn::Http1], 1..=2).prop_shuffle(),
        min_version in select(vec![TlsVersion::Tls12, TlsVersion::Tls13]),
        client_ca in of(files()),
    ) -> ListenerTls {
        ListenerTls { certificates, alpn, min_version, client_ca }
    }
}

prop_compose! {
    fn identities()(cert in files(), key in files()) -> Identity {
        Identity { cert, key }
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
        (heartbeat, reconnect) in (of(times(1)), select(vec![Reconnect::Client, Reconnect::Spread])),
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
            heartbeat,
            reconnect,
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
        unix in of(unix_paths()),
        balance in select(vec![Balance::RoundRobin, Balance::LeastRequests]),
        (min_connections, more) in (0u32..100, 1u32..100),
        (max_streams_per_connection, max_pending) in (1u32..100, 0u32..1_000_000),
        max_tunnel_connections in 0u32..=100_000,
        max_requests_per_connection in 1u32..=1_000_000_000,
        (pending_timeout, idle_timeout, connect_timeout) in (times(1), times(1), times(1)),
        (max_age, interval, timeout) in (of(times(1)), of(times(1)), times(1)),
        stream_window_bytes in (64u32 << 10)..(16 << 20),
        ca in of(files()),
        client in of(identities()),
        server_name in of("[a-z]{1,9}\\.[a-z]{1,9}"),
        (percent, min_per_second) in (0u32..=100, 0u32..=10_000),
    ) -> Upstream {
        let protocols = [Protocol::H2c, Protocol::H2Tls, Protocol::Http1, Protocol::Http, Protocol::Https];
        let endpoints: Vec<_> = list
            .into_iter()
            .map(|((host, port), (protocol, weight))| Endpoint {
                protocol: protocols[protocol],
                location: Location::Host { host, port },
                weight,
            })
            .chain(unix.map(|path| Endpoint { protocol: Protocol::Http, location: Location::Unix(path), weight: 1 }))
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
                max_tunnel_connections,
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
            tls: if has_tls { UpstreamTls { ca, server_name, client } } else { UpstreamTls::default() },
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
            match &mut listener.address {
                ListenAddress::Tcp(address) => address.set_port(address.port() + 10_000 * position as u16),
                ListenAddress::Unix(path) => path.as_mut_os_string().push(position.to_string()),
            }
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
    proxy_protocol: disabled
    timeouts:
      header: 10s
      idle: 75s
    limits:
      header_bytes: 64KiB
      headers: 100
      streams: 100
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
    heartbeat: none
    reconnect: client
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
      max_tunnel_connections: 1024
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
