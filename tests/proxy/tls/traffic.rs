//! What is the same under TLS as in the clear: bodies, pipelining, parking, leaving, the slow and the cut.

use std::collections::BTreeMap;
use std::time::Duration;

use http::Request;

use super::{Serving, serving};
use crate::harness::binary::Binary;
use crate::harness::client::{self, Client};
use crate::harness::origin::log::Ending;
use crate::harness::scripted::PREFACE;
use crate::harness::tls::Identity;
use crate::harness::watched::BOUND;
use crate::harness::{origin, process, proxy};

#[tokio::test]
async fn bodies_of_every_size_pass_both_ways_and_the_service_hears_of_https() {
    let serving = serving("", "");
    let mut client = client(&serving).await;
    for size in [0, 1, 16_384, 16_385, 300_000, 20_000_000] {
        assert_eq!(client.get(&format!("/bytes/{size}")).await.body.len(), size);
        assert_eq!(client.post("/upload", vec![b'x'; size]).await.text(), size.to_string());
    }
    client.get("/head").await;
    assert_eq!(serving.origin.log().requests.last().unwrap().header("x-forwarded-proto"), Some("https"));
}

#[tokio::test]
async fn http1_is_agreed_on_by_alpn() {
    let serving = serving("", "");
    let connector = serving.identity.connector(&["http/1.1"]);
    let client = client::h1_tls(serving.proxy.address(), &connector).await.into_raw();
    assert_eq!(client.socket().alpn(), Some(&b"http/1.1"[..]));
}

#[tokio::test]
async fn http2_is_agreed_on_by_alpn_and_carries_bodies_of_every_size() {
    let serving = serving("", "");
    let client = client::h2_tls(serving.proxy.address(), &serving.identity.connector(&["h2", "http/1.1"])).await;
    for size in [0, 1, 16_385, 3_000_000] {
        assert_eq!(client.get(&format!("/bytes/{size}")).await.body.len(), size);
    }
    assert_eq!(serving.origin.log().requests[0].header("x-forwarded-proto"), Some("https"));
}

#[tokio::test]
async fn what_was_agreed_on_is_what_may_be_spoken() {
    let serving = serving("", "");
    let mut client = client::raw_tls(serving.proxy.address(), &serving.identity.connector(&["h2"])).await;
    client.send("GET /status/200 HTTP/1.1\r\nhost: a\r\n\r\n").await;
    client.expect_close().await;
    for protocols in [&["http/1.1"][..], &[]] {
        let mut client = client::raw_tls(serving.proxy.address(), &serving.identity.connector(protocols)).await;
        client.send(PREFACE).await;
        client.expect_close().await;
    }
    assert_eq!(serving.proxy.faults(), BTreeMap::from([("malformed_head", 3)]));
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order_and_then_the_connection_is_parked() {
    let serving = serving("", "");
    let mut client = client(&serving).await.into_raw();
    let requests = (1..=40).map(|size| format!("GET /bytes/{size} HTTP/1.1\r\nhost: a\r\n\r\n"));
    client.send(requests.collect::<Vec<_>>().concat()).await;
    for size in 1..=40 {
        assert_eq!(client.expect_response().await.body.len(), size);
    }
    serving.proxy.wait_for(|counts| counts.downstream_parked == 1).await;
}

#[tokio::test]
async fn a_parked_client_is_answered_and_parked_again() {
    let serving = serving("", "");
    let mut client = client(&serving).await;
    for _ in 0..2 {
        assert_eq!(client.get("/bytes/100").await.status(), 200);
        serving.proxy.wait_for(|counts| counts.downstream_parked == 1).await;
    }
    assert_eq!(client.post("/upload", "body").await.text(), "4");
    drop(client);
    serving.proxy.wait_for(|counts| (counts.downstream_connections, counts.downstream_parked) == (0, 0)).await;
    assert!(serving.proxy.faults().is_empty(), "{:?}", serving.proxy.faults());
}

/// What TLS still holds is not given up with hyper.
#[tokio::test]
async fn a_client_that_reads_late_gets_the_whole_answer() {
    let serving = serving("", "");
    let mut client = client(&serving).await;
    client.start(&Request::get("/bytes/20000000").body(()).unwrap(), false).await.unwrap();
    assert_eq!(client.head().await.unwrap().status(), Ok(200));
    // Another one that was idle later is parked by now.
    let mut later = self::client(&serving).await;
    later.get("/status/200").await;
    serving.proxy.wait_for(|counts| counts.downstream_parked == 1).await;
    assert_eq!(client.body().await.unwrap().len(), 20_000_000);
}

#[tokio::test]
async fn a_client_that_leaves_while_its_request_runs_is_noticed() {
    for is_orderly in [true, false] {
        let serving = serving("", "");
        let mut client = client(&serving).await;
        client.start(&Request::get("/hang").body(()).unwrap(), false).await.unwrap();
        serving.origin.wait_for(|log| log.streams_open() == 1).await;
        if is_orderly {
            // A close_notify comes before the end of TCP.
            client.into_raw().shutdown_write().await;
        } else {
            client.abort();
        }
        serving.origin.wait_for(|log| log.requests[0].ending().is_some()).await;
        assert_eq!(serving.origin.log().ended(Ending::ResetByPeer(h2::Reason::CANCEL)), 1);
        serving.proxy.expect_fault("client_gone").await;
    }
}

/// The look for the end has read the next request's first byte by then.
#[tokio::test]
async fn a_request_that_comes_while_another_one_runs_is_whole() {
    let serving = serving("", "");
    let mut client = client(&serving).await.into_raw();
    client.send("GET /delay/100 HTTP/1.1\r\nhost: a\r\n\r\n").await;
    serving.origin.wait_for(|log| log.requests.len() == 1).await;
    client.send("GET /bytes/7 HTTP/1.1\r\nhost: a\r\n\r\nGET /by").await;
    assert_eq!(client.expect_response().await.text(), "slow");
    assert_eq!(client.expect_response().await.body.len(), 7);
    client.send("tes/8 HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(client.expect_response().await.body.len(), 8);
}

#[tokio::test]
async fn a_client_that_stops_reading_is_given_up_when_nothing_moves_any_more() {
    let serving = routed("timeouts: { stream_idle: 300ms }");
    let mut client = client(&serving).await;
    client.start(&Request::get("/bytes/50000000").body(()).unwrap(), false).await.unwrap();
    assert_eq!(client.head().await.unwrap().status(), Ok(200));
    serving.proxy.expect_fault("write_stalled").await;
    assert!(client.body().await.is_err());
}

#[tokio::test]
async fn a_part_of_a_head_is_answered_408() {
    let serving = serving("", "timeouts: { header: 2s },");
    let mut client = client(&serving).await.into_raw();
    client.send("GET ").await;
    assert_eq!(client.expect_response().await.status(), 408);
    client.expect_close().await;
    serving.proxy.expect_fault("head_timeout").await;
}

#[tokio::test]
#[ignore = "two thousand handshakes: `make test` runs it in release mode"]
async fn an_idle_client_over_tls_costs_less_than_sixteen_kibibytes_and_is_answered() {
    const CLIENTS: u64 = 2_000;
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let (identity, folder) = (Identity::new(), tempfile::tempdir().unwrap());
    identity.store(folder.path(), "one");
    let origin = origin::h2().compact_log().start();
    let address = origin::ReservedAddress::new().address();
    let yaml = super::yaml(folder.path(), &["one"], "", "", &origin).replace("127.0.0.1:0", &address.to_string());
    let file = folder.path().join("trunkline.yaml");
    std::fs::write(&file, yaml).unwrap();
    let proxy = Binary::start(&["run", "-c", file.to_str().unwrap()], address).await;
    let connector = identity.connector(&[]);
    for _ in 0..100 {
        client::h1_tls(address, &connector).await.get("/bytes/65").await;
    }
    let before = process::resident_bytes_of(proxy.id());
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = client::h1_tls(address, &connector).await;
        assert_eq!(client.get("/bytes/65").await.status(), 200);
        clients.push(client);
    }
    // What is parked last is let go a moment later; what it has held goes back to the system after that.
    let mut per_client = u64::MAX;
    let settled = async {
        while per_client >= 16 * 1024 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            per_client = process::resident_bytes_of(proxy.id()).saturating_sub(before) / CLIENTS;
        }
    };
    let is_settled = tokio::time::timeout(BOUND, settled).await.is_ok();
    eprintln!("{per_client} bytes per idle client over TLS");
    assert!(is_settled, "{per_client} bytes per idle client over TLS");
    for client in &mut clients {
        assert_eq!(client.get("/bytes/65").await.status(), 200);
    }
}

async fn client(serving: &Serving) -> Client {
    client::h1_tls(serving.proxy.address(), &serving.identity.connector(&[])).await
}

/// As [`serving`], with these keys in the one route.
fn routed(route: &str) -> Serving {
    let identity = Identity::new();
    let folder = tempfile::tempdir().unwrap();
    identity.store(folder.path(), "one");
    let origin = origin::h2().start();
    let yaml = super::yaml(folder.path(), &["one"], "", "", &origin);
    let proxy = proxy::with(&format!("{yaml}routes: [{{ upstream: up, {route} }}]\n"));
    Serving { proxy, origin, identity, folder }
}
