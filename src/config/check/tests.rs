use std::io;
use std::path::Path;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rcgen::{CertificateParams, KeyPair, SanType};

use super::super::schema::load_with;
use super::super::source;
use super::super::{Config, Diagnostics, Source};
use super::*;

/// Certificates of one key.
struct Pem {
    key: String,
    cert: String,
    expired: String,
    /// It has ten and a half days left.
    soon: String,
    /// It is for an address and for no name.
    unnamed: String,
    /// It begins in a year.
    early: String,
    /// Of X.509 version 1, as `openssl x509 -req` makes them when it is not told of extensions.
    version1: String,
}

static PEM: LazyLock<Pem> = LazyLock::new(|| {
    let key = KeyPair::generate().unwrap();
    let made = |change: &dyn Fn(&mut CertificateParams)| {
        let mut params = CertificateParams::new(["a.test".to_owned()]).unwrap();
        change(&mut params);
        params.self_signed(&key).unwrap()
    };
    let until = |not_after: SystemTime| made(&|params| params.not_after = not_after.into()).pem();
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(source::now().cast_unsigned());
    let year = now + Duration::from_hours(365 * 24);
    Pem {
        cert: until(year),
        expired: until(SystemTime::UNIX_EPOCH),
        soon: until(now + Duration::from_hours(10 * 24 + 12)),
        unnamed: made(&|params| params.subject_alt_names = vec![SanType::IpAddress([127, 0, 0, 1].into())]).pem(),
        early: made(&|params| params.not_before = year.into()).pem(),
        version1: {
            let mut der = made(&|_| {}).der().to_vec();
            let version = memchr::memmem::find(&der, b"\xa0\x03\x02\x01\x02").unwrap() + 4;
            der[version] = 0;
            format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", BASE64_STANDARD.encode(der))
        },
        key: key.serialize_pem(),
    }
});

pub(super) fn read(text: &str) -> Result<(Config, Diagnostics), Diagnostics> {
    let made = &*PEM;
    let files = |path: &Path| match path.to_str() {
        Some("ca.pem" | "cert.pem") => Ok(made.cert.clone().into_bytes()),
        Some("key.pem") => Ok(made.key.clone().into_bytes()),
        Some("expired.pem") => Ok(made.expired.clone().into_bytes()),
        Some("soon.pem") => Ok(made.soon.clone().into_bytes()),
        Some("early.pem") => Ok(made.early.clone().into_bytes()),
        Some("version1.pem") => Ok(made.version1.clone().into_bytes()),
        Some("unnamed.pem") => Ok(made.unnamed.clone().into_bytes()),
        Some("other-key.pem") => Ok(KeyPair::generate().unwrap().serialize_pem().into_bytes()),
        Some("locked-key.pem") => Ok(made.key.replace("PRIVATE", "ENCRYPTED PRIVATE").into_bytes()),
        Some("old-locked-key.pem") => {
            let head = "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\n";
            Ok(format!("{head}AAAA\n-----END EC PRIVATE KEY-----\n").into_bytes())
        }
        Some("hollow.pem") => Ok(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_vec()),
        Some("hollow-key.pem") => Ok(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n".to_vec()),
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

pub(super) fn errors(text: &str) -> Vec<String> {
    lines(&read(text).expect_err("errors"))
}

pub(super) fn warnings(text: &str) -> Vec<String> {
    lines(&read(text).unwrap_or_else(|errors| panic!("{errors}")).1)
}

/// A configuration with the one upstream `api` and `rest`.
fn with(rest: &str) -> String {
    format!("listeners: [{{ address: 127.0.0.1:8080 }}]\nupstreams: {{ api: {{ endpoints: [h2c://a:1] }} }}\n{rest}\n")
}

/// A configuration whose one upstream has `keys`.
pub(super) fn upstream(keys: &str) -> String {
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
  - { address: unix:/run/a.sock }
  - { address: unix:/run/a.sock }
upstreams: { api: { endpoints: [h2c://a:1] } }
";
    assert_eq!(
        errors(text),
        [
            "3:13 two listeners are called `a`; first given in line 2",
            "4:25 127.0.0.1:80 is already the address of the listener `a`; first given in line 2",
            "8:16 unix:/run/a.sock is already the address of the listener `listener-6`; first given in line 7",
        ]
    );
}

#[test]
fn every_address_of_the_machine_has_those_of_its_family_among_it_and_ipv6_both() {
    for (all, one, is_taken) in [
        ("0.0.0.0:80", "127.0.0.1:80", true),
        ("127.0.0.1:80", "0.0.0.0:80", true),
        ("\"[::]:80\"", "\"[::1]:80\"", true),
        ("\"[::]:80\"", "127.0.0.1:80", true),
        ("0.0.0.0:80", "\"[::]:80\"", true),
        ("0.0.0.0:80", "\"[::1]:80\"", false),
        ("0.0.0.0:80", "127.0.0.1:81", false),
        ("0.0.0.0:0", "127.0.0.1:0", false),
    ] {
        let bare = |address: &str| address.replace('"', "");
        let rest = "upstreams: { api: { endpoints: [h2c://a:1] } }\n";
        let listeners = format!("listeners: [{{ address: {all} }}, {{ address: {one} }}]\n{rest}");
        let admin = format!("listeners: [{{ address: {all} }}]\n{rest}admin: {{ probes: {one} }}\n");
        let both = with(&format!("admin: {{ address: {all}, probes: {one} }}"));
        let said = [listeners, admin, both].map(|text| read(&text).err().map_or(Vec::new(), |errors| lines(&errors)));
        if is_taken {
            let overlap = format!("{} overlaps {}, ", bare(one), bare(all));
            let is_told = |words: &str| said.iter().flatten().filter(|line| line.contains(words)).count();
            assert_eq!(is_told(&format!("{overlap}the address of the listener `listener-1`; ")), 2, "{said:?}");
            assert_eq!(is_told(&format!("{overlap}which is admin.address; ")), 1, "{said:?}");
        } else {
            assert!(said.iter().all(Vec::is_empty), "{said:?}");
        }
    }
}

#[test]
fn a_proxy_before_itself_is_warned_of() {
    let label = "requests would go round in circles; write the service's own address";
    for (listener, endpoint, is_loop) in [
        ("127.0.0.1:80", "127.0.0.1:80", true),
        ("0.0.0.0:80", "localhost:80", true),
        ("\"[::]:80\"", "127.0.0.2:80", true),
        ("10.0.0.1:80", "10.0.0.1:80", true),
        ("127.0.0.1:80", "127.0.0.1:81", false),
        ("127.0.0.1:80", "10.0.0.1:80", false),
        // It may be this machine or another one.
        ("0.0.0.0:80", "10.0.0.1:80", false),
        ("127.0.0.1:80", "service:80", false),
        ("127.0.0.1:0", "127.0.0.1:9000", false),
    ] {
        let said = warnings(&format!("listen: {listener}\nupstream: h2c://{endpoint}\n"));
        let told = format!("2:11 {endpoint} leads back to the listener `listener-1`; {label}");
        assert_eq!(said, if is_loop { vec![told] } else { vec![] }, "{listener}");
    }
    let unix = warnings("listen: unix:/run/a.sock\nupstream: h2c+unix:/run/a.sock\n");
    assert_eq!(unix, [format!("2:11 unix:/run/a.sock leads back to the listener `listener-1`; {label}")]);
}

#[test]
fn trust_in_everybody_is_warned_of() {
    let text = |peers: &str| {
        format!(
            "listeners: [{{ address: 127.0.0.1:80, trust_forwarded_from: {peers} }}]\nupstreams: {{ a: {{ endpoints: [h2c://a:1] }} }}\n"
        )
    };
    let label = "every client can then choose the address that it is known by; list the proxies in front";
    assert_eq!(
        warnings(&text("[10.0.0.0/8, 0.0.0.0/0, ::/0]")),
        [
            format!("1:73 the listener `listener-1` trusts everybody: 0.0.0.0/0; {label}"),
            format!("1:84 the listener `listener-1` trusts everybody: ::/0; {label}"),
        ]
    );
    assert_eq!(warnings(&text("[10.0.0.0/8, ::1, unix]")), [""; 0]);
    assert_eq!(
        errors(&text("[10.0.0.0/8, lb.internal]")),
        [
            "1:73 listeners[0].trust_forwarded_from[1]: `lb.internal` is not an address; write an address, a network such as \
              10.0.0.0/8, or unix; names are not resolved here"
        ]
    );
}

#[test]
fn proxy_headers_of_everybody_are_warned_of() {
    let text = |keys: &str| {
        format!("listeners: [{{ address: 127.0.0.1:80, {keys} }}]\nupstreams: {{ a: {{ endpoints: [h2c://a:1] }} }}\n")
    };
    assert_eq!(
        warnings(&text("proxy_protocol: optional")),
        ["1:54 the listener `listener-1` believes every client that sends a PROXY header; list the balancers in \
              trust_forwarded_from, or write required where only they can connect"]
    );
    assert_eq!(warnings(&text("proxy_protocol: optional, trust_forwarded_from: [10.0.0.1]")), [""; 0]);
    assert_eq!(warnings(&text("proxy_protocol: required")), [""; 0]);
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
        ["3:51 routes[0].rewrite.path_prefix: there is no matched prefix to replace; add `match: { path_prefix: / }`"]
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
    assert_eq!(warnings(&with("routes: [{ upstream: api, request_headers: { set: { host: \"a.b:80\" } } }]")), [""; 0]);
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
        errors(&upstream("endpoints: [h2c+unix:/a, http1+unix:/a, h2c+unix:/b]")),
        [format!("4:30 unix:/a is twice among the endpoints of `api`; {label}")]
    );
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
    let text = "{ endpoints: [h2c://a:1], pool: { max_streams_per_connection: 200 }, http2: { stream_window: 16MiB } }";
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
        ["3:53 routes[0].retry.per_try_timeout: no try is ever given up; write less than timeouts.response_header, \
              which is 1m"]
    );
}

#[test]
fn a_heartbeat_has_a_unit_and_comes_before_a_silent_service_is_given_up() {
    let route = |keys: &str| with(&format!("routes: [{{ upstream: api, {keys} }}]"));
    assert_eq!(warnings(&route("heartbeat: 15s, reconnect: spread")), [""; 0]);
    assert_eq!(warnings(&route("heartbeat: 1h, timeouts: { stream_idle: none }")), [""; 0]);
    for (keys, said) in [
        ("heartbeat: 15", "38 routes[0].heartbeat: `15` has no unit; write 15s, or none"),
        ("heartbeat: 0s", "38 routes[0].heartbeat: `0s` is out of range; write a duration from 1ms to 365d, or none"),
        ("reconnect: sprea", "38 routes[0].reconnect: `sprea` is not one of the allowed words; did you mean `spread`?"),
    ] {
        assert_eq!(errors(&route(keys)), [format!("3:{said}")]);
    }
    assert_eq!(
        warnings(&route("heartbeat: 5m")),
        ["3:38 routes[0].heartbeat: no heartbeat is ever sent; write less than timeouts.stream_idle, which is 5m"]
    );
}
