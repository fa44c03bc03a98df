//! One HTTP/2 client connection: h2's server with our limits, timeouts and rules for closing.
//!
//! h2 is driven by the connection's own task; each stream is a task with a [`Client`] of its own, so that its timeouts are
//! its own too. What a client has not taken is bounded by its windows, by h2's buffer for each stream and by the one
//! below h2, and a stream whose client takes nothing for too long is reset, not the connection.
//!
//! Lives on one worker. RFC 9113 §3.3, §5.1.2, §5.2, §6.8, §10.5.

use std::cell::{Cell, RefCell};
use std::error::Error;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::Request;
use tokio::time::Instant;

use super::super::client::Client;
use super::super::local::Registration;
use super::super::socket::ClientIo;
use super::frames::Frames;
use super::stream;
use super::wire::{Sender, Wire};
use crate::error::DownstreamFault;
use crate::metrics;

/// Serves the streams of one connection until it ends. `io` begins with the preface.
pub(super) async fn serve(client: Rc<Client>, io: ClientIo) {
    let frames = Frames::new(Instant::now());
    let wire = Wire::new(io, frames.clone());
    let sender = wire.sender();
    let settings = &client.listener.settings;
    let connection_window = u64::from(settings.streams_max) * u64::from(STREAM_WINDOW_BYTES);
    let handshake = h2::server::Builder::new()
        .max_concurrent_streams(settings.streams_max)
        .initial_window_size(STREAM_WINDOW_BYTES)
        // One request body that a slow service does not take must not stop the others (RFC 9113 §5.2).
        .initial_connection_window_size(connection_window.min((1 << 31) - 1) as u32)
        .max_header_list_size(u32::try_from(settings.header_bytes_max * HEAD_MARGIN).unwrap_or(u32::MAX))
        .max_send_buffer_size(SEND_BUFFER_BYTES)
        .enable_connect_protocol()
        .handshake::<_, Bytes>(wire);
    // The preface is there already, and our SETTINGS go out with the driver's first turn.
    let connection = match handshake.await {
        Ok(connection) => connection,
        Err(error) => {
            tracing::debug!(peer = %client.peer, %error, "no HTTP/2 handshake");
            return;
        }
    };
    client.carries_streams();
    let streams = Rc::new(Streams {
        connection: client.clone(),
        open: Cell::new(0),
        spare: RefCell::default(),
        resets: Cell::new(0),
        forgiven_at: Cell::new(Instant::now()),
    });
    let mut driver =
        Driver { client, connection, sender, frames, streams, waits_for: WaitsFor::Streams, is_ending: false };
    let ended = poll_fn(|cx| driver.poll(cx)).await;
    if let Err(error) = ended {
        tracing::debug!(peer = %driver.client.peer, %error, "client connection ended");
    }
}

struct Driver {
    client: Rc<Client>,
    connection: Connection<Wire, Bytes>,
    sender: Sender,
    frames: Rc<Frames>,
    streams: Rc<Streams>,
    waits_for: WaitsFor,
    /// A GOAWAY has been sent.
    is_ending: bool,
}

/// What the connection's timer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WaitsFor {
    /// Nothing: each stream has a timer of its own.
    Streams,
    /// The end of the idle time.
    Request,
    /// The end of the time for a head of which a part has come, for each one anew.
    Rest(u64),
    /// For the client to take more of the answers that have been handed over.
    Delivery,
    /// The last moment for the client to end a connection that ends.
    End,
}

impl Driver {
    /// Drives h2 and begins streams; ready when the connection has ended, or must.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Box<dyn Error>>> {
        self.client.timer.register(cx);
        loop {
            if self.client.is_closing() {
                self.end();
            }
            loop {
                match self.connection.poll_accept(cx) {
                    Poll::Ready(Some(Ok((request, response)))) => self.streams.begin(request, response),
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error.into())),
                    Poll::Ready(None) => return Poll::Ready(Ok(())),
                    Poll::Pending => break,
                }
            }
            if let Poll::Ready(Err(error)) = self.sender.poll_flush(cx) {
                return Poll::Ready(Err(error.into()));
            }
            if self.is_unbearable() {
                self.calm();
                continue;
            }
            let waits_for = self.waits_for();
            if waits_for != self.waits_for {
                self.waits_for = waits_for;
                self.arm();
            }
            let is_over = match waits_for {
                // What the socket would take is held back by the client's windows: answers to its PINGs are no progress.
                WaitsFor::Delivery if self.client.is_writing() => {
                    self.client.is_out_of_time(Some(self.client.listener.settings.idle_timeout))
                }
                _ => self.client.is_expired(),
            };
            if !is_over {
                return Poll::Pending;
            }
            match waits_for {
                // The client may send a request at this very moment: it is told, and may send it elsewhere.
                WaitsFor::Request => self.end(),
                WaitsFor::Streams => return Poll::Pending,
                WaitsFor::Rest(_) => return self.poll_late(cx),
                WaitsFor::Delivery | WaitsFor::End => return Poll::Ready(Ok(())),
            }
        }
    }

    fn waits_for(&self) -> WaitsFor {
        let is_idle = self.streams.open.get() == 0;
        if self.frames.is_in_head() || is_idle && self.frames.is_incomplete() {
            WaitsFor::Rest(self.frames.heads())
        } else if !is_idle {
            WaitsFor::Streams
        } else if self.connection.has_streams() || !self.sender.is_flushed() {
            WaitsFor::Delivery
        } else if self.is_ending {
            WaitsFor::End
        } else {
            WaitsFor::Request
        }
    }

    fn arm(&self) {
        let settings = &self.client.listener.settings;
        let time = match self.waits_for {
            WaitsFor::Streams => return self.client.timer.disarm(),
            WaitsFor::Request | WaitsFor::Delivery => settings.idle_timeout,
            WaitsFor::Rest(_) => settings.header_timeout,
            WaitsFor::End => END_TIME,
        };
        self.client.timer.arm(Instant::now() + time);
    }

    /// A head has not come whole within its time: tells so, once, and ends.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Box<dyn Error>>> {
        if self.frames.is_in_head() {
            super::tell_fault(&self.client, DownstreamFault::HeadTimeout);
        }
        self.count_goaway(Reason::PROTOCOL_ERROR);
        self.connection.abrupt_shutdown(Reason::PROTOCOL_ERROR);
        // One try: a client that is slow to write may be slow to read.
        _ = self.connection.poll_closed(cx);
        Poll::Ready(Ok(()))
    }

    /// Takes no streams that the client opens after it has heard of it: a first GOAWAY tells, and a second one, when the
    /// client has answered a PING between them, names the last stream (RFC 9113 §6.8).
    fn end(&mut self) {
        if !std::mem::replace(&mut self.is_ending, true) {
            self.count_goaway(Reason::NO_ERROR);
            self.connection.graceful_shutdown();
        }
    }

    /// The client asks for more work than it waits for.
    fn is_unbearable(&self) -> bool {
        self.frames.is_flooded() || self.streams.is_unbearable()
    }

    /// Cuts the connection off.
    fn calm(&mut self) {
        tracing::warn!(peer = %self.client.peer, "client cut off: it resets streams or sends idle frames without end");
        self.count_goaway(Reason::ENHANCE_YOUR_CALM);
        self.frames.forgive();
        self.streams.resets.set(0);
        self.connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
    }

    fn count_goaway(&self, code: Reason) {
        self.client.local.metrics.downstream_goaway.increment(metrics::h2_code(code.into()));
    }
}

/// The streams of one connection.
pub(super) struct Streams {
    connection: Rc<Client>,
    open: Cell<u32>,
    /// Of streams that have ended, for those to come: what a timer was queued for is not given up and made again with
    /// each request.
    spare: RefCell<Vec<StreamClient>>,
    /// Streams that the client gave up, less those that it saw through.
    resets: Cell<u32>,
    /// Up to when the time has forgiven resets.
    forgiven_at: Cell<Instant>,
}

/// A stream's [`Client`], woken when the connection is.
struct StreamClient {
    client: Rc<Client>,
    _registration: Registration,
}

impl Streams {
    fn begin(self: &Rc<Self>, request: Request<RecvStream>, response: SendResponse<Bytes>) {
        let client = self.spare.borrow_mut().pop().unwrap_or_else(|| {
            let client = Rc::new(self.connection.stream());
            StreamClient { _registration: client.local.register(&client.timer), client }
        });
        self.open.set(self.open.get() + 1);
        let open = OpenStream { streams: self.clone(), client: Some(client) };
        // Boxed, because tokio moves a task's future eight times on its way in and out.
        tokio::task::spawn_local(Box::pin(stream::answer(open, request, response)));
    }

    /// Far more streams were given up than seen through: somebody has the services work for nothing.
    ///
    /// h2 counts only streams that are reset before we accept them.
    fn is_unbearable(&self) -> bool {
        if self.resets.get() <= RESETS_MAX {
            return false;
        }
        let now = Instant::now();
        let since = now.saturating_duration_since(self.forgiven_at.replace(now));
        let forgiven = u32::try_from(since.as_millis() / FORGIVEN_AFTER.as_millis()).unwrap_or(u32::MAX);
        self.resets.set(self.resets.get().saturating_sub(forgiven));
        self.resets.get() > RESETS_MAX
    }
}

/// A stream that counts.
pub(super) struct OpenStream {
    streams: Rc<Streams>,
    client: Option<StreamClient>,
}

impl OpenStream {
    pub(super) fn client(&self) -> &Rc<Client> {
        &self.client.as_ref().expect("only the drop takes it").client
    }

    /// The client has reset the stream.
    pub(super) fn was_reset(&self) {
        self.streams.resets.set(self.streams.resets.get() + 1);
    }

    /// The client has had its answer.
    pub(super) fn was_answered(&self) {
        self.streams.resets.set(self.streams.resets.get().saturating_sub(1));
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let streams = &self.streams;
        if let Some(spare) = self.client.take()
            && Rc::strong_count(&spare.client) == 1
        {
            spare.client.timer.disarm();
            streams.spare.borrow_mut().push(spare);
        }
        streams.open.set(streams.open.get() - 1);
        if streams.open.get() == 0 || streams.resets.get() > RESETS_MAX {
            streams.connection.timer.wakes().wake();
        }
    }
}

/// Heads up to so many times the limit come to us, and are answered and told of as others are; h2 answers larger ones by
/// itself. It is what our SETTINGS allow, and what trailers may have.
const HEAD_MARGIN: usize = 2;
/// Of a request body on its way: what the service has not taken, for each stream.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
/// Of an answer: what its client has not taken, for each stream.
const SEND_BUFFER_BYTES: usize = 64 * 1024;
/// Streams that a client may give up at once, as a browser does that leaves a page, or a proxy that loses its clients.
const RESETS_MAX: u32 = 500;
/// And one more each time that so long has passed.
const FORGIVEN_AFTER: Duration = Duration::from_millis(100);
/// A connection without streams that has been told to end ends at the latest then.
const END_TIME: Duration = Duration::from_secs(1);
