//! `check --probe`: what it finds at the endpoints.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::binary::{Folder, Said};
use crate::service;

fn probe(upstream: &str) -> Said {
    Folder::with(&format!("listen: 127.0.0.1:0\nupstream: {upstream}\n")).run(&["check", "--probe"])
}

#[test]
fn an_http2_service_is_reported_with_its_settings_and_the_windows() {
    let said = probe(&format!("h2c://{}", service::h2c(64)));
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""), "{said:?}");
    for part in [
        "speaks HTTP/2 in the clear (h2c)",
        "streams on a connection: 64 (it allows: 64, max_streams_per_connection: 100)",
        "extended CONNECT (WebSocket over HTTP/2): offered",
        "stalled readers that can block a connection: 0 ",
        "windows at worst: 64 MiB (4 connections x 64 streams x 256 KiB)",
    ] {
        assert!(said.stdout.contains(part), "`{part}` is not in:\n{}", said.stdout);
    }
}

#[test]
fn an_http1_service_under_h2c_is_named_with_what_to_write() {
    let address = service::http1("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    let said = probe(&format!("h2c://{address}"));
    assert_eq!(said.code, Some(1), "{said:?}");
    let sentence =
        format!("{address} answered HTTP/1.1 to the HTTP/2 preface: write http1:// or enable h2c in the service");
    assert!(said.stderr.contains(&sentence), "{said:?}");
}

#[test]
fn an_http1_service_under_http1_is_fine() {
    let said = probe(&format!("http1://{}", service::http1("HTTP/1.1 400 Bad Request\r\n\r\n")));
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.stdout.contains("speaks only HTTP/1.1"), "{said:?}");
}

#[test]
fn an_http2_service_under_http1_is_told_to_be_multiplexed() {
    let said = probe(&format!("http1://{}", service::h2c(64)));
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.stdout.contains("write h2c:// to multiplex"), "{said:?}");
}

#[test]
fn what_an_http_service_speaks_is_found_out() {
    let said = probe(&format!("http://{}", service::h2c(64)));
    assert!(said.code == Some(0) && said.stdout.contains("speaks HTTP/2 in the clear (h2c)"), "{said:?}");
    let said = probe(&format!("http://{}", service::http1("HTTP/1.1 400 Bad Request\r\n\r\n")));
    assert!(said.code == Some(0) && said.stdout.contains("speaks only HTTP/1.1"), "{said:?}");
    assert!(said.stdout.contains("each request takes a connection"), "{said:?}");
}

/// A probe of this scheme on a service with a certificate; `server_name` is what is asked for.
fn probe_tls(scheme: &str, (address, certificate): (SocketAddr, String), server_name: &str) -> Said {
    let folder = Folder::with(&format!(
        "listeners: [{{ address: 127.0.0.1:0 }}]\n\
         upstreams: {{ a: {{ endpoints: [\"{scheme}://{address}\"], tls: {{ ca: ca.pem, server_name: {server_name} }} }} }}\n"
    ));
    folder.write("ca.pem", &certificate);
    folder.run(&["check", "--probe"])
}

#[test]
fn what_an_https_service_speaks_is_found_out() {
    let said = probe_tls("https", service::tls(false, &["http/1.1"]), "localhost");
    assert!(said.code == Some(0) && said.stdout.contains("speaks only HTTP/1.1"), "{said:?}");
    let said = probe_tls("h2", service::tls(false, &[]), "localhost");
    assert!(said.code == Some(1) && said.stderr.contains("it does not offer h2 by ALPN: write https://"), "{said:?}");
}

#[test]
fn what_is_wrong_with_a_certificate_is_said() {
    let anew = (service::tls(false, &["h2"]).0, service::tls(false, &["h2"]).1);
    for (service, server_name, cause) in [
        (service::tls(true, &["h2"]), "localhost", "its certificate has expired"),
        (service::tls(false, &["h2"]), "a.example", "its certificate is for another name (localhost) than a.example"),
        (anew, "localhost", "its certificate is not signed by the CA that it names"),
    ] {
        let said = probe_tls("https", service, server_name);
        assert!(said.code == Some(1) && said.stderr.contains(cause), "{said:?}");
    }
}

#[test]
fn a_service_that_is_down_exits_with_1() {
    let said = probe(&format!("h2c://{}", service::nobody()));
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stderr.contains("nobody accepts connections there"), "{said:?}");
}

#[test]
fn a_socket_that_is_not_there_is_said_to_be_missing() {
    let said = probe("h2c+unix:/nowhere/app.sock");
    assert_eq!(said.code, Some(1), "{said:?}");
    let line = "error: upstreams.default: h2c+unix:/nowhere/app.sock: there is no such socket: is the service running?";
    assert!(said.stderr.contains(line), "{said:?}");
}

#[test]
fn a_name_that_does_not_resolve_is_named() {
    // The connect timeout includes the name, and some resolvers take their time to say no.
    let folder = Folder::with(
        "\
listeners: [{ address: 127.0.0.1:0 }]
upstreams: { api: { endpoints: [\"h2c://something.invalid:9000\"], timeouts: { connect: 30s } } }
",
    );
    let said = folder.run(&["check", "--probe"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stderr.contains("the name something.invalid does not resolve"), "{said:?}");
}

#[test]
fn programs_read_every_endpoint() {
    let text =
        format!("listen: 127.0.0.1:0\nupstream: [\"h2c://{}\", \"h2c://{}\"]\n", service::h2c(10), service::nobody());
    let said = Folder::with(&text).run(&["check", "--probe", "--format", "json"]);
    let answer: Value = serde_json::from_str(&said.stdout).expect("JSON");
    assert_eq!((said.code, &answer["ok"]), (Some(1), &json!(false)), "{said:?}");
    let [good, bad] = answer["endpoints"].as_array().unwrap().as_slice() else { panic!("{answer}") };
    assert_eq!((&good["reachable"], &good["max_concurrent_streams"]), (&json!(true), &json!(10)));
    assert_eq!((&good["speaks"], &good["extended_connect"]), (&json!("h2c"), &json!(true)));
    assert_eq!(good["blocking_readers"], json!(0));
    assert_eq!((&bad["reachable"], &bad["reason"]), (&json!(false), &json!("connect_refused")));
}
