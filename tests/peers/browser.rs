//! What brings people to HTTP/2: a browser opens six connections to an origin over HTTP/1.1, so six event streams.

use serde_json::{Value, json};

use crate::harness::chromium::Chromium;
use crate::harness::poll;
use crate::harness::programs::are_installed;
use crate::harness::python::{PYTHON, Script};

#[test]
fn chromium_opens_six_of_twenty_event_streams_to_an_http1_origin() {
    if !are_installed(&["chromium", PYTHON]) {
        return;
    }
    let service = Script::start("events_service.py", &[]);
    let url = format!("http://127.0.0.1:{}/", service.port("http1"));
    expect_streams(&service, &url, "http/1.1", 6);
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
