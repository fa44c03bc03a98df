//! One attempt at an endpoint: from the place that a request has there to the response head.
//!
//! While it waits for the head it sends the request's body; either may come first. What has failed comes back with what
//! another attempt needs.
//!
//! Lives on one worker. Decides nothing about attempts. RFC 9110 §7, RFC 9113 §8.1.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use http::header::{CONNECTION, DATE};
use http::response::Parts;
use http::{HeaderValue, Request, Response, StatusCode, Version};
use hyper::ext::on_informational;
use tokio::time::Instant;

use super::body::{RelayBody, Source};
use super::client::Client;
use super::event_stream::EventStream;
use super::exchange::{Exchange, Phase};
use super::exclusive::{Exclusive, ExclusivePermit};
use super::expectation::Asking;
use super::http1::{Gone, UploadBody, UploadState};
use super::lane::Lane;
use super::mux::{Failure, StreamPermit};
use super::request_body::RequestBody;
use super::routing::{EndpointEntry, RouteEntry};
use super::stream::Stream;
use super::upload::{AbortOnDrop, Upload};
use crate::error::{DownstreamFault, Fault, Proof, ProxyFault, UpstreamFault};
use crate::translate::{self, RequestHead, ResponseBody};

/// An upstream's answer whose body is still to be relayed.
pub(crate) struct Answer {
    response: Response<()>,
    source: Source,
    length: Option<u64>,
    route: Rc<RouteEntry>,
    upload: Option<AbortOnDrop>,
    /// The client was not asked for the request's body, and will not be.
    is_unread: bool,
}

impl Answer {
    /// What came of an attempt that was not made here.
    pub(crate) fn new(parts: Parts, source: Source, length: Option<u64>, route: Rc<RouteEntry>) -> Self {
        Self { response: Response::from_parts(parts, ()), source, length, route, upload: None, is_unread: false }
    }

    pub(crate) fn relay(self, client: Rc<Client>, mut exchange: Box<Exchange>) -> Response<RelayBody> {
        exchange.phase = Phase::Body;
        exchange.status = Some(self.response.status().as_u16());
        let idle = self.route.timeouts.stream_idle;
        client.stream_began(idle);
        let mut response = self.response;
        if !response.headers().contains_key(DATE) {
            response.headers_mut().insert(DATE, client.local.date());
        }
        if self.is_unread && !client.is_stream() {
            // RFC 9110 §10.1.1: the body that the client may or may not send now is not read.
            client.set_reusable(false);
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if self.length.is_none() && client.ends_by_close() {
            // Otherwise hyper would say keep-alive, and close all the same.
            *response.version_mut() = Version::HTTP_10;
        }
        let events = match self.length {
            None => EventStream::of(response.headers(), &self.route, &client),
            Some(_) => None,
        };
        response.map(|()| RelayBody::relay(client, exchange, self.source, self.length, idle, events, self.upload))
    }
}

/// A request that has its place.
pub(crate) struct Call<'a> {
    pub(crate) client: &'a Rc<Client>,
    pub(crate) route: &'a Rc<RouteEntry>,
    pub(crate) endpoint: &'a EndpointEntry,
    pub(crate) exchange: &'a mut Exchange,
}

/// What came of an attempt.
#[allow(clippy::large_enum_variant, reason = "the large one is the usual one, and a box for it would cost")]
pub(crate) enum Attempt {
    Answered(Answer),
    Failed(Box<Failed>),
}

/// An attempt that another one may better.
pub(crate) struct Failed {
    /// What the client gets if no other one follows.
    pub(crate) outcome: Result<Answer, Fault>,
    /// Present if the service has provably done nothing for it.
    pub(crate) proof: Option<Proof>,
    /// Where it was made.
    pub(crate) connection_id: u64,
    /// The request's body as far as it has come, for another attempt.
    pub(crate) body: Result<Option<RequestBody>, Gone>,
}

impl Failed {
    fn attempt(
        outcome: Result<Answer, Fault>,
        proof: Option<Proof>,
        connection_id: u64,
        body: Result<Option<RequestBody>, Gone>,
    ) -> Attempt {
        let is_replayable = body.as_ref().is_ok_and(|body| body.as_ref().is_none_or(RequestBody::is_replayable));
        let body = if is_replayable { body } else { Err(Gone) };
        Attempt::Failed(Box::new(Self { outcome, proof, connection_id, body }))
    }
}

impl Call<'_> {
    pub(crate) async fn http2(
        self,
        head: RequestHead,
        mut body: Option<RequestBody>,
        permit: StreamPermit,
    ) -> Result<Attempt, Fault> {
        let method = head.method().clone();
        let request = head.into_http2(&self.endpoint.scheme, &self.endpoint.authority);
        let connection_id = permit.connection_id();
        let (response, sending) = match permit.open(request, body.is_none()) {
            Ok(opened) => opened,
            Err(Failure { fault, proof }) => {
                return Ok(Failed::attempt(Err(fault.into()), proof, connection_id, Ok(body)));
            }
        };
        self.exchange.connection_id = connection_id;
        self.exchange.stream_id = response.stream_id().as_u32();
        let mut asking = body.as_mut().and_then(RequestBody::ask);
        let mut upload = body.map(|body| Upload::new(body, sending, permit.link().clone(), self.client.clone()));
        let mut stream = Stream::new(response, permit);
        // Without a wait the head has just come, and needs no second look at the clock.
        let is_new = self.exchange.wait.is_zero() && self.exchange.attempts == 1;
        let sent = if is_new { self.exchange.start } else { Instant::now() };
        let mut parts = match self.response_head(&mut stream, &mut upload, &mut asking, sent).await {
            Ok(parts) => parts,
            Err(Unanswered { fault, proof }) => {
                // Where nothing but HTTP/2 is spoken, nothing else can be tried.
                let is_moot = proof == Some(Proof::Http11Required) && !self.endpoint.pool.is_either();
                let proof = proof.filter(|_| !is_moot);
                return Ok(Failed::attempt(Err(fault), proof, connection_id, Ok(upload.map(Upload::into_body))));
            }
        };
        self.exchange.first_byte = Some(sent.elapsed());
        let framing = translate::response_for_client(&mut parts, &method)?;
        if Lane::of_response(framing, &parts.headers) == Lane::Long {
            stream.permit().set_long();
        }
        let is_through = |upload: &Upload| upload.is_done() || upload.is_held_back();
        let is_unwanted = self.is_unwanted(parts.status) && upload.as_ref().is_none_or(is_through);
        if let Some(asking) = asking.filter(|_| !is_unwanted) {
            asking.answered(parts.status);
        }
        let is_unread = upload.as_ref().is_some_and(Upload::is_held_back);
        let (response, length) = (Response::from_parts(parts, ()), length(framing));
        let mut answer = Answer {
            response,
            source: Source::Http2(stream),
            length,
            route: self.route.clone(),
            upload: None,
            is_unread,
        };
        if is_unwanted {
            return Ok(Failed::attempt(Ok(answer), None, connection_id, Ok(upload.map(Upload::into_body))));
        }
        let upload = upload.filter(|upload| !upload.is_done());
        answer.upload = upload.map(|upload| AbortOnDrop(tokio::task::spawn_local(upload.into_last()).abort_handle()));
        Ok(Attempt::Answered(answer))
    }

    /// Waits for the response head while the request body goes up.
    async fn response_head(
        &self,
        stream: &mut Stream,
        upload: &mut Option<Upload>,
        asking: &mut Option<Box<Asking>>,
        sent: Instant,
    ) -> Result<Parts, Unanswered> {
        let client = self.client;
        let stream_idle = self.route.timeouts.stream_idle;
        let mut is_armed = false;
        client.stream_began(stream_idle);
        if asking.is_some() {
            client.arm(sent, None);
        }
        poll_fn(|cx| {
            if let Some(asking) = asking {
                while let Some(status) = stream.poll_interim(cx) {
                    asking.informed(status);
                }
            }
            let is_asking = asking.as_mut().is_some_and(|asking| asking.is_open(cx));
            if !is_asking && asking.take().is_some() {
                client.ask_for_body();
            }
            let mut uploading = upload.as_mut().filter(|upload| !upload.is_done());
            if let Some(body) = &mut uploading
                && let Poll::Ready(ended) = Pin::new(&mut **body).poll(cx)
            {
                uploading = None;
                match ended {
                    // After a reset the response may explain it; its own error comes with the next poll.
                    Ok(()) | Err(Fault::Upstream(_)) => {}
                    Err(fault) => return Poll::Ready(Err(fault.into())),
                }
            }
            if let Poll::Ready(head) = stream.poll_head(cx) {
                return Poll::Ready(head.map_err(Unanswered::from));
            }
            if is_asking {
                return if client.is_expired() { Poll::Ready(Err(late_head(client).into())) } else { Poll::Pending };
            }
            if let Some(uploading) = uploading {
                if client.is_out_of_time(stream_idle) {
                    return Poll::Ready(Err(stalled_upload(client, uploading.is_starving()).into()));
                }
            } else if !is_armed {
                is_armed = true;
                // The usual request has no body, and `sent` is now.
                let from = if upload.is_some() { Instant::now() } else { sent };
                let is_replayable = upload.as_ref().is_none_or(Upload::is_replayable);
                client.arm(from, self.head_timeout(from, is_replayable));
            } else if client.is_expired() {
                return Poll::Ready(Err(late_head(client).into()));
            }
            Poll::Pending
        })
        .await
    }

    /// How long this attempt has for the head of the answer, when all of the request has gone at `sent`.
    fn head_timeout(&self, sent: Instant, is_replayable: bool) -> Option<Duration> {
        let timeout = self.route.timeouts.response_header;
        self.exchange.tries.as_ref().map_or(timeout, |tries| tries.head_timeout(sent, timeout, is_replayable))
    }

    /// Whether the route would rather have another answer.
    fn is_unwanted(&self, status: StatusCode) -> bool {
        self.exchange.tries.as_ref().is_some_and(|tries| tries.is_unwanted(status))
    }

    pub(crate) async fn http1(
        self,
        head: RequestHead,
        mut body: Option<RequestBody>,
        pool: Rc<Exclusive>,
        mut permit: ExclusivePermit,
    ) -> Result<Attempt, Fault> {
        let method = head.method().clone();
        let parts = head.into_http1(&self.endpoint.authority);
        self.exchange.stream_id = 0;
        let is_either = self.endpoint.pool.is_either();
        let may_go_again = is_either || self.exchange.tries.is_some();
        if let (Some(body), false) = (&mut body, may_go_again) {
            body.release();
        }
        let mut asking = body.as_mut().and_then(RequestBody::ask);
        let body = UploadBody::new(body);
        let upload = body.state();
        let mut request = Request::from_parts(parts, body);
        if let Some(asking) = &asking {
            let expectation = asking.expectation().clone();
            on_informational(&mut request, move |interim| {
                if interim.status() == StatusCode::CONTINUE {
                    expectation.meet();
                }
            });
        }
        let sent = Instant::now();
        let connection_id = permit.connection_id();
        self.exchange.connection_id = connection_id;
        let sending = self.http1_response_head(pin!(permit.send(request)), &upload, &mut asking, sent).await;
        let outcome = match sending {
            Ok(Ok(Ok(response))) => Ok(response),
            Ok(Ok(Err(fault))) if is_either && permit.is_answered_in_http2() => {
                pool.found_http2();
                self.client.timer.disarm();
                upload.wait_for_end().await;
                let proof = Some(Proof::Http2Answered);
                return Ok(Failed::attempt(Err(fault.into()), proof, connection_id, upload.take_back()));
            }
            // What is wrong with the request body comes first: the service has seen nothing but a cut.
            Ok(Ok(Err(fault))) => Err(upload.refusal().map_or(Fault::Upstream(fault), Fault::Downstream)),
            Ok(Err(unwritten)) => {
                let (lost, body) = (UpstreamFault::ConnectionLost.into(), unwritten.into_body().into_body());
                // The next attempt still has to be made over HTTP/1.1.
                let proof = if permit.is_required { Proof::Http11Required } else { Proof::Unwritten };
                return Ok(Failed::attempt(Err(lost), Some(proof), connection_id, Ok(body)));
            }
            Err(fault) => Err(fault),
        };
        let response = match outcome {
            Ok(response) => response,
            Err(fault) => {
                if self.exchange.tries.is_some() && fault == Fault::Upstream(UpstreamFault::ConnectionLost) {
                    self.client.timer.disarm();
                    upload.wait_for_end().await;
                }
                return Ok(Failed::attempt(Err(fault), None, connection_id, upload.take_back()));
            }
        };
        self.exchange.first_byte = Some(sent.elapsed());
        let (mut parts, incoming) = response.into_parts();
        let framing = translate::response_for_client(&mut parts, &method)?;
        let is_unwanted = self.is_unwanted(parts.status) && upload.is_ended();
        let is_unread = asking.is_some_and(|asking| {
            asking.answered(parts.status);
            asking.expectation().is_open()
        });
        let source = Source::Http1 { incoming, permit };
        let (response, length) = (Response::from_parts(parts, ()), length(framing));
        let answer = Answer { response, source, length, route: self.route.clone(), upload: None, is_unread };
        if is_unwanted {
            return Ok(Failed::attempt(Ok(answer), None, connection_id, upload.take_back()));
        }
        Ok(Attempt::Answered(answer))
    }

    /// Waits for what comes of `sending`. While the body goes up it may not stand still; then the service has its
    /// time for the head.
    async fn http1_response_head<T>(
        &self,
        mut sending: Pin<&mut impl Future<Output = T>>,
        upload: &UploadState,
        asking: &mut Option<Box<Asking>>,
        sent: Instant,
    ) -> Result<T, Fault> {
        let client = self.client;
        let stream_idle = self.route.timeouts.stream_idle;
        let mut is_armed = false;
        client.stream_began(stream_idle);
        if asking.is_some() {
            client.arm(sent, None);
        }
        poll_fn(|cx| {
            if let Poll::Ready(result) = sending.as_mut().poll(cx) {
                return Poll::Ready(Ok(result));
            }
            if asking.as_mut().is_some_and(|asking| asking.is_open(cx)) {
                return if client.is_expired() { Poll::Ready(Err(late_head(client))) } else { Poll::Pending };
            }
            if asking.take().is_some() {
                client.ask_for_body();
            }
            if is_armed {
                return if client.is_expired() { Poll::Ready(Err(late_head(client))) } else { Poll::Pending };
            }
            if upload.poll_ended(cx) {
                is_armed = true;
                let now = Instant::now();
                client.arm(now, self.head_timeout(now, upload.is_replayable()));
                return Poll::Pending;
            }
            // Looked at only when the time is up, so that a body that stands still may have twice the time.
            if upload.has_moved() {
                client.progress();
            }
            if client.is_out_of_time(stream_idle) {
                return Poll::Ready(Err(stalled_upload(client, upload.is_starving())));
            }
            Poll::Pending
        })
        .await
    }
}

/// Why there is no response head.
struct Unanswered {
    fault: Fault,
    /// Present if the request was not processed.
    proof: Option<Proof>,
}

impl From<Fault> for Unanswered {
    fn from(fault: Fault) -> Self {
        Self { fault, proof: None }
    }
}

impl From<Failure> for Unanswered {
    fn from(Failure { fault, proof }: Failure) -> Self {
        Self { fault: fault.into(), proof }
    }
}

/// The body bytes that the client will be given, if the head says it.
pub(crate) const fn length(framing: ResponseBody) -> Option<u64> {
    match framing {
        ResponseBody::None => Some(0),
        ResponseBody::Sized(length) => Some(length),
        ResponseBody::Unsized => None,
    }
}

pub(crate) fn late_head(client: &Client) -> Fault {
    if client.is_past_request_end() {
        ProxyFault::RequestTimeout.into()
    } else {
        UpstreamFault::ResponseHeadTimeout.into()
    }
}

/// Who has kept a request body from moving: its client if `is_starving`, else the service that does not take it.
fn stalled_upload(client: &Client, is_starving: bool) -> Fault {
    if client.is_past_request_end() {
        ProxyFault::RequestTimeout.into()
    } else if is_starving {
        DownstreamFault::BodyIncomplete.into()
    } else {
        UpstreamFault::StreamIdle.into()
    }
}
