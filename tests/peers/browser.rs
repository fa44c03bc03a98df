//! What brings people to HTTP/2: a browser opens six connections to an origin over HTTP/1.1, so six event streams.

use serde_json::{Value, json};

use crate::harness::certificates::Authority;
use crate::harness::chromium::Chromium;
use crate::harness::programs::are_installed;
use crate::harness::proxy::Proxy;
use crate::harness::python::{PYTHON, Script};
use crate::harness::{poll, sockets};

#[test]
fn chromium_opens_six_of_twenty_event_streams_to_an_http1_origin() {
    if !are_installed(&["chromium", PYTHON]) {
        return;
    }
    let service = Script::start("events_service.py", &[]);
    let url = format!("http://127.0.0.1:{}/", service.port("http1"));
    expect_streams(&service, &url, "http/1.1", 6);
}

#[test]
fn chromium_opens_all_twenty_through_the_http2_listener_on_one_connection_to_the_service() {
    if !are_installed(&["chromium", PYTHON]) {
        return;
    }
    let service = Script::start("events_service.py", &[]);
    let port = service.port("http2");
    let authority = Authority::new();
    // Browsers speak HTTP/2 over TLS only.
    let proxy = Proxy::run(&format!(
        "listeners: [{{ name: http, address: 127.0.0.1:0, tls: {{ certificates: [{}] }} }}]\n\
         upstreams: {{ service: {{ endpoints: [\"h2c://127.0.0.1:{port}\"], pool: {{ max_connections: 1 }} }} }}\n",
        authority.sign(&["localhost"]).yaml(),
    ));
    expect_streams(&service, &format!("https://localhost:{}/", proxy.port()), "h2", 20);
    assert_eq!(sockets::established_to(port), 1);
}

/// Opens the page and looks at what it says of its 20 streams: so many open and hear events, and no more do later on.
#[track_caller]
fn expect_streams(service: &Script, url: &str, protocol: &str, count: u64) {
    let mut chromium = Chromium::open(url);
    let count = count.to_string();
    let has_all = |line: &Value| line["heard"] == count;
    let since = poll("streams that hear events", || {
        chromium.assert_runs();
        service.lines().iter().position(has_all)
    });
    // A second more for those that are not open: there are four reports in one.
    let said = poll("further reports", || Some(service.lines()).filter(|lines| lines.len() > since + 4));
    println!("{protocol}: {}", said[since + 4]);
    for line in &said[since..] {
        assert_eq!(line, &json!({ "opened": count, "heard": count, "failed": "0", "protocol": protocol }));
    }
}
