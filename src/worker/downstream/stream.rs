//! One stream of an HTTP/2 client: its request goes on its walk, and the answer goes out as the client's window allows, or
//! the stream becomes a tunnel.
//!
//! Lives on one worker. Decides nothing about requests. RFC 9113 §5.2, §8.1, RFC 8441.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream, ext};
use http::header::CONTENT_LENGTH;
use http::{Request, Response, StatusCode};
use http_body::Body;

use super::super::body::RelayBody;
use super::super::client::Client;
use super::super::forward::forward;
use super::super::request_body::ClientBody;
use super::super::tunnel;
use super::http2::OpenStream;
use crate::error::{DownstreamFault, Fault};

/// Answers one request.
///
/// # Cancel safety
/// Dropping it resets the stream, and gives up the request as if its client had left.
pub(super) async fn answer(open: OpenStream, request: Request<RecvStream>, mut response: SendResponse<Bytes>) {
    let client = open.client().clone();
    let (parts, body) = request.into_parts();
    let (body, receiving) = if parts.extensions.get::<ext::Protocol>().is_some() {
        (ClientBody::None, Some(body))
    } else {
        let length = parts.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        (ClientBody::http2(body, length), None)
    };
    let request = Request::from_parts(parts, body);
    let answered = {
        let mut forwarding = pin!(forward(client.clone(), request));
        poll_fn(|cx| {
            client.timer.register(cx);
            if response.poll_reset(cx).is_ready() {
                return Poll::Ready(None);
            }
            let polled = forwarding.as_mut().poll(cx);
            if client.take_body_wanted() && polled.is_pending() {
                // Fails only for a stream that is gone, which the next poll tells.
                _ = response.send_informational(interim(StatusCode::CONTINUE));
            }
            polled.map(Some)
        })
        .await
    };
    let Some(answered) = answered else { return open.was_reset() };
    let (parts, mut body) = answered.into_parts();
    let tunnel = body.take_tunnel();
    let is_end = tunnel.is_none() && body.is_end_stream();
    // Fails only for a stream that is gone; the body tells the record when it is dropped.
    let Ok(stream) = response.send_response(Response::from_parts(parts, ()), is_end) else {
        return open.was_reset();
    };
    if let (Some(tunnel), Some(receiving)) = (tunnel, receiving) {
        let end = tunnel::End::ClientStream { receiving, sending: stream };
        return match Box::pin(tunnel.run(client, end)).await {
            Ok(()) => open.was_answered(),
            Err(Fault::Downstream(DownstreamFault::ClientGone)) => open.was_reset(),
            Err(_) => {}
        };
    }
    let mut sending = Sending { client, body, stream, chunk: Bytes::new() };
    let end = if sending.body.is_end_stream() { End::Sent } else { poll_fn(|cx| sending.poll(cx)).await };
    match end {
        End::Sent => open.was_answered(),
        End::Reset => open.was_reset(),
        End::Cut => {}
    }
}

/// An answer whose head has gone out.
struct Sending {
    client: std::rc::Rc<Client>,
    body: RelayBody,
    stream: SendStream<Bytes>,
    /// What the client's window has not taken yet; nothing more is asked for until it has.
    chunk: Bytes,
}

/// How it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Sent,
    /// By the client.
    Reset,
    /// By us: what the service does, or how slowly a client reads, is not what counts as giving up.
    Cut,
}

impl Sending {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.client.timer.register(cx);
        if self.stream.poll_reset(cx).is_ready() {
            return Poll::Ready(End::Reset);
        }
        loop {
            if !self.chunk.is_empty() {
                let is_end = self.body.is_end_stream();
                let end = ready!(self.poll_chunk(cx, is_end));
                if end != End::Sent {
                    return Poll::Ready(end);
                }
                if is_end {
                    return Poll::Ready(End::Sent);
                }
            }
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                Some(Err(_cut)) => {
                    self.stream.send_reset(Reason::INTERNAL_ERROR);
                    return Poll::Ready(End::Cut);
                }
                None => return Poll::Ready(sent(self.stream.send_data(Bytes::new(), true))),
            };
            match frame.into_data() {
                Ok(data) if data.is_empty() && self.body.is_end_stream() => {
                    return Poll::Ready(sent(self.stream.send_data(data, true)));
                }
                Ok(data) => self.chunk = data,
                Err(frame) => {
                    let fields = frame.into_trailers().unwrap_or_default();
                    return Poll::Ready(sent(self.stream.send_trailers(fields)));
                }
            }
        }
    }

    /// Hands the chunk to h2 as far as the window and h2's buffer allow; ready when all of it has gone.
    fn poll_chunk(&mut self, cx: &mut Context<'_>, is_end: bool) -> Poll<End> {
        while !self.chunk.is_empty() {
            self.stream.reserve_capacity(self.chunk.len());
            if self.stream.capacity() == 0 {
                match self.stream.poll_capacity(cx) {
                    Poll::Ready(Some(Ok(_))) => {}
                    Poll::Ready(_) => return Poll::Ready(End::Reset),
                    Poll::Pending if self.client.is_stalled() => {
                        self.client.ended.set(Some(self.client.stall_fault()));
                        self.stream.send_reset(Reason::CANCEL);
                        return Poll::Ready(End::Cut);
                    }
                    Poll::Pending => return Poll::Pending,
                }
            }
            let part = self.chunk.split_to(self.stream.capacity().min(self.chunk.len()));
            if part.is_empty() {
                continue;
            }
            let is_last = is_end && self.chunk.is_empty();
            if self.stream.send_data(part, is_last).is_err() {
                return Poll::Ready(End::Reset);
            }
            self.client.progress();
        }
        Poll::Ready(End::Sent)
    }
}

fn interim(status: StatusCode) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = status;
    response
}

fn sent(result: Result<(), h2::Error>) -> End {
    if result.is_ok() { End::Sent } else { End::Reset }
}
