//! Requests that a service has provably not processed are sent again, whole, and no others are.
//!
//! RFC 9113 §8.7.

mod bodies;
mod load;
mod route;

use std::time::Duration;

use h2::Reason;
use http::Request;
use tokio::net::TcpListener;

use crate::harness::client::{self, Client};
use crate::harness::origin;
use crate::harness::proxy::{self, Proxy};
use crate::harness::scripted::{self, Peer, Service};

/// A proxy on one worker, with one connection at a time to a service.
async fn one_connection() -> (Service, Proxy) {
    let service = scripted::service().await;
    let proxy = before(&service, "max_connections: 1, pending_timeout: 20s");
    (service, proxy)
}

fn before(service: &Service, pool: &str) -> Proxy {
    proxy::on_one_worker(&format!("upstreams: {{ a: {{ endpoints: [\"h2c://{service}\"], pool: {{ {pool} }} }} }}\n"))
}

async fn start(proxy: &Proxy, request: Request<()>) -> Client {
    let mut client = client::h1(proxy.address()).await;
    client.start(&request, false).await.unwrap();
    client
}

fn post() -> Request<()> {
    // Two unique fields and a length: what the second attempt must have too.
    Request::post("/orders?n=1").header("x-request-id", "the id").header("content-length", "5").body(()).unwrap()
}

async fn answered(mut client: Client, text: &str) {
    assert_eq!(client.head().await.unwrap().status(), Ok(200));
    assert_eq!(client.body().await.unwrap(), text);
}

async fn expect_order(peer: &mut Peer) -> scripted::Head {
    let head = peer.expect_headers().await;
    assert_eq!((head.field(":method"), head.field(":path")), ("POST", "/orders?n=1"));
    assert_eq!((head.field("x-request-id"), head.field("content-length")), ("the id", "5"));
    assert_eq!(peer.expect_body(head.stream).await, "order");
    head
}

#[tokio::test]
async fn a_post_above_the_last_stream_of_a_goaway_goes_to_a_fresh_connection_with_its_body() {
    let (service, proxy) = one_connection().await;
    let mut old = service.accept_with(&[]).await;
    let covered = start(&proxy, Request::get("/covered").body(()).unwrap()).await;
    let covered_head = old.expect_headers().await;
    let mut above = start(&proxy, post()).await.into_raw();
    above.send("order").await;
    expect_order(&mut old).await;
    old.goaway(covered_head.stream, Reason::NO_ERROR).await;
    let mut new = service.accept_with(&[]).await;
    let head = expect_order(&mut new).await;
    new.answer(&head, 200, "new").await;
    assert_eq!(above.expect_response().await.text(), "new");
    old.answer(&covered_head, 200, "old").await;
    answered(covered, "old").await;
    let counts = proxy.counts();
    assert_eq!((counts.retries, counts.faults), ([("goaway", 1)].into(), [].into()));
}

#[tokio::test]
async fn a_refused_post_is_sent_again_on_the_same_connection_if_there_is_no_other() {
    let (service, proxy) = one_connection().await;
    let mut peer = service.accept_with(&[]).await;
    let mut client = start(&proxy, post()).await.into_raw();
    client.send("order").await;
    let first = expect_order(&mut peer).await;
    peer.rst_stream(first.stream, Reason::REFUSED_STREAM).await;
    let second = expect_order(&mut peer).await;
    assert!(second.stream > first.stream);
    peer.answer(&second, 200, "done").await;
    assert_eq!(client.expect_response().await.text(), "done");
    assert_eq!(proxy.counts().retries, [("refused_stream", 1)].into());
}

#[tokio::test]
async fn a_refused_request_goes_to_another_connection_if_there_is_one() {
    let service = scripted::service().await;
    let proxy = before(&service, "max_connections: 2, max_streams_per_connection: 4");
    let mut first = service.accept_with(&[]).await;
    let (mut running, mut last_of_first) = (Vec::new(), 0);
    for _ in 0..4 {
        running.push(start(&proxy, Request::get("/running").body(()).unwrap()).await);
        last_of_first = first.expect_headers().await.stream;
    }
    let mut second = service.accept_with(&[]).await;
    let on_second = start(&proxy, Request::get("/second").body(()).unwrap()).await;
    let refused = second.expect_headers().await;
    assert_eq!(refused.field(":path"), "/second");
    // Room on the first again, so that there are two to choose from.
    running.pop().unwrap().abort();
    first.expect_rst(last_of_first).await;
    second.rst_stream(refused.stream, Reason::REFUSED_STREAM).await;
    let again = first.expect_headers().await;
    assert_eq!(again.field(":path"), "/second");
    first.answer(&again, 200, "first").await;
    answered(on_second, "first").await;
}

#[tokio::test]
async fn a_request_that_an_endpoint_refuses_goes_to_another_one() {
    let (refusing, other) = (scripted::service().await, scripted::service().await);
    let proxy = proxy::on_one_worker(&format!(
        "upstreams: {{ a: {{ endpoints: [\"h2c://{refusing}\", \"h2c://{other}\"], balance: round_robin }} }}\n"
    ));
    let (mut refusing, mut other) = tokio::join!(refusing.accept_with(&[]), other.accept_with(&[]));
    // One of two in turn goes to the endpoint that refuses.
    for _ in 0..2 {
        let client = start(&proxy, Request::get("/").body(()).unwrap()).await;
        let head = tokio::select! {
            head = other.expect_headers() => head,
            head = refusing.expect_headers() => {
                refusing.rst_stream(head.stream, Reason::REFUSED_STREAM).await;
                other.expect_headers().await
            }
        };
        other.answer(&head, 200, "other").await;
        answered(client, "other").await;
    }
    assert_eq!(proxy.counts().retries, [("refused_stream", 1)].into());
}

#[tokio::test]
async fn the_fifth_refusal_is_the_answer() {
    let (service, proxy) = one_connection().await;
    let mut peer = service.accept_with(&[]).await;
    let mut client = start(&proxy, Request::get("/").body(()).unwrap()).await;
    for _ in 0..5 {
        let head = peer.expect_headers().await;
        peer.rst_stream(head.stream, Reason::REFUSED_STREAM).await;
    }
    assert_eq!(client.head().await.unwrap().status(), Ok(503));
    let counts = proxy.counts();
    assert_eq!((counts.retries, counts.faults), ([("refused_stream", 4)].into(), [("stream_refused", 1)].into()));
}

#[tokio::test]
async fn a_request_that_may_have_been_processed_is_not_sent_again() {
    for code in [Reason::INTERNAL_ERROR, Reason::CANCEL, Reason::ENHANCE_YOUR_CALM, Reason::NO_ERROR] {
        let (service, proxy) = one_connection().await;
        let mut peer = service.accept_with(&[]).await;
        let mut client = start(&proxy, Request::get("/").body(()).unwrap()).await;
        let head = peer.expect_headers().await;
        peer.rst_stream(head.stream, code).await;
        assert_eq!(client.head().await.unwrap().status(), Ok(502), "{code:?}");
        assert_eq!(proxy.counts().retries, [].into(), "{code:?}");
    }
}

#[tokio::test]
async fn a_request_whose_connection_is_lost_after_its_head_is_not_sent_again() {
    let (service, proxy) = one_connection().await;
    let mut peer = service.accept_with(&[]).await;
    let mut client = start(&proxy, Request::get("/").body(()).unwrap()).await;
    peer.expect_headers().await;
    peer.abort().await;
    assert_eq!(client.head().await.unwrap().status(), Ok(502));
    assert_eq!(proxy.counts().retries, [].into());
}

/// The GOAWAY says that the stream may be processed, whatever it says of the connection.
#[tokio::test]
async fn a_request_that_a_goaway_covers_is_not_sent_again_when_the_connection_is_then_lost() {
    for code in [Reason::NO_ERROR, Reason::INTERNAL_ERROR, Reason::ENHANCE_YOUR_CALM] {
        let (service, proxy) = one_connection().await;
        let mut peer = service.accept_with(&[]).await;
        let mut client = start(&proxy, Request::get("/").body(()).unwrap()).await;
        let head = peer.expect_headers().await;
        peer.goaway(head.stream, code).await;
        peer.close().await;
        assert_eq!(client.head().await.unwrap().status(), Ok(502), "{code:?}");
        assert_eq!(proxy.counts().retries, [].into(), "{code:?}");
    }
}

/// Whether the worker learns of the end before or after it is given the request is a matter of chance.
#[tokio::test]
async fn a_request_that_meets_a_connection_which_has_just_ended_is_answered() {
    let (service, proxy) = one_connection().await;
    let mut client = client::h1(proxy.address()).await;
    for round in 0..100 {
        client.start(&Request::get("/first").body(()).unwrap(), false).await.unwrap();
        let mut peer = service.accept_with(&[]).await;
        let head = peer.expect_headers().await;
        peer.answer(&head, 200, "first").await;
        client.head().await.unwrap();
        client.body().await.unwrap();
        peer.abort().await;
        client.start(&Request::post("/second").body(()).unwrap(), false).await.unwrap();
        let mut peer = service.accept_with(&[]).await;
        let head = peer.expect_headers().await;
        peer.answer(&head, 200, "second").await;
        assert_eq!(client.head().await.unwrap().status(), Ok(200), "round {round}: {:?}", proxy.counts());
        assert_eq!(client.body().await.unwrap(), "second");
        peer.abort().await;
    }
    assert_eq!(proxy.counts().faults, [].into());
}

#[tokio::test]
async fn what_could_not_be_sent_to_one_endpoint_goes_to_the_next_whatever_the_reason() {
    let closing = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = closing.local_addr().unwrap();
    // Something that accepts for a service which is not there, and needs a moment to find out.
    tokio::spawn(async move {
        while let Ok((accepted, _)) = closing.accept().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
            drop(accepted);
        }
    });
    let origin = origin::h2().start();
    let pool = "max_connections: 1, pending_timeout: 400ms";
    let proxy = proxy::on_one_worker(&format!(
        "upstreams: {{ a: {{ endpoints: [\"h2c://{address}\", \"h2c://{origin}\"], balance: round_robin, pool: {{ {pool} }} }} }}\n"
    ));
    for _ in 0..3 {
        assert_eq!(client::h1(proxy.address()).await.post("/echo", "whole").await.text(), "whole");
    }
    assert_eq!(proxy.faults(), [].into());
}
