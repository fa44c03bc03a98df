//! What one client connection, its request and their bodies share.
//!
//! One timer always holds the next thing that must not take too long, and the phase says what it is. An HTTP/2 connection
//! runs many requests at once: each of its streams has a [`Client`] of its own, made by [`Client::stream`].
//!
//! Lives on one worker. Knows no sockets and no HTTP.

use std::cell::{Cell, OnceCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::Version;
use tokio::time::Instant;

use super::admission::ListenerShared;
use super::local::Local;
use super::peer::Peer;
use super::request_body;
use super::timer::Timer;
use crate::error::{DownstreamFault, Fault, ProxyFault, UpstreamFault};
use crate::translate::Hop;

/// What the connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ClientPhase {
    /// Between requests. While there is an `until`, the timer holds when to park, and the idle time ends then.
    Idle { until: Option<Instant> },
    /// Part of a head has come; the flag says whether its timeout runs.
    Head { is_timed: bool },
    /// A request is on its walk.
    Exchange,
    /// The head of its answer has been handed over.
    Answer,
    /// An HTTP/2 connection: what it waits for its streams and whoever drives it know.
    Streams,
    /// It asks for another protocol: the head of the answer may have to go as it is.
    Upgrade,
    /// It speaks another protocol.
    Tunnel,
}

/// One client connection, as its request and bodies see it.
pub(crate) struct Client {
    pub(crate) local: Rc<Local>,
    pub(crate) listener: Arc<ListenerShared>,
    pub(crate) peer: Peer,
    pub(crate) hop: Hop,
    pub(crate) timer: Timer,
    phase: Cell<ClientPhase>,
    /// Something has moved since the timer was armed.
    is_progressed: Cell<bool>,
    /// How long nothing may move while an answer is under way.
    stream_idle: Cell<Option<Duration>>,
    /// The running request came as HTTP/1.0.
    is_http10: Cell<bool>,
    /// Only the end of the connection will end the answer.
    is_ended_by_close: Cell<bool>,
    /// When the running request must be over.
    request_end: Cell<Option<Instant>>,
    /// Why the connection was given up.
    pub(crate) ended: Cell<Option<Fault>>,
    /// hyper holds bytes that the socket does not take at the moment.
    is_writing: Cell<bool>,
    /// If hyper ends at once when asked to, the connection takes another request.
    is_reusable: Cell<bool>,
    /// hyper is asked to end while the connection goes on.
    is_being_parked: Cell<bool>,
    /// Nothing has come yet.
    is_fresh: Cell<bool>,
    /// Until when a closing connection waits for a request that may be on its way.
    lingers_until: Cell<Option<Instant>>,
    /// The service wants the body that its client holds back.
    is_body_wanted: Cell<bool>,
    /// Held by the body that is still to come, too. Made for the first one.
    body: OnceCell<Arc<()>>,
    /// One stream of an HTTP/2 connection.
    is_stream: bool,
}

impl Client {
    pub(crate) fn new(local: Rc<Local>, listener: Arc<ListenerShared>, peer: Peer, since: Instant) -> Self {
        let mut hop = local.hop(peer.address(), &listener.settings);
        if listener.tls.is_some() {
            hop.forwarded_proto = "https";
        }
        let client = Self::with(local, listener, peer, hop, false);
        client.timer.arm(since + client.listener.settings.header_timeout);
        client
    }

    /// For the requests of one stream after the other of this HTTP/2 connection.
    pub(crate) fn stream(&self) -> Self {
        Self::with(self.local.clone(), self.listener.clone(), self.peer, self.hop.clone(), true)
    }

    fn with(local: Rc<Local>, listener: Arc<ListenerShared>, peer: Peer, hop: Hop, is_stream: bool) -> Self {
        Self {
            hop,
            timer: Timer::new(&local.wheel),
            local,
            listener,
            peer,
            phase: Cell::new(ClientPhase::Head { is_timed: true }),
            is_progressed: Cell::new(false),
            stream_idle: Cell::new(None),
            is_http10: Cell::new(false),
            is_ended_by_close: Cell::new(false),
            request_end: Cell::new(None),
            ended: Cell::new(None),
            is_writing: Cell::new(false),
            is_reusable: Cell::new(false),
            is_being_parked: Cell::new(false),
            is_fresh: Cell::new(true),
            lingers_until: Cell::new(None),
            is_body_wanted: Cell::new(false),
            body: OnceCell::new(),
            is_stream,
        }
    }

    /// One stream of an HTTP/2 connection.
    pub(crate) fn is_stream(&self) -> bool {
        self.is_stream
    }

    /// The connection turns out to be one of HTTP/2.
    pub(crate) fn carries_streams(&self) {
        self.phase.set(ClientPhase::Streams);
        self.timer.disarm();
    }

    /// The service wants the body that its client holds back. hyper tells clients of HTTP/1.1 by itself.
    pub(crate) fn ask_for_body(&self) {
        self.is_body_wanted.set(self.is_stream);
    }

    /// Whether the client is to be told to send its body, now.
    pub(crate) fn take_body_wanted(&self) -> bool {
        self.is_body_wanted.take()
    }

    /// For a body to hold until it has come, or nobody wants the rest any more.
    pub(crate) fn body_comes(&self) -> Arc<()> {
        self.body.get_or_init(Arc::default).clone()
    }

    /// What comes belongs to a body.
    fn is_body_due(&self) -> bool {
        self.body.get().is_some_and(|body| Arc::strong_count(body) > 1)
    }

    /// A head is complete: its request starts.
    pub(crate) fn exchange_began(&self, version: Version) {
        self.phase.set(ClientPhase::Exchange);
        self.is_http10.set(version == Version::HTTP_10);
        self.request_end.set(None);
        self.stream_idle.set(None);
        self.ended.set(None);
        self.timer.disarm();
    }

    /// The head of the answer has been handed over, and says whether the connection closes.
    pub(crate) fn answer_began(&self) {
        self.phase.set(ClientPhase::Answer);
    }

    /// The running request asks for another protocol.
    pub(crate) fn upgrade_began(&self) {
        self.phase.set(ClientPhase::Upgrade);
    }

    /// Another protocol is spoken from now on: nothing limits it but `idle`.
    pub(crate) fn tunnel_began(&self, idle: Option<Duration>) {
        self.phase.set(ClientPhase::Tunnel);
        self.request_end.set(None);
        self.stream_began(idle);
    }

    /// The answer has been handed over: the idle time starts.
    pub(crate) fn exchange_ended(&self, now: Instant) {
        self.is_ended_by_close.set(false);
        self.request_end.set(None);
        if self.is_stream {
            // What is left of the answer has the time that an idle connection has, if no other.
            self.stream_idle.set(self.stream_idle.get().or(Some(self.listener.settings.idle_timeout)));
        } else {
            self.idles(now);
        }
    }

    /// Called when a stream's client takes nothing at the moment: true when that has lasted too long.
    pub(crate) fn is_stalled(&self) -> bool {
        self.is_out_of_time(self.stream_idle.get())
    }

    /// The idle time starts at `now`. A connection that may be parked is looked at once before its end.
    fn idles(&self, now: Instant) {
        let until = now + self.listener.settings.idle_timeout;
        let park = now + PARK_AFTER;
        let is_parked = self.is_reusable.get() && !self.is_writing.get() && !self.is_body_due() && park < until;
        self.timer.arm(if is_parked { park } else { until });
        self.phase.set(ClientPhase::Idle { until: is_parked.then_some(until) });
    }

    /// The timer is not to mean that the connection should be parked; it holds the end of the idle time instead.
    fn stays_as_it_is(&self) {
        if let ClientPhase::Idle { until: Some(until) } = self.phase.get() {
            self.timer.arm(until);
            self.phase.set(ClientPhase::Idle { until: None });
        }
    }

    /// Says whether hyper's end after this exchange will tell that the connection takes another one.
    pub(crate) fn set_reusable(&self, is_reusable: bool) {
        self.is_reusable.set(is_reusable);
    }

    pub(crate) fn set_being_parked(&self, is_being_parked: bool) {
        self.is_being_parked.set(is_being_parked);
    }

    pub(crate) fn is_being_parked(&self) -> bool {
        self.is_being_parked.get()
    }

    /// Nothing has come from the client yet.
    pub(crate) fn is_fresh(&self) -> bool {
        self.is_fresh.get()
    }

    pub(crate) fn limit_request(&self, end: Option<Instant>) {
        self.request_end.set(end);
    }

    /// An answer is under way: from now on nothing may stand still for longer than `idle`.
    pub(crate) fn stream_began(&self, idle: Option<Duration>) {
        self.stream_idle.set(idle);
        self.is_progressed.set(true);
    }

    /// Whether an answer of unknown length is to end with the connection: HTTP/1.0 knows no chunks.
    pub(crate) fn ends_by_close(&self) -> bool {
        self.is_ended_by_close.set(self.is_http10.get());
        self.is_http10.get()
    }

    /// Whether the end of the connection would make a cut answer look complete.
    pub(crate) fn is_ended_by_close(&self) -> bool {
        self.is_ended_by_close.get()
    }

    /// Some bytes have moved.
    pub(crate) fn progress(&self) {
        self.is_progressed.set(true);
    }

    /// Gives the running request until `timeout` after `from`; `None` leaves only the request's own end.
    pub(crate) fn arm(&self, from: Instant, timeout: Option<Duration>) {
        let at = timeout.map(|timeout| from + timeout);
        match (at, self.request_end.get()) {
            (Some(at), Some(end)) => self.timer.arm(at.min(end)),
            (Some(at), None) | (None, Some(at)) => self.timer.arm(at),
            (None, None) => self.timer.disarm(),
        }
    }

    pub(crate) fn is_expired(&self) -> bool {
        self.timer.is_expired()
    }

    /// Called when nothing can move: true when that has lasted for `idle`.
    pub(crate) fn is_out_of_time(&self, idle: Option<Duration>) -> bool {
        if self.is_progressed.replace(false) {
            self.arm(Instant::now(), idle);
            return false;
        }
        self.timer.is_expired()
    }

    /// Whether the whole request took too long.
    pub(crate) fn is_past_request_end(&self) -> bool {
        self.request_end.get().is_some_and(|end| Instant::now() >= end)
    }

    /// Why a silent upstream is given up.
    pub(crate) fn stream_fault(&self) -> Fault {
        if self.is_past_request_end() { ProxyFault::RequestTimeout.into() } else { UpstreamFault::StreamIdle.into() }
    }

    /// Why a client that takes nothing at the moment is given up.
    pub(crate) fn stall_fault(&self) -> Fault {
        if self.is_past_request_end() {
            ProxyFault::RequestTimeout.into()
        } else {
            DownstreamFault::WriteStalled.into()
        }
    }

    /// Why the connection was given up, if it was.
    pub(crate) fn ended_by(&self) -> Option<Fault> {
        self.ended.get()
    }

    /// The connection takes no further request: the process drains, or its listener is gone.
    pub(crate) fn is_closing(&self) -> bool {
        self.local.is_draining() || self.listener.is_retired()
    }

    /// Whether a closing connection stays as it is for now: the next answer can say so, or the next request may be on
    /// its way.
    pub(crate) fn lingers(&self) -> bool {
        let is_silent = match self.phase.get() {
            ClientPhase::Exchange => return false,
            // While an upgrade is closed, hyper's answer would say so instead of `Connection: upgrade`.
            ClientPhase::Answer | ClientPhase::Upgrade | ClientPhase::Tunnel | ClientPhase::Streams => false,
            // The last answer may still be on its way out.
            ClientPhase::Idle { .. } => !self.is_writing.get(),
            ClientPhase::Head { .. } => self.is_fresh.get(),
        };
        if !is_silent {
            return true;
        }
        self.stays_as_it_is();
        let now = Instant::now();
        let linger = if self.is_body_due() { request_body::LINGER } else { LINGER };
        let until = self.lingers_until.get().unwrap_or(now + linger);
        self.lingers_until.set(Some(until));
        self.timer.arm(until);
        now < until
    }

    pub(crate) fn received(&self, bytes: usize) {
        self.local.metrics.downstream_received_bytes.add(bytes as u64);
        self.is_fresh.set(self.is_fresh.get() && bytes == 0);
        if matches!(self.phase.get(), ClientPhase::Idle { .. }) && bytes > 0 && !self.is_body_due() {
            // The timeout starts only if the head is not complete with this read: the usual one is, and
            // needs no clock.
            self.phase.set(ClientPhase::Head { is_timed: false });
        }
    }

    pub(crate) fn waits_for_more(&self) {
        if self.phase.get() == (ClientPhase::Head { is_timed: false }) {
            self.phase.set(ClientPhase::Head { is_timed: true });
            self.timer.arm(Instant::now() + self.listener.settings.header_timeout);
        }
    }

    /// Whether a request is on its walk or its answer under way.
    pub(crate) fn is_in_exchange(&self) -> bool {
        matches!(self.phase.get(), ClientPhase::Exchange | ClientPhase::Answer | ClientPhase::Upgrade)
    }

    fn sent(&self, bytes: usize) {
        self.local.metrics.downstream_sent_bytes.add(bytes as u64);
        self.progress();
    }

    /// The client takes no bytes at the moment.
    pub(crate) fn stalls(&self) {
        self.is_writing.set(true);
        if self.phase.get() == ClientPhase::Streams {
            return;
        }
        self.stays_as_it_is();
        if self.is_progressed.replace(false) {
            self.arm(Instant::now(), self.stream_idle.get());
        }
    }

    /// What became of a write to the socket.
    pub(crate) fn written(&self, polled: &Poll<io::Result<usize>>) {
        match polled {
            Poll::Ready(Ok(bytes)) => self.sent(*bytes),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.stalls(),
        }
    }

    /// The socket does not take all that is to be written.
    pub(crate) fn is_writing(&self) -> bool {
        self.is_writing.get()
    }

    /// The socket has taken all that hyper held.
    pub(crate) fn flushed(&self) {
        if self.is_writing.replace(false) && matches!(self.phase.get(), ClientPhase::Idle { .. }) {
            self.idles(Instant::now());
        }
    }

    /// What an expired timer means when the request itself has not reacted to it.
    pub(crate) fn expiry(&self) -> Expiry {
        match self.phase.get() {
            ClientPhase::Idle { until: Some(_) } => {
                self.stays_as_it_is();
                Expiry::Park
            }
            ClientPhase::Idle { until: None } if self.is_writing.get() => Expiry::Stalled,
            ClientPhase::Idle { until: None } => Expiry::Idle,
            ClientPhase::Head { .. } => Expiry::Head,
            ClientPhase::Exchange
            | ClientPhase::Answer
            | ClientPhase::Upgrade
            | ClientPhase::Tunnel
            | ClientPhase::Streams => Expiry::Stalled,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expiry {
    /// Idle for long enough to give back what only an active connection needs. The timer has been armed again.
    Park,
    Idle,
    Head,
    Stalled,
}

/// A client that has been idle for so long may stay so: what hyper holds for it is worth more than what it costs to make
/// that again.
const PARK_AFTER: Duration = Duration::from_secs(1);
/// A client may have sent a request before it hears that its idle connection closes: that one is still answered.
const LINGER: Duration = Duration::from_millis(50);
