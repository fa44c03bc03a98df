//! What a client speaks, by the first bytes that it sends: the preface of HTTP/2, or HTTP/1.1. Over TLS that must be what was
//! agreed on.
//!
//! Lives on one worker. RFC 9113 §3.2, §3.4.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, ReadBuf};

use super::super::client::Client;
use super::super::socket::ClientIo;

/// What has come, to be read once more.
pub(super) enum Spoken {
    Http1(Bytes),
    Http2(Bytes),
    /// Nothing has come: the runtime takes accepted sockets to be readable, and this one was not.
    Nothing,
    /// A beginning that could be either, and no more of it within the time for a head.
    Late,
    /// Not what was agreed on over TLS.
    Unexpected,
}

/// Reads until it is known.
///
/// # Errors
/// The socket's.
pub(super) async fn detect(client: &Client, io: &mut ClientIo) -> io::Result<Spoken> {
    let mut seen = BytesMut::new();
    let is_http2_agreed = io.socket.is_http2_agreed();
    poll_fn(|cx| {
        client.timer.register(cx);
        loop {
            let mut space = [0; READ_BYTES];
            let mut read = ReadBuf::new(&mut space);
            match Pin::new(&mut *io).poll_read(cx, &mut read) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if client.is_fresh() => return Poll::Ready(Ok(Spoken::Nothing)),
                Poll::Pending if client.is_expired() => return Poll::Ready(Ok(Spoken::Late)),
                Poll::Pending => return Poll::Pending,
            }
            seen.extend_from_slice(read.filled());
            let length = seen.len().min(PREFACE.len());
            if seen[..length] != PREFACE[..length] || read.filled().is_empty() {
                let is_unexpected = is_http2_agreed == Some(true) && !read.filled().is_empty();
                let seen = seen.split().freeze();
                return Poll::Ready(Ok(if is_unexpected { Spoken::Unexpected } else { Spoken::Http1(seen) }));
            }
            if length == PREFACE.len() {
                let is_unexpected = is_http2_agreed == Some(false);
                let seen = seen.split().freeze();
                return Poll::Ready(Ok(if is_unexpected { Spoken::Unexpected } else { Spoken::Http2(seen) }));
            }
        }
    })
    .await
}

pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The usual head comes whole.
const READ_BYTES: usize = 4096;
