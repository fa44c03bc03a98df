//! A request for another protocol: from its head to the service's consent, or to a plain answer.
//!
//! A WebSocket becomes one stream of an HTTP/2 connection where the service offers that, among the streams that live long.
//! Else, and for other protocols, of which an offer of extended CONNECT says nothing, a connection in HTTP/1.1 is dialled
//! for it, beside those of the pool: it never comes back, and so must not take the place of one that does.
//!
//! Such a request is sent again by proof only, as others; a route's `retry` is not for it.
//!
//! Lives on one worker. Relays nothing. RFC 8441 §4, §5, RFC 9110 §7.8.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use super::acquire::wait;
use super::again::{ATTEMPTS_MAX, pause_behind, rest};
use super::body::Source;
use super::call::{Answer, late_head, length};
use super::client::Client;
use super::exchange::{Exchange, Phase};
use super::exclusive::{ExclusivePermit, dial_own};
use super::http1::UploadBody;
use super::lane::Lane;
use super::mux::{Failure, StreamPermit};
use super::routing::{EndpointEntry, RouteEntry, Spoken};
use super::stream::Stream;
use super::tunnel::{End, Switched};
use super::upstream_io::UpstreamIo;
use crate::error::{Fault, Proof, ProxyFault, UpstreamFault};
use crate::translate::{RequestHead, Upgrade};

/// Asks the service for another protocol. `head` must ask for one.
pub(crate) async fn upgrade(
    client: &Rc<Client>,
    route: &Rc<RouteEntry>,
    exchange: &mut Exchange,
    mut head: RequestHead,
) -> Result<Answer, Fault> {
    let upgrade = head.upgrade().cloned().ok_or(ProxyFault::Internal)?;
    // There is no body to ask for.
    head.expects_continue(false);
    client.upgrade_began();
    let mut handshake = Handshake { client, route, exchange, head, upgrade };
    let mut refused: Option<Proof> = None;
    for attempt in 0..ATTEMPTS_MAX {
        rest(client, pause_behind(attempt)).await;
        let (endpoint, place) = handshake.place(refused == Some(Proof::Http11Required)).await?;
        handshake.exchange.endpoint = Some(endpoint.clone());
        handshake.exchange.phase = Phase::ResponseHead;
        let Refused { fault, proof } = match place {
            Place::Stream(permit) => match handshake.http2(&endpoint, permit).await {
                Ok(answer) => return Ok(answer),
                Err(refused) => refused,
            },
            Place::Connection(permit) => return handshake.http1(&endpoint, permit).await,
        };
        let Some(proof) = proof.filter(|_| attempt + 1 < ATTEMPTS_MAX && !client.is_past_request_end()) else {
            return Err(fault);
        };
        endpoint.pool.metrics().retries.increment(proof.name());
        refused = Some(proof);
    }
    Err(ProxyFault::Internal.into())
}

/// Where the service is asked.
enum Place {
    Stream(StreamPermit),
    Connection(ExclusivePermit),
}

/// Why there is no answer.
struct Refused {
    fault: Fault,
    /// Present if the request was not processed.
    proof: Option<Proof>,
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        Self { fault, proof: None }
    }
}

struct Handshake<'a> {
    client: &'a Rc<Client>,
    route: &'a Rc<RouteEntry>,
    exchange: &'a mut Exchange,
    head: RequestHead,
    upgrade: Upgrade,
}

impl Handshake<'_> {
    /// Takes a place at an endpoint of the route's upstream; at the next one when an endpoint has none to give.
    async fn place(&mut self, is_http1_required: bool) -> Result<(Rc<EndpointEntry>, Place), Fault> {
        self.exchange.phase = Phase::Wait;
        let mut tried: Vec<Rc<EndpointEntry>> = Vec::new();
        let mut last = Fault::Proxy(ProxyFault::NoHealthyEndpoint);
        while let Some(endpoint) = self.route.upstream.pick(&tried).cloned() {
            self.exchange.attempts += 1;
            match self.place_at(&endpoint, is_http1_required).await {
                Ok(place) => return Ok((endpoint, place)),
                Err(fault) => last = fault,
            }
            if self.client.is_past_request_end() {
                break;
            }
            tried.push(endpoint);
        }
        Err(last)
    }

    async fn place_at(&mut self, endpoint: &EndpointEntry, is_http1_required: bool) -> Result<Place, Fault> {
        let wants_stream = self.upgrade.is_websocket() && !is_http1_required;
        if wants_stream && let Some(permit) = self.stream_at(endpoint).await? {
            return Ok(Place::Stream(permit));
        }
        let since = Instant::now();
        let dialled = self.within(None, dial_own(&endpoint.shared, endpoint.pool.metrics())).await;
        self.exchange.wait += since.elapsed();
        match dialled.map_err(|_| Fault::from(ProxyFault::RequestTimeout))? {
            // By ALPN it has refused HTTP/1.1.
            Err(Fault::Upstream(UpstreamFault::TlsFailed)) if !endpoint.pool.is_http1() => Err(refusal(endpoint)),
            dialled => dialled.map(Place::Connection),
        }
    }

    /// A place on a connection of HTTP/2; none if that takes no extended CONNECT, or HTTP/1.1 is spoken.
    async fn stream_at(&mut self, endpoint: &EndpointEntry) -> Result<Option<StreamPermit>, Fault> {
        let Spoken::Http2(pool) = endpoint.pool.spoken() else { return Ok(None) };
        let permit = match pool.try_acquire(Lane::Long) {
            Some(permit) => permit,
            None => match wait(self.client, pool, self.exchange).await {
                Ok(permit) => permit,
                // That has turned out meanwhile.
                Err(_) if endpoint.pool.is_http1() => return Ok(None),
                Err(fault) => return Err(fault),
            },
        };
        if !permit.has_extended_connect() {
            return Ok(None);
        }
        permit.set_long();
        Ok(Some(permit))
    }

    /// Waits for the end of `work` for up to `timeout`, and no longer than the request may take.
    async fn within<T>(&self, timeout: Option<Duration>, work: impl Future<Output = T>) -> Result<T, Fault> {
        let client = self.client;
        client.stream_began(None);
        client.arm(Instant::now(), timeout);
        let mut work = pin!(work);
        poll_fn(|cx: &mut Context<'_>| match work.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Ok(done)),
            Poll::Pending if client.is_expired() => Poll::Ready(Err(late_head(client))),
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    async fn http2(&mut self, endpoint: &EndpointEntry, permit: StreamPermit) -> Result<Answer, Refused> {
        let request = self.head.clone().into_extended_connect(&endpoint.scheme, &endpoint.authority);
        self.exchange.connection_id = permit.connection_id();
        let sent = Instant::now();
        let refused = |Failure { fault, proof }: Failure| Refused { fault: fault.into(), proof };
        let (response, mut sending) = permit.open(request, false).map_err(refused)?;
        self.exchange.stream_id = response.stream_id().as_u32();
        let mut receiving = Stream::new(response, permit);
        let timeout = self.route.timeouts.response_header;
        let head = self.within(timeout, poll_fn(|cx| receiving.poll_head(cx))).await?;
        let mut parts = head.map_err(refused)?;
        self.exchange.first_byte = Some(sent.elapsed());
        if parts.status.is_success() {
            self.upgrade.accepted(&mut parts).map_err(Fault::from)?;
            return Ok(self.switched(endpoint, parts, End::Stream { receiving, sending }));
        }
        // There will be no tunnel: what the client says next is another request.
        _ = sending.send_data(Bytes::new(), true);
        receiving.permit().link().set_unwritten();
        let framing = self.upgrade.declined(&mut parts, self.head.method()).map_err(Fault::from)?;
        Ok(Answer::new(parts, Source::Http2(receiving), length(framing), self.route.clone()))
    }

    async fn http1(&mut self, endpoint: &EndpointEntry, mut permit: ExclusivePermit) -> Result<Answer, Fault> {
        let parts = self.head.clone().into_http1(&endpoint.authority);
        self.exchange.connection_id = permit.connection_id();
        self.exchange.stream_id = 0;
        let sent = Instant::now();
        let request = Request::from_parts(parts, UploadBody::new(None));
        let sending = self.within(self.route.timeouts.response_header, permit.send(request)).await?;
        let mut response = match sending {
            Ok(Ok(response)) => response,
            Ok(Err(fault)) => {
                let is_silent = matches!(fault, UpstreamFault::ConnectionLost | UpstreamFault::MalformedResponse);
                return Err(if is_silent && !endpoint.pool.is_http1() { refusal(endpoint) } else { fault.into() });
            }
            Err(_unwritten) => return Err(UpstreamFault::ConnectionLost.into()),
        };
        self.exchange.first_byte = Some(sent.elapsed());
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let (mut parts, incoming) = response.into_parts();
            let framing = self.upgrade.declined(&mut parts, self.head.method())?;
            return Ok(Answer::new(parts, Source::Http1 { incoming, permit }, length(framing), self.route.clone()));
        }
        let upgraded = hyper::upgrade::on(&mut response);
        let (mut parts, _) = response.into_parts();
        self.upgrade.switched(&mut parts)?;
        let upgraded = upgraded.await.map_err(|_| UpstreamFault::ConnectionLost)?;
        let raw = upgraded.downcast::<TokioIo<UpstreamIo>>().map_err(|_| ProxyFault::Internal)?;
        let (io, unread) = (Box::new(raw.io.into_inner()), raw.read_buf);
        Ok(self.switched(endpoint, parts, End::Connection { io, unread, _permit: permit }))
    }

    fn switched(&self, endpoint: &EndpointEntry, parts: http::response::Parts, service: End) -> Answer {
        endpoint.shared.upgrade_taken();
        let (is_websocket, idle) = (self.upgrade.is_websocket(), self.route.timeouts.stream_idle);
        let source = Source::Switched(Box::new(Switched { service, is_websocket, idle }));
        Answer::new(parts, source, None, self.route.clone())
    }
}

/// The service speaks HTTP/2 only, and has no upgrade in it.
fn refusal(endpoint: &EndpointEntry) -> Fault {
    endpoint.shared.upgrade_refused();
    UpstreamFault::NoUpgrade.into()
}
