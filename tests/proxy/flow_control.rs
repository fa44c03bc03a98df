//! One slow end never stalls the others, and memory stays within the windows, whatever the size of a body.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;

use crate::harness::origin::Origin;
use crate::harness::origin::behaviour::by_path;
use crate::harness::origin::exchange::Exchange;
use crate::harness::process::Growth;
use crate::harness::proxy::Proxy;
use crate::harness::scripted::frame::INITIAL_WINDOW_SIZE;
use crate::harness::watched::{Watched, within};
use crate::harness::{client, origin, process, proxy, scripted};

const MIB: u64 = 1 << 20;

#[tokio::test]
async fn as_many_stalled_readers_as_streams_but_one_do_not_stall_the_others() {
    let sent = Arc::new(Watched::new(Vec::new()));
    let origin = flooding_origin(&sent, Bytes::from(vec![b'x'; 64 * 1024]));
    let proxy = one_connection(&origin, 20);
    let mut stalled = Vec::new();
    for _ in 0..19 {
        stalled.push(stalled_reader(proxy.address(), "/flood").await);
    }
    // Each fills its stream's window and then has no capacity left.
    sent.wait_for(|sent| sent.len() == 19 && sent.iter().all(|bytes| *bytes >= 64 * 1024)).await;
    let mut other = client::h1(proxy.address()).await;
    for _ in 0..100 {
        assert_eq!(other.get("/bytes/30000").await.body.len(), 30_000);
        assert_eq!(other.post("/upload", vec![b'y'; 30_000]).await.text(), "30000");
    }
    // 64 KiB of window, 64 KiB at hyper, and up to net.ipv4.tcp_wmem's 4 MiB in the kernel for the client's socket.
    let most = sent.read().iter().copied().max().unwrap();
    eprintln!("at most {} KiB for a reader that takes none", most / 1024);
    assert!(most <= 5 * MIB, "{most} bytes for a reader that takes none");
    assert_eq!(origin.log().connections.len(), 1);
}

#[tokio::test]
async fn the_connection_window_holds_a_full_window_of_every_stream() {
    let service = scripted::service().await;
    let _proxy = proxy::with(&format!(
        "upstreams: {{ up: {{ endpoints: [\"h2c://{service}\"], \
         pool: {{ max_streams_per_connection: 30 }}, http2: {{ stream_window: 100KiB }} }} }}"
    ));
    let mut peer = service.accept().await;
    let settings = peer.expect_preface().await;
    let stream_window = settings.iter().find(|(id, _)| *id == INITIAL_WINDOW_SIZE).map(|(_, bytes)| *bytes);
    assert_eq!(stream_window, Some(100 * 1024));
    peer.settings(&[]).await;
    // RFC 9113 §6.9.2: the connection's window starts at 65 535 and is changed only by WINDOW_UPDATE.
    let connection_window = 65_535 + peer.expect_window_update(0).await;
    assert!(connection_window >= 30 * 100 * 1024, "{connection_window}");
}

#[tokio::test]
async fn a_service_that_does_not_read_an_upload_slows_only_that_upload() {
    let gate = Arc::new(Semaphore::new(0));
    let handler = {
        let gate = gate.clone();
        move |mut exchange: Exchange| {
            let gate = gate.clone();
            async move {
                if exchange.path() == "/upload/slow" {
                    let _opened = exchange.until(gate.acquire_owned()).await?;
                }
                by_path(exchange).await
            }
        }
    };
    let origin = origin::h2().windows(64 * 1024, 4 << 20).handler(handler).start();
    let proxy = one_connection(&origin, 20);
    let address = proxy.address();
    let slow = tokio::spawn(async move { client::h1(address).await.post("/upload/slow", vec![b'x'; 8 << 20]).await });
    origin.wait_for(|log| log.streams_open() == 1).await;
    let mut other = client::h1(address).await;
    for _ in 0..20 {
        assert_eq!(other.post("/upload", vec![b'y'; 500_000]).await.text(), "500000");
    }
    assert!(!slow.is_finished());
    gate.add_permits(1);
    assert_eq!(slow.await.unwrap().text(), (8 << 20).to_string());
}

#[tokio::test]
async fn a_stalled_event_stream_of_small_frames_does_not_end_the_connection() {
    let sent = Arc::new(Watched::new(Vec::new()));
    // h2 counts unread DATA frames below 256 bytes and ends a connection that holds too many.
    let origin = flooding_origin(&sent, Bytes::from_static(&[b'e'; 100]));
    let proxy = one_connection(&origin, 100);
    let _stalled = stalled_reader(proxy.address(), "/flood").await;
    sent.wait_for(|sent| sent.first().is_some_and(|bytes| *bytes >= 64 * 1024)).await;
    let mut other = client::h1(proxy.address()).await;
    for _ in 0..500 {
        assert_eq!(other.get("/bytes/1000").await.body.len(), 1000);
    }
    let log = origin.log();
    assert_eq!((log.connections.len(), log.connections_open), (1, 1));
}

#[tokio::test]
async fn a_download_of_64_mib_needs_little_memory() {
    check_download("flow_control::a_download_of_64_mib_needs_little_memory", 64 * MIB).await;
}

#[tokio::test]
#[ignore = "long in debug: `make test` runs it in release mode"]
async fn a_download_of_1_gib_needs_little_memory() {
    check_download("flow_control::a_download_of_1_gib_needs_little_memory", 1024 * MIB).await;
}

#[tokio::test]
async fn an_upload_of_64_mib_needs_little_memory() {
    check_upload("flow_control::an_upload_of_64_mib_needs_little_memory", 64 * MIB).await;
}

#[tokio::test]
#[ignore = "long in debug: `make test` runs it in release mode"]
async fn an_upload_of_1_gib_needs_little_memory() {
    check_upload("flow_control::an_upload_of_1_gib_needs_little_memory", 1024 * MIB).await;
}

async fn check_download(name: &str, length: u64) {
    if !process::is_alone(name) {
        return;
    }
    let sent = Arc::new(Watched::new(Vec::new()));
    let origin = flooding_origin(&sent, Bytes::from(vec![b'x'; 64 * 1024]));
    let proxy = one_connection(&origin, 20);
    let mut client = client::h1(proxy.address()).await;
    let mut growth = Growth::from_here();
    client.start(&Request::get("/flood").body(()).unwrap(), false).await.unwrap();
    client.head().await.unwrap();
    let mut received = 0;
    while received < length {
        received += client.part().await.unwrap().expect("a flood has no end").len() as u64;
        growth.look();
    }
    growth.assert_below(32 * MIB);
}

async fn check_upload(name: &str, length: u64) {
    if !process::is_alone(name) {
        return;
    }
    let origin = origin::h2().start();
    let proxy = one_connection(&origin, 20);
    let mut client = client::h1(proxy.address()).await;
    let mut growth = Growth::from_here();
    client.start(&Request::post("/upload").body(()).unwrap(), true).await.unwrap();
    let chunk = vec![b'x'; 64 * 1024];
    for _ in 0..length / chunk.len() as u64 {
        client.send_chunk(&chunk).await.unwrap();
        growth.look();
    }
    client.end_chunks().await.unwrap();
    assert_eq!(client.into_raw().expect_response().await.text(), length.to_string());
    growth.assert_below(32 * MIB);
}

/// An origin that answers `/flood` with `piece` without end, counting the bytes of each such answer.
fn flooding_origin(sent: &Arc<Watched<Vec<u64>>>, piece: Bytes) -> Origin {
    let sent = sent.clone();
    origin::h2()
        .handler(move |mut exchange: Exchange| {
            let (sent, piece) = (sent.clone(), piece.clone());
            async move {
                if exchange.path() != "/flood" {
                    return by_path(exchange).await;
                }
                exchange.start(exchange.response(200))?;
                let own = sent.change(|sent| {
                    sent.push(0);
                    sent.len() - 1
                });
                loop {
                    exchange.send(piece.clone()).await?;
                    sent.change(|sent| sent[own] += piece.len() as u64);
                }
            }
        })
        .start()
}

/// One worker and one connection with this many streams, each with a window of 64 KiB.
fn one_connection(origin: &Origin, streams: u32) -> Proxy {
    proxy::with(&format!(
        "runtime: {{ workers: 1 }}\nupstreams: {{ up: {{ endpoints: [\"h2c://{origin}\"], \
         pool: {{ max_connections: 1, max_streams_per_connection: {streams} }}, \
         http2: {{ stream_window: 64KiB }} }} }}"
    ))
}

/// A client that asks, reads the start of the answer, and then nothing more; the kernel takes little for it.
async fn stalled_reader(address: SocketAddr, target: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = within("connection", socket.connect(address)).await.unwrap();
    stream.write_all(format!("GET {target} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes()).await.unwrap();
    let mut start = [0; 12];
    within("start of the answer", stream.read_exact(&mut start)).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 200");
    stream
}
