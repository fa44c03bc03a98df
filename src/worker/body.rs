//! A response body on its way from an upstream to its client.
//!
//! Nothing is gathered: each piece goes on as it comes, and the upstream's window is given back as the client's connection
//! takes the bytes. hyper holds a bounded amount for the socket and asks for no more until that has gone, so a slow
//! client fills its own stream's window and nothing else.
//!
//! Lives on one worker. RFC 9113 §5.2, RFC 9112 §7.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use tokio::time::Instant;

use super::client::Client;
use super::event_stream::{EventStream, HEARTBEAT, Still};
use super::exchange::Exchange;
use super::exclusive::ExclusivePermit;
use super::lane::Lane;
use super::stream::Stream;
use super::tunnel::{Switched, Tunnel};
use super::upload::AbortOnDrop;
use crate::error::{Fault, UpstreamFault};
use crate::translate;

/// What the client is sent after the head.
pub(crate) struct RelayBody {
    source: Source,
    /// Taken when the body is complete.
    exchange: Option<Box<Exchange>>,
    /// Bytes that are still to come; `None` when only the stream's end says so.
    left: Option<u64>,
    client: Rc<Client>,
    idle: Option<Duration>,
    /// Present if the answer is an event stream.
    events: Option<Box<EventStream>>,
    /// A request body that is still coming; it ends with the answer.
    _upload: Option<AbortOnDrop>,
}

/// Where the bytes come from, with the right to the place that they occupy.
pub(crate) enum Source {
    Http2(Stream),
    Http1 {
        incoming: Incoming,
        permit: ExclusivePermit,
    },
    /// An answer of our own.
    Own(Bytes),
    /// The service speaks another protocol now: hyper has to send the head alone.
    Switched(Box<Switched>),
    Ended,
}

/// The body was cut: the connection closes without ending the message, or the stream is reset, which is the only honest thing
/// left.
#[derive(Debug)]
pub(crate) struct Cut(pub(crate) Fault);

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.reason())
    }
}

impl std::error::Error for Cut {}

impl RelayBody {
    /// A body that is complete already, or that comes from us.
    pub(crate) fn own(client: Rc<Client>, exchange: Box<Exchange>, bytes: Bytes) -> Self {
        client.answer_began();
        let source = Source::Own(bytes.clone());
        let mut body =
            Self { source, exchange: Some(exchange), left: None, client, idle: None, events: None, _upload: None };
        if bytes.is_empty() {
            body.end();
        }
        body
    }

    /// `length` is what the client will be given, if the head has said it; it takes no byte more.
    pub(crate) fn relay(
        client: Rc<Client>,
        exchange: Box<Exchange>,
        source: Source,
        length: Option<u64>,
        idle: Option<Duration>,
        events: Option<Box<EventStream>>,
        upload: Option<AbortOnDrop>,
    ) -> Self {
        client.answer_began();
        let mut body = Self { source, exchange: Some(exchange), left: length, client, idle, events, _upload: upload };
        let is_ended = match &body.source {
            _ if length == Some(0) => true,
            Source::Http2(stream) => stream.is_ended(),
            Source::Http1 { incoming, .. } => incoming.is_end_stream(),
            Source::Own(bytes) => bytes.is_empty(),
            Source::Switched(_) => false,
            Source::Ended => true,
        };
        if is_ended {
            body.end();
        }
        body
    }

    /// The tunnel that takes the place of the connection once the head has been sent.
    pub(crate) fn take_tunnel(&mut self) -> Option<Box<Tunnel>> {
        if !matches!(self.source, Source::Switched(_)) {
            return None;
        }
        let Source::Switched(switched) = std::mem::replace(&mut self.source, Source::Ended) else { return None };
        self.exchange.take().map(|exchange| Box::new(Tunnel::new(*switched, exchange)))
    }

    /// The last byte has been handed on: frees the place and tells the record.
    fn end(&mut self) {
        match std::mem::replace(&mut self.source, Source::Ended) {
            Source::Http1 { permit, .. } => permit.complete(),
            Source::Http2(stream) => stream.finish(),
            Source::Own(_) | Source::Switched(_) | Source::Ended => {}
        }
        let now = Instant::now();
        if let Some(mut exchange) = self.exchange.take() {
            exchange.complete(now);
        }
        self.client.exchange_ended(now);
    }

    fn cut(&mut self, fault: Fault) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let trailers = self.exchange.as_mut().and_then(|exchange| {
            exchange.fault = Some(fault);
            // A gRPC caller can be told the reason even now: an answer without a good status is no complete one.
            let is_told = exchange.is_grpc && self.client.is_stream();
            is_told.then(|| {
                let id = exchange.request_id_or(|| self.client.local.next_request_id());
                fault.answer().grpc_trailers(&id)
            })
        });
        self.exchange = None;
        self.source = Source::Ended;
        Poll::Ready(Some(trailers.map_or(Err(Cut(fault)), |fields| Ok(Frame::trailers(fields)))))
    }

    /// Follows a part of an event stream that is not its last; all others are passed as they are.
    fn follow(&mut self, data: Bytes) -> Bytes {
        match &mut self.events {
            Some(events) => events.follow(data, &self.client),
            None => data,
        }
    }

    /// Ends an event stream in order, though not its service: that has its stream reset.
    fn leave(&mut self) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let words = self.events.take().map(|events| events.last_words()).unwrap_or_default();
        self.source = Source::Ended;
        let passed = if words.is_empty() { Poll::Ready(None) } else { self.pass(words) };
        self.end();
        passed
    }

    /// Nothing has come from the service, and nothing will for now.
    fn poll_still(&mut self, cx: &Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let Some(events) = &mut self.events else { return Poll::Pending };
        match ready!(events.poll_still(cx, &self.client)) {
            // No progress, and nothing that the service has sent.
            Still::Heartbeat => Poll::Ready(Some(Ok(Frame::data(HEARTBEAT)))),
            Still::Idle => self.cut(UpstreamFault::StreamIdle.into()),
            Still::End => self.leave(),
        }
    }

    fn pass(&mut self, data: Bytes) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        if let Some(exchange) = &mut self.exchange {
            exchange.sent_bytes += data.len() as u64;
        }
        self.client.progress();
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        loop {
            match &mut self.source {
                Source::Switched(_) | Source::Ended => return Poll::Ready(None),
                Source::Own(bytes) => {
                    let bytes = std::mem::take(bytes);
                    let passed = self.pass(bytes);
                    self.end();
                    return passed;
                }
                Source::Http2(stream) => {
                    let Some(body) = stream.body() else { return Poll::Ready(None) };
                    match ready!(body.poll_data(cx)) {
                        Some(Ok(data)) => {
                            // Fails only for a stream that is gone, which the next poll tells.
                            let _ = body.flow_control().release_capacity(data.len());
                            let is_end = body.is_end_stream();
                            if data.is_empty() && !is_end {
                                continue;
                            }
                            self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
                            let sent_bytes = self.exchange.as_ref().map_or(0, |exchange| exchange.sent_bytes);
                            if Lane::of_body(sent_bytes + data.len() as u64) == Lane::Long {
                                stream.permit().set_long();
                            }
                            let data = if is_end { data } else { self.follow(data) };
                            let passed = self.pass(data);
                            // hyper asks no more once it has the promised length, so the end may not be waited for. To
                            // a stream trailers may follow.
                            if is_end || (self.left == Some(0) && !self.client.is_stream()) {
                                self.end();
                            }
                            return passed;
                        }
                        Some(Err(error)) => {
                            stream.fail(&error);
                            return self.cut(UpstreamFault::BodyCut.into());
                        }
                        None => {
                            let fields = match ready!(body.poll_trailers(cx)) {
                                Ok(fields) => fields.map(translate::trailers).filter(|fields| !fields.is_empty()),
                                Err(_) => return self.cut(UpstreamFault::BodyCut.into()),
                            };
                            self.end();
                            return Poll::Ready(fields.map(|fields| Ok(Frame::trailers(fields))));
                        }
                    }
                }
                Source::Http1 { incoming, .. } => match ready!(Pin::new(&mut *incoming).poll_frame(cx)) {
                    Some(Ok(frame)) => {
                        let is_end = incoming.is_end_stream();
                        let frame = match frame.into_data() {
                            Ok(data) => {
                                let data = if is_end { data } else { self.follow(data) };
                                self.pass(data)
                            }
                            Err(frame) => match frame.into_trailers() {
                                Ok(fields) => Poll::Ready(Some(Ok(Frame::trailers(translate::trailers(fields))))),
                                Err(_) => continue,
                            },
                        };
                        if is_end {
                            self.end();
                        }
                        return frame;
                    }
                    Some(Err(_)) => return self.cut(UpstreamFault::BodyCut.into()),
                    None => {
                        self.end();
                        return Poll::Ready(None);
                    }
                },
            }
        }
    }
}

impl Body for RelayBody {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        if self.events.as_ref().is_some_and(|events| events.is_over()) {
            return self.leave();
        }
        let polled = self.poll_source(cx);
        if polled.is_pending() {
            let idle = self.idle;
            if self.client.is_out_of_time(idle) {
                let fault = self.client.stream_fault();
                return self.cut(fault);
            }
            return self.poll_still(cx);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.source, Source::Switched(_) | Source::Ended)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Own(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Switched(_) | Source::Ended => SizeHint::with_exact(0),
            Source::Http1 { .. } | Source::Http2(_) => SizeHint::default(),
        }
    }
}

impl Drop for RelayBody {
    fn drop(&mut self) {
        if let Some(exchange) = &mut self.exchange
            && let Some(fault) = self.client.ended_by()
        {
            exchange.fault = Some(fault);
        }
    }
}
