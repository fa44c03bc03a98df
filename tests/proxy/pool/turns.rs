//! Clients take turns: one with many requests delays each of another's by one.

use std::net::{IpAddr, Ipv4Addr};

use http::Request;

use super::{assert_fault, one_place, pooled, rest};
use crate::harness::client::{self, Client};
use crate::harness::proxy::Proxy;
use crate::harness::scripted;

const GREEDY: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const MODEST: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));

#[tokio::test]
async fn clients_that_wait_are_served_in_turn() {
    let service = scripted::service().await;
    let proxy = pooled(&service, &one_place("pending_timeout: 20s"));
    let mut peer = service.accept_with(&[]).await;
    let mut clients = Vec::new();
    for (at, (client, path)) in
        [(GREEDY, "/running"), (GREEDY, "/g1"), (GREEDY, "/g2"), (GREEDY, "/g3"), (MODEST, "/m1"), (MODEST, "/m2")]
            .into_iter()
            .enumerate()
    {
        clients.push(ask_from(&proxy, client, path).await);
        proxy.wait_for(|counts| counts.streams == 1 && counts.pending == at as i64).await;
    }
    assert_eq!(peer.answer_in_turn(clients.len()).await, ["/running", "/g1", "/m1", "/g2", "/m2", "/g3"]);
}

#[tokio::test]
async fn a_full_queue_makes_room_for_a_client_that_has_less_in_it() {
    let service = scripted::service().await;
    let proxy = pooled(&service, &one_place("max_pending: 3, pending_timeout: 20s"));
    let mut peer = service.accept_with(&[]).await;
    let running = ask_from(&proxy, GREEDY, "/running").await;
    let head = peer.expect_headers().await;
    let mut waiting = Vec::new();
    for at in 1..=3 {
        waiting.push(ask_from(&proxy, GREEDY, "/greedy").await);
        proxy.wait_for(|counts| counts.pending == at).await;
    }
    let modest = ask_from(&proxy, MODEST, "/modest").await;
    // The last one in the longest line is answered at once.
    assert_fault(&rest(waiting.pop().unwrap()).await, 503, "connection_limit_reached");
    // The next one would leave the greedy client with as much as the modest one.
    let second = ask_from(&proxy, MODEST, "/second").await;
    assert_fault(&rest(second).await, 503, "connection_limit_reached");
    assert_eq!(proxy.counts().pending, 3);
    assert_eq!(proxy.counts().rejected, [("full", 2)].into());
    peer.answer(&head, 200, "").await;
    for _ in 0..3 {
        let head = peer.expect_headers().await;
        peer.answer(&head, 200, "").await;
    }
    for client in waiting.into_iter().chain([running, modest]) {
        assert_eq!(rest(client).await.status(), 200);
    }
}

#[tokio::test]
async fn a_client_that_leaves_the_middle_of_its_line_is_passed_over() {
    let service = scripted::service().await;
    let proxy = pooled(&service, &one_place("pending_timeout: 20s"));
    let mut peer = service.accept_with(&[]).await;
    let _running = ask_from(&proxy, GREEDY, "/running").await;
    let head = peer.expect_headers().await;
    let mut waiting = Vec::new();
    for (at, path) in ["/first", "/gone", "/last"].into_iter().enumerate() {
        waiting.push(ask_from(&proxy, GREEDY, path).await);
        proxy.wait_for(|counts| counts.pending == at as i64 + 1).await;
    }
    waiting.remove(1).abort();
    proxy.wait_for(|counts| counts.pending == 2).await;
    peer.answer(&head, 200, "").await;
    for path in ["/first", "/last"] {
        let head = peer.expect_headers().await;
        assert_eq!(head.field(":path"), path);
        peer.answer(&head, 200, "").await;
    }
    proxy.wait_for(|counts| counts.pending == 0 && counts.streams == 0).await;
}

/// A client at `address` that has sent a request.
async fn ask_from(proxy: &Proxy, address: IpAddr, path: &str) -> Client {
    let mut client = client::h1_from(address, proxy.address()).await;
    client.start(&Request::get(path).body(()).unwrap(), false).await.unwrap();
    client
}
