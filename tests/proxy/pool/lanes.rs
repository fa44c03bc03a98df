//! Streams that live long or carry bulk, and the short ones beside them.

use http::{Method, Request};

use super::{ask, gather_heads, hang, pooled, rest};
use crate::harness::client::{self, Client};
use crate::harness::proxy::Proxy;
use crate::harness::scripted::frame::OPEN;
use crate::harness::watched::within;
use crate::harness::{origin, scripted};

#[tokio::test]
async fn an_event_stream_leaves_a_connection_to_the_short_requests_and_the_next_one_joins_it() {
    let service = scripted::service().await;
    let proxy = pooled(&service, "max_connections: 4, pending_timeout: 20s");
    let mut long = service.accept_with(&[]).await;
    let _first = subscribe(&proxy).await;
    assert_eq!(long.expect_headers().await.field(":path"), "/events");
    let mut short = service.accept_with(&[]).await;
    proxy.wait_for(|counts| counts.active == 2).await;
    let clients = ask(&proxy, 3).await;
    for _ in 0..3 {
        let head = short.expect_headers().await;
        short.answer(&head, 200, "").await;
    }
    let _second = subscribe(&proxy).await;
    assert_eq!(long.expect_headers().await.field(":path"), "/events");
    for client in clients {
        assert_eq!(rest(client).await.status(), 200);
    }
    assert_eq!(gather_heads(&mut short).await.len(), 0);
    assert_eq!(proxy.counts().opened, [("startup", 1), ("long_lane", 1)].into());
}

#[tokio::test]
async fn an_answer_that_turns_out_to_be_an_event_stream_leaves_a_connection_to_the_others() {
    let service = scripted::service().await;
    let proxy = pooled(&service, "max_connections: 4, pending_timeout: 20s");
    let mut long = service.accept_with(&[]).await;
    let mut client = ask(&proxy, 1).await.remove(0);
    let head = long.expect_headers().await;
    long.headers(head.stream, 200, &[("content-type", "text/event-stream; charset=utf-8")], OPEN).await;
    client.head().await.unwrap();
    let mut short = service.accept_with(&[]).await;
    proxy.wait_for(|counts| counts.active == 2).await;
    let _other = ask(&proxy, 1).await;
    short.expect_headers().await;
}

#[tokio::test]
async fn bulk_leaves_a_connection_to_the_short_requests_whichever_way_it_goes() {
    let mebibyte = 1 << 20;
    for request in [
        Request::get(format!("/bytes/{mebibyte}")),
        Request::get(format!("/unsized/{mebibyte}")),
        Request::post("/upload").header("content-length", mebibyte),
    ] {
        let origin = origin::h2().start();
        let proxy = pooled(&origin, "max_connections: 2");
        let mut client = client::h1(proxy.address()).await;
        let is_get = request.method_ref() == Some(&Method::GET);
        client.start(&request.body(()).unwrap(), false).await.unwrap();
        if is_get {
            client.head().await.unwrap();
            assert_eq!(client.body().await.unwrap().len(), mebibyte);
        }
        proxy.wait_for(|counts| counts.opened.get("long_lane") == Some(&1)).await;
    }
}

#[tokio::test]
async fn streams_that_grow_old_leave_a_connection_to_the_short_requests() {
    let origin = origin::h2().start();
    let proxy = pooled(&origin, "max_connections: 2, max_streams_per_connection: 8");
    // One in eight may be long before the others need a connection of their own.
    let _clients = hang(&proxy, 2).await;
    let mut short = client::h1(proxy.address()).await;
    let until_parted = async {
        while !proxy.counts().opened.contains_key("long_lane") {
            assert_eq!(short.get("/status/200").await.status(), 200);
        }
    };
    within("connection for the short requests", until_parted).await;
    assert_eq!(proxy.counts().opened, [("startup", 1), ("long_lane", 1)].into());
}

#[tokio::test]
async fn with_one_connection_all_share_it() {
    let service = scripted::service().await;
    let proxy = pooled(&service, "max_connections: 1, pending_timeout: 20s");
    let mut peer = service.accept_with(&[]).await;
    let _events = subscribe(&proxy).await;
    peer.expect_headers().await;
    let clients = ask(&proxy, 2).await;
    for client in clients {
        let head = peer.expect_headers().await;
        peer.answer(&head, 200, "").await;
        assert_eq!(rest(client).await.status(), 200);
    }
    assert_eq!(proxy.counts().opened, [("startup", 1)].into());
}

async fn subscribe(proxy: &Proxy) -> Client {
    let mut client = client::h1(proxy.address()).await;
    let request = Request::get("/events").header("accept", "text/event-stream").body(()).unwrap();
    client.start(&request, false).await.unwrap();
    client
}
