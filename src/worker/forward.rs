//! One request: the walk from its head to an answer, with its deadlines.
//!
//! translate, route, balance, acquire, open, relay: the one place that knows the order. Any fault on the way meets
//! one [`respond`](super::respond::respond).
//!
//! Lives on one worker. RFC 9110 §7, RFC 9209.

use std::rc::Rc;
use std::time::Duration;

use http::{Request, Response, Version, request};
use http_body::Body;
use tokio::time::Instant;

use super::acquire::{Before, Place, acquire};
use super::again::{ATTEMPTS_MAX, pause_behind, rest};
use super::body::RelayBody;
use super::call::{Answer, Attempt, Call, Failed};
use super::client::Client;
use super::exchange::{Exchange, Phase};
use super::lane::Lane;
use super::request_body::{ClientBody, RequestBody};
use super::respond::respond;
use super::retry::Tries;
use super::upgrade::upgrade;
use crate::error::{DownstreamFault, Fault, Proof, ProxyFault};
use crate::translate::{HeadCopy, RequestHead};

/// Answers one request: with the upstream's answer, or with the fault's row of the table.
pub(crate) async fn forward(client: Rc<Client>, request: Request<ClientBody>) -> Response<RelayBody> {
    let start = Instant::now();
    client.exchange_began(request.version());
    let asking = client.hop.client_of(request.headers());
    let mut exchange = Exchange::begin(client.local.clone(), asking, start);
    exchange.tell(&request);
    let walked = walk(&client, request, &mut exchange).await;
    match walked {
        Ok(answer) => answer.relay(client, exchange),
        Err(fault) => respond(client, exchange, fault),
    }
}

async fn walk(client: &Rc<Client>, request: Request<ClientBody>, exchange: &mut Exchange) -> Result<Answer, Fault> {
    let (parts, incoming) = request.into_parts();
    // What hyper and h2 do not limit: h2 counts no fields, and refuses too many bytes without a word to us.
    if parts.headers.len() > client.listener.settings.headers_max {
        return Err(DownstreamFault::HeadTooLarge.into());
    }
    if client.is_stream() && head_bytes(&parts) > client.listener.settings.header_bytes_max {
        return Err(DownstreamFault::HeadTooLarge.into());
    }
    let body_bytes_max = client.listener.settings.body_bytes_max;
    if let (Some(max), Some(length)) = (body_bytes_max, incoming.size_hint().exact())
        && length > max
    {
        return Err(DownstreamFault::BodyTooLarge.into());
    }
    let mut head = match parts.version {
        Version::HTTP_2 => RequestHead::from_http2(parts, !incoming.is_end_stream(), &client.hop)?,
        _ => RequestHead::from_http1(parts, &client.hop)?,
    };
    exchange.is_grpc = head.is_grpc();
    let routing = client.local.routing();
    let route = routing.table.find(&head).ok_or(ProxyFault::NoRoute)?.clone();
    exchange.route = Some(route.clone());
    let rewrite = route.rewrite.as_ref().map(|(from, to)| (from.as_str(), to.as_str()));
    head.edit(&route.edits, rewrite)?;
    let time = [route.timeouts.request, head.grpc_timeout()].into_iter().flatten().min();
    client.limit_request(time.map(|time| exchange.start + time));

    if head.upgrade().is_some() {
        return Box::pin(upgrade(client, &route, exchange, head)).await;
    }
    let lane = Lane::of_request(&head, incoming.size_hint().exact());
    let mut body =
        (!incoming.is_end_stream()).then(|| RequestBody::new(incoming, body_bytes_max, &client.local.replay));
    if head.expects_continue(body.is_some())
        && let Some(body) = &mut body
    {
        body.hold_back();
    }
    exchange.received_bytes = body.as_ref().map(|body| body.received_bytes().clone());
    exchange.tries = route.retry.as_ref().and_then(|policy| Tries::begin(policy, head.method(), exchange.start));
    let (mut copy, mut before) = (None, None);
    let (mut attempts_left, mut pause) = (ATTEMPTS_MAX, Duration::ZERO);
    loop {
        rest(client, pause).await;
        exchange.phase = Phase::Wait;
        let (endpoint, place) = match acquire(client, &route, exchange, lane, before.as_ref()).await {
            Ok(placed) => placed,
            Err(fault) => {
                let tries = tries(client, exchange);
                pause = tries.and_then(|tries| tries.next_unsent(fault, Instant::now())).ok_or(fault)?;
                continue;
            }
        };
        attempts_left -= 1;
        exchange.endpoint = Some(endpoint.clone());
        exchange.phase = Phase::ResponseHead;
        let spare = copy.take().unwrap_or_else(|| HeadCopy::new(&head, client.local.head_buffer()));
        let call = Call { client, route: &route, endpoint: &endpoint, exchange };
        let attempt = match place {
            Place::Http2(permit) => call.http2(head, body, permit).await?,
            // Boxed, as is every path that the usual request does not take: hyper moves the whole future once
            // for each request, and keeps room for it on each connection.
            Place::Http1(pool, permit) => Box::pin(call.http1(head, body, pool, permit)).await?,
        };
        let failed = match attempt {
            Attempt::Answered(answer) => {
                client.local.give_back(spare.into_buffer());
                return Ok(answer);
            }
            Attempt::Failed(failed) => failed,
        };
        let next = match failed.proof {
            _ if attempts_left == 0 || failed.body.is_err() || client.is_past_request_end() => None,
            Some(proof) => {
                endpoint.pool.metrics().retries.increment(proof.name());
                Some(pause_behind(ATTEMPTS_MAX - attempts_left))
            }
            None => {
                let fault = failed.outcome.as_ref().err().copied();
                tries(client, exchange).and_then(|tries| tries.next(fault, Instant::now()))
            }
        };
        let Some(next) = next else { return failed.outcome };
        pause = next;
        let Failed { outcome, proof, connection_id, body: kept } = *failed;
        tracing::debug!(
            endpoint = endpoint.name,
            connection = connection_id,
            proof = proof.map(Proof::name),
            "sent again"
        );
        // An answer that is not relayed lets go of its stream.
        drop(outcome);
        head = spare.head();
        copy = Some(spare);
        body = kept.ok().flatten();
        if let Some(body) = &mut body {
            body.rewind();
        }
        before = Some(Before { endpoint, connection_id, proof });
    }
}

/// What a head of HTTP/2 counts for, as its client counts it (RFC 9113 §6.5.2), but for the fixed part of pseudo-fields.
fn head_bytes(parts: &request::Parts) -> usize {
    let fields = parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum::<usize>();
    let path = parts.uri.path_and_query().map_or(0, |path| path.as_str().len());
    fields + path + parts.uri.authority().map_or(0, |authority| authority.as_str().len())
}

/// The further tries that the route lets the request have, as long as there is time.
fn tries<'a>(client: &Client, exchange: &'a mut Exchange) -> Option<&'a mut Tries> {
    exchange.tries.as_deref_mut().filter(|_| !client.is_past_request_end())
}
