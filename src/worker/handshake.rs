//! The beginning of TLS on a client connection.
//!
//! Bounded by the connection's timer, which holds the end of the listener's header timeout. A client that has begun is
//! not turned away by a drain: it cannot know of it.
//!
//! Lives on one worker. Knows no HTTP, except how to tell a client that has come in the clear. RFC 8446.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};

use super::client::Client;
use super::transport::Transport;
use crate::tls::{ServerTls, handshake_failure};

/// Agrees on keys with a client from which something has come; `None` if that came to nothing, which has been counted.
pub(crate) async fn handshake(client: Rc<Client>, mut transport: Transport, tls: &ServerTls) -> Option<Transport> {
    match poll_fn(|cx| transport.poll_first(cx)).await {
        // Load balancers look at a port like that: a client that has sent nothing wanted nothing.
        Err(_) | Ok(None) => return None,
        Ok(Some(first)) if first.is_ascii_alphabetic() => {
            failed(&client, "plain_http", &"the client speaks HTTP without TLS");
            refuse_plain_http(&mut transport);
            return None;
        }
        Ok(Some(_)) => {}
    }
    let mut accept = tls.acceptor.accept(transport);
    let accepted = poll_fn(|cx| {
        client.timer.register(cx);
        match Pin::new(&mut accept).poll(cx) {
            Poll::Ready(accepted) => Poll::Ready(Some(accepted)),
            Poll::Pending if client.is_expired() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    });
    match accepted.await {
        Some(Ok(stream)) => Some(Transport::tls(stream)),
        Some(Err(error)) => {
            failed(&client, handshake_failure(&error), &error);
            None
        }
        None => {
            timed_out(&client);
            None
        }
    }
}

/// The client has not finished in time, or has not even begun.
pub(crate) fn timed_out(client: &Client) {
    failed(client, "timeout", &"the header timeout is over");
}

fn failed(client: &Client, reason: &'static str, error: &dyn std::fmt::Display) {
    client.local.metrics.tls_handshake_failures.increment(reason);
    tracing::debug!(listener = client.listener.settings.name, peer = %client.peer, reason, %error, "TLS handshake failed");
}

/// One try, as far as the socket goes along at once.
fn refuse_plain_http(transport: &mut Transport) {
    let mut cx = Context::from_waker(std::task::Waker::noop());
    // What is left unread would make the end a reset, which takes the answer with it.
    let mut request = [0; 4096];
    let _ = Pin::new(&mut *transport).poll_read(&mut cx, &mut ReadBuf::new(&mut request));
    transport.write_some(PLAIN_HTTP_ANSWER);
    let _ = Pin::new(transport).poll_shutdown(&mut cx);
}

/// hyper has no part in this answer, so it is spelt out.
const PLAIN_HTTP_ANSWER: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\
    proxy-status: trunkline; error=http_request_error\r\n\
    content-type: text/plain; charset=utf-8\r\n\
    connection: close\r\n\
    content-length: 44\r\n\r\n\
    This port speaks TLS: use https:// instead.\n";
