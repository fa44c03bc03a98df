//! The record of one request, kept while it runs and told once when it ends.
//!
//! However a request ends — complete, refused, cut, or dropped because its client left — dropping its
//! [`Exchange`] turns it into one [`Outcome`] for the metrics and the access log.
//!
//! Lives on one worker.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::header::HOST;
use http::uri::Authority;
use http::{HeaderName, HeaderValue, Method, Request, Uri, Version};
use tokio::time::Instant;

use super::local::Local;
use super::retry::Tries;
use super::routing::{EndpointEntry, RouteEntry};
use crate::access_log::Outcome;
use crate::error::{DownstreamFault, Fault, ProxyFault};
use crate::translate::ClientAddress;

/// Where a request is on its walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Head,
    Wait,
    ResponseHead,
    Body,
    Tunnel,
    Done,
}

impl Phase {
    const fn name(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::Wait => "wait",
            Self::ResponseHead => "response_head",
            Self::Body => "body",
            Self::Tunnel => "tunnel",
            Self::Done => "done",
        }
    }
}

/// One request from its head to its last byte.
pub(crate) struct Exchange {
    local: Rc<Local>,
    /// Who asks, as far as it is known and believed.
    pub(crate) client: ClientAddress,
    pub(crate) start: Instant,
    pub(crate) phase: Phase,
    pub(crate) route: Option<Rc<RouteEntry>>,
    pub(crate) endpoint: Option<Rc<EndpointEntry>>,
    /// The head's status, once one has been sent to the client.
    pub(crate) status: Option<u16>,
    pub(crate) fault: Option<Fault>,
    pub(crate) attempts: u32,
    /// Present if the route lets further tries follow the first one.
    pub(crate) tries: Option<Box<Tries>>,
    pub(crate) wait: Duration,
    pub(crate) first_byte: Option<Duration>,
    pub(crate) connection_id: u64,
    pub(crate) stream_id: u32,
    /// Request body bytes taken from the client; shared with the task that relays them.
    pub(crate) received_bytes: Option<Arc<AtomicU64>>,
    pub(crate) sent_bytes: u64,
    /// The client understands gRPC's statuses better than HTTP's.
    pub(crate) is_grpc: bool,
    /// Its time says nothing about answers.
    pub(crate) is_tunnel: bool,
    /// What the access log says of the head; absent when it is off.
    told: Option<Told>,
    /// Absent for a head that could not be read, as is the version.
    method: Option<Method>,
    version: Option<Version>,
    request_id: Option<HeaderValue>,
    /// Set when the whole answer has been handed over.
    end: Option<Instant>,
}

struct Told {
    uri: Uri,
    host: Option<HeaderValue>,
    traceparent: Option<HeaderValue>,
}

impl Told {
    fn host(&self) -> &str {
        let of_target = || self.uri.authority().map_or("", Authority::as_str);
        self.host.as_ref().map_or_else(of_target, |host| text(Some(host)))
    }
}

impl Exchange {
    /// Boxed, because it moves with the request through many hands, the last of them hyper's.
    pub(crate) fn begin(local: Rc<Local>, client: ClientAddress, start: Instant) -> Box<Self> {
        local.metrics.requests_in_flight.add(1);
        Box::new(Self {
            local,
            client,
            start,
            phase: Phase::Head,
            route: None,
            endpoint: None,
            status: None,
            fault: None,
            attempts: 0,
            tries: None,
            wait: Duration::ZERO,
            first_byte: None,
            connection_id: 0,
            stream_id: 0,
            received_bytes: None,
            sent_bytes: 0,
            is_grpc: false,
            is_tunnel: false,
            told: None,
            method: None,
            version: None,
            request_id: None,
            end: None,
        })
    }

    /// Keeps what the access log will want to say of the head.
    pub(crate) fn tell<B>(&mut self, request: &Request<B>) {
        let headers = request.headers();
        self.method = Some(request.method().clone());
        self.version = Some(request.version());
        self.request_id = headers.get(X_REQUEST_ID).cloned();
        if !self.local.is_logging() {
            return;
        }
        self.told = Some(Told {
            uri: request.uri().clone(),
            host: headers.get(HOST).cloned(),
            traceparent: headers.get(TRACEPARENT).cloned(),
        });
    }

    pub(crate) fn method(&self) -> Option<&Method> {
        self.method.as_ref()
    }

    /// The client's own id of the request, or one that is made for it: what client and log both show.
    pub(crate) fn request_id_or(&mut self, make: impl FnOnce() -> String) -> HeaderValue {
        let make = || HeaderValue::try_from(make()).expect("an id is hexadecimal");
        self.request_id.get_or_insert_with(make).clone()
    }

    /// The whole answer has been handed to the client's connection.
    pub(crate) fn complete(&mut self, now: Instant) {
        if self.fault.is_none() {
            self.phase = Phase::Done;
        }
        self.end = Some(now);
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let metrics = &self.local.metrics;
        metrics.requests_in_flight.add(-1);
        let total = self.end.unwrap_or_else(Instant::now) - self.start;
        if std::thread::panicking() {
            metrics.panics.increment();
            self.fault = Some(ProxyFault::Internal.into());
        } else if self.end.is_none() && self.fault.is_none() {
            self.fault = Some(DownstreamFault::ClientGone.into());
        }
        if let Some(fault) = self.fault {
            metrics.faults.increment(fault.reason());
        }
        if let Some(route) = &self.route {
            let status = if self.is_tunnel { Some(101) } else { self.status };
            route.metrics.record(status, total);
        }
        let told = self.told.as_ref();
        let status = self.status.or(self.fault.map(|fault| fault.answer().logged_status)).unwrap_or(499);
        self.local.log(&Outcome {
            client: self.client,
            method: self.method.as_ref().map_or("", Method::as_str),
            protocol: self.version.map_or("", protocol),
            host: told.map_or("", Told::host),
            path: told.map_or("", |told| told.uri.path_and_query().map_or("", |path| path.as_str())),
            route: self.route.as_ref().map_or("", |route| route.name.as_str()),
            upstream: self.route.as_ref().map_or("", |route| route.upstream.name.as_str()),
            endpoint: self.endpoint.as_ref().map_or("", |endpoint| endpoint.name.as_str()),
            status,
            fault: self.fault,
            phase: self.phase.name(),
            total,
            wait: self.wait,
            first_byte: self.first_byte,
            attempts: self.attempts,
            connection_id: self.connection_id,
            stream_id: self.stream_id,
            received_bytes: self.received_bytes.as_ref().map_or(0, |bytes| bytes.load(Ordering::Relaxed)),
            sent_bytes: self.sent_bytes,
            request_id: text(self.request_id.as_ref()),
            traceparent: told.map_or("", |told| text(told.traceparent.as_ref())),
        });
    }
}

const fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}

fn text(value: Option<&HeaderValue>) -> &str {
    value.and_then(|value| value.to_str().ok()).unwrap_or("")
}

pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
