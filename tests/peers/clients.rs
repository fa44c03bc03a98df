//! What clients may speak to a listener: curl, nghttp and h2load in front, nghttpd behind.

use crate::harness::curl::curl;
use crate::harness::files::SMALL;
use crate::harness::h2load;
use crate::harness::nghttp::nghttp;
use crate::harness::nghttpd::Nghttpd;
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
