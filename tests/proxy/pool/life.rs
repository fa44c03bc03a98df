//! Connections that are replaced before their service would do it: by age, and by what they have carried.

use super::{ask, lose_nothing, pooled, rest};
use crate::harness::{client, origin, scripted};

#[tokio::test]
async fn a_connection_that_has_reached_its_age_finishes_its_streams_beside_a_fresh_one() {
    let service = scripted::service().await;
    let proxy = pooled(&service, "max_connections: 1, pending_timeout: 20s, max_age: 100ms");
    let mut old_peer = service.accept_with(&[]).await;
    let old = ask(&proxy, 1).await;
    let old_head = old_peer.expect_headers().await;
    // Nobody asks for it: it is dialled because the old one was in use.
    let mut new_peer = service.accept_with(&[]).await;
    let new = ask(&proxy, 1).await;
    let new_head = new_peer.expect_headers().await;
    new_peer.answer(&new_head, 200, "new").await;
    old_peer.answer(&old_head, 200, "old").await;
    for (clients, text) in [(new, "new"), (old, "old")] {
        for client in clients {
            assert_eq!(rest(client).await.text(), text);
        }
    }
    old_peer.expect_closed().await;
    assert_eq!(proxy.counts().opened["replacement"], 1);
}

#[tokio::test]
async fn connections_that_age_quickly_lose_nothing_under_load() {
    let origin = origin::h2().start();
    let connections = lose_nothing(&origin, "max_connections: 2, pending_timeout: 20s, max_age: 20ms").await;
    assert!(connections >= 10, "{connections} connections");
}

#[tokio::test]
async fn a_connection_that_has_carried_its_requests_is_replaced() {
    let origin = origin::h2().start();
    let proxy = pooled(&origin, "max_connections: 1, max_requests_per_connection: 3");
    let mut client = client::h1(proxy.address()).await;
    for _ in 0..7 {
        assert_eq!(client.get("/status/200").await.status(), 200);
    }
    let per_connection = origin.log().connections.iter().map(|connection| connection.requests).collect::<Vec<_>>();
    assert_eq!(per_connection, [3, 3, 1]);
}

#[tokio::test]
async fn connections_that_are_replaced_often_lose_nothing_under_load() {
    let origin = origin::h2().start();
    let pool = "max_connections: 2, pending_timeout: 20s, max_requests_per_connection: 50";
    let connections = lose_nothing(&origin, pool).await;
    assert!(connections >= 100, "{connections} connections");
}

// The beginning.

#[tokio::test]
async fn the_proxy_is_ready_when_min_connections_are_open() {
    let service = scripted::service().await;
    let proxy = pooled(&service, "max_connections: 2, min_connections: 2");
    assert_eq!(proxy.admin_get("/readyz").await.status(), 503);
    let _first = service.accept_with(&[]).await;
    proxy.wait_for(|counts| counts.active == 1).await;
    let cold = proxy.admin_get("/readyz").await;
    assert_eq!(
        (cold.status(), cold.text()),
        (503, &*format!("connections: being opened to h2c://{service}\nnot ready\n"))
    );
    let second = service.accept_with(&[]).await;
    proxy.wait_for(|counts| counts.active == 2).await;
    assert_eq!(proxy.admin_get("/readyz").await.status(), 200);
    // What is lost later is for the pool to open anew, and no reason to send clients away.
    second.close().await;
    proxy.wait_for(|counts| counts.closed_total() == 1).await;
    assert_eq!(proxy.admin_get("/readyz").await.status(), 200);
}

#[tokio::test]
async fn the_proxy_stays_ready_while_a_changed_endpoint_opens_its_min_connections() {
    let service = scripted::service().await;
    let proxy = pooled(&service, "max_connections: 2, min_connections: 1");
    let _first = service.accept_with(&[]).await;
    proxy.wait_for(|counts| counts.active == 1).await;
    // Nobody has asked before; and nobody accepts the new connection.
    let changed = super::yaml(&service, 1, "max_connections: 3, min_connections: 1");
    proxy.reload(&changed).await.unwrap();
    assert_eq!(proxy.admin_get("/readyz").await.status(), 200);
}

#[tokio::test]
async fn the_proxy_is_ready_although_min_connections_cannot_be_opened() {
    let service = scripted::service().await;
    let address = service.address();
    service.close();
    let proxy = pooled(&address, "max_connections: 2, min_connections: 2");
    proxy.wait_for_metrics(|samples| samples.sum("trunkline_dial_failures_total", &[]) > 0.0).await;
    assert_eq!(proxy.admin_get("/readyz").await.status(), 200);
}
