//! A whole process is asked over real sockets, by a client that reads what is there and nothing more.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::config::{self, Config, Source};
use crate::control::{Process, Reader};
use crate::metrics::figures::Figures;

/// Nothing listens at the upstream, and a drain lasts until somebody ends it.
fn config() -> Config {
    let yaml = "
listeners: [{ name: http, address: \"127.0.0.1:0\" }]
routes:
  - name: all
    upstream: api
    request_headers: { set: { authorization: Bearer hidden-token } }
upstreams:
  api: { endpoints: [\"h2c://127.0.0.1:1\"] }
admin: { address: \"127.0.0.1:0\", probes: \"127.0.0.1:0\" }
shutdown: { delay: 1h, timeout: 1s }
runtime: { workers: 2 }
";
    config::load(&Source::new("test.yaml", yaml), &|_| None).unwrap_or_else(|errors| panic!("{errors}")).0
}

struct Started {
    process: Option<Process>,
    full: SocketAddr,
    probes: SocketAddr,
}

impl Started {
    fn new(reader: Option<Box<dyn Reader>>) -> Self {
        let process = Process::start_with(config(), reader, false).unwrap();
        let (full, probes) = (process.admin_address().unwrap(), process.probes_address().unwrap());
        Self { process: Some(process), full, probes }
    }

    fn get(&self, path: &str) -> Answer {
        ask(self.full, "GET", path, "")
    }

    fn post(&self, path: &str) -> Answer {
        ask(self.full, "POST", path, "")
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            process.control().stop();
            process.join();
        }
    }
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn has(&self, field: &str) -> bool {
        self.head.lines().any(|line| line.eq_ignore_ascii_case(field))
    }
}

/// One request on a connection of its own; `fields` are whole lines. Host is the address unless they have one.
fn ask(address: SocketAddr, method: &str, path: &str, fields: &str) -> Answer {
    let host = if fields.contains("host:") { String::new() } else { format!("host: {address}\r\n") };
    send(address, &format!("{method} {path} HTTP/1.1\r\n{host}{fields}connection: close\r\n\r\n"))
}

/// Sends `request` and reads until the server closes.
fn send(address: SocketAddr, request: &str) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(BOUND)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head["HTTP/1.1 ".len()..][..3].parse().unwrap();
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

#[test]
fn probes_answer_although_the_upstream_cannot_be_reached() {
    let started = Started::new(None);
    for address in [started.full, started.probes] {
        for path in ["/livez", "/readyz", "/startupz", "/metrics"] {
            let answer = ask(address, "GET", path, "");
            assert_eq!(answer.status, 200, "{path}: {}", answer.body);
            assert!(answer.has("cache-control: no-store"), "{}", answer.head);
        }
    }
    let verbose = started.get("/readyz?verbose").body;
    assert!(verbose.contains("[+] listeners: http 127.0.0.1:"), "{verbose}");
    assert!(verbose.contains("[i] upstream api h2c://127.0.0.1:1: "), "{verbose}");
    assert!(verbose.ends_with("ready\n"), "{verbose}");
}

#[test]
fn probes_need_no_host_of_ours() {
    let started = Started::new(None);
    assert_eq!(ask(started.probes, "GET", "/metrics", "host: trunkline.pods.example\r\n").status, 200);
    assert_eq!(ask(started.full, "GET", "/livez", "host: trunkline.pods.example\r\n").status, 200);
    assert_eq!(ask(started.full, "GET", "/config", "host: trunkline.pods.example\r\n").status, 403);
}

#[test]
fn the_probes_address_knows_the_probes_only() {
    let started = Started::new(None);
    for path in ["/", "/stats.json", "/config", "/drain", "/quit"] {
        assert_eq!(ask(started.probes, "GET", path, "").status, 404, "{path}");
        assert_eq!(ask(started.probes, "POST", path, "").status, 404, "{path}");
    }
    let text = ask(started.probes, "GET", "/nothing", "").body;
    assert!(text.contains("/readyz") && !text.contains("/drain"), "{text}");
}

#[test]
fn every_page_can_be_read_and_head_gives_its_length() {
    let started = Started::new(None);
    for (path, media_type, part) in [
        ("/", "text/html; charset=utf-8", "h2c://127.0.0.1:1"),
        ("/metrics", "application/openmetrics-text; version=1.0.0; charset=utf-8", "# EOF"),
        ("/stats.json", "application/json", "\"downstream\""),
        ("/upstreams", "application/json", "\"h2c://127.0.0.1:1\""),
        ("/config", "text/plain; charset=utf-8", "listeners:"),
    ] {
        let answer = started.get(path);
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.has(&format!("content-type: {media_type}")), "{path}: {}", answer.head);
        assert!(answer.body.contains(part), "{path}: {}", answer.body);
        let head = ask(started.full, "HEAD", path, "");
        assert_eq!((head.status, head.body.as_str()), (200, ""), "{path}");
        assert!(head.head.contains("content-length: "), "{path}: {}", head.head);
    }
    let figures: Figures = serde_json::from_str(&started.get("/stats.json").body).unwrap();
    assert_eq!((&*figures.standing.stage, figures.standing.config_generation, figures.workers), ("serving", 1, 2));
    assert_eq!(figures.endpoints[0].upstream, "api");
    let metrics = started.get("/metrics").body;
    assert!(metrics.contains("trunkline_upstream_connections{upstream=\"api\",endpoint=\"h2c://127.0.0.1:1\""));
    let config = started.get("/config").body;
    assert!(config.contains("[redacted]") && !config.contains("hidden-token"), "{config}");
}

#[test]
fn unknown_paths_name_those_that_exist() {
    let started = Started::new(None);
    let answer = started.get("/metricz");
    assert_eq!(answer.status, 404);
    for path in ["/metrics", "/drain", "/stats.json"] {
        assert!(answer.body.contains(path), "{path} is not in {}", answer.body);
    }
}

#[test]
fn wrong_methods_are_refused_with_the_right_ones() {
    let started = Started::new(None);
    for path in ["/drain", "/reload", "/quit"] {
        let answer = started.get(path);
        assert!(answer.status == 405 && answer.has("allow: POST"), "{path}: {}", answer.head);
    }
    for (method, path) in [("POST", "/metrics"), ("DELETE", "/"), ("OPTIONS", "/config")] {
        let answer = ask(started.full, method, path, "");
        assert!(answer.status == 405 && answer.has("allow: GET, HEAD"), "{path}: {}", answer.head);
    }
    assert_eq!(started.get("/readyz").status, 200);
}

#[test]
fn what_another_web_site_asks_for_is_not_done() {
    let started = Started::new(None);
    for fields in [
        "host: rebound.example\r\n",
        "origin: http://evil.example\r\n",
        "origin: null\r\n",
        "sec-fetch-site: cross-site\r\n",
    ] {
        for path in ["/drain", "/quit", "/reload"] {
            assert_eq!(ask(started.full, "POST", path, fields).status, 403, "{path} {fields}");
        }
    }
    assert_eq!(started.get("/readyz").status, 200);
}

#[test]
fn a_drain_is_told_until_the_process_ends() {
    let mut started = Started::new(None);
    let address = started.full;
    let with_body =
        format!("POST /drain HTTP/1.1\r\nhost: {address}\r\norigin: http://{address}\r\ncontent-length: 2\r\n\r\n{{}}");
    let mut drained = send(address, &with_body);
    assert_eq!((drained.status, drained.body.as_str()), (200, "draining\n"));
    for address in [started.full, started.probes] {
        let answer = ask(address, "GET", "/readyz", "");
        assert_eq!((answer.status, answer.body.as_str()), (503, "stage: draining\nnot ready\n"));
        assert_eq!(ask(address, "GET", "/livez", "").status, 200);
        assert_eq!(ask(address, "GET", "/startupz", "").status, 200);
    }
    // The server closes although it was not asked to.
    assert!(send(started.probes, "GET /readyz HTTP/1.1\r\nhost: a\r\n\r\n").has("connection: close"));

    drained = started.post("/drain");
    assert_eq!((drained.status, drained.body.as_str()), (200, "draining already\n"));
    assert_eq!(started.post("/reload").status, 503);
    assert_eq!(started.post("/quit").status, 200);
    let ending = started.process.take().unwrap().join();
    assert_eq!(ending.cut_connections, 0);
    assert!(TcpStream::connect(started.full).is_err());
}

#[test]
fn a_reload_says_what_changed_or_why_nothing_did() {
    let is_first = AtomicBool::new(true);
    let reader: Box<dyn Reader> = Box::new(move || {
        if is_first.swap(false, Ordering::Relaxed) {
            let mut config = config();
            config.shutdown.timeout = Duration::from_secs(2);
            Ok(config)
        } else {
            Err("error: unknown key `lissten`\n".to_owned())
        }
    });
    let started = Started::new(Some(reader));
    let answer = started.post("/reload");
    assert_eq!((answer.status, answer.body.as_str()), (200, "changed: shutdown\n"));
    let answer = started.post("/reload");
    assert_eq!((answer.status, answer.body.as_str()), (422, "error: unknown key `lissten`\n"));
    let metrics = started.get("/metrics").body;
    assert!(metrics.contains("trunkline_config_last_reload_success 0\n"), "{metrics}");
    assert!(metrics.contains("trunkline_config_generation 2\n"), "{metrics}");
    // What is served is still valid.
    assert_eq!(started.get("/readyz").status, 200);
}

/// Far above what an answer takes.
const BOUND: Duration = Duration::from_secs(10);
