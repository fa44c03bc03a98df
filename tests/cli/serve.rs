//! `run`, `proxy` and `healthcheck`: starting, reloading, ending.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use crate::binary::{Folder, Running, trunkline};
use crate::service;

#[test]
fn sigterm_ends_run_with_exit_code_0() {
    let folder = Folder::with("listen: 127.0.0.1:0\nupstream: h2c://127.0.0.1:9\n");
    let mut running = Running::start(folder.command(&["run"]));
    let line = running.line("serving");
    assert!(line.contains("listener-1 127.0.0.1:") && line.contains("default h2c://127.0.0.1:9"), "{line}");
    running.signal("TERM");
    let (code, said) = running.end();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("drained"), "{said}");
}

#[test]
fn sigint_ends_proxy_with_exit_code_0() {
    let arguments = ["proxy", "--listen", "127.0.0.1:0", "--to", "h2c://127.0.0.1:9", "--probes", "127.0.0.1:0"];
    let mut running = Running::start(Folder::new().command(&arguments));
    assert!(running.line("serving").contains("probes=127.0.0.1:"));
    running.signal("INT");
    assert_eq!(running.end().0, Some(0));
}

#[test]
fn variables_stand_in_for_flags() {
    let folder = Folder::new();
    let mut command = folder.command(&["proxy"]);
    command.env("TRUNKLINE_LISTEN", "127.0.0.1:0").env("TRUNKLINE_TO", "h2c://127.0.0.1:9,h2c://127.0.0.1:10");
    let mut running = Running::start(command);
    assert!(running.line("serving").contains("default h2c://127.0.0.1:9, default h2c://127.0.0.1:10"));
    running.signal("TERM");
    assert_eq!(running.end().0, Some(0));
}

#[test]
fn sighup_takes_the_new_log_level_and_keeps_the_old_configuration_when_the_new_one_is_wrong() {
    let text = |logs: &str| {
        format!(
            "listeners: [{{ address: 127.0.0.1:0 }}]\nupstreams: {{ api: {{ endpoints: [\"h2c://{}\"] }} }}\n{logs}",
            service::nobody()
        )
    };
    let folder = Folder::with(&text(""));
    let mut running = Running::start(folder.command(&["run"]));
    running.line("serving");
    folder.write("trunkline.yaml", "listen: nowhere\n");
    running.signal("HUP");
    running.line("configuration not reloaded, the old one is kept");
    running.line("--> trunkline.yaml:1:");
    folder.write("trunkline.yaml", &text("logs: { level: debug }\n"));
    running.signal("HUP");
    running.line("configuration reloaded");
    // The endpoint is dialled again and again, and each failure is a line at this level.
    running.line("DEBUG");
    running.signal("TERM");
    assert_eq!(running.end().0, Some(0));
}

#[test]
fn a_configuration_that_cannot_be_taken_leaves_the_log_level_alone() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let text = |address: &str, level: &str| {
        format!(
            "listeners: [{{ address: \"{address}\" }}]\nlogs: {{ level: {level} }}\n\
             upstreams: {{ api: {{ endpoints: [\"h2c://{}\"], pool: {{ pending_timeout: 10ms }} }} }}\n",
            service::nobody()
        )
    };
    let folder = Folder::with(&text("127.0.0.1:0", "info"));
    let mut running = Running::start(folder.command(&["run"]));
    let line = running.line("listening");
    let address = line.split("address=").nth(1).and_then(|rest| rest.split(' ').next()).expect("an address");
    running.line("serving");
    folder.write("trunkline.yaml", &text(&taken.local_addr().unwrap().to_string(), "debug"));
    running.signal("HUP");
    running.line("is in use by another process");
    // The failure of a dial is a line of the level debug.
    let mut client = TcpStream::connect(address).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
    client.read_to_end(&mut Vec::new()).unwrap();
    running.signal("TERM");
    let (_, said) = running.end();
    assert!(!said.contains("DEBUG"), "{said}");
}

#[test]
fn a_port_in_use_exits_with_1_and_says_so() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = Folder::with(&format!("listen: {address}\nupstream: h2c://127.0.0.1:9\n"));
    let said = folder.run(&["run"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stderr.contains(&format!("{address} is in use by another process")), "{said:?}");
    let said = trunkline(&["proxy", "--listen", &address, "--to", "h2c://127.0.0.1:9"]);
    assert_eq!(said.code, Some(1), "{said:?}");
}

#[test]
fn a_wrong_log_filter_exits_with_78() {
    let folder = Folder::with("listen: 127.0.0.1:0\nupstream: h2c://127.0.0.1:9\n");
    let output = folder.command(&["run"]).env("TRUNKLINE_LOG", "trunkline=loud").output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&output.stderr).contains("$TRUNKLINE_LOG is not a log filter"));
}

#[test]
fn healthcheck_exits_with_0_only_if_readyz_answers_200() {
    let ready = service::http1("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let draining = service::http1("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
    for (address, code, part) in [(ready, 0, ""), (draining, 1, "answered 503"), (service::nobody(), 1, "refused")] {
        let folder = Folder::with(&format!(
            "listeners: [{{ address: 127.0.0.1:0 }}]\nupstreams: {{ api: {{ endpoints: [\"h2c://a:1\"] }} }}\n\
             admin: {{ probes: {address} }}\n"
        ));
        for arguments in [&["healthcheck"][..], &["healthcheck", "--address", &address.to_string()]] {
            let said = folder.run(arguments);
            assert_eq!(said.code, Some(code), "{arguments:?}: {said:?}");
            assert!(said.stderr.contains(part) && said.stdout.is_empty(), "{said:?}");
        }
    }
}

#[test]
fn healthcheck_finds_a_running_process_ready() {
    let folder = Folder::new();
    let to = format!("h2c://{}", service::h2c(10));
    let arguments = ["proxy", "--listen", "127.0.0.1:0", "--to", &to, "--probes", "127.0.0.1:0"];
    let mut running = Running::start(folder.command(&arguments));
    let line = running.line("serving");
    let probes = line.split("probes=").nth(1).and_then(|rest| rest.split(' ').next()).expect("an address");
    let said = folder.run(&["healthcheck", "--address", probes]);
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""), "{said:?}");
    running.signal("TERM");
    assert_eq!(running.end().0, Some(0));
}

#[test]
fn healthcheck_finds_a_process_ready_whose_files_have_become_wrong_since() {
    let probes = service::nobody();
    let yaml = format!(
        "listeners: [{{ address: 127.0.0.1:0, tls: {{ certificates: [{{ cert: tls.crt, key: tls.key }}] }} }}]\n\
         upstreams: {{ api: {{ endpoints: [\"h2c://127.0.0.1:9\"] }} }}\nadmin: {{ probes: \"{probes}\" }}\n"
    );
    let folder = Folder::with(&yaml);
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    folder.write("tls.crt", &made.cert.pem());
    folder.write("tls.key", &made.signing_key.serialize_pem());
    let mut running = Running::start(folder.command(&["run"]));
    running.line("serving");
    folder.write("tls.crt", "half a certificate");
    running.line("certificates not renewed, the old ones are kept");
    folder.write("trunkline.yaml", &yaml.replace("endpoints", "endpoint"));
    running.signal("HUP");
    running.line("configuration not reloaded, the old one is kept");
    let said = folder.run(&["healthcheck"]);
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""), "{said:?}");
    running.signal("TERM");
    assert_eq!(running.end().0, Some(0));
}

#[test]
fn healthcheck_without_an_address_exits_with_1_and_says_what_is_missing() {
    let folder = Folder::with("listen: 127.0.0.1:0\nupstream: h2c://127.0.0.1:9\n");
    let said = folder.run(&["healthcheck"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stderr.contains("neither admin.probes nor admin.address is configured"), "{said:?}");
}
