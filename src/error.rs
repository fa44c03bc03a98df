//! Every fault: whose it is, and what it means for the client, the log and a retry.
//!
//! One table decides: [`Fault::answer`] has no wildcard arm, so a new fact does not compile until someone
//! has decided its row. Only this file chooses a status code.
//!
//! Pure: no tokio, no hyper. RFC 9110 §15, RFC 9209 §2.3.

use http::{HeaderMap, HeaderValue, StatusCode};

use crate::grpc::{self, Status};

/// Why an exchange did not go as the client asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    Downstream(DownstreamFault),
    Proxy(ProxyFault),
    Upstream(UpstreamFault),
}

/// The client's doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DownstreamFault {
    /// The head breaks RFC 9112 or RFC 9110 §7.2 (Host).
    MalformedHead,
    UriTooLong,
    /// More bytes or fields than the listener allows.
    HeadTooLarge,
    /// The body is longer than the listener allows.
    BodyTooLarge,
    /// The head was not complete within the listener's `header` timeout.
    HeadTimeout,
    /// CONNECT and TRACE are not carried.
    MethodNotAllowed,
    /// A WebSocket is asked for in a way that RFC 6455 does not know.
    BadHandshake,
    /// A WebSocket of another version than 13 is asked for.
    WebSocketVersion,
    /// An extended CONNECT for something else than a WebSocket (RFC 8441, RFC 9220 §3).
    ProtocolNotCarried,
    /// The body ended before its length or stalled for the stream idle timeout.
    BodyIncomplete,
    /// The client went away before the answer was complete.
    ClientGone,
    /// The client took no bytes for the stream idle timeout.
    WriteStalled,
}

/// Our own decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProxyFault {
    NoRoute,
    /// Every endpoint has been down for a while.
    NoHealthyEndpoint,
    /// `max_pending` requests already wait.
    PoolFull,
    /// No stream was free within `pending_timeout`.
    PoolWaitTimeout,
    /// The whole exchange took longer than the route's `request` timeout.
    RequestTimeout,
    Draining,
    /// The request has passed through this proxy before (Via).
    Loop,
    /// Our bug.
    Internal,
}

/// The service's doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UpstreamFault {
    DnsFailed,
    DnsTimeout,
    ConnectRefused,
    ConnectTimeout,
    /// No way leads to the address.
    Unroutable,
    TlsFailed,
    CertificateRejected,
    /// TLS without `h2` by ALPN.
    NoHttp2ByAlpn,
    /// Answered the HTTP/2 preface with something else, most likely HTTP/1.1.
    NotHttp2,
    /// Takes no upgrade: neither extended CONNECT (RFC 8441) nor a connection in HTTP/1.1.
    NoUpgrade,
    /// `REFUSED_STREAM`, or above GOAWAY's last stream id: provably not processed (RFC 9113 §8.7).
    StreamRefused,
    /// The connection ended before the response head.
    ConnectionLost,
    /// The stream was reset before the response head.
    StreamReset,
    MalformedResponse,
    ResponseHeadTooLarge,
    ResponseHeadTimeout,
    /// The service sent nothing for the stream idle timeout.
    StreamIdle,
    /// Nothing has come on the connection for a while, not even an answer to a PING.
    PingTimeout,
    /// The body was cut after the head; the client sees a cut too.
    BodyCut,
}

/// What the client is told, and what a retry may assume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// `None`: no answer is possible or honest; the client connection is closed.
    pub status: Option<StatusCode>,
    /// What the access log shows as status: `status`, or 499 for a client that went away.
    pub logged_status: u16,
    /// What a gRPC caller is told instead.
    pub grpc_status: Status,
    /// RFC 9209 §2.3 error type.
    pub proxy_status: Option<&'static str>,
    /// The fault's name in metrics and logs.
    pub reason: &'static str,
    /// The sentence that the client reads.
    pub sentence: &'static str,
    pub retry: Retry,
    pub is_retry_after_sent: bool,
    /// Whether the client connection is closed after the answer.
    pub is_closing: bool,
}

/// When the request may be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    No,
    /// Nothing was written: any method, on another endpoint.
    AnotherEndpoint,
    /// Provably not processed: any method, on another connection.
    Safe,
    /// May have been processed: idempotent methods only (RFC 9110 §9.2.2).
    IdempotentOnly,
}

/// What proves that a request was not processed, so that it may be sent again whatever its method (RFC 9113 §8.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// Its connection ended before a byte was written since it was given the request.
    Unwritten,
    /// Its stream is above the last one that a GOAWAY names.
    Goaway,
    /// Its stream was reset with `REFUSED_STREAM`.
    RefusedStream,
    /// Its stream was reset with `HTTP_1_1_REQUIRED` (RFC 9113 §7).
    Http11Required,
    /// Sent as HTTP/1.1, and answered by the SETTINGS of HTTP/2: the service has read no request (RFC 9113 §3.4).
    Http2Answered,
}

impl Proof {
    /// The name of each: the values of the `proof` label.
    pub const NAMES: [&'static str; 5] =
        ["unwritten", "goaway", "refused_stream", "http_1_1_required", "http_2_answered"];

    /// The proof's name in metrics and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

impl From<DownstreamFault> for Fault {
    fn from(fault: DownstreamFault) -> Self {
        Self::Downstream(fault)
    }
}

impl From<ProxyFault> for Fault {
    fn from(fault: ProxyFault) -> Self {
        Self::Proxy(fault)
    }
}

impl From<UpstreamFault> for Fault {
    fn from(fault: UpstreamFault) -> Self {
        Self::Upstream(fault)
    }
}

impl Fault {
    /// Every fault there is, for documents, metrics and tests.
    pub const ALL: [Self; 39] = [
        Self::Downstream(DownstreamFault::MalformedHead),
        Self::Downstream(DownstreamFault::UriTooLong),
        Self::Downstream(DownstreamFault::HeadTooLarge),
        Self::Downstream(DownstreamFault::BodyTooLarge),
        Self::Downstream(DownstreamFault::HeadTimeout),
        Self::Downstream(DownstreamFault::MethodNotAllowed),
        Self::Downstream(DownstreamFault::BadHandshake),
        Self::Downstream(DownstreamFault::WebSocketVersion),
        Self::Downstream(DownstreamFault::ProtocolNotCarried),
        Self::Downstream(DownstreamFault::BodyIncomplete),
        Self::Downstream(DownstreamFault::ClientGone),
        Self::Downstream(DownstreamFault::WriteStalled),
        Self::Proxy(ProxyFault::NoRoute),
        Self::Proxy(ProxyFault::NoHealthyEndpoint),
        Self::Proxy(ProxyFault::PoolFull),
        Self::Proxy(ProxyFault::PoolWaitTimeout),
        Self::Proxy(ProxyFault::RequestTimeout),
        Self::Proxy(ProxyFault::Draining),
        Self::Proxy(ProxyFault::Loop),
        Self::Proxy(ProxyFault::Internal),
        Self::Upstream(UpstreamFault::DnsFailed),
        Self::Upstream(UpstreamFault::DnsTimeout),
        Self::Upstream(UpstreamFault::ConnectRefused),
        Self::Upstream(UpstreamFault::ConnectTimeout),
        Self::Upstream(UpstreamFault::Unroutable),
        Self::Upstream(UpstreamFault::TlsFailed),
        Self::Upstream(UpstreamFault::CertificateRejected),
        Self::Upstream(UpstreamFault::NoHttp2ByAlpn),
        Self::Upstream(UpstreamFault::NotHttp2),
        Self::Upstream(UpstreamFault::NoUpgrade),
        Self::Upstream(UpstreamFault::StreamRefused),
        Self::Upstream(UpstreamFault::ConnectionLost),
        Self::Upstream(UpstreamFault::StreamReset),
        Self::Upstream(UpstreamFault::MalformedResponse),
        Self::Upstream(UpstreamFault::ResponseHeadTooLarge),
        Self::Upstream(UpstreamFault::ResponseHeadTimeout),
        Self::Upstream(UpstreamFault::StreamIdle),
        Self::Upstream(UpstreamFault::PingTimeout),
        Self::Upstream(UpstreamFault::BodyCut),
    ];

    /// The name of each of [`Fault::ALL`]: the values of the `reason` label.
    pub const REASONS: [&'static str; Self::ALL.len()] = {
        let mut reasons = [""; Self::ALL.len()];
        let mut index = 0;
        while index < reasons.len() {
            reasons[index] = Self::ALL[index].answer().reason;
            index += 1;
        }
        reasons
    };

    /// The fault's row of the table.
    #[must_use]
    pub const fn answer(self) -> Answer {
        match self {
            Self::Downstream(fault) => fault.answer(),
            Self::Proxy(fault) => fault.answer(),
            Self::Upstream(fault) => fault.answer(),
        }
    }

    /// Who ended the exchange: the `ended_by` of the access log.
    #[must_use]
    pub const fn ended_by(self) -> &'static str {
        match self {
            Self::Downstream(_) => "downstream",
            Self::Proxy(_) => "proxy",
            Self::Upstream(_) => "upstream",
        }
    }

    /// The fault's name in metrics and logs.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        self.answer().reason
    }
}

impl DownstreamFault {
    const fn answer(self) -> Answer {
        const REQUEST: &str = "http_request_error";
        match self {
            Self::MalformedHead => row(400, REQUEST, "malformed_head", "The request is malformed.").closing(),
            Self::UriTooLong => row(414, REQUEST, "uri_too_long", "The request target is too long.").closing(),
            Self::HeadTooLarge => row(431, REQUEST, "head_too_large", "The request head is too large.").closing(),
            Self::BodyTooLarge => row(413, REQUEST, "body_too_large", "The request body is too large.").closing(),
            Self::HeadTimeout => row(408, REQUEST, "head_timeout", "The request head took too long.").closing(),
            Self::MethodNotAllowed => {
                row(405, REQUEST, "method_not_allowed", "The method is not carried here.").closing()
            }
            Self::BadHandshake => row(400, REQUEST, "bad_handshake", "The WebSocket handshake is not valid.").closing(),
            Self::WebSocketVersion => {
                row(426, REQUEST, "web_socket_version", "Only version 13 of WebSocket is spoken here.").closing()
            }
            Self::ProtocolNotCarried => {
                row(501, REQUEST, "protocol_not_carried", "Only WebSocket is carried by extended CONNECT.").closing()
            }
            Self::BodyIncomplete => row(400, REQUEST, "body_incomplete", "The request body is incomplete.").closing(),
            Self::ClientGone => silent(499, None, "client_gone"),
            Self::WriteStalled => silent(499, None, "write_stalled"),
        }
    }
}

impl ProxyFault {
    const fn answer(self) -> Answer {
        match self {
            Self::NoRoute => row(404, "destination_not_found", "no_route", "No route matches the request."),
            Self::NoHealthyEndpoint => row(
                503,
                "destination_unavailable",
                "no_healthy_endpoint",
                "The service is not reachable at the moment.",
            )
            .retry_after(),
            Self::PoolFull => row(503, "connection_limit_reached", "pool_full", "Too many requests are waiting.")
                .retry(Retry::AnotherEndpoint)
                .retry_after(),
            Self::PoolWaitTimeout => row(
                503,
                "connection_limit_reached",
                "pool_wait_timeout",
                "The request waited too long for the service.",
            )
            .retry(Retry::AnotherEndpoint)
            .retry_after(),
            Self::RequestTimeout => row(504, "http_response_timeout", "request_timeout", "The request took too long."),
            Self::Draining => row(503, "proxy_internal_response", "draining", "The proxy is shutting down.").closing(),
            Self::Loop => {
                row(502, "proxy_loop_detected", "loop", "The request passed here before.").grpc(Status::Internal)
            }
            Self::Internal => row(500, "proxy_internal_error", "internal", "The proxy failed.").closing(),
        }
    }
}

impl UpstreamFault {
    const fn answer(self) -> Answer {
        const GONE: &str = "The service could not be reached.";
        const BROKEN: &str = "The service broke off the answer.";
        const INVALID: &str = "The service's answer is not valid.";
        const SLOW: &str = "The service took too long.";
        match self {
            Self::DnsFailed => row(502, "dns_error", "dns_failed", GONE).retry(Retry::AnotherEndpoint),
            // Nothing was sent: another call may reach the service.
            Self::DnsTimeout => {
                row(504, "dns_timeout", "dns_timeout", GONE).retry(Retry::AnotherEndpoint).grpc(Status::Unavailable)
            }
            Self::ConnectRefused => row(502, "connection_refused", "connect_refused", GONE).retry(Retry::Safe),
            Self::ConnectTimeout => {
                row(504, "connection_timeout", "connect_timeout", GONE).retry(Retry::Safe).grpc(Status::Unavailable)
            }
            Self::Unroutable => row(502, "destination_ip_unroutable", "unroutable", GONE).retry(Retry::Safe),
            Self::TlsFailed => row(502, "tls_protocol_error", "tls_failed", GONE).retry(Retry::AnotherEndpoint),
            Self::CertificateRejected => {
                row(502, "tls_certificate_error", "certificate_rejected", GONE).retry(Retry::AnotherEndpoint)
            }
            Self::NoHttp2ByAlpn => {
                row(502, "http_upgrade_failed", "no_http2_by_alpn", GONE).retry(Retry::AnotherEndpoint)
            }
            Self::NotHttp2 => row(502, "http_protocol_error", "not_http2", GONE).retry(Retry::AnotherEndpoint),
            Self::NoUpgrade => row(502, "http_upgrade_failed", "no_upgrade", "The service does not take the upgrade."),
            Self::StreamRefused => row(503, "destination_unavailable", "stream_refused", GONE).retry(Retry::Safe),
            Self::ConnectionLost => {
                row(502, "connection_terminated", "connection_lost", BROKEN).retry(Retry::IdempotentOnly)
            }
            Self::StreamReset => {
                row(502, "http_response_incomplete", "stream_reset", BROKEN).retry(Retry::IdempotentOnly)
            }
            Self::MalformedResponse => {
                row(502, "http_protocol_error", "malformed_response", INVALID).grpc(Status::Internal)
            }
            Self::ResponseHeadTooLarge => {
                row(502, "http_response_header_section_size", "response_head_too_large", INVALID).grpc(Status::Internal)
            }
            Self::ResponseHeadTimeout => row(504, "http_response_timeout", "response_head_timeout", SLOW),
            Self::StreamIdle => row(504, "connection_read_timeout", "stream_idle", SLOW),
            // A connection that is lost, as gRPC sees it.
            Self::PingTimeout => row(504, "connection_read_timeout", "ping_timeout", SLOW)
                .retry(Retry::IdempotentOnly)
                .grpc(Status::Unavailable),
            Self::BodyCut => silent(502, Some("http_response_incomplete"), "body_cut"),
        }
    }
}

/// An answer that the client reads.
const fn row(status: u16, proxy_status: &'static str, reason: &'static str, sentence: &'static str) -> Answer {
    Answer {
        status: match StatusCode::from_u16(status) {
            Ok(status) => Some(status),
            Err(_) => None,
        },
        logged_status: status,
        grpc_status: grpc_status(status),
        proxy_status: Some(proxy_status),
        reason,
        sentence,
        retry: Retry::No,
        is_retry_after_sent: false,
        is_closing: false,
    }
}

/// What a status says to a gRPC caller, who calls again after `Unavailable` and after nothing else.
///
/// Ours to choose, since gRPC's own table ("HTTP to gRPC Status Code Mapping") is for answers of which a client knows
/// only the status: it makes `Unavailable` of 504 as well. The row of a fault may know better.
const fn grpc_status(status: u16) -> Status {
    match status {
        404 | 405 | 501 => Status::Unimplemented,
        413 | 414 | 431 => Status::ResourceExhausted,
        502 | 503 => Status::Unavailable,
        504 => Status::DeadlineExceeded,
        _ => Status::Internal,
    }
}

/// No answer: the client connection is closed, or the client has closed it.
const fn silent(logged_status: u16, proxy_status: Option<&'static str>, reason: &'static str) -> Answer {
    Answer {
        status: None,
        logged_status,
        grpc_status: if logged_status == 499 { Status::Cancelled } else { Status::Unavailable },
        proxy_status,
        reason,
        sentence: "",
        retry: Retry::No,
        is_retry_after_sent: false,
        is_closing: true,
    }
}

impl Answer {
    /// The status for a client that can still be answered, though the fault is one after which it usually cannot.
    #[must_use]
    pub fn status_or_last_resort(&self) -> StatusCode {
        self.status.unwrap_or(StatusCode::BAD_GATEWAY)
    }

    /// What a gRPC caller is told of the request with this id.
    #[must_use]
    pub fn grpc_trailers(&self, request_id: &HeaderValue) -> HeaderMap {
        let sentence = if self.sentence.is_empty() { "The answer was broken off." } else { self.sentence };
        let message = format!("{sentence} (request id {})", String::from_utf8_lossy(request_id.as_bytes()));
        grpc::trailers(self.grpc_status, &message)
    }

    const fn retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    const fn grpc(mut self, status: Status) -> Self {
        self.grpc_status = status;
        self
    }

    const fn retry_after(mut self) -> Self {
        self.is_retry_after_sent = true;
        self
    }

    const fn closing(mut self) -> Self {
        self.is_closing = true;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_has_a_reason_of_its_own() {
        let mut reasons = Fault::REASONS.to_vec();
        reasons.sort_unstable();
        reasons.dedup();
        assert_eq!(reasons.len(), Fault::ALL.len());
        assert!(reasons.iter().all(|reason| !reason.is_empty()));
    }

    #[test]
    fn an_answer_that_the_client_reads_has_a_status_and_a_sentence() {
        for fault in Fault::ALL {
            let answer = fault.answer();
            assert_eq!(answer.status.is_some(), !answer.sentence.is_empty(), "{fault:?}");
            if let Some(status) = answer.status {
                assert_eq!(status.as_u16(), answer.logged_status, "{fault:?}");
                assert!(status.is_client_error() || status.is_server_error(), "{fault:?}");
            }
        }
    }

    #[test]
    fn only_a_fault_of_the_client_is_a_4xx_or_501_beside_a_missing_route() {
        for fault in Fault::ALL.into_iter().filter(|fault| *fault != Fault::Proxy(ProxyFault::NoRoute)) {
            let status = fault.answer().logged_status;
            let is_of_client = status < 500 || status == 501;
            assert_eq!(is_of_client, matches!(fault, Fault::Downstream(_)), "{fault:?}");
        }
    }

    #[test]
    fn a_grpc_caller_calls_again_only_where_another_call_may_do_better() {
        use Status::{Cancelled, DeadlineExceeded, Unavailable};
        for fault in Fault::ALL {
            let answer = fault.answer();
            let status = answer.grpc_status;
            assert!(answer.retry == Retry::No || status == Unavailable, "{fault:?}");
            assert!(!matches!(fault, Fault::Downstream(_)) || status != Unavailable, "{fault:?}");
            assert_eq!(status == Cancelled, answer.logged_status == 499, "{fault:?}");
            assert!(status != DeadlineExceeded || answer.logged_status == 504, "{fault:?}");
        }
    }
}
