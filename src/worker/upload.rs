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
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, SendStream};

use super::client::Client;
use super::mux::LinkState;
use super::request_body::{Piece, RequestBody};
use crate::error::{Fault, UpstreamFault};

/// The rest of a request body. Resolves when the service has it all, or has said that it wants no more.
///
/// # Cancel safety
/// Dropping it before the end resets the stream, or leaves that to who holds its other half: an unfinished body never ends
/// cleanly.
pub(crate) struct Upload {
    body: RequestBody,
    stream: SendStream<Bytes>,
    link: Arc<LinkState>,
    chunk: Bytes,
    is_done: bool,
    /// There will be no other attempt.
    is_last: bool,
    client: Rc<Client>,
}

impl Upload {
    pub(crate) fn new(body: RequestBody, stream: SendStream<Bytes>, link: Arc<LinkState>, client: Rc<Client>) -> Self {
        Self { body, stream, link, chunk: Bytes::new(), is_done: false, is_last: false, client }
    }

    /// Has resolved, and must not be polled again.
    pub(crate) fn is_done(&self) -> bool {
        self.is_done
    }

    /// Whether the client has still to be asked for the body.
    pub(crate) fn is_held_back(&self) -> bool {
        self.body.is_held_back()
    }

    /// Whether another attempt could send it too.
    pub(crate) fn is_replayable(&self) -> bool {
        self.body.is_replayable()
    }

    /// The body, for another attempt.
    pub(crate) fn into_body(self) -> RequestBody {
        self.body
    }

    /// The rest goes up while the answer comes down: there will be no other attempt.
    pub(crate) fn into_last(mut self) -> Self {
        self.is_last = true;
        self.body.release();
        self
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

    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        loop {
            if !self.chunk.is_empty() {
                let is_end = self.body.is_end_stream();
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
            match ready!(self.body.poll_piece(cx)) {
                Ok(Piece::Data(data)) => {
                    self.chunk = data;
                    self.client.progress();
                }
                Ok(Piece::Trailers(fields)) => {
                    let ended = self.stream.send_trailers(fields);
                    return Poll::Ready(ended.map_err(|error| super::mux::fault(&error).into()));
                }
                Ok(Piece::End) => return self.end(),
                Err(fault) => return Poll::Ready(Err(fault.into())),
            }
        }
    }
}

impl Future for Upload {
    type Output = Result<(), Fault>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let ended = ready!(self.poll_rest(cx));
        self.is_done = true;
        // Before the head of the answer has come, whoever waits for it gives the stream up.
        if self.is_last && matches!(ended, Err(Fault::Downstream(_))) {
            self.link.charge_reset();
            self.stream.send_reset(Reason::CANCEL);
        }
        Poll::Ready(ended)
    }
}

/// A task that ends with whoever holds this.
pub(crate) struct AbortOnDrop(pub(crate) tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
