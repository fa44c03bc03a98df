//! One attempt at an endpoint: from the place that a request has there to the response head.
//!
//! While it waits for the head it sends the request's body; either may come first. What has provably not been
//! processed comes back whole, for another attempt.
//!
//! Lives on one worker. Decides nothing about attempts. RFC 9110 §7, RFC 9113 §8.1.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;

use h2::client::ResponseFuture;
use http::header::DATE;
use http::{Request, Response, Version};
use tokio::time::Instant;

use super::acquire::{wait, wait_http1};
use super::body::{RelayBody, Source};
use super::client::Client;
use super::exchange::{Exchange, Phase};
use super::exclusive::{Exclusive, ExclusivePermit};
use super::http1::{UploadBody, UploadState};
use super::lane::Lane;
use super::mux::{Failure, StreamPermit, Unwritten};
use super::pool::Pool;
use super::request_body::RequestBody;
use super::routing::{EndpointEntry, RouteEntry};
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
}

impl Answer {
    pub(crate) fn relay(self, client: Rc<Client>, mut exchange: Box<Exchange>) -> Response<RelayBody> {
        exchange.phase = Phase::Body;
        exchange.status = Some(self.response.status().as_u16());
        let idle = self.route.timeouts.stream_idle;
        client.stream_began(idle);
        let mut response = self.response;
        if !response.headers().contains_key(DATE) {
            response.headers_mut().insert(DATE, client.local.date());
        }
        if self.length.is_none() && client.ends_by_close() {
            // Otherwise hyper would say keep-alive, and close all the same.
            *response.version_mut() = Version::HTTP_10;
        }
        response.map(|()| RelayBody::relay(client, exchange, self.source, self.length, idle, self.upload))
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
    Unprocessed(Box<Unprocessed>),
}

impl Attempt {
    fn unprocessed(fault: Fault, proof: Proof, connection_id: u64, body: Option<RequestBody>) -> Self {
        Self::Unprocessed(Box::new(Unprocessed { fault, proof, connection_id, body }))
    }
}

/// An attempt that the service has provably done nothing for.
pub(crate) struct Unprocessed {
    pub(crate) fault: Fault,
    pub(crate) proof: Proof,
    /// Where it was made.
    pub(crate) connection_id: u64,
    /// The request's body, as far as it has come.
    pub(crate) body: Option<RequestBody>,
}

impl Call<'_> {
    pub(crate) async fn http2(
        self,
        head: RequestHead,
        body: Option<RequestBody>,
        pool: Rc<Pool>,
        mut permit: StreamPermit,
    ) -> Result<Attempt, Fault> {
        let method = head.method().clone();
        let mut request = head.into_http2(&self.endpoint.scheme, &self.endpoint.authority);
        let mut opens = 0;
        let opened = loop {
            match permit.open(request, body.is_none()) {
                Ok(opened) => break opened,
                Err(Unwritten(back)) => {
                    opens += 1;
                    if opens == OPENS_MAX {
                        return Err(UpstreamFault::ConnectionLost.into());
                    }
                    request = back;
                    let connection_id = permit.connection_id();
                    drop(permit);
                    permit = match pool.try_acquire(Lane::Short) {
                        Some(permit) => permit,
                        None => match Box::pin(wait(self.client, &pool, self.exchange)).await {
                            Ok(permit) => permit,
                            // The service has come to speak HTTP/1.1.
                            Err(fault) if self.endpoint.pool.is_http1() => {
                                return Ok(Attempt::unprocessed(fault, Proof::Unwritten, connection_id, body));
                            }
                            Err(fault) => return Err(fault),
                        },
                    };
                }
            }
        };
        let (response, stream) = opened?;
        self.exchange.connection_id = permit.connection_id();
        self.exchange.stream_id = response.stream_id().as_u32();
        let mut upload = body.map(|body| Upload::new(body, stream, permit.link().clone(), self.client.clone()));
        // Without a wait the head has just come, and needs no second look at the clock.
        let is_new = self.exchange.wait.is_zero() && self.exchange.attempts == 1;
        let sent = if is_new { self.exchange.start } else { Instant::now() };
        let response = match self.response_head(response, &mut upload, &permit, sent).await {
            Ok(response) => response,
            Err(Unanswered { fault, proof: None }) => return Err(fault),
            // Nothing but HTTP/2 is spoken there.
            Err(Unanswered { fault, proof: Some(Proof::Http11Required) }) if !self.endpoint.pool.is_either() => {
                return Err(fault);
            }
            Err(Unanswered { fault, proof: Some(proof) }) => {
                let body = upload.map(Upload::into_body);
                return Ok(Attempt::unprocessed(fault, proof, permit.connection_id(), body));
            }
        };
        self.exchange.first_byte = Some(sent.elapsed());
        let (mut parts, stream) = response.into_parts();
        let framing = translate::response_to_http1(&mut parts, &method)?;
        if Lane::of_response(framing, &parts.headers) == Lane::Long {
            permit.set_long();
        }
        let source = Source::Http2 { stream, permit };
        let upload = upload.filter(|upload| !upload.is_done());
        let upload = upload.map(|upload| AbortOnDrop(tokio::task::spawn_local(upload.into_last()).abort_handle()));
        let (response, length) = (Response::from_parts(parts, ()), length(framing));
        Ok(Attempt::Answered(Answer { response, source, length, route: self.route.clone(), upload }))
    }

    /// Waits for the response head while the request body goes up.
    async fn response_head(
        &self,
        mut response: ResponseFuture,
        upload: &mut Option<Upload>,
        permit: &StreamPermit,
        sent: Instant,
    ) -> Result<Response<h2::RecvStream>, Unanswered> {
        let client = self.client;
        let timeouts = &self.route.timeouts;
        let mut is_armed = false;
        client.stream_began(timeouts.stream_idle);
        poll_fn(|cx| {
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
            match Pin::new(&mut response).poll(cx) {
                Poll::Ready(Ok(head)) => return Poll::Ready(Ok(head)),
                Poll::Ready(Err(error)) => {
                    let failure = permit.failure(&error);
                    tracing::debug!(connection = permit.connection_id(), %error, ?failure, "no response head");
                    return Poll::Ready(Err(failure.into()));
                }
                Poll::Pending => {}
            }
            if let Some(uploading) = uploading {
                if client.is_out_of_time(timeouts.stream_idle) {
                    return Poll::Ready(Err(stalled_upload(client, uploading.is_starving()).into()));
                }
            } else if !is_armed {
                is_armed = true;
                // The usual request has no body, and `sent` is now.
                let from = if upload.is_some() { Instant::now() } else { sent };
                client.arm(from, timeouts.response_header);
            } else if client.is_expired() {
                return Poll::Ready(Err(late_head(client).into()));
            }
            Poll::Pending
        })
        .await
    }

    pub(crate) async fn http1(
        self,
        head: RequestHead,
        mut body: Option<RequestBody>,
        pool: &Rc<Exclusive>,
        mut permit: ExclusivePermit,
    ) -> Result<Attempt, Fault> {
        let method = head.method().clone();
        let parts = head.into_http1(&self.endpoint.authority);
        self.exchange.stream_id = 0;
        let is_either = self.endpoint.pool.is_either();
        if let (Some(body), false) = (&mut body, is_either) {
            body.release();
        }
        let body = UploadBody::new(body);
        let upload = body.state();
        let mut request = Request::from_parts(parts, body);
        let sent = Instant::now();
        let mut opens = 0;
        let response = loop {
            self.exchange.connection_id = permit.connection_id();
            let outcome = self.http1_response_head(pin!(permit.send(request)), &upload).await?;
            match outcome {
                Ok(Ok(response)) => break response,
                Ok(Err(fault)) if is_either && permit.is_answered_in_http2() => {
                    pool.found_http2();
                    // hyper lets go of the body together with the connection.
                    poll_fn(|cx| if upload.poll_ended(cx) { Poll::Ready(()) } else { Poll::Pending }).await;
                    let (proof, body) = (Proof::Http2Answered, upload.take_body());
                    return Ok(Attempt::unprocessed(fault.into(), proof, permit.connection_id(), body));
                }
                // What is wrong with the request body comes first: the service has seen nothing but a cut.
                Ok(Err(fault)) => return Err(upload.refusal().map_or(Fault::Upstream(fault), Fault::Downstream)),
                Err(unwritten) => {
                    opens += 1;
                    if opens == OPENS_MAX {
                        return Err(UpstreamFault::ConnectionLost.into());
                    }
                    request = *unwritten;
                    permit = match wait_http1(self.client, pool, permit.is_required).await {
                        Ok(permit) => permit,
                        // The service has come to speak HTTP/2.
                        Err(fault) if !self.endpoint.pool.is_http1() => {
                            let (id, body) = (self.exchange.connection_id, request.into_body().into_body());
                            return Ok(Attempt::unprocessed(fault, Proof::Unwritten, id, body));
                        }
                        Err(fault) => return Err(fault),
                    };
                }
            }
        };
        self.exchange.first_byte = Some(sent.elapsed());
        let (mut parts, incoming) = response.into_parts();
        let framing = translate::response_to_http1(&mut parts, &method)?;
        let source = Source::Http1 { incoming, permit };
        let (response, length) = (Response::from_parts(parts, ()), length(framing));
        Ok(Attempt::Answered(Answer { response, source, length, route: self.route.clone(), upload: None }))
    }

    /// Waits for what comes of `sending`. While the body goes up it may not stand still; then the service has its
    /// time for the head.
    async fn http1_response_head<T>(
        &self,
        mut sending: Pin<&mut impl Future<Output = T>>,
        upload: &UploadState,
    ) -> Result<T, Fault> {
        let client = self.client;
        let timeouts = &self.route.timeouts;
        let mut is_armed = false;
        client.stream_began(timeouts.stream_idle);
        poll_fn(|cx| {
            if let Poll::Ready(result) = sending.as_mut().poll(cx) {
                return Poll::Ready(Ok(result));
            }
            if is_armed {
                return if client.is_expired() { Poll::Ready(Err(late_head(client))) } else { Poll::Pending };
            }
            if upload.poll_ended(cx) {
                is_armed = true;
                client.arm(Instant::now(), timeouts.response_header);
                return Poll::Pending;
            }
            // Looked at only when the time is up, so that a body that stands still may have twice the time.
            if upload.has_moved() {
                client.progress();
            }
            if client.is_out_of_time(timeouts.stream_idle) {
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
const fn length(framing: ResponseBody) -> Option<u64> {
    match framing {
        ResponseBody::None => Some(0),
        ResponseBody::Sized(length) => Some(length),
        ResponseBody::Unsized => None,
    }
}

fn late_head(client: &Client) -> Fault {
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

/// Connections that may turn out to have gone between the permit and the stream, before the request is given up.
const OPENS_MAX: u32 = 8;
