//! Services whose URL leaves open which HTTP they speak: what is found out, once, and what becomes of requests meanwhile.
//!
//! RFC 9113 §3.2, §3.3; RFC 7301.

mod again;
mod alpn;
mod load;
mod required;

use std::net::SocketAddr;
use std::time::Duration;

use http::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::client::{self, Client};
use crate::harness::proxy::{self, Proxy};
use crate::harness::{origin, said, scripted};

/// A proxy on one worker before `endpoint`, with more keys of its upstream.
fn before(endpoint: &str, upstream: &str) -> Proxy {
    proxy::on_one_worker(&format!(
        "upstreams: {{ a: {{ endpoints: [\"{endpoint}\"], pool: {{ pending_timeout: 9s }}, {upstream} }} }}\n"
    ))
}

async fn start(proxy: &Proxy, request: Request<()>) -> Client {
    let mut client = client::h1(proxy.address()).await;
    client.start(&request, false).await.unwrap();
    client
}

async fn answered(mut client: Client, text: &str) {
    assert_eq!(client.head().await.unwrap().status(), Ok(200));
    assert_eq!(client.body().await.unwrap(), text);
}

fn get(path: &str) -> Request<()> {
    Request::get(path).body(()).unwrap()
}

/// What the log says of the protocol at `address`: each line's sentence.
fn found(address: &impl ToString) -> Vec<&'static str> {
    let lines = said::lines(&address.to_string());
    let sentence = |line: &String| {
        [HTTP1, HTTP2].into_iter().find(|sentence| line.contains(sentence)).filter(|_| line.contains("INFO"))
    };
    lines.iter().filter_map(sentence).collect()
}

const HTTP1: &str = "endpoint speaks HTTP/1.1 only";
const HTTP2: &str = "endpoint speaks HTTP/2";

/// An HTTP/1.1 service that meets the HTTP/2 preface as `on_preface` says.
async fn http1_service(on_preface: OnPreface) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, on_preface));
        }
    });
    address
}

#[derive(Debug, Clone, Copy)]
enum OnPreface {
    /// Closes the connection without a word.
    Close,
    /// Waits for more.
    Wait,
    /// Says something that is no HTTP, and closes.
    Mumble,
}

async fn serve(mut stream: TcpStream, on_preface: OnPreface) -> std::io::Result<()> {
    let mut read = vec![0; 4096];
    loop {
        let bytes = stream.read(&mut read).await?;
        match (read.starts_with(b"PRI"), on_preface) {
            _ if bytes == 0 => return Ok(()),
            (true, OnPreface::Close) => return Ok(()),
            (true, OnPreface::Wait) => {}
            (true, OnPreface::Mumble) => {
                return stream.write_all(b"<!DOCTYPE HTML>\n<html>Error code: 505</html>").await;
            }
            (false, _) => stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nh1").await?,
        }
    }
}

#[tokio::test]
async fn a_service_without_http2_is_served_over_http1_and_that_is_said_once() {
    let origin = origin::h1().start();
    let proxy = proxy::with(&format!("upstream: http://{origin}"));
    let mut client = client::h1(proxy.address()).await;
    for _ in 0..3 {
        assert_eq!(client.get("/head").await.json()["version"], "HTTP/1.1");
    }
    assert_eq!((found(&origin), proxy.counts().faults), (vec![HTTP1], [].into()));
    assert!(!said::lines(&origin.to_string()).iter().any(|line| line.contains("WARN")));
}

#[tokio::test]
async fn a_service_with_h2c_is_multiplexed() {
    let origin = origin::h2().start();
    let proxy = proxy::with(&format!("upstream: http://{origin}"));
    let seen = client::h1(proxy.address()).await.get("/head").await.json();
    assert_eq!((&seen["version"], &seen["scheme"]), (&"HTTP/2.0".into(), &"http".into()));
    assert_eq!(found(&origin), [HTTP2]);
}

#[tokio::test]
async fn a_service_that_closes_at_the_preface_and_answers_http1_is_served_over_http1() {
    let service = http1_service(OnPreface::Close).await;
    let proxy = before(&format!("http://{service}"), "");
    answered(start(&proxy, get("/")).await, "h1").await;
    assert_eq!(found(&service), [HTTP1]);
    assert!(!said::lines(&service.to_string()).iter().any(|line| line.contains("WARN")));
}

#[tokio::test]
async fn a_service_that_is_silent_at_the_preface_and_answers_http1_is_served_over_http1() {
    let service = http1_service(OnPreface::Wait).await;
    let proxy = before(&format!("http://{service}"), "timeouts: { connect: 100ms }");
    answered(start(&proxy, get("/")).await, "h1").await;
    assert_eq!(found(&service), [HTTP1]);
}

#[tokio::test]
async fn a_service_that_answers_the_preface_in_no_http_is_served_over_http1() {
    let service = http1_service(OnPreface::Mumble).await;
    let proxy = before(&format!("http://{service}"), "");
    answered(start(&proxy, get("/")).await, "h1").await;
    assert_eq!(found(&service), [HTTP1]);
}

/// As something does that accepts connections for a service which is just being restarted.
#[tokio::test]
async fn a_service_that_only_closes_connections_says_nothing_about_its_protocol() {
    let service = scripted::service().await;
    let proxy = before(&format!("http://{service}"), "");
    let client = start(&proxy, get("/")).await;
    for _ in 0..3 {
        drop(again::meet(&service, "PRI * ", b"").await);
        drop(again::meet(&service, "OPTIONS * HTTP/1.1\r\n", b"").await);
    }
    let mut peer = service.accept_with(&[]).await;
    let head = peer.expect_headers().await;
    peer.answer(&head, 200, "h2").await;
    answered(client, "h2").await;
    assert_eq!(found(&service), [HTTP2]);
}

#[tokio::test]
async fn requests_that_wait_for_the_answer_to_the_preface_all_go_on_over_http1() {
    let service = origin::raw_h1().await;
    let proxy = before(&format!("http://{service}"), "");
    let mut asked = service.accept().await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(start(&proxy, get("/")).await);
    }
    proxy.wait_for(|counts| counts.pending == 20).await;
    asked.expect_head().await;
    asked.send("HTTP/1.1 505 HTTP Version Not Supported\r\ncontent-length: 0\r\n\r\n").await;
    let address = service.answer_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nh1");
    for client in clients {
        answered(client, "h1").await;
    }
    assert_eq!(proxy.counts().faults, [].into());
    said::line(&[&address.to_string(), HTTP1, "because=\"it answers HTTP/1.1 to the HTTP/2 preface\""]).await;
}

#[tokio::test]
async fn a_service_that_is_down_says_nothing_about_its_protocol() {
    for (is_http1, found_out) in [(true, HTTP1), (false, HTTP2)] {
        let mut origin = if is_http1 { origin::h1() } else { origin::h2() }.start();
        origin.crash().await;
        let proxy = before(&format!("http://{origin}"), "");
        let mut client = start(&proxy, get("/bytes/1")).await;
        said::line(&[&origin.to_string(), "endpoint cannot be reached"]).await;
        assert_eq!(found(&origin), [""; 0]);
        origin.restart();
        assert_eq!(client.head().await.unwrap().status(), Ok(200));
        assert_eq!(found(&origin), [found_out]);
    }
}

#[tokio::test]
async fn a_stalled_service_says_nothing_about_its_protocol() {
    let origin = origin::h2().start();
    let upstream = format!(
        "upstreams: {{ a: {{ endpoints: [\"http://{origin}\"], timeouts: {{ connect: 50ms }}, pool: {{ pending_timeout: 400ms }} }} }}"
    );
    let proxy = proxy::on_one_worker(&upstream);
    let mut client = client::h1(proxy.address()).await;
    assert_eq!(client.get("/bytes/1").await.status(), 200);
    origin.abort();
    origin.wait_for(|log| log.connections_open == 0).await;
    let frozen = origin.freeze();
    assert_eq!(client.get("/bytes/1").await.status(), 504);
    drop(frozen);
    assert_eq!(found(&origin), [HTTP2]);
}

/// What is needed to serve many at once over HTTP/1.1 would be a storm over HTTP/2.
#[tokio::test]
async fn the_bound_on_connections_is_that_of_the_protocol_found() {
    for (is_http1, streams, connections) in [(true, 20, 20), (false, 20, 1)] {
        let origin = if is_http1 { origin::h1() } else { origin::h2() }.start();
        let proxy = before(&format!("http://{origin}"), "");
        let mut clients = Vec::new();
        for _ in 0..streams {
            clients.push(start(&proxy, get("/hang")).await);
        }
        origin.wait_for(|log| log.requests_in_flight() == streams).await;
        let used = origin.log().connections.iter().filter(|connection| connection.streams_open > 0).count();
        assert_eq!(used, connections);
    }
}

/// How long a service that speaks HTTP/1.1 is left alone.
const ASKED_AGAIN: Duration = Duration::from_mins(1);
