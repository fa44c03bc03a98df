//! What brings people to HTTP/2: a browser opens six connections to an origin over HTTP/1.1, so six event streams. And
//! its WebSockets are streams of its one HTTP/2 connection.

use serde_json::{Value, json};

use crate::harness::certificates::Authority;
use crate::harness::chromium::Chromium;
use crate::harness::programs::are_installed;
use crate::harness::proxy::Proxy;
use crate::harness::python::{PYTHON, Script};
use crate::harness::sockets::Sampler;
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

#[test]
fn chromium_opens_twenty_websockets_on_its_one_http2_connection() {
    if !are_installed(&["chromium", PYTHON]) {
        return;
    }
    let service = Script::start("websocket_service.py", &[]);
    let authority = Authority::new();
    for (scheme, version) in [("http1", "http1"), ("h2c", "http2")] {
        let mut proxy = Proxy::run(&format!(
            "listeners: [{{ name: http, address: 127.0.0.1:0, tls: {{ certificates: [{}] }} }}]\n\
             upstreams: {{ service: {{ endpoints: [\"{scheme}://127.0.0.1:{}\"] }} }}\n\
             logs: {{ access: {{ only: all }} }}\n",
            authority.sign(&["localhost"]).yaml(),
            service.port(version),
        ));
        let before = service.lines().len();
        let connections = Sampler::start(proxy.port());
        let mut chromium = Chromium::open(&format!("https://localhost:{}/", proxy.port()));
        poll("WebSockets that were closed in good order", || {
            chromium.assert_runs();
            let told = json!({ "echoed": "20", "closed": "20", "protocol": "h2" });
            service.lines()[before..].contains(&told).then_some(())
        });
        // Chromium dials twice at first, and leaves one of them.
        poll("one connection", || (sockets::established_to(proxy.port()) == 1).then_some(()));
        let samples = connections.finish();
        println!("{version}: {samples:?}");
        assert!(samples.most <= 2, "{samples:?}");
        drop(chromium);
        proxy.stop();
        let lines = proxy.access_lines();
        let is_socket = |line: &&Value| line["path"].as_str().is_some_and(|path| path.starts_with("/socket/"));
        let sockets: Vec<_> = lines.iter().filter(is_socket).collect();
        assert_eq!(sockets.len(), 20, "{}", proxy.log());
        for line in sockets {
            let how = [&line["method"], &line["protocol"], &line["status"], &line["reason"]];
            assert_eq!(how, [&json!("CONNECT"), &json!("HTTP/2"), &json!(200), &json!("complete")], "{line}");
        }
    }
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
