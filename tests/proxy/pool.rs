//! The connections to a service: its limits obeyed, their growth and end, the queue, and its absence.

mod lanes;
mod life;
mod turns;

use h2::Reason;
use http::Request;

use crate::harness::client::Client;
use crate::harness::load::{self, Load, judge};
use crate::harness::origin::Origin;
use crate::harness::origin::log::{Closing, Ending};
use crate::harness::proxy::Proxy;
use crate::harness::scripted::frame::MAX_CONCURRENT_STREAMS;
use crate::harness::scripted::{Frame, Head, Peer};
use crate::harness::watched::within;
use crate::harness::wire::Response;
use crate::harness::{client, origin, proxy, scripted};

// The peer's limit.

#[tokio::test]
async fn the_peers_stream_limit_holds_from_the_first_request_on() {
    let service = scripted::service().await;
    let proxy = pooled(&service, "max_connections: 1, pending_timeout: 20s");
    let mut peer = service.accept_with(&[(MAX_CONCURRENT_STREAMS, 10)]).await;
    let clients = ask(&proxy, 15).await;
    proxy.wait_for(|counts| counts.pending == 5).await;
    let mut heads = gather_heads(&mut peer).await;
    assert_eq!(heads.len(), 10);
    // Each answer lets the next one through.
    for at in 0..15 {
        if at >= heads.len() {
            heads.push(peer.expect_headers().await);
        }
        peer.answer(&heads[at], 200, "ok").await;
    }
    for client in clients {
        assert_eq!(rest(client).await.status(), 200);
    }
}

#[tokio::test]
async fn a_limit_that_falls_and_rises_while_streams_run_is_followed() {
    let service = scripted::service().await;
    let proxy = pooled(&service, "max_connections: 1, pending_timeout: 20s");
    let mut peer = service.accept_with(&[(MAX_CONCURRENT_STREAMS, 100)]).await;
    let _first = ask(&proxy, 3).await;
    let running = [peer.expect_headers().await, peer.expect_headers().await, peer.expect_headers().await];
    peer.settings(&[(MAX_CONCURRENT_STREAMS, 1)]).await;
    expect_settings_seen(&mut peer).await;
    let _waiting = ask(&proxy, 2).await;
    proxy.wait_for(|counts| counts.pending == 2).await;
    peer.answer(&running[0], 200, "").await;
    peer.answer(&running[1], 200, "").await;
    proxy.wait_for(|counts| counts.streams == 1).await;
    assert_eq!(gather_heads(&mut peer).await.len(), 0, "one stream runs, and one is allowed");
    peer.settings(&[(MAX_CONCURRENT_STREAMS, 100)]).await;
    peer.expect_headers().await;
    peer.expect_headers().await;
}

#[tokio::test]
async fn a_limit_of_zero_holds_requests_back_until_it_rises() {
    let service = scripted::service().await;
    let proxy = pooled(&service, "max_connections: 1, pending_timeout: 20s");
    let mut peer = service.accept_with(&[(MAX_CONCURRENT_STREAMS, 0)]).await;
    let clients = ask(&proxy, 2).await;
    proxy.wait_for(|counts| counts.pending == 2).await;
    assert_eq!(gather_heads(&mut peer).await.len(), 0);
    peer.settings(&[(MAX_CONCURRENT_STREAMS, 2)]).await;
    for _ in 0..2 {
        let head = peer.expect_headers().await;
        peer.answer(&head, 200, "").await;
    }
    for client in clients {
        assert_eq!(rest(client).await.status(), 200);
    }
}

// Growth.

#[tokio::test]
async fn one_connection_carries_all_below_its_mark_and_another_comes_above_it() {
    let origin = origin::h2().start();
    let proxy = pooled(&origin, "max_connections: 4, max_streams_per_connection: 8");
    let mut clients = Vec::new();
    // The mark is three quarters of the limit.
    for streams in 1..=6 {
        clients.extend(hang(&proxy, 1).await);
        origin.wait_for(|log| log.streams_open() == streams).await;
    }
    assert_eq!(proxy.counts().opened, [("startup", 1)].into());
    clients.extend(hang(&proxy, 1).await);
    origin.wait_for(|log| log.connections_open == 2).await;
    proxy.wait_for(|counts| counts.opened == [("startup", 1), ("streams", 1)].into()).await;
}

#[tokio::test]
async fn waiting_requests_open_connections_up_to_the_cap_and_no_more() {
    let origin = origin::h2().start();
    let proxy = pooled(&origin, "max_connections: 3, max_streams_per_connection: 2, pending_timeout: 20s");
    let _clients = hang(&proxy, 10).await;
    origin.wait_for(|log| log.streams_open() == 6).await;
    proxy.wait_for(|counts| counts.pending == 4 && counts.active == 3).await;
    assert_eq!(origin.log().connections_open_max, 3);
}

// The queue.

#[tokio::test]
async fn a_full_queue_is_answered_503_at_once() {
    let origin = origin::h2().start();
    let proxy = pooled(&origin, &one_place("max_pending: 2, pending_timeout: 1h"));
    // The first has the place before the others come: while the connection is dialled it would wait as well.
    let _running = hang(&proxy, 1).await;
    proxy.wait_for(|counts| counts.streams == 1).await;
    let _waiting = hang(&proxy, 2).await;
    proxy.wait_for(|counts| counts.pending == 2).await;
    let refused = client::h1(proxy.address()).await.get("/status/200").await;
    assert_fault(&refused, 503, "connection_limit_reached");
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(proxy.counts().rejected, [("full", 1)].into());
}

#[tokio::test]
async fn waiting_requests_are_served_first_in_first_out() {
    let service = scripted::service().await;
    let proxy = pooled(&service, &one_place("pending_timeout: 20s"));
    let mut peer = service.accept_with(&[]).await;
    let mut clients = Vec::new();
    for at in 0..6 {
        let mut client = client::h1(proxy.address()).await;
        client.start(&Request::get(format!("/{at}")).body(()).unwrap(), false).await.unwrap();
        proxy.wait_for(|counts| counts.streams == 1 && counts.pending == at).await;
        clients.push(client);
    }
    for at in 0..6 {
        let head = peer.expect_headers().await;
        assert_eq!(head.field(":path"), format!("/{at}"));
        peer.answer(&head, 200, "").await;
    }
}

#[tokio::test]
async fn a_client_that_leaves_the_queue_frees_its_place() {
    let service = scripted::service().await;
    let proxy = pooled(&service, &one_place("max_pending: 2, pending_timeout: 20s"));
    let mut peer = service.accept_with(&[]).await;
    let mut running = ask(&proxy, 1).await;
    let head = peer.expect_headers().await;
    let mut waiting = ask(&proxy, 2).await;
    proxy.wait_for(|counts| counts.pending == 2).await;
    waiting.remove(0).abort();
    proxy.wait_for(|counts| counts.pending == 1).await;
    waiting.extend(ask(&proxy, 1).await);
    proxy.wait_for(|counts| counts.pending == 2).await;
    peer.answer(&head, 200, "").await;
    for _ in 0..2 {
        let head = peer.expect_headers().await;
        peer.answer(&head, 200, "").await;
    }
    for client in running.drain(..).chain(waiting) {
        assert_eq!(rest(client).await.status(), 200);
    }
    assert_eq!(proxy.counts().rejected, [].into());
}

#[tokio::test]
async fn a_request_that_waits_longer_than_pending_timeout_is_answered_503() {
    let origin = origin::h2().start();
    let proxy = pooled(&origin, &one_place("pending_timeout: 50ms"));
    let _running = hang(&proxy, 1).await;
    origin.wait_for(|log| log.streams_open() == 1).await;
    let refused = client::h1(proxy.address()).await.get("/status/200").await;
    assert_fault(&refused, 503, "connection_limit_reached");
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(proxy.counts().rejected, [("timeout", 1)].into());
}

// GOAWAY and loss.

#[tokio::test]
async fn goaway_moves_new_requests_to_a_fresh_connection_and_finishes_the_old_ones() {
    let service = scripted::service().await;
    let proxy = pooled(&service, "max_connections: 1, pending_timeout: 20s");
    let mut old_peer = service.accept_with(&[]).await;
    let old = ask(&proxy, 2).await;
    let old_heads = [old_peer.expect_headers().await, old_peer.expect_headers().await];
    old_peer.goaway((1 << 31) - 1, Reason::NO_ERROR).await;
    // Every frame before the answer to this has been seen.
    assert_eq!(gather_heads(&mut old_peer).await.len(), 0);
    let new = ask(&proxy, 1).await;
    let mut new_peer = service.accept_with(&[]).await;
    let new_head = new_peer.expect_headers().await;
    new_peer.answer(&new_head, 200, "new").await;
    old_peer.goaway(old_heads[1].stream, Reason::NO_ERROR).await;
    for head in &old_heads {
        old_peer.answer(head, 200, "old").await;
    }
    for client in new {
        assert_eq!(rest(client).await.text(), "new");
    }
    for client in old {
        assert_eq!(rest(client).await.text(), "old");
    }
    old_peer.expect_closed().await;
}

#[tokio::test]
async fn goaway_every_hundred_requests_loses_nothing_under_load() {
    let origin = origin::h2().goaway_every(100).start();
    let connections = lose_nothing(&origin, "max_connections: 2, pending_timeout: 20s").await;
    assert!(connections >= 20, "{connections} connections");
}

#[tokio::test]
async fn a_lost_connection_fails_its_streams_and_the_next_request_works() {
    let origin = origin::h2().start();
    let proxy = pooled(&origin, "max_connections: 1");
    let clients = hang(&proxy, 3).await;
    origin.wait_for(|log| log.streams_open() == 3).await;
    origin.abort();
    for client in clients {
        assert_fault(&rest(client).await, 502, "connection_terminated");
    }
    assert_eq!(client::h1(proxy.address()).await.get("/status/200").await.status(), 200);
    assert_eq!(proxy.counts().closed, [("lost", 1)].into());
}

// Idle connections.

#[tokio::test]
async fn an_idle_connection_is_closed_after_idle_timeout() {
    let origin = origin::h2().start();
    let proxy = pooled(&origin, "max_connections: 1, idle_timeout: 100ms");
    assert_eq!(client::h1(proxy.address()).await.get("/status/200").await.status(), 200);
    origin.wait_for(|log| log.connections.len() == 1 && log.connections_open == 0).await;
    let closing = origin.log().connections[0].closed.as_ref().map(|(closing, _)| closing.clone());
    assert_eq!(closing, Some(Closing::Clean));
    assert_eq!(client::h1(proxy.address()).await.get("/status/200").await.status(), 200);
}

#[tokio::test]
async fn as_many_idle_connections_as_min_connections_says_stay() {
    let origin = origin::h2().start();
    let pool = "min_connections: 1, max_connections: 2, max_streams_per_connection: 1, idle_timeout: 100ms";
    let proxy = pooled(&origin, pool);
    // The second round shows that the first connection outlived the end of the other.
    for round in 1..=2 {
        let clients = hang(&proxy, 2).await;
        origin.wait_for(|log| log.streams_open() == 2).await;
        drop(clients);
        origin.wait_for(|log| log.connections.len() == 1 + round && log.connections_open == 1).await;
    }
    assert!(origin.log().connections[0].closed.is_none());
}

// Clients that leave.

#[tokio::test]
async fn a_client_that_leaves_has_its_stream_cancelled_and_its_place_is_free() {
    let service = scripted::service().await;
    let proxy = pooled(&service, &one_place("pending_timeout: 20s"));
    let mut peer = service.accept_with(&[]).await;
    let mut leaving = ask(&proxy, 1).await;
    let head = peer.expect_headers().await;
    let staying = ask(&proxy, 1).await;
    proxy.wait_for(|counts| counts.pending == 1).await;
    leaving.remove(0).abort();
    assert_eq!(peer.expect_rst(head.stream).await, Reason::CANCEL);
    let head = peer.expect_headers().await;
    peer.answer(&head, 200, "").await;
    for client in staying {
        assert_eq!(rest(client).await.status(), 200);
    }
}

#[tokio::test]
async fn five_hundred_clients_that_leave_at_once_hurt_neither_siblings_nor_connections() {
    let origin = origin::h2().max_concurrent_streams(1000).start();
    let proxy = proxy::with(&yaml(&origin, 2, "max_connections: 2, max_streams_per_connection: 400"));
    let leaving = hang(&proxy, 500).await;
    let mut sibling = client::h1(proxy.address()).await;
    sibling.start(&Request::get("/stream/200?every=5").body(()).unwrap(), false).await.unwrap();
    sibling.head().await.unwrap();
    origin.wait_for(|log| log.streams_open() == 501).await;
    let connections = origin.log().connections.len();
    for client in leaving {
        client.abort();
    }
    origin.wait_for(|log| log.ended(Ending::ResetByPeer(Reason::CANCEL)) == 500).await;
    let events = sibling.body().await.unwrap();
    assert!(events.ends_with(b"id: 199\ndata: \n\n"), "{} bytes", events.len());
    let log = origin.log();
    assert_eq!((log.connections.len(), log.connections_open), (connections, connections));
}

// Absence.

#[tokio::test]
async fn a_service_that_is_away_for_a_moment_loses_no_request() {
    let mut origin = origin::h2().start();
    let proxy = pooled(&origin, "max_connections: 1, pending_timeout: 9s");
    assert_eq!(client::h1(proxy.address()).await.get("/status/200").await.status(), 200);
    origin.crash().await;
    proxy.wait_for(|counts| counts.closed_total() == 1).await;
    let clients = ask(&proxy, 20).await;
    proxy.wait_for(|counts| counts.pending == 20).await;
    origin.restart();
    for client in clients {
        assert_eq!(rest(client).await.status(), 200);
    }
}

#[tokio::test]
async fn a_service_that_stays_away_is_answered_503_at_once_until_it_is_back() {
    let mut origin = origin::h2().start();
    let proxy = pooled(&origin, "max_connections: 1, pending_timeout: 1h");
    proxy.wait_for(|counts| counts.active == 1).await;
    origin.crash().await;
    proxy.wait_for(|counts| counts.closed_total() == 1).await;
    // Whoever waits is told as soon as the absence is no longer a short one.
    let waiting = ask(&proxy, 1).await;
    for client in waiting {
        assert_eq!(rest(client).await.status(), 502);
    }
    let refused = client::h1(proxy.address()).await.get("/status/200").await;
    assert_fault(&refused, 503, "destination_unavailable");
    assert_eq!(refused.header("retry-after"), Some("1"));
    origin.restart();
    // No request was let through to find out: the pool dials by itself.
    origin.wait_for(|log| log.connections_open == 1).await;
    within("service that is no longer down", async {
        while proxy.control().endpoints().iter().any(|(_, _, is_down)| *is_down) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(client::h1(proxy.address()).await.get("/status/200").await.status(), 200);
}

/// A proxy with one worker, so that there is one queue, before one HTTP/2 endpoint with this pool.
fn pooled(endpoint: &impl std::fmt::Display, pool: &str) -> Proxy {
    proxy::with(&yaml(endpoint, 1, pool))
}

fn yaml(endpoint: &impl std::fmt::Display, workers: usize, pool: &str) -> String {
    format!(
        "runtime: {{ workers: {workers} }}\n\
         upstreams: {{ up: {{ endpoints: [\"h2c://{endpoint}\"], pool: {{ {pool} }} }} }}"
    )
}

/// Loads two workers, and returns how many connections that has taken.
async fn lose_nothing(origin: &Origin, pool: &str) -> usize {
    let proxy = proxy::with(&yaml(origin, 2, pool));
    let load = Load { connections: 32, requests: 5000, body_bytes: 0..=1024, ..Load::default() };
    let client = load::start(proxy.address(), load).finish().await;
    let log = origin.log();
    let verdict = judge(&client, [&*log]);
    verdict.assert_clean();
    assert_eq!(verdict.answered, 5000, "{verdict:?}");
    log.connections.len()
}

/// A pool where one request runs and the others wait.
fn one_place(rest: &str) -> String {
    format!("max_connections: 1, max_streams_per_connection: 1, {rest}")
}

/// Clients that have each sent a request that a script will answer.
async fn ask(proxy: &Proxy, count: usize) -> Vec<Client> {
    start(proxy, count, "/ask").await
}

/// Clients whose requests a real origin does not answer.
async fn hang(proxy: &Proxy, count: usize) -> Vec<Client> {
    start(proxy, count, "/hang").await
}

async fn start(proxy: &Proxy, count: usize, target: &str) -> Vec<Client> {
    let mut clients = Vec::with_capacity(count);
    for _ in 0..count {
        let mut client = client::h1(proxy.address()).await;
        client.start(&Request::get(target).body(()).unwrap(), false).await.unwrap();
        clients.push(client);
    }
    clients
}

/// The answer to a request that was sent before.
async fn rest(client: Client) -> Response {
    client.into_raw().expect_response().await
}

#[track_caller]
fn assert_fault(response: &Response, status: u16, error: &str) {
    let expected = format!("trunkline; error={error}");
    assert_eq!((response.status(), response.header("proxy-status")), (status, Some(expected.as_str())));
}

/// The request heads among all that has come.
async fn gather_heads(peer: &mut Peer) -> Vec<Head> {
    let frames = peer.gather().await.into_iter();
    frames.filter_map(|frame| if let Frame::Headers(head) = frame { Some(head) } else { None }).collect()
}

/// Expects the acknowledgements of the SETTINGS at the start and of those sent since.
async fn expect_settings_seen(peer: &mut Peer) {
    peer.expect_settings_ack().await;
    peer.expect_settings_ack().await;
}
