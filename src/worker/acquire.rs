//! A place for a request: at which endpoint, on which connection, after which wait.
//!
//! Lives on one worker. Sends nothing.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use tokio::time::Instant;

use super::client::Client;
use super::exchange::Exchange;
use super::exclusive::{Exclusive, ExclusivePermit};
use super::lane::Lane;
use super::mux::StreamPermit;
use super::pool::Pool;
use super::routing::{EndpointEntry, EndpointPool, RouteEntry, Spoken};
use crate::error::{Fault, Proof, ProxyFault};

/// The right to one exchange with an endpoint.
pub(crate) enum Place {
    Http2(StreamPermit),
    Http1(Rc<Exclusive>, ExclusivePermit),
}

/// Where an attempt was made that came to nothing.
pub(crate) struct Before {
    pub(crate) endpoint: Rc<EndpointEntry>,
    pub(crate) connection_id: u64,
    pub(crate) proof: Option<Proof>,
}

/// Takes a place at an endpoint of the route's upstream; at the next one when an endpoint has none to give. Not
/// where it was `before`, unless there is no other.
pub(crate) async fn acquire(
    client: &Rc<Client>,
    route: &Rc<RouteEntry>,
    exchange: &mut Exchange,
    lane: Lane,
    before: Option<&Before>,
) -> Result<(Rc<EndpointEntry>, Place), Fault> {
    if let Some(before) = before.filter(|before| before.proof == Some(Proof::Http11Required))
        && let EndpointPool::Either(_, pool) = &before.endpoint.pool
    {
        exchange.attempts += 1;
        let permit = Box::pin(wait_http1(client, pool, exchange, true)).await?;
        return Ok((before.endpoint.clone(), Place::Http1(pool.clone(), permit)));
    }
    let upstream = &route.upstream;
    let mut last_resort = before.map(|before| before.endpoint.clone()).filter(|_| upstream.endpoints.len() > 1);
    let mut tried: Vec<Rc<EndpointEntry>> = last_resort.iter().cloned().collect();
    let mut last = Fault::Proxy(ProxyFault::NoHealthyEndpoint);
    while let Some(endpoint) = upstream.pick(&tried).cloned().or_else(|| last_resort.take()) {
        exchange.attempts += 1;
        let free = match endpoint.pool.spoken() {
            Spoken::Http2(pool) => try_acquire(pool, lane, before).map(Place::Http2),
            Spoken::Http1(_) => None,
        };
        let place = match free {
            Some(place) => Ok(place),
            None => Box::pin(wait_for_place(client, &endpoint, exchange)).await,
        };
        match place {
            Ok(place) => {
                if let (Lane::Long, Place::Http2(permit)) = (lane, &place) {
                    permit.set_long();
                }
                return Ok((endpoint, place));
            }
            Err(fault) => last = fault,
        }
        // Whatever it was, nothing has been sent.
        if client.is_past_request_end() {
            break;
        }
        tried.push(endpoint);
    }
    Err(last)
}

fn try_acquire(pool: &Pool, lane: Lane, before: Option<&Before>) -> Option<StreamPermit> {
    match before {
        None => pool.try_acquire(lane),
        Some(before) => pool.try_acquire_beside(before.connection_id),
    }
}

/// Waits for a connection of the kind that the service speaks, and for one of the other kind if that turns out wrong.
async fn wait_for_place(client: &Client, endpoint: &EndpointEntry, exchange: &mut Exchange) -> Result<Place, Fault> {
    let mut turns_left = TURNS_MAX;
    loop {
        let is_http1 = endpoint.pool.is_http1();
        let place = match endpoint.pool.spoken() {
            Spoken::Http2(pool) => wait(client, pool, exchange).await.map(Place::Http2),
            Spoken::Http1(pool) => {
                let place = wait_http1(client, pool, exchange, false).await;
                place.map(|permit| Place::Http1(pool.clone(), permit))
            }
        };
        if place.is_ok() || endpoint.pool.is_http1() == is_http1 || turns_left == 0 {
            return place;
        }
        turns_left -= 1;
    }
}

/// Waits in the pool's queue for up to `pending_timeout`.
pub(crate) async fn wait(client: &Client, pool: &Pool, exchange: &mut Exchange) -> Result<StreamPermit, Fault> {
    let mut waiting = pool.wait(exchange.client)?;
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
async fn wait_http1(
    client: &Client,
    pool: &Exclusive,
    exchange: &mut Exchange,
    is_required: bool,
) -> Result<ExclusivePermit, Fault> {
    let since = Instant::now();
    client.arm(since, None);
    let mut acquiring = pin!(pool.acquire(is_required));
    let waited = poll_fn(|cx| match acquiring.as_mut().poll(cx) {
        Poll::Pending if client.is_expired() => Poll::Ready(Err(ProxyFault::RequestTimeout.into())),
        polled => polled,
    })
    .await;
    exchange.wait += since.elapsed();
    waited
}

/// A service that is known to speak HTTP/1.1 may have learnt HTTP/2 and lost it again while a request waits, not more.
const TURNS_MAX: u32 = 2;
