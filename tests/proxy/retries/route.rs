//! What a route wants to be tried again, although the service may have seen it.
//!
//! RFC 9110 §9.2.2.

use bytes::Bytes;
use h2::Reason;
use http::Request;

use super::{answered, start};
use crate::harness::proxy::{self, Proxy};
use crate::harness::scripted::frame::{END_STREAM, Frame, INITIAL_WINDOW_SIZE, OPEN};
use crate::harness::scripted::{self, Service};
use crate::harness::wire::Broken;
use crate::harness::{client, origin};

/// A proxy on one worker with one connection to each of `endpoints`, whose budget is no hindrance.
fn retrying(endpoints: &str, route: &str) -> Proxy {
    with_budget(endpoints, route, "percent: 100, min_per_second: 100")
}

fn with_budget(endpoints: &str, route: &str, budget: &str) -> Proxy {
    let pool = "max_connections: 1, pending_timeout: 20s";
    proxy::on_one_worker(&format!(
        "upstreams: {{ a: {{ endpoints: [{endpoints}], balance: round_robin, pool: {{ {pool} }}, \
         retry_budget: {{ {budget} }} }} }}\nroutes: [{{ upstream: a, {route} }}]\n"
    ))
}

async fn before_service(route: &str) -> (Service, Proxy) {
    let service = scripted::service().await;
    let proxy = retrying(&format!("\"h2c://{service}\""), route);
    (service, proxy)
}

fn get() -> Request<()> {
    Request::get("/").body(()).unwrap()
}

fn put(length: usize) -> Request<()> {
    Request::put("/orders?n=1").header("x-request-id", "the id").header("content-length", length).body(()).unwrap()
}

#[tokio::test]
async fn a_stream_that_is_reset_is_tried_again() {
    let (service, proxy) = before_service("retry: { when: [reset] }").await;
    let mut peer = service.accept_with(&[]).await;
    let client = start(&proxy, get()).await;
    let first = peer.expect_headers().await;
    peer.rst_stream(first.stream, Reason::INTERNAL_ERROR).await;
    let second = peer.expect_headers().await;
    assert_eq!(second.fields, first.fields);
    peer.answer(&second, 200, "second").await;
    answered(client, "second").await;
    let counts = proxy.counts();
    assert_eq!((counts.route_retries, counts.retries, counts.faults), ([("reset", 1)].into(), [].into(), [].into()));
}

#[tokio::test]
async fn a_lost_connection_is_followed_by_another() {
    let (service, proxy) = before_service("retry: { when: [reset] }").await;
    let mut old = service.accept_with(&[]).await;
    let client = start(&proxy, get()).await;
    old.expect_headers().await;
    old.abort().await;
    let mut new = service.accept_with(&[]).await;
    let head = new.expect_headers().await;
    new.answer(&head, 200, "new").await;
    answered(client, "new").await;
}

#[tokio::test]
async fn the_client_sees_the_last_answer_and_nothing_of_the_others() {
    for last in [200, 503, 404] {
        let (service, proxy) = before_service("retry: { attempts: 3, when: [\"503\"] }").await;
        let mut peer = service.accept_with(&[]).await;
        let client = start(&proxy, get()).await;
        for (try_number, status) in [("1", 503), ("2", 503), ("3", last)] {
            let head = peer.expect_headers().await;
            peer.headers(head.stream, status, &[("x-try", try_number)], OPEN).await;
            peer.data(head.stream, format!("body {try_number}"), END_STREAM).await;
        }
        let response = client.into_raw().expect_response().await;
        assert_eq!((response.status(), response.header("x-try"), response.text()), (last, Some("3"), "body 3"));
        let counts = proxy.counts();
        assert_eq!((counts.route_retries, counts.retry_budget_exhausted), ([("status", 2)].into(), 0));
    }
}

#[tokio::test]
async fn an_answer_that_nobody_gets_is_reset_unless_it_is_complete() {
    let (service, proxy) = before_service("retry: { when: [\"503\"] }").await;
    let mut peer = service.accept_with(&[]).await;
    for is_complete in [false, true] {
        let client = start(&proxy, get()).await;
        let first = peer.expect_headers().await;
        peer.headers(first.stream, 503, &[], if is_complete { END_STREAM } else { OPEN }).await;
        if !is_complete {
            assert_eq!(peer.expect_rst(first.stream).await, Reason::CANCEL);
        }
        let second = peer.expect_headers().await;
        peer.answer(&second, 200, "second").await;
        answered(client, "second").await;
        let frames = peer.gather().await;
        assert!(!frames.iter().any(|frame| matches!(frame, Frame::Reset { .. })), "{frames:?}");
    }
}

#[tokio::test]
async fn a_try_without_an_answer_is_given_up_and_the_last_one_is_not() {
    let origin = origin::h2().start();
    let proxy = retrying(&format!("\"h2c://{origin}\""), "retry: { per_try_timeout: 100ms }");
    let response = client::h1(proxy.address()).await.get("/delay/300").await;
    assert_eq!((response.status(), response.text()), (200, "slow"));
    let counts = proxy.counts();
    assert_eq!((counts.route_retries, counts.resets_sent), ([("per_try_timeout", 1)].into(), [("CANCEL", 1)].into()));
}

#[tokio::test]
async fn the_time_for_the_answer_bounds_all_tries_together() {
    let origin = origin::h2().start();
    let timeouts = "timeouts: { response_header: 300ms }";
    let retry = "retry: { attempts: 5, per_try_timeout: 100ms }";
    let proxy = retrying(&format!("\"h2c://{origin}\""), &format!("{timeouts}, {retry}"));
    assert_eq!(client::h1(proxy.address()).await.get("/hang").await.status(), 504);
    let counts = proxy.counts();
    assert_eq!(counts.faults, [("response_head_timeout", 1)].into());
    assert!((1..=3).contains(&counts.route_retries["per_try_timeout"]), "{counts:?}");
}

#[tokio::test]
async fn a_post_is_never_tried_again_once_it_was_sent() {
    let (service, proxy) = before_service("retry: { attempts: 5, when: [connect_failure, reset, \"503\"] }").await;
    let mut peer = service.accept_with(&[]).await;
    let post = || Request::post("/").header("content-length", "0").body(()).unwrap();
    let mut client = start(&proxy, post()).await;
    let head = peer.expect_headers().await;
    peer.rst_stream(head.stream, Reason::INTERNAL_ERROR).await;
    assert_eq!(client.head().await.unwrap().status(), Ok(502));
    let mut client = start(&proxy, post()).await;
    let head = peer.expect_headers().await;
    peer.answer(&head, 503, "busy").await;
    assert_eq!(client.head().await.unwrap().status(), Ok(503));
    let counts = proxy.counts();
    assert_eq!((counts.route_retries, counts.retry_budget_exhausted), ([].into(), 0));
}

#[tokio::test]
async fn a_post_that_takes_long_is_not_given_up_for_another() {
    let origin = origin::h2().start();
    let proxy = retrying(&format!("\"h2c://{origin}\""), "retry: { per_try_timeout: 50ms }");
    let response = client::h1(proxy.address()).await.post("/delay/200", "").await;
    assert_eq!((response.status(), proxy.counts().route_retries), (200, [].into()));
}

#[tokio::test]
async fn the_number_of_tries_is_kept() {
    for attempts in 1..=5 {
        let (service, proxy) = before_service(&format!("retry: {{ attempts: {attempts}, when: [reset] }}")).await;
        let mut peer = service.accept_with(&[]).await;
        let mut client = start(&proxy, get()).await;
        for _ in 0..attempts {
            let head = peer.expect_headers().await;
            peer.rst_stream(head.stream, Reason::INTERNAL_ERROR).await;
        }
        assert_eq!(client.head().await.unwrap().status(), Ok(502));
        let counts = proxy.counts();
        assert_eq!(counts.route_retries.values().sum::<u64>(), attempts - 1);
        assert_eq!(counts.faults, [("stream_reset", 1)].into());
    }
}

#[tokio::test]
async fn a_try_that_was_refused_is_none() {
    let (service, proxy) = before_service("retry: { attempts: 2, when: [reset] }").await;
    let mut peer = service.accept_with(&[]).await;
    let client = start(&proxy, get()).await;
    for code in [Reason::REFUSED_STREAM, Reason::REFUSED_STREAM, Reason::INTERNAL_ERROR, Reason::REFUSED_STREAM] {
        let head = peer.expect_headers().await;
        peer.rst_stream(head.stream, code).await;
    }
    let head = peer.expect_headers().await;
    peer.answer(&head, 200, "fifth").await;
    answered(client, "fifth").await;
    let counts = proxy.counts();
    assert_eq!((counts.route_retries, counts.retries), ([("reset", 1)].into(), [("refused_stream", 3)].into()));
}

#[tokio::test]
async fn an_answer_that_has_begun_is_not_tried_again() {
    let (service, proxy) = before_service("retry: { attempts: 5, when: [reset] }").await;
    let mut peer = service.accept_with(&[]).await;
    let mut client = start(&proxy, get()).await;
    let head = peer.expect_headers().await;
    peer.headers(head.stream, 200, &[], OPEN).await;
    assert_eq!(client.head().await.unwrap().status(), Ok(200));
    peer.rst_stream(head.stream, Reason::INTERNAL_ERROR).await;
    assert!(matches!(client.body().await, Err(Broken::ClosedInBody { .. } | Broken::Reset)));
    assert_eq!(proxy.counts().route_retries, [].into());
}

#[tokio::test]
async fn another_endpoint_is_tried_first() {
    let (failing, other) = (scripted::service().await, scripted::service().await);
    let endpoints = format!("\"h2c://{failing}\", \"h2c://{other}\"");
    let proxy = retrying(&endpoints, "retry: { when: [\"500\"] }");
    let (mut failing, mut other) = tokio::join!(failing.accept_with(&[]), other.accept_with(&[]));
    // One of two in turn goes to the endpoint that fails.
    for _ in 0..2 {
        let client = start(&proxy, get()).await;
        let head = tokio::select! {
            head = other.expect_headers() => head,
            head = failing.expect_headers() => {
                failing.answer(&head, 500, "failed").await;
                other.expect_headers().await
            }
        };
        other.answer(&head, 200, "other").await;
        answered(client, "other").await;
    }
    assert_eq!(proxy.counts().route_retries, [("status", 1)].into());
}

#[tokio::test]
async fn a_body_of_64_kib_is_sent_again_and_a_longer_one_is_not() {
    const KIB: usize = 1024;
    for (length, status, attempts) in [(64 * KIB, 200, 2), (64 * KIB + 1, 502, 1)] {
        let (service, proxy) = before_service("retry: { when: [reset] }").await;
        let mut peer = service.accept_with(&[(INITIAL_WINDOW_SIZE, 1 << 20)]).await;
        peer.window_update(0, 1 << 20).await;
        let mut client = start(&proxy, put(length)).await.into_raw();
        client.send(vec![b'x'; length]).await;
        for attempt in 1..=attempts {
            let head = peer.expect_headers().await;
            assert_eq!(peer.expect_body(head.stream).await.len(), length);
            if attempt == attempts && status == 200 {
                peer.answer(&head, 200, "").await;
            } else {
                peer.rst_stream(head.stream, Reason::INTERNAL_ERROR).await;
            }
        }
        assert_eq!(client.expect_response().await.status(), status, "{length} bytes");
    }
}

#[tokio::test]
async fn what_the_budget_refuses_is_answered_as_it_is() {
    let service = scripted::service().await;
    let endpoint = format!("\"h2c://{service}\"");
    let retry = "retry: { attempts: 5, when: [\"503\"] }";
    let proxy = with_budget(&endpoint, retry, "percent: 50, min_per_second: 0");
    let mut peer = service.accept_with(&[]).await;
    // Each second request pays for one further try.
    for tries in [1, 2, 1, 2] {
        let client = start(&proxy, get()).await;
        for _ in 0..tries {
            let head = peer.expect_headers().await;
            peer.answer(&head, 503, "busy").await;
        }
        let response = client.into_raw().expect_response().await;
        assert_eq!((response.status(), response.text()), (503, "busy"));
    }
    let counts = proxy.counts();
    assert_eq!((counts.route_retries, counts.retry_budget_exhausted), ([("status", 2)].into(), 4));
    let metrics = proxy.metrics().await;
    let sum = |name: &str, labels: &[(&str, &str)]| metrics.sum(name, labels);
    let route = ("http_route", "route-1");
    assert!((sum("trunkline_route_retries_total", &[route, ("reason", "status")]) - 2.0).abs() < f64::EPSILON);
    assert!((sum("trunkline_retry_budget_exhausted_total", &[route]) - 4.0).abs() < f64::EPSILON);
}

/// Nothing has been sent, so that a POST with a long body has its tries as well.
#[tokio::test]
async fn a_service_that_cannot_be_reached_is_waited_for_once_more() {
    for scheme in ["h2c", "http1"] {
        let mut origin = if scheme == "h2c" { origin::h2() } else { origin::h1() }.start();
        origin.crash().await;
        let proxy = proxy::on_one_worker(&format!(
            "upstreams: {{ a: {{ endpoints: [\"{scheme}://{origin}\"], pool: {{ pending_timeout: 300ms }} }} }}\n\
             routes: [{{ upstream: a, retry: {{ attempts: 5, when: [connect_failure] }} }}]\n"
        ));
        let mut client = client::h1(proxy.address()).await;
        let body = Bytes::from(vec![b'x'; 100_000]);
        let request = Request::post("/upload").body(body).unwrap();
        let (response, ()) = tokio::join!(client.send(&request), async {
            proxy.wait_for(|counts| counts.route_retries.contains_key("connect_failure")).await;
            origin.restart();
        });
        assert_eq!(response.unwrap().text(), "100000", "{scheme}");
        assert_eq!(proxy.counts().faults, [].into());
    }
}

#[tokio::test]
async fn an_http1_connection_that_is_lost_is_followed_by_another_with_the_whole_body() {
    let service = origin::raw_h1().await;
    let proxy = retrying(&format!("\"http1://{service}\""), "retry: { attempts: 3, when: [reset] }");
    let mut client = start(&proxy, put(5)).await.into_raw();
    client.send("order").await;
    // The first try has it all, the second one only its head.
    for is_read in [true, false] {
        let mut connection = service.accept().await;
        if is_read {
            assert_eq!(connection.expect_request().await.body, "order");
        } else {
            connection.expect_head().await;
        }
        connection.abort();
    }
    let mut connection = service.accept().await;
    let request = connection.expect_request().await;
    assert_eq!((&request.body[..], request.head.header("x-request-id")), (&b"order"[..], Some("the id")));
    connection.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone").await;
    assert_eq!(client.expect_response().await.text(), "done");
    assert_eq!(proxy.counts().route_retries, [("reset", 2)].into());
}

#[tokio::test]
async fn an_http1_answer_that_is_not_wanted_is_not_seen() {
    let service = origin::raw_h1().await;
    let proxy = retrying(&format!("\"http1://{service}\""), "retry: { when: [\"500\"], per_try_timeout: 20s }");
    let mut client = start(&proxy, put(5)).await.into_raw();
    client.send("order").await;
    let mut first = service.accept().await;
    first.expect_request().await;
    first.send("HTTP/1.1 500 Oh\r\nx-try: 1\r\ncontent-length: 6\r\n\r\n").await;
    let mut second = service.accept().await;
    assert_eq!(second.expect_request().await.body, "order");
    second.send("HTTP/1.1 500 Oh\r\nx-try: 2\r\ncontent-length: 6\r\n\r\nfailed").await;
    let response = client.expect_response().await;
    assert_eq!((response.status(), response.header("x-try"), response.text()), (500, Some("2"), "failed"));
}

#[tokio::test]
async fn an_http1_try_without_an_answer_is_given_up() {
    let origin = origin::h1().start();
    let proxy = retrying(&format!("\"http1://{origin}\""), "retry: { per_try_timeout: 100ms }");
    let put = Request::put("/delay/300").body(Bytes::from("order")).unwrap();
    let response = client::h1(proxy.address()).await.send(&put).await.unwrap();
    assert_eq!((response.status(), response.text()), (200, "slow"));
    assert_eq!(proxy.counts().route_retries, [("per_try_timeout", 1)].into());
    let bodies: Vec<u64> = origin.log().requests.iter().map(|request| request.body_bytes).collect();
    assert_eq!(bodies, [0, 5], "the service reads it late");
}

/// Its body comes too late to be sent twice, and so its try has all the time that the service may take.
#[tokio::test]
async fn a_body_that_is_too_long_to_be_sent_again_has_one_try() {
    let origin = origin::h2().start();
    let proxy = retrying(&format!("\"h2c://{origin}\""), "retry: { per_try_timeout: 50ms }");
    let put = Request::put("/delay/200").body(Bytes::from(vec![b'x'; 70_000])).unwrap();
    let response = client::h1(proxy.address()).await.send(&put).await.unwrap();
    assert_eq!((response.status(), proxy.counts().route_retries), (200, [].into()));
}
