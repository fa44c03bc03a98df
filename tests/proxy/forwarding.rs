//! Who the client is, and who says so: what goes to the service, into the access log, and into the queue's turns.
//!
//! RFC 7239, and the PROXY protocol's specification.

mod proxy_protocol;
mod trust;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;

use tempfile::TempDir;

use crate::harness::client::RawClient;
use crate::harness::counts::Counts;
use crate::harness::origin::Origin;
use crate::harness::proxy::Proxy;
use crate::harness::{client, origin, proxy};
use crate::translation::Seen;

/// A proxy whose listener has these keys, before a service that shows what it sees; its access log is kept.
struct Edge {
    _origin: Origin,
    proxy: Proxy,
    folder: TempDir,
    /// Those that a test has expected so far, by reason.
    failures: Mutex<BTreeMap<&'static str, u64>>,
}

impl Edge {
    fn new(keys: &str) -> Self {
        let origin = origin::h2().start();
        let folder = tempfile::tempdir().unwrap();
        let proxy = proxy::with(&format!(
            "listeners: [{{ address: \"127.0.0.1:0\", {keys} }}]\n\
             upstreams: {{ up: {{ endpoints: [\"h2c://{origin}\"] }} }}\n\
             logs: {{ access: {{ only: all, output: \"{}\" }} }}",
            log(&folder).display()
        ));
        Self { _origin: origin, proxy, folder, failures: Mutex::default() }
    }

    async fn client(&self) -> RawClient {
        client::raw(self.proxy.address()).await
    }

    /// What the service saw of `GET /head` with these lines.
    async fn ask(&self, lines: &str) -> Seen {
        ask_on(&mut self.client().await, lines).await
    }

    /// Waits for one more useless PROXY header, for this reason.
    async fn expect_failure(&self, reason: &'static str) {
        let failures = |counts: &Counts| counts.proxy_protocol_failures.clone();
        let before = self.failures.lock().unwrap().clone();
        self.proxy.wait_for(|counts| failures(counts) != before).await;
        let mut expected = before;
        *expected.entry(reason).or_default() += 1;
        assert_eq!(failures(&self.proxy.counts()), expected);
        *self.failures.lock().unwrap() = expected;
    }

    /// Ends the proxy; the clients that its access log names, once for each request, sorted: workers write as they come.
    async fn clients(mut self) -> Vec<String> {
        self.proxy.stop().await;
        let text = std::fs::read_to_string(log(&self.folder)).unwrap();
        let client = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["client"].clone();
        let mut clients: Vec<_> = text.lines().map(|line| client(line).as_str().unwrap().to_owned()).collect();
        clients.sort_unstable();
        clients
    }
}

async fn ask_on(client: &mut RawClient, lines: &str) -> Seen {
    client.send(format!("GET /head HTTP/1.1\r\nhost: a\r\n{lines}\r\n")).await;
    let response = client.expect_response().await;
    assert_eq!(response.status(), 200, "{lines}: {response:?}");
    Seen(response.json())
}

fn log(folder: &TempDir) -> PathBuf {
    folder.path().join("access.log")
}
