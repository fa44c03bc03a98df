//! Both ends of gRPC by PyPI's grpcio: every kind of call and every way to end one.

use serde_json::json;

use crate::harness::certificates::Authority;
use crate::harness::poll;
use crate::harness::programs::are_installed;
use crate::harness::proxy::Proxy;
use crate::harness::python::{PYTHON, Script, run};

#[test]
fn grpc_calls_of_every_kind_work_and_pings_are_never_too_many() {
    if !are_installed(&[PYTHON]) {
        return;
    }
    expect_calls(None);
}

#[test]
fn grpc_calls_of_every_kind_work_over_tls() {
    if !are_installed(&[PYTHON]) {
        return;
    }
    expect_calls(Some(&Authority::new()));
}

/// In the clear, or over TLS with a certificate of this authority.
#[track_caller]
fn expect_calls(authority: Option<&Authority>) {
    let listener = authority.map_or(String::new(), |authority| {
        format!(", tls: {{ certificates: [{}] }}", authority.sign(&["localhost"]).yaml())
    });
    let service = Script::start("grpc_service.py", &[]);
    // The service hangs up at the third ping within five minutes of silence, and calls fall silent for two seconds.
    let mut proxy = Proxy::run(&format!(
        "listeners: [{{ name: http, address: 127.0.0.1:0{listener} }}]\nupstreams:\n  service:\n    endpoints: [h2c://127.0.0.1:{}]\n    \
         pool: {{ ping: {{ interval: 200ms, timeout: 5s }} }}\n",
        service.port("port"),
    ));
    let target = format!("localhost:{}", proxy.port());
    let said = match authority {
        None => run("grpc_calls.py", &[&target]),
        Some(authority) => run("grpc_calls.py", &[&target, &authority.certificate().display().to_string()]),
    };
    assert_eq!(said["failed"], json!([]), "{}", proxy.log());
    assert!(said["calls"].as_u64() >= Some(14), "{said}");
    // One call's deadline passed, another one was given up: the service was told of both.
    let cancelled = || service.lines().iter().filter(|line| line["cancelled"] == true).count();
    poll("calls that were cancelled at the service", || (cancelled() == 2).then_some(()));
    proxy.stop();
    // The deadline of the one call is told to all three, and who comes first ends it. Nothing else has failed.
    let mut failures = proxy.failures();
    assert!(failures.remove("request_timeout").is_none_or(|deadlines| deadlines == 1), "{}", proxy.log());
    assert!(failures.is_empty(), "{failures:?}");
}
