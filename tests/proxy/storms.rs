//! Clients that leave in a storm: their streams are cancelled, and the service sees no attack (CVE-2023-44487).

use h2::Reason;
use http::Request;

use crate::harness::client::{self, Client};
use crate::harness::origin;
use crate::harness::proxy::{self, Proxy};
use crate::harness::scripted::frame::{Frame, MAX_CONCURRENT_STREAMS, OPEN};
use crate::harness::scripted::{self, Head, Peer, Service};

/// A proxy on one worker, and the one connection of 100 streams that it has to its service.
async fn one_connection() -> (Service, Proxy, Peer) {
    let service = scripted::service().await;
    let pool = "max_connections: 1, pending_timeout: 20s";
    let yaml = format!("upstreams: {{ a: {{ endpoints: [\"h2c://{service}\"], pool: {{ {pool} }} }} }}\n");
    let proxy = proxy::on_one_worker(&yaml);
    let peer = service.accept_with(&[(MAX_CONCURRENT_STREAMS, 100)]).await;
    (service, proxy, peer)
}

async fn ask(proxy: &Proxy, target: &str, count: usize) -> Vec<Client> {
    let mut clients = Vec::new();
    while clients.len() < count {
        let mut client = client::h1(proxy.address()).await;
        client.start(&Request::get(target).body(()).unwrap(), false).await.unwrap();
        clients.push(client);
    }
    clients
}

async fn heads(peer: &mut Peer, count: usize) -> Vec<Head> {
    let mut heads = Vec::new();
    while heads.len() < count {
        heads.push(peer.expect_headers().await);
    }
    heads
}

/// Has all of them leave, and waits until the proxy knows; `staying` do not.
async fn leave(proxy: &Proxy, clients: Vec<Client>, staying: i64) {
    clients.into_iter().for_each(Client::abort);
    proxy.wait_for(|counts| counts.requests_in_flight == staying).await;
}

/// The streams that have been reset since the last look.
async fn resets(peer: &mut Peer) -> Vec<u32> {
    let cancelled = |frame: Frame| match frame {
        Frame::Reset { stream, code } => {
            assert_eq!(code, Reason::CANCEL);
            Some(stream)
        }
        _ => None,
    };
    peer.gather().await.into_iter().filter_map(cancelled).collect()
}

#[tokio::test]
async fn clients_that_leave_once_are_all_cancelled_at_once() {
    let (_service, proxy, mut peer) = one_connection().await;
    let clients = ask(&proxy, "/", 100).await;
    let mut open: Vec<u32> = heads(&mut peer, 100).await.iter().map(|head| head.stream).collect();
    leave(&proxy, clients, 0).await;
    while !open.is_empty() {
        let reset = resets(&mut peer).await;
        open.retain(|stream| !reset.contains(stream));
    }
    assert_eq!((proxy.counts().resets_sent, proxy.counts().streams), ([("CANCEL", 100)].into(), 0));
}

/// The service is as strict as the strictest that we know of: Netty ends a connection at the 201st reset within 30 s.
#[tokio::test]
async fn three_thousand_clients_that_leave_in_waves_do_not_make_a_strict_service_end_the_connection() {
    const RESETS_MAX: usize = 200;
    let (_service, proxy, mut peer) = one_connection().await;
    let staying = ask(&proxy, "/", 10).await;
    let kept = heads(&mut peer, 10).await;
    let mut resets_seen = 0;
    for wave in 0..34 {
        let clients = ask(&proxy, "/", 90).await;
        let heads = heads(&mut peer, 90).await;
        leave(&proxy, clients, 10).await;
        // The first wave is cancelled without a word from the service.
        while wave == 0 && resets_seen < 90 {
            resets_seen += resets(&mut peer).await.len();
        }
        // Those after it have had their moment as well when one of them has been reset.
        let cancelled = proxy.counts().resets_sent["CANCEL"];
        proxy.wait_for(|counts| wave == 0 || wave > 8 || counts.resets_sent["CANCEL"] > cancelled).await;
        for head in &heads {
            peer.answer(head, 200, "unwanted").await;
        }
        // Who has to wait for a place that is held like this gets a connection beside it, which is not the matter here.
        proxy.wait_for(|counts| counts.streams == 10).await;
    }
    resets_seen += resets(&mut peer).await.len();
    assert!((100..=RESETS_MAX).contains(&resets_seen), "{resets_seen}");
    for head in &kept {
        peer.answer(head, 200, "sibling").await;
    }
    for client in staying {
        assert_eq!(client.into_raw().expect_response().await.text(), "sibling");
    }
    let counts = proxy.counts();
    assert_eq!(counts.resets_sent, [("CANCEL", resets_seen as u64)].into());
    assert_eq!((counts.closed_total(), counts.streams), (0, 0));
    assert_eq!(counts.faults, [("client_gone", 34 * 90)].into());
}

#[tokio::test]
async fn what_waits_for_its_reset_is_read_up_to_a_bound_and_reset_in_its_turn() {
    let (_service, proxy, mut peer) = one_connection().await;
    let clients = ask(&proxy, "/", 100).await;
    heads(&mut peer, 100).await;
    leave(&proxy, clients, 0).await;
    let clients = ask(&proxy, "/", 1).await;
    let head = peer.expect_headers().await;
    leave(&proxy, clients, 0).await;
    peer.headers(head.stream, 200, &[], OPEN).await;
    // The whole window of a stream.
    for _ in 0..16 {
        peer.data(head.stream, vec![b'x'; 16 * 1024], OPEN).await;
    }
    let mut window = 0;
    loop {
        let frames = peer.gather().await;
        window += frames
            .iter()
            .map(|frame| match frame {
                Frame::WindowUpdate { stream, bytes } if *stream == head.stream => *bytes,
                _ => 0,
            })
            .sum::<u32>();
        if frames.contains(&Frame::Reset { stream: head.stream, code: Reason::CANCEL }) {
            break;
        }
    }
    assert!(window <= 64 * 1024, "{window}");
    assert_eq!((proxy.counts().resets_sent, proxy.counts().streams), ([("CANCEL", 101)].into(), 0));
}

#[tokio::test]
async fn streams_that_wait_for_their_reset_take_nobodys_place() {
    let (service, proxy, mut peer) = one_connection().await;
    for _ in 0..2 {
        let clients = ask(&proxy, "/", 100).await;
        heads(&mut peer, 100).await;
        leave(&proxy, clients, 0).await;
        // Those of the first wave are reset at once, those of the second would be within 40 s.
        proxy.wait_for(|counts| counts.resets_sent.get("CANCEL").is_some_and(|resets| *resets >= 100)).await;
    }
    // Some find a place that has become free meanwhile.
    let _clients = ask(&proxy, "/", 20).await;
    let mut fresh = service.accept_with(&[]).await;
    fresh.expect_headers().await;
}

/// Had they been reset at once, each would have been; and h2's server ends a connection for the 21st that comes before it
/// has looked at the stream.
#[tokio::test]
async fn an_answer_that_is_on_its_way_is_taken_and_its_stream_is_not_reset() {
    let (_service, proxy, mut peer) = one_connection().await;
    for _ in 0..50 {
        let clients = ask(&proxy, "/", 1).await;
        let head = peer.expect_headers().await;
        leave(&proxy, clients, 0).await;
        peer.answer(&head, 200, "unwanted").await;
        proxy.wait_for(|counts| counts.streams == 0).await;
    }
    // The machine may be slow for a moment, or for some.
    assert!(resets(&mut peer).await.len() < 25);
}

#[tokio::test]
async fn three_thousand_clients_that_leave_at_any_moment_hurt_no_sibling() {
    let origin = origin::h2().start();
    let pool = "max_connections: 2, max_pending: 10000, pending_timeout: 20s";
    let proxy =
        proxy::with(&format!("upstreams: {{ a: {{ endpoints: [\"h2c://{origin}\"], pool: {{ {pool} }} }} }}\n"));
    let mut sibling = client::h1(proxy.address()).await;
    sibling.start(&Request::get("/stream/300?every=5").body(()).unwrap(), false).await.unwrap();
    sibling.head().await.unwrap();
    let mut other = client::h1(proxy.address()).await;
    for round in 0..200 {
        let leaving = ask(&proxy, &format!("/delay/{}", round % 100), 15).await;
        leaving.into_iter().for_each(Client::abort);
        assert_eq!(other.get("/bytes/1").await.status(), 200);
    }
    proxy.wait_for(|counts| counts.requests_in_flight <= 1).await;
    let events = sibling.body().await.unwrap();
    assert!(events.ends_with(b"id: 299\ndata: \n\n"), "{} bytes", events.len());
    proxy.wait_for(|counts| counts.streams == 0).await;
    let connections = &origin.log().connections;
    assert!(connections.iter().all(|connection| connection.closed.is_none()), "{connections:?}");
}
