//! Clients that come over a Unix socket.

use http::Request;

use super::Inner;
use crate::harness::client;
use crate::harness::{origin, proxy, scripted};
use crate::translation::Seen;

#[tokio::test]
async fn every_http_is_spoken_and_no_address_is_told() {
    let inner = Inner::new("");
    let mut http1 = client::h1_unix(&inner.path()).await;
    let http2 = client::h2_unix(&inner.path()).await;
    for seen in [http1.get("/head").await.json(), http2.get("/head").await.json()] {
        let seen = Seen(seen);
        assert_eq!((seen.names(), seen.field("x-forwarded-proto")), (vec!["via", "x-forwarded-proto"], "http"));
    }
    assert_eq!(http1.post("/upload", vec![b'x'; 300_000]).await.text(), "300000");
    assert_eq!(http2.get("/bytes/300000").await.text().len(), 300_000);
}

#[tokio::test]
async fn what_a_unix_client_says_about_forwarding_is_kept_only_if_it_is_trusted() {
    for (keys, list) in [("", None), ("trust_forwarded_from: [unix]", Some("203.0.113.9, 10.0.0.1"))] {
        let inner = Inner::new(keys);
        let mut client = client::raw_unix(&inner.path()).await;
        client.send("GET /head HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 203.0.113.9, 10.0.0.1\r\n\r\n").await;
        let seen = Seen(client.expect_response().await.json());
        assert_eq!(seen.fields("x-forwarded-for").next(), list);
    }
}

#[tokio::test]
async fn the_access_log_says_unix_or_whom_a_trusted_client_speaks_for() {
    let origin = origin::h2().start();
    let folder = tempfile::tempdir().unwrap();
    let (path, log) = (super::socket(&folder), folder.path().join("access.log"));
    let mut proxy = proxy::with(&format!(
        "{}logs: {{ access: {{ only: all, output: \"{}\" }} }}\nruntime: {{ workers: 1 }}\n",
        super::yaml(&[("unix", &path, "trust_forwarded_from: [unix]")], &origin),
        log.display()
    ));
    let mut client = client::raw_unix(&path).await;
    for line in ["", "x-forwarded-for: 203.0.113.9\r\n"] {
        client.send(format!("GET / HTTP/1.1\r\nhost: a\r\n{line}\r\n")).await;
        client.expect_response().await;
    }
    drop(client);
    proxy.stop().await;
    let text = std::fs::read_to_string(&log).unwrap();
    let client = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["client"].clone();
    assert_eq!(text.lines().map(client).collect::<Vec<_>>(), ["unix", "203.0.113.9"]);
}

#[tokio::test]
async fn proxy_headers_come_over_unix_sockets_too() {
    let inner = Inner::new("proxy_protocol: optional, trust_forwarded_from: [unix]");
    for (header, address) in [("PROXY TCP4 203.0.113.9 10.0.0.1 1 2\r\n", Some("203.0.113.9")), ("", None)] {
        let mut client = client::raw_unix(&inner.path()).await;
        client.send(format!("{header}GET /head HTTP/1.1\r\nhost: a\r\n\r\n")).await;
        let seen = Seen(client.expect_response().await.json());
        assert_eq!(seen.fields("x-forwarded-for").next(), address);
    }
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_request() {
    let inner = Inner::new("");
    let mut client = client::h1_unix(&inner.path()).await;
    client.start(&Request::get("/hang").body(()).unwrap(), false).await.unwrap();
    inner.proxy.wait_for(|counts| counts.streams == 1).await;
    drop(client);
    inner.proxy.wait_for(|counts| counts.streams == 0 && counts.downstream_connections == 0).await;
    inner.proxy.expect_fault("client_gone").await;
}

#[tokio::test]
async fn an_idle_client_is_parked_and_answered_again() {
    let inner = Inner::new("");
    let mut client = client::h1_unix(&inner.path()).await;
    for _ in 0..2 {
        assert_eq!(client.get("/bytes/10").await.status(), 200);
        inner.proxy.wait_for(|counts| counts.downstream_parked == 1).await;
    }
}

#[tokio::test]
async fn all_unix_clients_are_one_when_clients_take_turns() {
    let service = scripted::service().await;
    let folder = tempfile::tempdir().unwrap();
    let path = super::socket(&folder);
    let proxy = proxy::with(&format!(
        "runtime: {{ workers: 1 }}\n\
         listeners: [{{ name: tcp, address: 127.0.0.1:0 }}, {{ name: unix, address: \"unix:{}\" }}]\n\
         upstreams: {{ up: {{ endpoints: [\"h2c://{service}\"], \
         pool: {{ max_connections: 1, max_streams_per_connection: 1, pending_timeout: 20s }} }} }}",
        path.display()
    ));
    let mut peer = service.accept_with(&[]).await;
    let mut clients = Vec::new();
    for (at, target) in ["/running", "/u1", "/u2", "/tcp"].into_iter().enumerate() {
        let mut client =
            if target == "/tcp" { client::h1(proxy.address()).await } else { client::h1_unix(&path).await };
        client.start(&Request::get(target).body(()).unwrap(), false).await.unwrap();
        clients.push(client);
        proxy.wait_for(|counts| counts.streams == 1 && counts.pending == at as i64).await;
    }
    assert_eq!(peer.answer_in_turn(clients.len()).await, ["/running", "/u1", "/tcp", "/u2"]);
}

#[tokio::test]
async fn many_clients_are_spread_over_the_workers_that_share_the_socket() {
    let inner = Inner::new("");
    let mut clients = Vec::new();
    for _ in 0..40 {
        let mut client = client::h1_unix(&inner.path()).await;
        assert_eq!(client.get("/status/200").await.status(), 200);
        clients.push(client);
    }
    let workers = inner.proxy.control().registry().workers();
    let connections: Vec<_> = workers.iter().map(|worker| worker.downstream_connections.value()).collect();
    assert_eq!(connections.iter().sum::<i64>(), 40);
    assert!(connections.iter().all(|count| *count >= 15), "{connections:?}");
}
