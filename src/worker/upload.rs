//! A request body on its way to an HTTP/2 upstream, under the stream's window.
//!
//! At most one chunk is held: the next is read from the client only when the window has taken the last, so that a
//! slow service slows only its own client. Capacity is reserved only for data in hand, because reserved and
//! unused capacity is taken from the other streams of the connection.
//!
//! Lives on one worker. RFC 9113 §5.2, RFC 9110 §6.5.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::Body;
use hyper::body::Incoming;

use super::client::Client;
use super::mux::LinkState;
use crate::error::{DownstreamFault, Fault, UpstreamFault};
use crate::translate;

/// The rest of a request body. Resolves when the service has it all, or has said that it wants no more.
///
/// # Cancel safety
/// Dropping it before the end resets the stream: an unfinished body never ends cleanly.
pub(crate) struct Upload {
    incoming: Incoming,
    stream: SendStream<Bytes>,
    link: Arc<LinkState>,
    chunk: Bytes,
    left: u64,
    received_bytes: Arc<AtomicU64>,
    client: Rc<Client>,
}

impl Upload {
    pub(crate) fn new(
        incoming: Incoming,
        stream: SendStream<Bytes>,
        link: Arc<LinkState>,
        bytes_max: Option<u64>,
        received_bytes: Arc<AtomicU64>,
        client: Rc<Client>,
    ) -> Self {
        Self {
            incoming,
            stream,
            link,
            chunk: Bytes::new(),
            left: bytes_max.unwrap_or(u64::MAX),
            received_bytes,
            client,
        }
    }

    /// Whether it is the client that everybody waits for, and not the service's window.
    pub(crate) fn is_starving(&self) -> bool {
        self.chunk.is_empty()
    }

    /// Sends what is in hand as far as the window allows; ready when nothing is left in hand.
    fn poll_chunk(&mut self, cx: &mut Context<'_>, is_end: bool) -> Poll<Result<(), UpstreamFault>> {
        while !self.chunk.is_empty() {
            self.stream.reserve_capacity(self.chunk.len());
            let capacity = match self.stream.capacity() {
                0 => match ready!(self.stream.poll_capacity(cx)) {
                    Some(Ok(capacity)) => capacity,
                    Some(Err(error)) => return Poll::Ready(Err(super::mux::fault(&error))),
                    None => return Poll::Ready(Err(UpstreamFault::StreamReset)),
                },
                capacity => capacity,
            };
            if capacity == 0 {
                continue;
            }
            let part = self.chunk.split_to(capacity.min(self.chunk.len()));
            let is_last = is_end && self.chunk.is_empty();
            self.stream.send_data(part, is_last).map_err(|error| super::mux::fault(&error))?;
            self.link.set_unwritten();
            self.client.progress();
        }
        Poll::Ready(Ok(()))
    }

    fn end(&mut self) -> Poll<Result<(), Fault>> {
        let ended = self.stream.send_data(Bytes::new(), true);
        Poll::Ready(ended.map_err(|error| super::mux::fault(&error).into()))
    }
}

impl Future for Upload {
    type Output = Result<(), Fault>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            if !self.chunk.is_empty() {
                let is_end = self.incoming.is_end_stream();
                ready!(self.poll_chunk(cx, is_end))?;
                if is_end {
                    return Poll::Ready(Ok(()));
                }
            }
            // NO_ERROR says that the answer needs no more of the body (RFC 9113 §8.1).
            if let Poll::Ready(reset) = self.stream.poll_reset(cx) {
                return Poll::Ready(match reset {
                    Ok(Reason::NO_ERROR) => Ok(()),
                    Ok(_) => Err(UpstreamFault::StreamReset.into()),
                    Err(error) => Err(super::mux::fault(&error).into()),
                });
            }
            match ready!(Pin::new(&mut self.incoming).poll_frame(cx)) {
                None => return self.end(),
                Some(Err(_)) => {
                    self.stream.send_reset(Reason::CANCEL);
                    return Poll::Ready(Err(DownstreamFault::BodyIncomplete.into()));
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        let length = data.len() as u64;
                        self.received_bytes.fetch_add(length, Ordering::Relaxed);
                        let Some(left) = self.left.checked_sub(length) else {
                            self.stream.send_reset(Reason::CANCEL);
                            return Poll::Ready(Err(DownstreamFault::BodyTooLarge.into()));
                        };
                        self.left = left;
                        self.chunk = data;
                        self.client.progress();
                    }
                    Err(frame) => {
                        let Ok(fields) = frame.into_trailers() else { continue };
                        let fields = translate::trailers(fields);
                        if fields.is_empty() {
                            return self.end();
                        }
                        let ended = self.stream.send_trailers(fields);
                        return Poll::Ready(ended.map_err(|error| super::mux::fault(&error).into()));
                    }
                },
            }
        }
    }
}

/// A task that ends with whoever holds this.
pub(crate) struct AbortOnDrop(pub(crate) tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
