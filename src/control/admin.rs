//! Answers operators and probes over HTTP/1.1.
//!
//! Two kinds of address: `probes` is read-only and safe on the pod's address; the full one shows and changes
//! everything, so it asks that a request was meant for it (see `guard`). What changes anything is POST only. The
//! listener stays up until the process ends, so that `/readyz` says 503 for the whole drain.
//!
//! Runs on control, beside everything else there: an answer takes no lock for longer than a copy and waits for nothing
//! but a reload. A client can hold one of a few places for a bounded time. Knows no worker but through [`Control`].

mod guard;
mod pages;

use std::convert::Infallible;
use std::net::TcpListener;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time;

use super::{Control, Stage};
use pages::{Page, Reply};

/// What an admin address may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Full,
    Probes,
}

/// Serves on `socket` until the runtime ends.
pub(super) fn serve(control: Arc<Control>, socket: TcpListener, access: Access) {
    match tokio::net::TcpListener::from_std(socket) {
        Ok(socket) => {
            let address = socket.local_addr().ok().map(tracing::field::display);
            tracing::info!(address, ?access, "admin listening");
            tokio::spawn(accept(control, socket, access));
        }
        Err(error) => tracing::error!(%error, ?access, "cannot accept admin connections"),
    }
}

async fn accept(control: Arc<Control>, socket: tokio::net::TcpListener, access: Access) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        // Further clients wait in the kernel's backlog.
        let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
        match socket.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(converse(control.clone(), stream, access, place));
            }
            Err(error) => {
                tracing::warn!(%error, "admin connection not accepted");
                // Without descriptors the next accept fails at once, too.
                time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves one connection; holds its place until the end.
async fn converse(control: Arc<Control>, stream: TcpStream, access: Access, _place: OwnedSemaphorePermit) {
    let service = service_fn(move |request| {
        let control = control.clone();
        async move { Ok::<_, Infallible>(answer(&control, access, &request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // Between requests, too: who keeps a connection without asking gives its place up.
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => {
            if let Err(error) = ended {
                tracing::debug!(%error, "admin connection failed");
            }
            return;
        }
        () = time::sleep(CONNECTION_AGE_MAX) => connection.as_mut().graceful_shutdown(),
    }
    // Who does not even take the answer is cut.
    let _ = time::timeout(HEAD_TIMEOUT, connection).await;
}

/// One request, whose body nothing here reads: hyper drops what has come of it and closes the connection otherwise.
async fn answer(control: &Control, access: Access, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let reply = reply(control, access, request).await;
    // Who asks again should find by connecting whoever serves the address then.
    let is_closing = reply.is_closing || control.stage() == Stage::Draining;
    let mut response = Response::new(Full::new(Bytes::from(reply.body)));
    *response.status_mut() = reply.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(reply.media_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    if let Some(methods) = reply.allow {
        headers.insert(ALLOW, HeaderValue::from_static(methods));
    }
    if is_closing {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn reply(control: &Control, access: Access, request: &Request<Incoming>) -> Reply {
    let uri = request.uri();
    let Some(page) = Page::find(uri.path(), access) else { return pages::not_found(access) };
    if !page.is_probe()
        && let Err(why) = guard::check_host(uri, request.headers())
    {
        return Reply::text(StatusCode::FORBIDDEN, format!("{why}\n"));
    }
    let (is_allowed, allow) = if page.is_change() {
        (request.method() == Method::POST, "POST")
    } else {
        // hyper leaves the body out of the answer to HEAD.
        ([Method::GET, Method::HEAD].contains(request.method()), "GET, HEAD")
    };
    if !is_allowed {
        let text = format!("{} is not answered here, only {allow}\n", page.path());
        return Reply { allow: Some(allow), ..Reply::text(StatusCode::METHOD_NOT_ALLOWED, text) };
    }
    if page.is_change()
        && let Err(why) = guard::check_origin(request.headers())
    {
        return Reply::text(StatusCode::FORBIDDEN, format!("{why}\n"));
    }
    page.reply(control, access, uri.query().unwrap_or("")).await
}

const CONNECTIONS_MAX: usize = 64;
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
const HEAD_BYTES_MAX: usize = 16 * 1024;
const CONNECTION_AGE_MAX: Duration = Duration::from_mins(1);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Nothing is loaded from anywhere, nothing runs, and no other page may frame this one.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; form-action 'none'; frame-ancestors 'none'";

#[cfg(test)]
mod tests;
