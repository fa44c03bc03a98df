//! The one answer to any fault.
//!
//! The client sees the status and the token of the fault's row, a fixed sentence, and an id for the operator to look up;
//! addresses and causes go to the log. A gRPC caller gets the same in gRPC's words. RFC 9110 §15, RFC 9209.

use std::rc::Rc;

use bytes::Bytes;
use http::header::{
    ALLOW, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, DATE, RETRY_AFTER, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderName, HeaderValue, Method, Response, StatusCode};

use super::body::RelayBody;
use super::client::Client;
use super::exchange::{Exchange, X_REQUEST_ID};
use crate::error::{DownstreamFault, Fault};

/// Answers with the fault's row of the table.
pub(crate) fn respond(client: Rc<Client>, mut exchange: Box<Exchange>, fault: Fault) -> Response<RelayBody> {
    let answer = fault.answer();
    let status = answer.status_or_last_resort();
    let id = exchange.request_id_or(|| client.local.next_request_id());
    let is_grpc = exchange.is_grpc;
    let status = if is_grpc { StatusCode::OK } else { status };
    let text =
        format!("{} {}\nrequest id: {}\n", status.as_u16(), answer.sentence, String::from_utf8_lossy(id.as_bytes()));
    let length = text.len();
    let body = if is_grpc || exchange.method() == Some(&Method::HEAD) { Bytes::new() } else { Bytes::from(text) };
    exchange.fault = Some(fault);
    exchange.status = Some(status.as_u16());
    client.stream_began(None);
    if answer.is_closing {
        client.set_reusable(false);
    }
    let (date, is_stream) = (client.local.date(), client.is_stream());
    let mut response = Response::new(RelayBody::own(client, exchange, body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    if is_grpc {
        // A head that is trailers at the same time.
        headers.extend(answer.grpc_trailers(&id));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    } else {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    headers.insert(DATE, date);
    headers.insert(X_REQUEST_ID, id);
    if let Some(error) = answer.proxy_status
        && let Ok(value) = HeaderValue::try_from(format!("trunkline; error={error}"))
    {
        headers.insert(PROXY_STATUS, value);
    }
    if answer.is_retry_after_sent {
        headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    if fault == Fault::Downstream(DownstreamFault::MethodNotAllowed) {
        headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
    }
    // A stream ends by itself, and leaves the others alone.
    if answer.is_closing && !is_stream {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if fault == Fault::Downstream(DownstreamFault::WebSocketVersion) {
        // RFC 6455 §4.4, RFC 9110 §15.5.22.
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        if !is_stream {
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade, close"));
        }
    }
    response
}

const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
