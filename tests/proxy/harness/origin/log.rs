//! What an origin saw: every connection and every request, and how each ended.

use std::net::SocketAddr;
use std::time::Instant;

use http::HeaderMap;

/// Everything since the origin was started, restarts included.
#[derive(Debug, Default)]
pub struct Log {
    pub connections: Vec<Connection>,
    pub requests: Vec<Request>,
    pub connections_open: usize,
    /// The most connections that were open at one moment.
    pub connections_open_max: usize,
}

#[derive(Debug)]
pub struct Connection {
    pub peer: SocketAddr,
    pub opened: Instant,
    pub closed: Option<(Closing, Instant)>,
    pub requests: u32,
    pub streams_open: u32,
    /// The most streams that were open at one moment; at most 1 for HTTP/1.1.
    pub streams_open_max: u32,
    /// Whether this origin has announced the end of the connection (GOAWAY, `Connection: close`).
    pub is_goaway_sent: bool,
}

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Closing {
    /// By both sides' consent: the end of the byte stream after the last exchange.
    Clean,
    /// By a reset from here: [`super::Origin::abort`] or [`super::Origin::crash`].
    Aborted,
    /// By an error that the connection reported.
    Failed(String),
}

#[derive(Debug)]
pub struct Request {
    /// The value of `x-request-id`, empty if there was none.
    pub id: Box<str>,
    pub method: http::Method,
    /// Path and query; empty in a compact log.
    pub target: Box<str>,
    pub authority: Box<str>,
    /// Empty in a compact log.
    pub headers: HeaderMap,
    /// Body bytes received so far.
    pub body_bytes: u64,
    pub trailers: Option<HeaderMap>,
    /// HTTP/2 stream id; in HTTP/1.1 the position on its connection, from 1.
    pub stream: u32,
    /// Index into [`Log::connections`].
    pub connection: usize,
    pub began: Instant,
    pub ended: Option<(Ending, Instant)>,
}

/// How an exchange ended, as far as the origin can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The answer was written to its end.
    Complete,
    /// The peer reset the stream (HTTP/2) with this code.
    ResetByPeer(h2::Reason),
    /// This origin reset the stream, or cut the HTTP/1.1 connection, after it had begun to work.
    ResetByOrigin(h2::Reason),
    /// This origin refused the stream without work: safe to retry (RFC 9113 §8.7).
    Refused,
    /// The connection ended under the exchange.
    ConnectionLost,
}

impl Log {
    /// The first request with this `x-request-id`.
    pub fn request(&self, id: &str) -> Option<&Request> {
        self.requests.iter().find(|request| &*request.id == id)
    }

    pub fn requests_with_id<'a>(&'a self, id: &'a str) -> impl Iterator<Item = &'a Request> {
        self.requests.iter().filter(move |request| &*request.id == id)
    }

    /// How many requests ended this way.
    pub fn ended(&self, ending: Ending) -> usize {
        self.requests.iter().filter(|request| request.ending() == Some(ending)).count()
    }

    pub fn requests_in_flight(&self) -> usize {
        self.requests.iter().filter(|request| request.ended.is_none()).count()
    }

    pub fn streams_open(&self) -> u32 {
        self.connections.iter().map(|connection| connection.streams_open).sum()
    }

    pub(super) fn open_connection(&mut self, peer: SocketAddr) -> usize {
        self.connections.push(Connection {
            peer,
            opened: Instant::now(),
            closed: None,
            requests: 0,
            streams_open: 0,
            streams_open_max: 0,
            is_goaway_sent: false,
        });
        self.connections_open += 1;
        self.connections_open_max = self.connections_open_max.max(self.connections_open);
        self.connections.len() - 1
    }

    pub(super) fn close_connection(&mut self, connection: usize, closing: Closing) {
        let record = &mut self.connections[connection];
        if record.closed.is_none() {
            record.closed = Some((closing, Instant::now()));
            self.connections_open -= 1;
        }
    }

    pub(super) fn begin(&mut self, request: Request) -> usize {
        let connection = &mut self.connections[request.connection];
        connection.requests += 1;
        connection.streams_open += 1;
        connection.streams_open_max = connection.streams_open_max.max(connection.streams_open);
        self.requests.push(request);
        self.requests.len() - 1
    }

    /// Records the first ending of an exchange; a second one changes nothing.
    pub(super) fn end(&mut self, request: usize, ending: Ending) {
        let record = &mut self.requests[request];
        if record.ended.is_none() {
            record.ended = Some((ending, Instant::now()));
            self.connections[record.connection].streams_open -= 1;
        }
    }
}

impl Request {
    pub fn ending(&self) -> Option<Ending> {
        self.ended.map(|(ending, _)| ending)
    }

    /// The value of a field, if it is there once or more: the first.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Whether the origin did any work for it: everything but a refused stream.
    pub fn is_processed(&self) -> bool {
        self.ending() != Some(Ending::Refused)
    }
}
