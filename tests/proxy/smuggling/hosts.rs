//! For whom a request is: exactly one valid Host, and the same as an absolute target's.

use super::{SMUGGLED, Target};
use crate::harness::client;

#[tokio::test]
async fn a_missing_repeated_or_invalid_host_is_refused() {
    let target = Target::new();
    for lines in [
        "x: y",
        "host: a\r\nhost: b",
        "host: a\r\nhost: a",
        "host:",
        "host: a b",
        "host: a, b",
        "host: user@a",
        "host: a/b",
        "host: a?b",
        "host: a:",
        "host: a:0",
        "host: a:99999",
        "host: a:b",
        "host: a..b",
        "host: [::1",
        "host: a%00",
        "host: \u{e9}",
    ] {
        target.refuses(&format!("GET / HTTP/1.1\r\n{lines}\r\n\r\n{SMUGGLED}")).await;
    }
}

#[tokio::test]
async fn http10_may_leave_host_out_but_not_repeat_it() {
    let target = Target::new();
    target.refuses(&format!("GET / HTTP/1.0\r\nhost: a\r\nhost: b\r\n\r\n{SMUGGLED}")).await;
    target.refuses(&format!("GET / HTTP/1.0\r\nhost: a b\r\n\r\n{SMUGGLED}")).await;
    let mut client = client::raw(target.proxy.address()).await;
    client.send("GET /bytes/1 HTTP/1.0\r\n\r\n").await;
    assert_eq!(client.expect_response().await.status(), 200);
}

#[tokio::test]
async fn an_absolute_target_for_another_host_is_refused() {
    let target = Target::new();
    for absolute in [
        "http://b/",
        "http://a:81/",
        "https://a/",
        "http://user@a/",
        "http://user:password@a/",
        "http://@a/",
        "http://a:/",
        "http://a b/",
    ] {
        target.refuses(&format!("GET {absolute} HTTP/1.1\r\nhost: a:80\r\n\r\n{SMUGGLED}")).await;
    }
}

#[tokio::test]
async fn an_absolute_target_for_the_same_host_is_taken_without_regard_to_case_and_default_port() {
    let target = Target::new();
    for (absolute, host, path) in
        [("http://A/head", "a", "/head"), ("http://a:80/head?x", "A", "/head?x"), ("HTTP://a/head", "a:80", "/head")]
    {
        let mut client = client::raw(target.proxy.address()).await;
        client.send(format!("GET {absolute} HTTP/1.1\r\nhost: {host}\r\n\r\n")).await;
        let response = client.expect_response().await;
        assert_eq!((response.status(), &response.json()["target"]), (200, &path.into()), "{absolute}");
    }
}

/// `http::Uri`, which hyper parses the target into, leaves a fragment out before we see it; so does the service.
#[tokio::test]
async fn a_fragment_is_dropped() {
    let target = Target::new();
    for target_with_fragment in ["/head#fragment", "http://a/head#fragment"] {
        let mut client = client::raw(target.proxy.address()).await;
        client.send(format!("GET {target_with_fragment} HTTP/1.1\r\nhost: a\r\n\r\n")).await;
        assert_eq!(client.expect_response().await.json()["target"], "/head");
    }
}
