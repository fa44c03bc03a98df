//! Who the client is, and who says so: what goes to the service, into the access log, and into the queue's turns.
//!
//! RFC 7239, and the PROXY protocol's specification.

mod trust;

use std::path::PathBuf;

use tempfile::TempDir;

use crate::harness::client::RawClient;
use crate::harness::origin::Origin;
use crate::harness::proxy::Proxy;
use crate::harness::{client, origin, proxy};
use crate::translation::Seen;

/// A proxy whose listener has these keys, before a service that shows what it sees; its access log is kept.
struct Edge {
    _origin: Origin,
    proxy: Proxy,
    folder: TempDir,
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
        Self { _origin: origin, proxy, folder }
    }

    async fn client(&self) -> RawClient {
        client::raw(self.proxy.address()).await
    }

    /// What the service saw of `GET /head` with these lines.
    async fn ask(&self, lines: &str) -> Seen {
        ask_on(&mut self.client().await, lines).await
    }

    /// Ends the proxy; the clients that its access log names, in the order of their requests' ends.
    async fn clients(mut self) -> Vec<String> {
        self.proxy.stop().await;
        let text = std::fs::read_to_string(log(&self.folder)).unwrap();
        let client = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["client"].clone();
        text.lines().map(|line| client(line).as_str().unwrap().to_owned()).collect()
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
