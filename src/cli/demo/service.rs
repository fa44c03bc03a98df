//! The demo's service: HTTP/2 in the clear, on a thread of its own.
//!
//! `/` answers a small JSON object with the request's `x-demo-id`; `/slow?ms=500` answers after that time; `/events`
//! streams server-sent events; `/echo` sends the body back as it comes.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{Request, Response, StatusCode};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use super::spawn;

/// A running service.
pub(super) struct Service {
    address: SocketAddr,
    /// Connections that were accepted so far.
    connections: Arc<AtomicU64>,
    /// Dropping it ends the thread.
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Service {
    /// Listens on a free port of loopback.
    pub(super) fn start() -> io::Result<Self> {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let connections = Arc::new(AtomicU64::new(0));
        let (stop, stopped) = oneshot::channel();
        let thread = spawn("demo-service", {
            let connections = connections.clone();
            async move || {
                let Ok(listener) = TcpListener::from_std(listener) else { return };
                tokio::select! {
                    () = accept(listener, &connections) => {}
                    _ = stopped => {}
                }
            }
        })?;
        Ok(Self { address, connections, stop, thread })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it; returns how many connections it has seen.
    pub(super) fn stop(self) -> u64 {
        drop(self.stop);
        let _ = self.thread.join();
        self.connections.load(Ordering::Acquire)
    }
}

/// What `/` answers to a request with this id: about 65 bytes.
pub(super) fn answer(id: &str) -> String {
    format!("{{\"service\":\"trunkline demo\",\"over\":\"HTTP/2\",\"id\":\"{id:0>12}\"}}\n")
}

async fn accept(listener: TcpListener, connections: &AtomicU64) {
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            connections.fetch_add(1, Ordering::AcqRel);
            tokio::spawn(serve(stream));
        }
    }
}

async fn serve(stream: TcpStream) -> Result<(), h2::Error> {
    let _ = stream.set_nodelay(true);
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(STREAMS_MAX).initial_window_size(WINDOW_BYTES);
    builder.initial_connection_window_size(WINDOW_BYTES * 16);
    let mut connection = builder.handshake(stream).await?;
    while let Some(accepted) = connection.accept().await {
        let (request, mut respond) = accepted?;
        match request.uri().path() {
            "/" => {
                let id = request.headers().get(ID).and_then(|id| id.to_str().ok()).unwrap_or_default();
                // A stream that its client has reset is no failure of the connection.
                let _ = send_whole(&mut respond, "application/json", answer(id));
            }
            "/slow" | "/events" | "/echo" => drop(tokio::spawn(serve_slowly(request, respond))),
            _ => drop(respond.send_response(head(StatusCode::NOT_FOUND, "text/plain"), true)),
        }
    }
    Ok(())
}

/// What takes longer than the turn in which it was asked.
async fn serve_slowly(request: Request<RecvStream>, mut respond: SendResponse<Bytes>) -> Result<(), h2::Error> {
    match request.uri().path() {
        "/slow" => {
            let query = request.uri().query().unwrap_or_default();
            let ms = query.split('&').find_map(|pair| pair.strip_prefix("ms=")?.parse().ok()).unwrap_or(500);
            tokio::time::sleep(Duration::from_millis(ms).min(SLOW_MAX)).await;
            send_whole(&mut respond, "text/plain", format!("waited {ms} ms\n"))
        }
        "/events" => {
            let mut stream = respond.send_response(head(StatusCode::OK, "text/event-stream"), false)?;
            for number in 1u64.. {
                send(&mut stream, format!("id: {number}\ndata: event {number}\n\n").into()).await?;
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_secs(1)) => {}
                    // Nobody listens any more.
                    _ = poll_fn(|cx| stream.poll_reset(cx)) => break,
                }
            }
            Ok(())
        }
        _ => {
            let kind = request.headers().get(http::header::CONTENT_TYPE).cloned();
            let mut response = head(StatusCode::OK, "application/octet-stream");
            if let Some(kind) = kind {
                response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
            }
            let mut body = request.into_body();
            let mut stream = respond.send_response(response, false)?;
            while let Some(chunk) = body.data().await {
                let chunk = chunk?;
                let length = chunk.len();
                send(&mut stream, chunk).await?;
                body.flow_control().release_capacity(length)?;
            }
            stream.send_data(Bytes::new(), true)
        }
    }
}

fn head(status: StatusCode, kind: &'static str) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}

fn send_whole(respond: &mut SendResponse<Bytes>, kind: &'static str, body: String) -> Result<(), h2::Error> {
    let mut response = head(StatusCode::OK, kind);
    response.headers_mut().insert(http::header::CONTENT_LENGTH, body.len().into());
    respond.send_response(response, false)?.send_data(body.into(), true)
}

/// Sends as the peer gives window.
async fn send(stream: &mut SendStream<Bytes>, mut chunk: Bytes) -> Result<(), h2::Error> {
    while !chunk.is_empty() {
        stream.reserve_capacity(chunk.len());
        match poll_fn(|cx| stream.poll_capacity(cx)).await {
            Some(capacity) => stream.send_data(chunk.split_to(capacity?.min(chunk.len())), false)?,
            None => return Err(h2::Reason::CANCEL.into()),
        }
    }
    Ok(())
}

/// The field that carries a request's id.
pub(super) const ID: &str = "x-demo-id";
const STREAMS_MAX: u32 = 256;
const WINDOW_BYTES: u32 = 256 * 1024;
const SLOW_MAX: Duration = Duration::from_mins(1);
