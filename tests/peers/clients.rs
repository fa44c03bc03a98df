//! What clients may speak to a listener: HTTP/1.1 and HTTP/2, in the clear and over TLS. curl, nghttp, h2load and openssl in front, nghttpd behind.

use crate::harness::certificates::{Authority, Identity};
use crate::harness::curl::{curl, curl_code};
use crate::harness::files::{Files, SMALL};
use crate::harness::h2load;
use crate::harness::nghttp::nghttp;
use crate::harness::nghttpd::Nghttpd;
use crate::harness::openssl::s_client;
use crate::harness::programs::are_installed;
use crate::harness::proxy::Proxy;

#[test]
fn one_listener_answers_curl_in_the_http_that_it_speaks() {
    if !are_installed(&["nghttpd", "curl"]) {
        return;
    }
    let nghttpd = Nghttpd::start();
    let proxy = Proxy::to(&format!("h2c://{}", nghttpd.address()));
    // With --http2 curl asks to be upgraded, which RFC 9113 has done away with: it is answered in HTTP/1.1.
    for (option, version) in [("--http1.1", "HTTP/1.1"), ("--http2", "HTTP/1.1"), ("--http2-prior-knowledge", "HTTP/2")]
    {
        expect_exchanges(&[option], &proxy.url(""), version, &nghttpd);
    }
}

#[test]
fn nghttp_sees_answers_and_uploads_multiplexed_on_one_connection() {
    if !are_installed(&["nghttpd", "nghttp"]) {
        return;
    }
    let nghttpd = Nghttpd::start();
    let proxy = Proxy::to(&format!("h2c://{}", nghttpd.address()));
    let text = nghttp(&["--multiply=50", "--no-dep", &proxy.url("/large")]);
    assert_eq!(text.matches(":status: 200").count(), 50, "{text}");
    assert_eq!(received_bytes(&text), 50 * nghttpd.files.large.len());

    let file = nghttpd.files.path().join("large").display().to_string();
    let text = nghttp(&[&format!("--data={file}"), "--trailer=x-sum: 1", &proxy.url("/echo")]);
    assert!(text.contains(":status: 200"), "{text}");
    assert_eq!(received_bytes(&text), nghttpd.files.large.len());
}

/// The sum of the DATA frames, whose lines are `recv DATA frame <length=16384, flags=0x00, stream_id=13>`.
fn received_bytes(text: &str) -> usize {
    let frames = text.lines().filter_map(|line| line.split_once("recv DATA frame <length=")?.1.split_once(','));
    frames.map(|(length, _)| length.parse::<usize>().unwrap()).sum()
}

#[test]
fn h2load_multiplexes_through_to_a_service_without_an_error() {
    if !are_installed(&["nghttpd", "h2load"]) {
        return;
    }
    let nghttpd = Nghttpd::start();
    let proxy = Proxy::to(&format!("h2c://{}", nghttpd.address()));
    let line = h2load::http2(&proxy.url("/small"), 20, 10, 20_000);
    assert!(line.contains("20000 succeeded, 0 failed, 0 errored, 0 timeout"), "{line}\n{}", proxy.log());
}

#[test]
fn curl_is_answered_over_tls_in_the_http_that_alpn_chooses() {
    if !are_installed(&["nghttpd", "curl"]) {
        return;
    }
    let authority = Authority::new();
    let listener = format!("tls: {{ certificates: [{}] }}", authority.sign(&["localhost"]).yaml());
    let nghttpd = Nghttpd::start();
    let proxy = behind(&listener, &nghttpd);
    let url = format!("https://localhost:{}", proxy.port());
    let trust = authority.certificate().display().to_string();
    for (option, version) in [("--http1.1", "HTTP/1.1"), ("--http2", "HTTP/2")] {
        expect_exchanges(&["--cacert", &trust, option], &url, version, &nghttpd);
    }
    // The exit code of a certificate that is not trusted.
    assert_eq!(curl_code(&[&url]), 60);
}

#[test]
fn openssl_is_shown_the_certificate_of_the_name_that_it_asks_for() {
    if !are_installed(&["nghttpd", "openssl"]) {
        return;
    }
    let authority = Authority::new();
    let certificates =
        [&["one.example", "*.one.example"][..], &["two.example"]].map(|names| authority.sign(names).yaml()).join(", ");
    let nghttpd = Nghttpd::start();
    let proxy = behind(&format!("tls: {{ certificates: [{certificates}] }}"), &nghttpd);
    let (address, trust) = (proxy.to_string(), authority.certificate().display().to_string());
    let asking = |name: &[&str]| s_client(&address, &[&["-CAfile", &trust][..], name].concat());
    for (name, subject) in [
        ("one.example", "one.example"),
        ("two.example", "two.example"),
        ("sub.one.example", "one.example"),
        // Nobody's name is answered with the first certificate, as no name is.
        ("three.example", "one.example"),
    ] {
        let handshake = asking(&["-servername", name]);
        assert_eq!(handshake.subject(), Some(subject), "{name}: {}", handshake.text());
        assert!(handshake.is_verified(), "{}", handshake.text());
    }
    assert_eq!(asking(&["-noservername"]).subject(), Some("one.example"));

    for (offer, choice) in [("h2,http/1.1", "h2"), ("http/1.1", "http/1.1"), ("http/1.1,h2", "h2")] {
        assert_eq!(asking(&["-alpn", offer]).alpn(), Some(choice), "{offer}");
    }
    for (option, version) in [("-tls1_3", "TLSv1.3"), ("-tls1_2", "TLSv1.2"), ("-tls1_1", "(NONE)")] {
        let handshake = asking(&[option, "-cipher", "DEFAULT:@SECLEVEL=0"]);
        assert_eq!(handshake.version(), Some(version), "{}", handshake.text());
    }
}

#[test]
fn a_client_certificate_is_required_of_curl_and_openssl_where_the_listener_says_so() {
    if !are_installed(&["nghttpd", "curl", "openssl"]) {
        return;
    }
    let (authority, stranger) = (Authority::new(), Authority::new());
    let trust = authority.certificate().display().to_string();
    let listener = format!("tls: {{ certificates: [{}], client_ca: {trust} }}", authority.sign(&["localhost"]).yaml());
    let nghttpd = Nghttpd::start();
    let proxy = behind(&listener, &nghttpd);
    let url = format!("https://localhost:{}", proxy.port());
    let shown = |identity: &Identity| [identity.certificate.display().to_string(), identity.key.display().to_string()];
    let known = shown(&authority.sign(&["client"]));
    let unknown = shown(&stranger.sign(&["client"]));

    for (option, version) in [("--http1.1", "HTTP/1.1"), ("--http2", "HTTP/2")] {
        let options = ["--cacert", &trust, "--cert", &known[0], "--key", &known[1], option];
        expect_exchanges(&options, &url, version, &nghttpd);
    }
    // curl's words for "hung up", "failed to shake hands", and "a certificate is required of you" (98). TLS 1.3 refuses a
    // client only after its handshake.
    for shown in [&[][..], &["--cert", &unknown[0], "--key", &unknown[1]]] {
        for version in ["1.2", "1.3"] {
            let code = curl_code(&[&["--cacert", &trust, "--tls-max", version][..], shown, &[&url]].concat());
            assert!([16, 35, 55, 56, 98].contains(&code), "TLS {version}, {shown:?}: {code}");
        }
    }

    // s_client goes on reading after its handshake, and sees the alert.
    let handshake = s_client(&proxy.to_string(), &["-CAfile", &trust, "-tls1_2"]);
    assert!(handshake.text().contains("alert"), "{}", handshake.text());
    let handshake =
        s_client(&proxy.to_string(), &["-CAfile", &trust, "-tls1_2", "-cert", &known[0], "-key", &known[1]]);
    assert!(handshake.is_verified() && !handshake.text().contains("alert"), "{}", handshake.text());
}

#[test]
fn curl_tells_its_address_in_a_proxy_header() {
    if !are_installed(&["nghttpd", "curl"]) {
        return;
    }
    let nghttpd = Nghttpd::start();
    let proxy = behind("proxy_protocol: required", &nghttpd);
    for (option, version) in [("--http1.1", "HTTP/1.1"), ("--http2-prior-knowledge", "HTTP/2")] {
        expect_exchanges(&["--haproxy-protocol", option], &proxy.url(""), version, &nghttpd);
        // "The server hung up", in the words of either protocol.
        let code = curl_code(&[option, &proxy.url("/small")]);
        assert!([16, 52, 55, 56].contains(&code), "{code}");
    }

    let authority = Authority::new();
    let tls = format!("proxy_protocol: required, tls: {{ certificates: [{}] }}", authority.sign(&["localhost"]).yaml());
    let proxy = behind(&tls, &nghttpd);
    let trust = authority.certificate().display().to_string();
    let url = format!("https://localhost:{}", proxy.port());
    expect_exchanges(&["--haproxy-protocol", "--cacert", &trust], &url, "HTTP/2", &nghttpd);
}

#[test]
fn curl_comes_over_a_unix_socket() {
    if !are_installed(&["nghttpd", "curl"]) {
        return;
    }
    let nghttpd = Nghttpd::start();
    let folder = Files::new();
    let socket = folder.path().join("trunkline.sock").display().to_string();
    let mut proxy = Proxy::run(&format!("listen: \"unix:{socket}\"\nupstream: h2c://{}\n", nghttpd.address()));
    for (option, version) in [("--http1.1", "HTTP/1.1"), ("--http2-prior-knowledge", "HTTP/2")] {
        expect_exchanges(&["--unix-socket", &socket, option], "http://localhost", version, &nghttpd);
    }
    proxy.stop();
    assert!(!std::path::Path::new(&socket).exists(), "the socket is still there");
}

/// A proxy whose listener has more keys.
fn behind(listener: &str, nghttpd: &Nghttpd) -> Proxy {
    Proxy::run(&format!(
        "listeners: [{{ name: http, address: 127.0.0.1:0, {listener} }}]\n\
         upstreams: {{ service: {{ endpoints: [\"h2c://{}\"] }} }}\n",
        nghttpd.address()
    ))
}

/// curl gets short and long answers and uploads a long body, all in this version of HTTP.
#[track_caller]
fn expect_exchanges(options: &[&str], url: &str, version: &str, nghttpd: &Nghttpd) {
    let of = |more: &[&str], path: &str, body: &[u8]| {
        let answer = curl(&[options, more, &[&format!("{url}{path}")]].concat(), body);
        assert!(answer.heads.contains(&format!("{version} 200")), "{options:?} {path}: {}", answer.heads);
        answer
    };
    assert_eq!(of(&[], "/small", b"").body, SMALL.as_bytes(), "{options:?}");
    assert!(of(&[], "/large", b"").body == nghttpd.files.large, "{options:?}: /large");
    let large = &nghttpd.files.large;
    let uploaded = of(&["--header", "expect:", "--data-binary", "@-"], "/echo", large);
    assert!(uploaded.body == *large, "{options:?}: {} of {} bytes", uploaded.body.len(), large.len());
}
