//! What a stream of server-sent events needs beside its relay: a comment while its service is silent, and an end that
//! does no harm.
//!
//! The end comes when the connection takes no further request: between two events, so that a client loses nothing and
//! comes back to where the service is then. The heartbeat is for who watches the connection, not for us: it is no
//! progress, and a service that stays silent is given up all the same.
//!
//! Lives on one worker. Knows bytes, not where they come from. HTML, "Server-sent events".

use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};
use tokio::time::Instant;

use super::client::Client;
use super::jitter::spread;
use super::routing::RouteEntry;
use super::timer::Timer;
use crate::events::Boundary;
use crate::translate::is_event_stream;

/// An event stream under way.
pub(crate) struct EventStream {
    boundary: Boundary,
    silence: Option<Silence>,
    reconnect_within: Option<Duration>,
    /// The client has all that it gets of the service.
    is_over: bool,
}

/// How long the service has said nothing.
struct Silence {
    timer: Timer,
    heartbeat: Duration,
    idle: Option<Duration>,
    since: Instant,
    /// The service has said something since the last look.
    is_broken: bool,
    /// The service has said something at all.
    is_begun: bool,
    has_beaten: bool,
}

/// What is to be done while the service is silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Still {
    /// Say that the stream lives.
    Heartbeat,
    /// Give the service up.
    Idle,
    /// End the stream.
    End,
}

impl EventStream {
    /// `None` for every other kind of answer of unknown length. What is compressed cannot be looked into.
    pub(crate) fn of(fields: &HeaderMap, route: &RouteEntry, client: &Client) -> Option<Box<Self>> {
        let is_stream = fields.get(CONTENT_TYPE).is_some_and(is_event_stream) && !fields.contains_key(CONTENT_ENCODING);
        is_stream.then(|| {
            let silence = |heartbeat| Silence {
                timer: Timer::new(&client.local.wheel),
                heartbeat,
                idle: route.timeouts.stream_idle,
                since: Instant::now(),
                is_broken: true,
                is_begun: false,
                has_beaten: false,
            };
            let silence = route.heartbeat.map(silence);
            let reconnect_within = route.reconnect_within;
            Box::new(Self { boundary: Boundary::default(), silence, reconnect_within, is_over: false })
        })
    }

    /// Follows what the service says; returns what the client gets of it.
    pub(crate) fn follow(&mut self, mut piece: Bytes, client: &Client) -> Bytes {
        if let Some(silence) = &mut self.silence {
            silence.is_broken = true;
            // A byte order mark is one only at the very start of a stream, and there stands a heartbeat.
            if !std::mem::replace(&mut silence.is_begun, true) && silence.has_beaten && piece.starts_with(MARK) {
                piece.advance(MARK.len());
            }
        }
        let last = self.boundary.follow(&piece);
        if let (Some(end), true) = (last, client.is_closing()) {
            self.is_over = true;
            piece.truncate(end);
        }
        piece
    }

    /// Whether the stream ends here.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Called when the service has nothing more to say for now.
    pub(crate) fn poll_still(&mut self, cx: &Context<'_>, client: &Client) -> Poll<Still> {
        let is_between = self.boundary.is_reached();
        if is_between && client.is_closing() {
            return Poll::Ready(Still::End);
        }
        let Some(silence) = &mut self.silence else { return Poll::Pending };
        silence.timer.register(cx);
        if std::mem::take(&mut silence.is_broken) {
            silence.since = Instant::now();
            silence.arm(silence.since);
        }
        if !silence.timer.is_expired() {
            return Poll::Pending;
        }
        let now = Instant::now();
        if silence.idle.is_some_and(|idle| now >= silence.since + idle) {
            return Poll::Ready(Still::Idle);
        }
        silence.arm(now);
        silence.has_beaten |= is_between;
        if is_between { Poll::Ready(Still::Heartbeat) } else { Poll::Pending }
    }

    /// What the client is told before the end.
    pub(crate) fn last_words(&self) -> Bytes {
        let Some(within) = self.reconnect_within else { return Bytes::new() };
        format!("retry: {}\n\n", spread(within, 0.0..1.0).as_millis()).into()
    }
}

impl Silence {
    /// For the next heartbeat after `now`, or the end of the service's time if that comes first.
    fn arm(&self, now: Instant) {
        let next = now + self.heartbeat;
        self.timer.arm(self.idle.map_or(next, |idle| next.min(self.since + idle)));
    }
}

/// A comment, and the end of an event that is none: clients see nothing of it.
pub(crate) const HEARTBEAT: Bytes = Bytes::from_static(b":\n\n");
const MARK: &[u8] = b"\xef\xbb\xbf";
