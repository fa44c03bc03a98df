//! Single requests by curl: what arrives is what was sent.

use crate::harness::curl::{Answer, curl};
use crate::harness::files::SMALL;
use crate::harness::nghttpd::Nghttpd;
use crate::harness::nginx::Nginx;
use crate::harness::programs::are_installed;
use crate::harness::proxy::Proxy;

#[test]
fn curl_gets_what_nginx_serves() {
    if !are_installed(&["nginx", "curl"]) {
        return;
    }
    let nginx = Nginx::start("");
    let proxy = Proxy::to(&format!("h2c://{}", nginx.address()));
    let (small, large) = (proxy.url("/small"), proxy.url("/large"));

    let answer = curl(&[&small], b"");
    assert_eq!((answer.status, answer.body.as_slice()), (200, SMALL.as_bytes()));
    assert!(answer.heads.starts_with("HTTP/1.1 200 OK\r\n"), "{}", answer.heads);

    let answer = curl(&[&large], b"");
    assert!(answer.status == 200 && answer.body == nginx.files.large, "{}", answer.heads);

    let answer = curl(&["--head", &large], b"");
    assert_eq!((answer.status, answer.field("content-length")), (200, Some("1048576")));

    let answer = curl(&["--range", "1000-1999", &large], b"");
    assert_eq!((answer.status, answer.field("content-range")), (206, Some("bytes 1000-1999/1048576")));
    assert!(answer.body == nginx.files.large[1000..2000]);

    let etag = answer.field("etag").expect("nginx tags what it serves");
    let answer = curl(&["--header", &format!("if-none-match: {etag}"), &large], b"");
    assert_eq!((answer.status, answer.body.len()), (304, 0));

    let answer = curl(&[&proxy.url("/none")], b"");
    assert_eq!(answer.status, 404);

    // An answer to the first request that was longer or shorter than announced would be read as the second's.
    let answer = curl(&["--head", &large, "--next", "--silent", "--output", "/dev/null", &small], b"");
    assert_eq!(answer.status, 200);
}

#[test]
fn curl_puts_to_nginx_with_and_without_a_length() {
    if !are_installed(&["nginx", "curl"]) {
        return;
    }
    let nginx = Nginx::start("");
    let proxy = Proxy::to(&format!("h2c://{}", nginx.address()));
    let large = nginx.files.large.as_slice();
    let path = nginx.files.path().join("large").display().to_string();

    let answer = curl(&["--upload-file", &path, &proxy.url("/put/sized")], b"");
    assert!(answer.status == 201 && nginx.files.read("put/sized") == large, "{}", answer.heads);

    // nginx takes a body of unknown length to a file over HTTP/2.
    let answer = curl(&["--upload-file", "-", &proxy.url("/put/chunked")], large);
    assert!(answer.status == 201 && nginx.files.read("put/chunked") == large, "{}", answer.heads);

    let expect = ["--header", "expect: 100-continue", "--expect100-timeout", "10"];
    let answer = curl(&[&expect[..], &["--upload-file", &path, &proxy.url("/put/expected")]].concat(), b"");
    assert!(answer.heads.starts_with("HTTP/1.1 100 Continue\r\n"), "{}", answer.heads);
    assert!(answer.status == 201 && nginx.files.read("put/expected") == large, "{}", answer.heads);
}

#[test]
fn nghttpd_echoes_what_curl_posts() {
    if !are_installed(&["nghttpd", "curl"]) {
        return;
    }
    let nghttpd = Nghttpd::start();
    let proxy = Proxy::to(&format!("h2c://{}", nghttpd.address()));
    assert_serves_and_echoes(&proxy, &nghttpd);
}

#[test]
fn nghttpd_is_reached_over_tls_by_the_name_in_its_certificate() {
    if !are_installed(&["nghttpd", "curl"]) {
        return;
    }
    let (nghttpd, authority) = Nghttpd::start_tls();
    let proxy = |name: &str| {
        Proxy::run(&format!(
            "listeners: [{{ name: http, address: 127.0.0.1:0 }}]\nupstreams:\n  service:\n    endpoints: [h2://{}]\n    \
             tls: {{ ca: {}, server_name: {name} }}\n",
            nghttpd.address(),
            authority.display(),
        ))
    };
    assert_serves_and_echoes(&proxy("localhost"), &nghttpd);

    let answer = curl(&[&proxy("elsewhere.example").url("/small")], b"");
    let cause = answer.field("proxy-status").unwrap_or_default();
    assert!(answer.status == 502 && cause.contains("tls_certificate_error"), "{}", answer.heads);
}

#[track_caller]
fn assert_serves_and_echoes(proxy: &Proxy, nghttpd: &Nghttpd) {
    let is_large = |answer: &Answer| answer.status == 200 && answer.body == nghttpd.files.large;
    let answer = curl(&[&proxy.url("/large")], b"");
    assert!(is_large(&answer), "{}", answer.heads);

    let answer = curl(&["--head", &proxy.url("/large")], b"");
    assert_eq!((answer.status, answer.field("content-length")), (200, Some("1048576")));

    let sized = ["--header", "expect:", "--data-binary", "@-"];
    let chunked = ["--header", "expect:", "--header", "transfer-encoding: chunked", "--data-binary", "@-"];
    for upload in [&sized[..], &chunked[..]] {
        let answer = curl(&[upload, &[&proxy.url("/echo")]].concat(), &nghttpd.files.large);
        assert!(is_large(&answer), "{upload:?}: {} of {} bytes", answer.heads, answer.body.len());
    }
}
