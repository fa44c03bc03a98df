//! What an origin does, by path; usable from any client.
//!
//! | path | answer |
//! |---|---|
//! | `/bytes/N` | N bytes of the request's [`pattern`] |
//! | `/unsized/N` | the same without a content-length |
//! | `/echo`, anything else | the request's body, piece by piece |
//! | `/head` | the head as received, as JSON |
//! | `/upload` | the number of body bytes |
//! | `/status/NNN` | that status |
//! | `/delay/MS` | `slow` after MS milliseconds |
//! | `/stream/N?every=MS` | an event stream of N events |
//! | `/slow-body/N?every=MS` | N single bytes with a content-length |
//! | `/trailers` | a body and trailers |
//! | `/early/NNN` | that status before the body is read |
//! | `/interim/NNN` | that 1xx, then 200 (HTTP/2 only) |
//! | `/hang` | nothing until the peer gives up |
//! | `/hang-body` | the head, then nothing |
//! | `/reset?code=N` | `RST_STREAM` before the head (default 8, CANCEL) |
//! | `/reset-body/N?code=M` | the head, N bytes of a longer body, then `RST_STREAM` |
//!
//! `?delay=MS` delays the answer of each.

use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use http::{HeaderMap, HeaderValue};
use serde_json::json;

use super::exchange::{Exchange, authority};
use super::log::Ending;

/// Answers as the table above says.
pub async fn by_path(mut exchange: Exchange) -> Result<(), Ending> {
    if let Some(delay) = exchange.number("delay") {
        exchange.pause(Duration::from_millis(delay)).await?;
    }
    let path = exchange.path().to_owned();
    let (name, argument) = path[1.min(path.len())..].split_once('/').unwrap_or((&path[1.min(path.len())..], ""));
    let number: usize = argument.parse().unwrap_or(0);
    match name {
        "bytes" => bytes(exchange, number).await,
        "unsized" => {
            exchange.start(exchange.response(200))?;
            let body = pattern(&exchange.id, number);
            exchange.finish(body).await
        }
        "head" => head(exchange).await,
        "upload" => upload(exchange).await,
        "status" => answer_after_body(exchange, number, "").await,
        "delay" => {
            exchange.pause(Duration::from_millis(number as u64)).await?;
            answer_after_body(exchange, 200, "slow").await
        }
        "stream" => stream(exchange, number).await,
        "slow-body" => slow_body(exchange, number).await,
        "trailers" => trailers(exchange).await,
        "early" => {
            let head = exchange.response(status(number));
            exchange.answer(head, "early").await
        }
        "interim" => {
            exchange.inform(status(number))?;
            answer_after_body(exchange, 200, "final").await
        }
        "hang" => exchange.hang().await,
        "hang-body" => {
            exchange.start(exchange.response(200))?;
            exchange.hang().await
        }
        "reset" => exchange.reset(code(&exchange)),
        "reset-body" => reset_body(exchange, number).await,
        _ => echo(exchange).await,
    }
}

/// The body of `length` bytes that belongs to a request id: `id|id|id|...`, so that a mix-up can be read.
pub fn pattern(id: &str, length: usize) -> Bytes {
    let unit = format!("{id}|");
    unit.bytes().cycle().take(length).collect()
}

async fn bytes(mut exchange: Exchange, length: usize) -> Result<(), Ending> {
    exchange.body().await?;
    let body = pattern(&exchange.id, length);
    let head = exchange.response(200);
    exchange.answer(head, body).await
}

async fn head(mut exchange: Exchange) -> Result<(), Ending> {
    exchange.body().await?;
    let head = &exchange.head;
    let fields: Vec<(&str, String)> = head
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    let dump = json!({
        "method": head.method.as_str(),
        "scheme": head.uri.scheme_str(),
        "authority": authority(head),
        "target": head.uri.path_and_query().map(ToString::to_string),
        "version": format!("{:?}", head.version),
        "headers": fields,
    });
    let response = exchange.response(200).header("content-type", "application/json");
    exchange.answer(response, dump.to_string()).await
}

async fn upload(mut exchange: Exchange) -> Result<(), Ending> {
    let mut total = 0_u64;
    while let Some(chunk) = exchange.chunk().await? {
        total += chunk.len() as u64;
    }
    let response = exchange.response(200);
    exchange.answer(response, total.to_string()).await
}

/// Streams the body back while it comes, so that first bytes return before the last are sent.
async fn echo(mut exchange: Exchange) -> Result<(), Ending> {
    let mut response =
        exchange.response(200).header("x-method", exchange.head.method.as_str()).header("x-path", exchange.path());
    for name in ["content-length", "content-type"] {
        if let Some(value) = exchange.head.headers.get(name) {
            response = response.header(name, value);
        }
    }
    exchange.start(response)?;
    while let Some(chunk) = exchange.chunk().await? {
        exchange.send(chunk).await?;
    }
    exchange.finish("").await
}

async fn stream(mut exchange: Exchange, events: usize) -> Result<(), Ending> {
    let every = Duration::from_millis(exchange.number("every").unwrap_or(0));
    exchange.start(exchange.response(200).header("content-type", "text/event-stream"))?;
    for event in 0..events {
        exchange.send(format!("id: {event}\ndata: {}\n\n", exchange.id)).await?;
        exchange.pause(every).await?;
    }
    exchange.finish("").await
}

async fn slow_body(mut exchange: Exchange, length: usize) -> Result<(), Ending> {
    let every = Duration::from_millis(exchange.number("every").unwrap_or(1));
    exchange.start(exchange.response(200).header("content-length", length))?;
    for byte in pattern(&exchange.id, length) {
        exchange.send(vec![byte]).await?;
        exchange.pause(every).await?;
    }
    exchange.finish("").await
}

async fn trailers(mut exchange: Exchange) -> Result<(), Ending> {
    exchange.body().await?;
    // HTTP/1.1 sends only trailers that the head announces.
    exchange.start(exchange.response(200).header("trailer", "x-checksum, grpc-status"))?;
    exchange.send("with trailers").await?;
    let mut trailers = HeaderMap::new();
    trailers.insert("x-checksum", HeaderValue::from_static("42"));
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    exchange.trailers(trailers).await
}

async fn reset_body(mut exchange: Exchange, length: usize) -> Result<(), Ending> {
    let body = pattern(&exchange.id, length);
    exchange.start(exchange.response(200).header("content-length", length + 1000))?;
    exchange.send(body).await?;
    exchange.reset(code(&exchange))
}

async fn answer_after_body(mut exchange: Exchange, number: usize, body: &'static str) -> Result<(), Ending> {
    exchange.body().await?;
    let response = exchange.response(status(number));
    exchange.answer(response, body).await
}

fn status(number: usize) -> u16 {
    u16::try_from(number).ok().filter(|status| (100..1000).contains(status)).unwrap_or(400)
}

fn code(exchange: &Exchange) -> Reason {
    exchange.number("code").and_then(|code| u32::try_from(code).ok()).map_or(Reason::CANCEL, Reason::from)
}
