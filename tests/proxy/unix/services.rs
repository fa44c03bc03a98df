//! Services behind a Unix socket: `h2c+unix:`, `http1+unix:` and `http+unix:`.

use std::path::Path;

use bytes::Bytes;
use http::Request;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use super::Inner;
use crate::harness::proxy::Proxy;
use crate::harness::said;
use crate::harness::{client, proxy};
use crate::translation::Seen;

#[tokio::test]
async fn each_scheme_reaches_a_service_behind_a_socket() {
    let inner = Inner::new("trust_forwarded_from: [unix]");
    for (scheme, via) in [("h2c", "2"), ("http1", "1.1"), ("http", "2")] {
        let proxy = before(scheme, &inner.path());
        let mut client = client::h1(proxy.address()).await;
        let seen = Seen(client.get("/head").await.json());
        // The inner one tells how the outer one has come to it.
        let vias: Vec<_> = seen.fields("via").collect();
        assert!(vias.last().unwrap().starts_with(via), "{scheme}: {vias:?}");
        assert_eq!(seen.field("x-forwarded-for"), "127.0.0.1", "{scheme}: kept, because a Unix peer is trusted");
        assert_eq!(client.post("/upload", vec![b'x'; 500_000]).await.text(), "500000", "{scheme}");
        assert_eq!(client.get("/bytes/500000").await.body.len(), 500_000, "{scheme}");
        assert!(proxy.faults().is_empty(), "{scheme}: {:?}", proxy.faults());
    }
}

#[tokio::test]
async fn many_requests_share_few_connections_to_a_socket() {
    let inner = Inner::new("");
    let proxy = before("h2c", &inner.path());
    let mut clients = Vec::new();
    for _ in 0..30 {
        let mut client = client::h1(proxy.address()).await;
        client.start(&Request::get("/delay/50").body(()).unwrap(), false).await.unwrap();
        clients.push(client);
    }
    for client in clients {
        assert_eq!(client.into_raw().expect_response().await.status(), 200);
    }
    assert!(inner.proxy.counts().downstream_accepted <= 4, "{:?}", inner.proxy.counts());
}

#[tokio::test]
async fn a_request_without_host_is_for_localhost() {
    let inner = Inner::new("");
    for scheme in ["h2c", "http1"] {
        let proxy = before(scheme, &inner.path());
        let mut client = client::raw(proxy.address()).await;
        client.send("GET /head HTTP/1.0\r\n\r\n").await;
        assert_eq!(Seen(client.expect_response().await.json()).authority(), "localhost", "{scheme}");
    }
}

#[tokio::test]
async fn a_service_that_speaks_only_http1_is_found_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = super::socket(&folder);
    let listener = UnixListener::bind(&path).unwrap();
    serve(listener);
    let proxy = before("http", &path);
    assert_eq!(client::h1(proxy.address()).await.get("/").await.text(), "hello");
    said::line(&[&format!("endpoint=http+unix:{}", path.display()), "HTTP/1.1"]).await;
    let proxy = before("h2c", &path);
    let response = client::h1(proxy.address()).await.get("/").await;
    assert_eq!(
        (response.status(), response.header("proxy-status")),
        (502, Some("trunkline; error=http_protocol_error"))
    );
    said::line(&[&format!("unix:{} answered HTTP/1.1", path.display()), "write http1+unix:"]).await;
}

#[tokio::test]
async fn a_socket_that_is_not_there_is_an_absence_and_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = super::socket(&folder);
    let proxy = before("h2c", &path);
    let response = client::h1(proxy.address()).await.get("/").await;
    assert_eq!(
        (response.status(), response.header("proxy-status")),
        (502, Some("trunkline; error=connection_refused"))
    );
    said::line(&[&format!("endpoint=h2c+unix:{}", path.display()), "there is no such socket"]).await;
    let origin = crate::harness::origin::h2().start();
    let _inner = proxy::with(&super::yaml(&[("unix", &path, "")], &origin));
    assert_eq!(client::h1(proxy.address()).await.get("/").await.status(), 200);
}

#[tokio::test]
async fn a_socket_that_somebody_has_left_behind_refuses() {
    let folder = tempfile::tempdir().unwrap();
    let path = super::socket(&folder);
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let response = client::h1(before("http1", &path).address()).await.get("/").await;
    assert_eq!(
        (response.status(), response.header("proxy-status")),
        (502, Some("trunkline; error=connection_refused"))
    );
}

#[tokio::test]
async fn a_service_whose_queue_is_full_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = super::socket(&folder);
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    socket.bind(&SockAddr::unix(&path).unwrap()).unwrap();
    socket.listen(0).unwrap();
    let _queued = UnixStream::connect(&path).await.unwrap();
    let full = UnixStream::connect(&path).await.unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::WouldBlock);

    let proxy = before("http1", &path);
    let mut client = client::h1(proxy.address()).await;
    client.start(&Request::get("/").body(Bytes::new()).unwrap(), false).await.unwrap();
    proxy.wait_for(|counts| counts.requests_in_flight == 1).await;
    socket.set_nonblocking(true).unwrap();
    let listener = UnixListener::from_std(socket.into()).unwrap();
    serve(listener);
    assert_eq!(client.into_raw().expect_response().await.text(), "hello");
}

/// A proxy before one service behind a socket.
fn before(scheme: &str, path: &Path) -> Proxy {
    proxy::with(&format!("upstreams: {{ up: {{ endpoints: [\"{scheme}+unix:{}\"] }} }}", path.display()))
}

/// Says hello to whoever comes and whatever is asked, in HTTP/1.1.
fn serve(listener: UnixListener) {
    tokio::spawn(async move {
        loop {
            tokio::spawn(answer(listener.accept().await.unwrap().0));
        }
    });
}

async fn answer(mut stream: UnixStream) {
    let mut request = [0; 4096];
    while stream.read(&mut request).await.is_ok_and(|bytes| bytes > 0) {
        _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").await;
    }
}
