//! Every key of the configuration, declared once.
//!
//! Each line says: what holds if the key is absent (`preset` a default, `optional` nothing, `required` an error,
//! `below` a section, `apart` a section that is absent by default), its name, its type, its rule, the default or an example as one would write it, and what
//! it means. The decoder, the JSON Schema, `trunkline defaults` and `config/full.yaml` all follow from here.

use std::marker::PhantomData;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use tracing::Level;

use super::addresses::{ADDRESS_OR_NONE, ENDPOINT, LISTEN, TRUSTED_PEER};
use super::collections::{Each, EndpointsRule, HeadersRule, Named, Sections};
use super::parse::{
    CA, HEADER_NAME, HOST, METHOD, NAME, OUTPUT, PATH_PREFIX, PEM_PATH, RETRY_WHEN, SERVER_NAME, VERSION,
};
use super::rules::{Count, Size, SizeLimit, Time, TimeLimit, Word, WorkersRule};
use super::section::section;
use super::source::Spanned;
use super::{
    AccessLogFormat, AccessLogOnly, AccessLogOutput, Alpn, Balance, CaSource, Endpoint, ListenAddress, ProxyProtocol,
    Reconnect, RetryWhen, TlsVersion, TrustedPeer, Workers,
};

pub(super) type Headers = Vec<(Spanned<HeaderName>, HeaderValue)>;
pub(super) type Upstreams = Vec<(Spanned<String>, UpstreamKeys)>;

section! { RootKeys {
    preset version: u32 = VERSION, "1",
        "The version of this format.";
    optional listen: ListenAddress = LISTEN, "127.0.0.1:8080",
        "The short form, together with `upstream`: one listener with every default.";
    optional upstream: Vec<Spanned<Endpoint>> = Each { rule: ENDPOINT, item: "h2c://127.0.0.1:9000", or_one: true },
        "h2c://127.0.0.1:9000",
        "The short form: the one service, as a URL or a list of URLs, with every default.";
    optional listeners: Vec<ListenerKeys> = Sections::<ListenerKeys> { item: "{ address: 127.0.0.1:8080 }", of: PhantomData }, "",
        "Where clients connect.";
    optional routes: Vec<RouteKeys> = Sections::<RouteKeys> { item: "{ upstream: api }", of: PhantomData }, "",
        "Which request goes to which upstream; the first match wins, no match is answered with 404.\n\
         May be left out if there is exactly one upstream: it gets every request.";
    optional upstreams: Upstreams =
        Named::<UpstreamKeys> { example: "api: { endpoints: [\"h2c://127.0.0.1:9000\"] }", of: PhantomData }, "",
        "The services, by name.";
    below admin: AdminKeys,
        "Where operators look.";
    below shutdown: ShutdownKeys,
        "What SIGTERM does.";
    below logs: LogsKeys,
        "What is written for people and for log collectors.";
    below runtime: RuntimeKeys,
        "The threads.";
} }

section! { ListenerKeys {
    optional name: String = NAME, "http",
        "Names the listener in logs and metrics. Without one it is listener-1, listener-2, ... by position.";
    required address: ListenAddress = LISTEN, "127.0.0.1:8080",
        "IP address and port; 0.0.0.0 is every interface, [::] too, for IPv6 and IPv4. Or unix:/run/trunkline.sock: the\n\
         umask and the folder's mode say who may connect; what a killed process has left is replaced, ours is removed\n\
         at the end. Required.";
    preset max_connections: u32 = Count { min: 1, max: 10_000_000 }, "20000",
        "Open client connections in the whole process; more wait in the kernel's backlog until one closes.";
    optional trust_forwarded_from: Vec<Spanned<TrustedPeer>> =
        Each { rule: TRUSTED_PEER, item: "10.0.0.0/8", or_one: false }, "[10.0.0.0/8, \"::1\", unix]",
        "Proxies in front of this one: networks, addresses, or unix for whoever comes over a Unix socket. What they say\n\
         in X-Forwarded-*, X-Real-IP and Forwarded is kept and added to, and the client is the last address there that\n\
         is not in this list. What anybody else says is replaced. Nobody if absent.";
    preset proxy_protocol: ProxyProtocol = Word(PROXY_PROTOCOL), "disabled",
        "Whether a balancer in front says who the client is, in a PROXY header of version 1 or 2 at the beginning of each\n\
         connection: disabled, optional, or required, and then connections without it are closed. With\n\
         trust_forwarded_from it counts only from those peers: others are closed if it is required, else it is skipped.";
    below timeouts: ListenerTimeoutKeys,
        "How long a client may take.";
    below limits: LimitKeys,
        "How much a client may send.";
    apart tls: ListenerTlsKeys,
        "TLS on this address; without it clients speak in the clear. Files are read again when they change.";
} }

section! { ListenerTlsKeys {
    optional certificates: Vec<CertificateKeys> =
        Sections::<CertificateKeys> { item: "{ cert: tls.crt, key: tls.key }", of: PhantomData }, "",
        "Who this listener is. The certificate with the name that a client asks for (SNI) is taken, *.example.com being\n\
         one label; the first one is for clients that ask for none or for another. Required in this section.";
    optional alpn: Vec<Spanned<Alpn>> = Each { rule: Word(ALPN), item: "h2", or_one: false }, "[h2, http/1.1]",
        "What is offered by ALPN, the preferred one first. Default: both, as in the example.";
    preset min_version: TlsVersion = Word(TLS_VERSIONS), "1.2",
        "The oldest version that clients may use: 1.2 or 1.3.";
    optional client_ca: PathBuf = PEM_PATH, "ca.crt",
        "A PEM file with the CAs of the clients: each client must then show a certificate of one of them.";
} }

section! { CertificateKeys {
    required cert: PathBuf = PEM_PATH, "tls.crt",
        "A PEM file with the certificate, and those of its issuers behind it. Required.";
    required key: PathBuf = PEM_PATH, "tls.key",
        "A PEM file with its private key. Required.";
} }

section! { ListenerTimeoutKeys {
    preset header: Duration = Time { min_ms: 1 }, "10s",
        "From the accept or the first byte of a request head to its end, then 408: silent clients cost a connection.";
    preset idle: Duration = Time { min_ms: 1 }, "75s",
        "A keep-alive connection without a request is closed after this; longer than the balancer's in front of it.";
} }

section! { LimitKeys {
    preset header_bytes: u64 = Size { min: 8 << 10, max: 1 << 20 }, "64KiB",
        "The whole request head, 8KiB to 1MiB; above it 431. Each connection may buffer so much.";
    preset headers: u32 = Count { min: 8, max: 1024 }, "100",
        "Fields in a request head, 8 to 1024; above it 431.";
    preset streams: u32 = Count { min: 1, max: 10_000 }, "100",
        "Requests at once on one HTTP/2 connection; a client that knows the limit makes the others wait. Each answer that\n\
         it does not read holds up to 64 KiB.";
    preset body_bytes: Option<u64> = SizeLimit, "unlimited",
        "The request body; above it 413. Bodies are relayed, never stored, so no limit is safe.";
} }

section! { RouteKeys {
    optional name: String = NAME, "reads",
        "Names the route in logs. Without one it is route-1, route-2, ... by position.";
    below r#match as "match": MatchKeys,
        "All stated conditions must hold; none takes every request.";
    required upstream: String = NAME, "api",
        "The name of one of the upstreams below. Required.";
    below timeouts: RouteTimeoutKeys,
        "How long the exchange may take.";
    preset heartbeat: Option<Duration> = TimeLimit, "none",
        "While the service is silent on an event stream (text/event-stream), its client gets a comment each so long,\n\
         never inside an event. It says nothing of the service, which stream_idle gives up all the same.";
    preset reconnect: Reconnect = Word(RECONNECT), "client",
        "A drain ends event streams between two events. client: clients come back when they like, which is all at once;\n\
         spread: each is told a time of its own (`retry:`) within shutdown.timeout.";
    below retry: RetryKeys,
        "What is sent once more although the service may have seen it: only methods that may be repeated (GET, HEAD,\n\
         OPTIONS, PUT, DELETE), only before any part of an answer was relayed, and only with a body of up to 64KiB. What\n\
         the service has provably not processed is always sent again, whatever its method, and needs none of this.";
    below request_headers: EditKeys,
        "Changes to the request's fields before it goes upstream: first remove, then set.";
    below rewrite: RewriteKeys,
        "Changes to the request's path before it goes upstream.";
} }

section! { MatchKeys {
    optional hosts: Vec<Spanned<String>> = Each { rule: HOST, item: "api.example.com", or_one: false },
        "[api.example.com, \"*.example.org\"]",
        "Host names without port; *.example.org is every sub-domain. Any host if absent.";
    optional path_prefix: String = PATH_PREFIX, "/v1",
        "Whole segments: /v1 matches /v1 and /v1/x, not /v10. Any path if absent.";
    optional methods: Vec<Spanned<Method>> = Each { rule: METHOD, item: "GET", or_one: false }, "[GET, HEAD]",
        "Any method if absent.";
    optional headers: Headers = HeadersRule, "{ x-tier: gold }",
        "Fields and the exact values that they must have.";
} }

section! { RouteTimeoutKeys {
    preset response_header: Option<Duration> = TimeLimit, "60s",
        "From the end of the request to the head of the response, then 504; none for long polls.";
    preset stream_idle: Option<Duration> = TimeLimit, "5m",
        "No byte in either direction for so long ends the exchange: a dead peer is not held for ever.";
    preset request: Option<Duration> = TimeLimit, "none",
        "The whole exchange to the last byte; none by default, because streams may live for ever.";
} }

section! { RetryKeys {
    optional attempts: u32 = Count { min: 1, max: 5 }, "2",
        "Tries in all, the first one included, 1 to 5; another endpoint or connection each time, if there is one.\n\
         Default 2 if the keys below ask for another try at all.";
    optional when: Vec<Spanned<RetryWhen>> = Each { rule: RETRY_WHEN, item: "connect_failure", or_one: false },
        "[connect_failure, reset, \"503\"]",
        "What another try follows: connect_failure (no endpoint was reached within pending_timeout; any method, for\n\
         nothing was sent), reset (the stream or its connection ended before the head of the answer), or a status:\n\
         \"429\", \"500\" to \"599\". What cannot be tried again is answered as it is.";
    preset per_try_timeout: Option<Duration> = TimeLimit, "none",
        "A try without the head of an answer so long after the end of the request is given up for another one; the\n\
         last try is not. timeouts.response_header bounds all tries together.";
} }

section! { EditKeys {
    optional set: Headers = HeadersRule, "{ x-via: trunkline }",
        "Fields that the request gets, replacing those of the same name.";
    optional remove: Vec<Spanned<HeaderName>> = Each { rule: HEADER_NAME, item: "x-internal", or_one: false },
        "[x-internal]",
        "Fields that the request loses.";
} }

section! { RewriteKeys {
    optional path_prefix: String = PATH_PREFIX, "/",
        "Takes the place of the matched path_prefix at the start of the path; needs match.path_prefix.";
} }

section! { UpstreamKeys {
    required endpoints: Vec<Spanned<Endpoint>> = EndpointsRule, "[\"h2c://127.0.0.1:9000\"]",
        "The addresses of the service: URLs, or a URL and a weight. Required.\n\
         h2c:// is HTTP/2 in the clear, h2:// HTTP/2 over TLS, http1:// HTTP/1.1 in the clear. http:// is asked for\n\
         HTTP/2 first, https:// chooses by ALPN; both fall back to HTTP/1.1. Over Unix sockets: h2c+unix:/run/app.sock,\n\
         http1+unix: and http+unix:.";
    preset balance: Balance = Word(BALANCE), "least_requests",
        "How an endpoint is picked: least_requests (fewest in flight for its weight) or round_robin (in turn).";
    below pool: PoolKeys,
        "The connections to each endpoint, counted in the whole process.";
    below http2: Http2Keys,
        "HTTP/2 settings.";
    below timeouts: UpstreamTimeoutKeys,
        "How long the service may take.";
    below tls: TlsKeys,
        "How an h2:// or https:// endpoint proves who it is, and how this proxy does; not allowed without one.\n\
         Files are read again when they change.";
    below retry_budget: RetryBudgetKeys,
        "How much the routes' `retry` may add to the load of a service that is in trouble already.";
} }

section! { EndpointKeys {
    required url: Endpoint = ENDPOINT, "h2://api.internal:9443",
        "SCHEME://HOST:PORT with the scheme h2c, h2, http1, http or https; or h2c+unix:/PATH, http1+unix:/PATH or\n\
         http+unix:/PATH. Required.";
    preset weight: u32 = Count { min: 1, max: 1000 }, "1",
        "Its share of the requests beside the other endpoints, 1 to 1000.";
} }

section! { PoolKeys {
    preset min_connections: u32 = Count { min: 0, max: 10_000 }, "0",
        "HTTP/2 connections kept open although idle, so that the first request after a pause need not dial; /readyz waits\n\
         for them at the start, unless the endpoint cannot be reached.";
    optional max_connections: u32 = Count { min: 1, max: 10_000 }, "4",
        "Connections to one endpoint. Default 4 while it speaks HTTP/2, 128 while it speaks HTTP/1.1, where a\n\
         connection carries one request at a time.";
    preset max_tunnel_connections: u32 = Count { min: 0, max: 100_000 }, "1024",
        "Connections in HTTP/1.1 that WebSockets and other upgrades have to themselves, beside max_connections; above it\n\
         503. WebSockets on streams of HTTP/2 (RFC 8441) need none.";
    preset max_streams_per_connection: u32 = Count { min: 1, max: 10_000 }, "100",
        "Requests at once on one HTTP/2 connection; the peer's own limit holds if it is smaller.";
    preset max_requests_per_connection: u32 = Count { min: 1, max: 1_000_000_000 }, "1000000000",
        "An HTTP/2 connection that has carried so many makes room for a fresh one; its stream ids end at 2^30. A little\n\
         below the service's own bound (nginx: keepalive_requests, 1000), no request is ever refused for it.";
    preset max_pending: u32 = Count { min: 0, max: 1_000_000 }, "1024",
        "Requests that may wait for a free stream; above it 503 at once, which keeps memory flat.";
    preset pending_timeout: Duration = Time { min_ms: 1 }, "1s",
        "How long one of them waits, then 503.";
    preset idle_timeout: Duration = Time { min_ms: 1 }, "5m",
        "An idle connection above min_connections is closed after this.";
    preset max_age: Option<Duration> = TimeLimit, "1h",
        "An HTTP/2 connection takes no new streams after this, give or take a tenth, and its place goes to a fresh\n\
         one: load that has moved behind a balancer is found again. none for never.";
    below ping: PingKeys,
        "Finds HTTP/2 connections whose peer has vanished without a word.";
} }

section! { PingKeys {
    preset interval: Option<Duration> = TimeLimit, "20s",
        "A connection with open streams on which nothing has come for so long is sent a PING; none to never ask.\n\
         Until a part of an answer comes, a third PING and those after it are 5m apart, as gRPC servers want it.";
    preset timeout: Duration = Time { min_ms: 1 }, "5s",
        "If nothing comes for so long after it either, the connection is given up: its requests are answered 504.";
} }

section! { Http2Keys {
    preset stream_window: u64 = Size { min: 64 << 10, max: 16 << 20 }, "256KiB",
        "Bytes that the service may send on one stream before its client has taken them, 64KiB to 16MiB. The\n\
         connection's window is max_streams_per_connection times this, so that one slow reader stalls only itself.";
} }

section! { UpstreamTimeoutKeys {
    preset connect: Duration = Time { min_ms: 1 }, "1s",
        "TCP connect and TLS handshake together.";
} }

section! { TlsKeys {
    preset ca: CaSource = CA, "system",
        "Who signs the endpoint's certificate: system for the operating system's roots, or a PEM file. A relative\n\
         path starts at the working directory.";
    optional server_name: String = SERVER_NAME, "api.internal",
        "The name to verify and to send as SNI; the endpoint's host if absent.";
    optional client_cert: PathBuf = PEM_PATH, "client.crt",
        "A PEM file with the certificate to show to services that ask for one, and those of its issuers behind it.";
    optional client_key: PathBuf = PEM_PATH, "client.key",
        "A PEM file with its private key; both or neither.";
} }

section! { RetryBudgetKeys {
    preset percent: u32 = Count { min: 0, max: 100 }, "20",
        "Tries that may be added to the requests of the last 10s, in per cent of those on routes with `retry`.";
    preset min_per_second: u32 = Count { min: 0, max: 10_000 }, "3",
        "And so many per second besides, so that few requests have their tries too. Each worker has its share.";
} }

section! { AdminKeys {
    preset address: Option<SocketAddr> = ADDRESS_OR_NONE, "none",
        "Status, metrics and everything that changes the process, for example 127.0.0.1:9900. Keep it on loopback.";
    preset probes: Option<SocketAddr> = ADDRESS_OR_NONE, "none",
        "Only /livez, /readyz, /startupz and /metrics, for example 0.0.0.0:9901: safe on a pod's address.";
} }

section! { ShutdownKeys {
    preset delay: Duration = Time { min_ms: 0 }, "0s",
        "Between \"not ready\" and the first closed connection, for the load balancer to notice.";
    preset timeout: Duration = Time { min_ms: 0 }, "25s",
        "Requests still running after this are cut; below the 30s that Kubernetes waits before it kills.";
} }

section! { LogsKeys {
    preset level: Level = Word(LEVELS), "info",
        "What the process says about itself: error, warn, info, debug or trace.";
    below access: AccessKeys,
        "One line for each request.";
} }

section! { AccessKeys {
    preset only: AccessLogOnly = Word(ACCESS_ONLY), "failures",
        "Which requests: all, failures (our faults, and answers with status 500 and above) or none.";
    preset format: AccessLogFormat = Word(ACCESS_FORMAT), "json",
        "json for collectors, text for eyes.";
    preset output: AccessLogOutput = OUTPUT, "stdout",
        "stdout, stderr, or the path of a file, with a slash in it: ./access.log.";
} }

section! { RuntimeKeys {
    preset workers: Workers = WorkersRule, "auto",
        "Threads that carry traffic, 1 to 256; auto is one per core that the process may use, by its CPU quota.";
} }

pub(super) const BALANCE: &[(&str, Balance)] =
    &[("least_requests", Balance::LeastRequests), ("round_robin", Balance::RoundRobin)];
pub(super) const RECONNECT: &[(&str, Reconnect)] = &[("client", Reconnect::Client), ("spread", Reconnect::Spread)];
pub(super) const ALPN: &[(&str, Alpn)] = &[("h2", Alpn::H2), ("http/1.1", Alpn::Http1)];
pub(super) const TLS_VERSIONS: &[(&str, TlsVersion)] = &[("1.2", TlsVersion::Tls12), ("1.3", TlsVersion::Tls13)];
pub(super) const PROXY_PROTOCOL: &[(&str, ProxyProtocol)] = &[
    ("disabled", ProxyProtocol::Disabled),
    ("optional", ProxyProtocol::Optional),
    ("required", ProxyProtocol::Required),
];
pub(super) const LEVELS: &[(&str, Level)] = &[
    ("error", Level::ERROR),
    ("warn", Level::WARN),
    ("info", Level::INFO),
    ("debug", Level::DEBUG),
    ("trace", Level::TRACE),
];
pub(super) const ACCESS_ONLY: &[(&str, AccessLogOnly)] =
    &[("all", AccessLogOnly::All), ("failures", AccessLogOnly::Failures), ("none", AccessLogOnly::None)];
pub(super) const ACCESS_FORMAT: &[(&str, AccessLogFormat)] =
    &[("json", AccessLogFormat::Json), ("text", AccessLogFormat::Text)];
