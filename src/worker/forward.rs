//! One request: the walk from its head to an answer, with its deadlines.
//!
//! translate, route, balance, acquire, open, relay: the one place that knows the order. Any fault on the way meets
//! one [`respond`](super::respond::respond).
//!
//! Lives on one worker. RFC 9110 §7, RFC 9209.

use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use tokio::time::{Instant, sleep};

use super::acquire::{Before, Place, acquire};
use super::body::RelayBody;
use super::call::{Answer, Attempt, Call, Unprocessed};
use super::client::Client;
use super::exchange::{Exchange, Phase};
use super::lane::Lane;
use super::request_body::RequestBody;
use super::respond::respond;
use crate::error::{DownstreamFault, Fault, ProxyFault};
use crate::translate::{HeadCopy, RequestHead};

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

    let lane = Lane::of_request(&head, incoming.size_hint().exact());
    let mut body =
        (!incoming.is_end_stream()).then(|| RequestBody::new(incoming, body_bytes_max, &client.local.replay));
    exchange.received_bytes = body.as_ref().map(|body| body.received_bytes().clone());
    let (mut copy, mut before) = (None, None);
    let mut attempts_left = ATTEMPTS_MAX;
    loop {
        attempts_left -= 1;
        exchange.phase = Phase::Wait;
        let (endpoint, place) = acquire(client, &route, exchange, lane, before.as_ref()).await?;
        exchange.endpoint = Some(endpoint.clone());
        exchange.phase = Phase::ResponseHead;
        let call = Call { client, route: &route, endpoint: &endpoint, exchange };
        let spare = copy.take().unwrap_or_else(|| HeadCopy::new(&head, client.local.head_buffer()));
        let attempt = match place {
            Place::Http2(pool, permit) => call.http2(head, body, pool, permit).await?,
            // Boxed, as is every path that the usual request does not take: hyper moves the whole future once
            // for each request, and keeps room for it on each connection.
            Place::Http1(pool, permit) => Box::pin(call.http1(head, body, &pool, permit)).await?,
        };
        let mut unprocessed = match attempt {
            Attempt::Answered(answer) => {
                client.local.give_back(spare.into_buffer());
                return Ok(answer);
            }
            Attempt::Unprocessed(unprocessed) => unprocessed,
        };
        let is_replayable = unprocessed.body.as_ref().is_none_or(RequestBody::is_replayable);
        if attempts_left == 0 || !is_replayable || client.is_past_request_end() {
            return Err(unprocessed.fault);
        }
        endpoint.pool.metrics().retries.increment(unprocessed.proof.name());
        tracing::debug!(
            endpoint = endpoint.name,
            connection = unprocessed.connection_id,
            proof = unprocessed.proof.name(),
            "sent again"
        );
        head = spare.head();
        copy = Some(spare);
        body = unprocessed.body.take();
        if let Some(body) = &mut body {
            body.rewind();
        }
        if attempts_left < ATTEMPTS_MAX - 1 {
            // The pause is not for the timer to interrupt.
            client.arm(Instant::now(), None);
            Box::pin(sleep(PAUSE * 2u32.pow(ATTEMPTS_MAX - 2 - attempts_left))).await;
        }
        let Unprocessed { connection_id, proof, .. } = *unprocessed;
        before = Some(Before { endpoint, connection_id, proof });
    }
}

/// How often a request is given to a connection that then does not process it.
///
/// Where every twentieth stream is refused by chance, three attempts would lose one request in 8000, five one in three million.
const ATTEMPTS_MAX: u32 = 5;
/// Before the third attempt, and twice as long before each that follows: somebody who refuses twice may be short of
/// something.
const PAUSE: Duration = Duration::from_millis(5);
