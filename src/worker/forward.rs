//! One request: the walk from its head to an answer, with its deadlines.
//!
//! translate, route, balance, acquire, open, relay: the one place that knows the order. Any fault on the way meets
//! one [`respond`](super::respond::respond).
//!
//! Lives on one worker. RFC 9110 §7, RFC 9209.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::Poll;

use h2::client::ResponseFuture;
use http::header::DATE;
use http::{Request, Response, Version};
use http_body::Body;
use hyper::body::Incoming;
use tokio::time::Instant;

use super::body::{RelayBody, Source};
use super::client::Client;
use super::exchange::{Exchange, Phase};
use super::exclusive::{Exclusive, ExclusivePermit};
use super::http1::{UploadBody, UploadState};
use super::mux::{StreamPermit, Unwritten};
use super::pool::Pool;
use super::respond::respond;
use super::routing::{EndpointEntry, EndpointPool, RouteEntry};
use super::upload::{AbortOnDrop, Upload};
use crate::error::{DownstreamFault, Fault, ProxyFault, Retry, UpstreamFault};
use crate::translate::{self, RequestHead, ResponseBody};

/// Answers one request: with the upstream's answer, or with the fault's row of the table.
pub(crate) async fn forward(client: Rc<Client>, request: Request<Incoming>) -> Result<Response<RelayBody>, Infallible> {
    let start = Instant::now();
    client.exchange_began(request.version());
    let mut exchange = Exchange::begin(client.local.clone(), client.peer.ip(), start);
    exchange.tell(request.method(), request.uri(), request.headers());
    let walked = walk(&client, request, &mut exchange).await;
    Ok(match walked {
        Ok(answer) => answer.relay(client, exchange),
        Err(fault) => respond(client, exchange, fault),
    })
}

/// An upstream's answer whose body is still to be relayed.
struct Answer {
    response: Response<()>,
    source: Source,
    length: Option<u64>,
    route: Rc<RouteEntry>,
    upload: Option<AbortOnDrop>,
}

impl Answer {
    fn relay(self, client: Rc<Client>, mut exchange: Box<Exchange>) -> Response<RelayBody> {
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

async fn walk(client: &Rc<Client>, request: Request<Incoming>, exchange: &mut Exchange) -> Result<Answer, Fault> {
    let (parts, incoming) = request.into_parts();
    let body_bytes_max = client.listener.settings.body_bytes_max;
    if let (Some(max), Some(length)) = (body_bytes_max, incoming.size_hint().exact())
        && length > max
    {
        return Err(DownstreamFault::BodyTooLarge.into());
    }
    let mut head = RequestHead::from_http1(parts, &client.hop)?;
    let routing = client.local.routing();
    let route = routing.table.find(&head).ok_or(ProxyFault::NoRoute)?.clone();
    exchange.route = Some(route.clone());
    let rewrite = route.rewrite.as_ref().map(|(from, to)| (from.as_str(), to.as_str()));
    head.edit(&route.edits, rewrite)?;
    client.limit_request(route.timeouts.request.map(|timeout| exchange.start + timeout));

    exchange.phase = Phase::Wait;
    let (endpoint, place) = acquire(client, &route, exchange).await?;
    exchange.endpoint = Some(endpoint.clone());
    exchange.phase = Phase::ResponseHead;
    match place {
        Place::Http2(pool, permit) => {
            let call = Call { client, route: &route, endpoint: &endpoint, exchange };
            call.http2(head, incoming, pool, permit).await
        }
        Place::Http1(pool, permit) => {
            let call = Call { client, route: &route, endpoint: &endpoint, exchange };
            // Boxed, as is every path that the usual request does not take: hyper moves the whole future once
            // for each request, and keeps room for it on each connection.
            Box::pin(call.http1(head, incoming, &pool, permit)).await
        }
    }
}

/// The right to one exchange with an endpoint.
enum Place {
    Http2(Rc<Pool>, StreamPermit),
    Http1(Rc<Exclusive>, ExclusivePermit),
}

/// Takes a place at an endpoint of the route's upstream; at the next one when an endpoint has none to give.
async fn acquire(
    client: &Rc<Client>,
    route: &Rc<RouteEntry>,
    exchange: &mut Exchange,
) -> Result<(Rc<EndpointEntry>, Place), Fault> {
    let upstream = &route.upstream;
    let mut tried: Vec<Rc<EndpointEntry>> = Vec::new();
    let mut last = Fault::Proxy(ProxyFault::NoHealthyEndpoint);
    while let Some(endpoint) = upstream.pick(&tried).cloned() {
        exchange.attempts += 1;
        let place = match &endpoint.pool {
            EndpointPool::Http2(pool) => match pool.try_acquire() {
                Some(permit) => Ok(Place::Http2(pool.clone(), permit)),
                None => Box::pin(wait(client, pool, exchange)).await.map(|permit| Place::Http2(pool.clone(), permit)),
            },
            EndpointPool::Http1(pool) => {
                let since = Instant::now();
                let place = Box::pin(wait_http1(client, pool)).await;
                let place = place.map(|permit| Place::Http1(pool.clone(), permit));
                exchange.wait += since.elapsed();
                place
            }
        };
        match place {
            Ok(place) => return Ok((endpoint, place)),
            Err(fault) => last = fault,
        }
        let may_go_on = matches!(last.answer().retry, Retry::AnotherEndpoint | Retry::Safe)
            || last == Fault::Proxy(ProxyFault::NoHealthyEndpoint);
        if !may_go_on || client.is_past_request_end() {
            break;
        }
        tried.push(endpoint);
    }
    Err(last)
}

/// Waits in the pool's queue for up to `pending_timeout`.
async fn wait(client: &Client, pool: &Rc<Pool>, exchange: &mut Exchange) -> Result<StreamPermit, Fault> {
    let mut waiting = pool.wait()?;
    let since = Instant::now();
    client.arm(since, Some(pool.shared().pool.pending_timeout));
    let waited = poll_fn(|cx| match waiting.poll(cx) {
        Poll::Pending if client.is_expired() => Poll::Ready(Err(if client.is_past_request_end() {
            ProxyFault::RequestTimeout.into()
        } else {
            pool.metrics.rejected.increment("timeout");
            pool.wait_fault()
        })),
        polled => polled,
    })
    .await;
    exchange.wait += since.elapsed();
    waited
}

/// Waits for an HTTP/1.1 connection, which bounds the wait itself, or for the end of the request's time.
async fn wait_http1(client: &Client, pool: &Exclusive) -> Result<ExclusivePermit, Fault> {
    client.arm(Instant::now(), None);
    let mut acquiring = pin!(pool.acquire());
    poll_fn(|cx| match acquiring.as_mut().poll(cx) {
        Poll::Pending if client.is_expired() => Poll::Ready(Err(ProxyFault::RequestTimeout.into())),
        polled => polled,
    })
    .await
}

/// A request that has its place.
struct Call<'a> {
    client: &'a Rc<Client>,
    route: &'a Rc<RouteEntry>,
    endpoint: &'a EndpointEntry,
    exchange: &'a mut Exchange,
}

impl Call<'_> {
    async fn http2(
        self,
        head: RequestHead,
        incoming: Incoming,
        pool: Rc<Pool>,
        mut permit: StreamPermit,
    ) -> Result<Answer, Fault> {
        let method = head.method().clone();
        let is_bodiless = incoming.is_end_stream();
        let mut request = head.into_http2(&self.endpoint.scheme, &self.endpoint.authority);
        let mut attempts = 0;
        let opened = loop {
            match permit.open(request, is_bodiless) {
                Ok(opened) => break opened,
                Err(Unwritten(back)) => {
                    attempts += 1;
                    if attempts == OPEN_ATTEMPTS_MAX {
                        return Err(UpstreamFault::ConnectionLost.into());
                    }
                    request = back;
                    drop(permit);
                    permit = match pool.try_acquire() {
                        Some(permit) => permit,
                        None => Box::pin(wait(self.client, &pool, self.exchange)).await?,
                    };
                }
            }
        };
        let (response, stream) = opened?;
        self.exchange.connection_id = permit.connection_id();
        self.exchange.stream_id = response.stream_id().as_u32();
        let upload = (!is_bodiless).then(|| {
            let received = Arc::new(AtomicU64::new(0));
            self.exchange.received_bytes = Some(received.clone());
            let bytes_max = self.client.listener.settings.body_bytes_max;
            Upload::new(incoming, stream, permit.link().clone(), bytes_max, received, self.client.clone())
        });
        // Without a wait the head has just come, and needs no second look at the clock.
        let sent = if self.exchange.wait.is_zero() { self.exchange.start } else { Instant::now() };
        let (response, upload) = self.response_head(response, upload, &permit, sent).await?;
        self.exchange.first_byte = Some(sent.elapsed());
        let (mut parts, stream) = response.into_parts();
        let framing = translate::response_to_http1(&mut parts, &method)?;
        let source = Source::Http2 { stream, permit };
        let upload = upload.map(|upload| AbortOnDrop(tokio::task::spawn_local(upload).abort_handle()));
        let (response, length) = (Response::from_parts(parts, ()), length(framing));
        Ok(Answer { response, source, length, route: self.route.clone(), upload })
    }

    /// Waits for the response head while the request body goes up; what is left of the body comes back.
    async fn response_head(
        &self,
        mut response: ResponseFuture,
        mut upload: Option<Upload>,
        permit: &StreamPermit,
        sent: Instant,
    ) -> Result<(Response<h2::RecvStream>, Option<Upload>), Fault> {
        let client = self.client;
        let timeouts = &self.route.timeouts;
        let mut is_armed = false;
        client.stream_began(timeouts.stream_idle);
        let head = poll_fn(|cx| {
            if let Some(body) = &mut upload
                && let Poll::Ready(ended) = Pin::new(body).poll(cx)
            {
                upload = None;
                match ended {
                    // After a reset the response may explain it; its own error comes with the next poll.
                    Ok(()) | Err(Fault::Upstream(_)) => {}
                    Err(fault) => return Poll::Ready(Err(fault)),
                }
            }
            match Pin::new(&mut response).poll(cx) {
                Poll::Ready(Ok(head)) => return Poll::Ready(Ok(head)),
                Poll::Ready(Err(error)) => {
                    let fault = permit.fault(&error);
                    tracing::debug!(connection = permit.connection_id(), %error, ?fault, "no response head");
                    return Poll::Ready(Err(fault.into()));
                }
                Poll::Pending => {}
            }
            if upload.is_some() {
                if client.is_out_of_time(timeouts.stream_idle) {
                    let is_starving = upload.as_ref().is_none_or(Upload::is_starving);
                    return Poll::Ready(Err(stalled_upload(client, is_starving)));
                }
            } else if !is_armed {
                is_armed = true;
                // The usual request has no body, and `sent` is now.
                let from = if self.exchange.received_bytes.is_some() { Instant::now() } else { sent };
                client.arm(from, timeouts.response_header);
            } else if client.is_expired() {
                return Poll::Ready(Err(late_head(client)));
            }
            Poll::Pending
        })
        .await?;
        Ok((head, upload))
    }

    async fn http1(
        self,
        head: RequestHead,
        incoming: Incoming,
        pool: &Rc<Exclusive>,
        mut permit: ExclusivePermit,
    ) -> Result<Answer, Fault> {
        let method = head.method().clone();
        let parts = head.into_http1(&self.endpoint.authority);
        let body = UploadBody::new(incoming, self.client.listener.settings.body_bytes_max);
        let upload = body.state();
        self.exchange.received_bytes = Some(upload.received_bytes.clone());
        let mut request = Request::from_parts(parts, body);
        let sent = Instant::now();
        let mut attempts = 0;
        let response = loop {
            self.exchange.connection_id = permit.connection_id();
            let outcome = self.http1_response_head(pin!(permit.send(request)), &upload).await?;
            match outcome {
                Ok(Ok(response)) => break response,
                // What is wrong with the request body comes first: the service has seen nothing but a cut.
                Ok(Err(fault)) => return Err(upload.refusal().map_or(Fault::Upstream(fault), Fault::Downstream)),
                Err(unwritten) => {
                    attempts += 1;
                    if attempts == OPEN_ATTEMPTS_MAX {
                        return Err(UpstreamFault::ConnectionLost.into());
                    }
                    request = *unwritten;
                    permit = wait_http1(self.client, pool).await?;
                }
            }
        };
        self.exchange.first_byte = Some(sent.elapsed());
        let (mut parts, incoming) = response.into_parts();
        let framing = translate::response_to_http1(&mut parts, &method)?;
        let source = Source::Http1 { incoming, permit };
        let (response, length) = (Response::from_parts(parts, ()), length(framing));
        Ok(Answer { response, source, length, route: self.route.clone(), upload: None })
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
const OPEN_ATTEMPTS_MAX: u32 = 8;
