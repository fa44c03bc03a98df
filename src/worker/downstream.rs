//! One client connection: hyper's HTTP/1.1 server with our limits, timeouts and rules for closing.
//!
//! A [`Client`] is what the connection, its request and their bodies share: one timer that always holds the next
//! thing that must not take too long, and the phase that says what it is.
//!
//! Lives on one worker. RFC 9112 §9.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::Worker;
use super::exchange::Exchange;
use super::listener::{ConnectionPermit, ListenerShared};
use super::timer::Timer;
use crate::error::{DownstreamFault, Fault, ProxyFault, UpstreamFault};
use crate::translate::Hop;

/// hyper holds at most this much of an answer for the socket before it asks for more.
const BUFFER_BYTES: usize = 64 * 1024;

/// A client may have sent a request before it hears that its idle connection closes: that one is still answered.
const LINGER: Duration = Duration::from_millis(50);

/// What the connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ClientPhase {
    /// Between requests.
    Idle,
    /// Part of a head has come; the flag says whether its timeout runs.
    Head { is_timed: bool },
    /// A request is on its walk.
    Exchange,
    /// The head of its answer has been handed over.
    Answer,
}

/// One client connection, as its request and bodies see it.
pub(crate) struct Client {
    pub(crate) worker: Rc<Worker>,
    pub(crate) listener: Arc<ListenerShared>,
    pub(crate) peer: SocketAddr,
    pub(crate) hop: Hop,
    timer: Timer,
    phase: Cell<ClientPhase>,
    /// Something has moved since the timer was armed.
    is_progressed: Cell<bool>,
    /// How long nothing may move while an answer is under way.
    stream_idle: Cell<Option<Duration>>,
    /// When the running request must be over.
    request_end: Cell<Option<Instant>>,
    /// Why the connection was given up.
    ended: Cell<Option<DownstreamFault>>,
    /// Nothing has come yet.
    is_fresh: Cell<bool>,
    /// Until when a closing connection waits for a request that may be on its way.
    lingers_until: Cell<Option<Instant>>,
}

impl Client {
    fn new(worker: Rc<Worker>, listener: Arc<ListenerShared>, peer: SocketAddr) -> Self {
        let timer = Timer::new(&worker.wheel);
        timer.arm(Instant::now() + listener.settings.header_timeout);
        Self {
            hop: worker.hop(peer.ip()),
            worker,
            listener,
            peer,
            timer,
            phase: Cell::new(ClientPhase::Head { is_timed: true }),
            is_progressed: Cell::new(false),
            stream_idle: Cell::new(None),
            request_end: Cell::new(None),
            ended: Cell::new(None),
            is_fresh: Cell::new(true),
            lingers_until: Cell::new(None),
        }
    }

    /// A head is complete: its request starts.
    pub(crate) fn exchange_began(&self) {
        self.phase.set(ClientPhase::Exchange);
        self.request_end.set(None);
        self.stream_idle.set(None);
        self.timer.disarm();
    }

    /// The head of the answer has been handed over, and says whether the connection closes.
    pub(crate) fn answer_began(&self) {
        self.phase.set(ClientPhase::Answer);
    }

    /// The answer has been handed over: the idle time starts.
    pub(crate) fn exchange_ended(&self) {
        self.phase.set(ClientPhase::Idle);
        self.request_end.set(None);
        self.timer.arm(Instant::now() + self.listener.settings.idle_timeout);
    }

    /// Has the connection look again at whether it should close.
    pub(crate) fn wake(&self) {
        self.timer.wake();
    }

    pub(crate) fn limit_request(&self, end: Option<Instant>) {
        self.request_end.set(end);
    }

    /// An answer is under way: from now on nothing may stand still for longer than `idle`.
    pub(crate) fn stream_began(&self, idle: Option<Duration>) {
        self.stream_idle.set(idle);
        self.is_progressed.set(true);
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

    /// Why the connection was given up, if it was.
    pub(crate) fn ended_by(&self) -> Option<DownstreamFault> {
        self.ended.get()
    }

    /// The connection takes no further request: the process drains, or its listener is gone.
    fn is_closing(&self) -> bool {
        self.worker.is_draining() || self.listener.is_retired()
    }

    /// Whether a closing connection stays as it is: it can no longer say so in an answer, or has been silent for less
    /// than [`LINGER`].
    fn lingers(&self) -> bool {
        let is_silent = match self.phase.get() {
            ClientPhase::Exchange => return false,
            ClientPhase::Answer => false,
            ClientPhase::Idle => true,
            ClientPhase::Head { .. } => self.is_fresh.get(),
        };
        if !is_silent {
            return true;
        }
        let now = Instant::now();
        let until = self.lingers_until.get().unwrap_or(now + LINGER);
        self.lingers_until.set(Some(until));
        self.timer.arm(until);
        now < until
    }

    fn received(&self, bytes: usize) {
        self.worker.metrics.downstream_received_bytes.add(bytes as u64);
        self.is_fresh.set(self.is_fresh.get() && bytes == 0);
        if self.phase.get() == ClientPhase::Idle && bytes > 0 {
            // The timeout starts only if the head is not complete with this read: the usual one is, and
            // needs no clock.
            self.phase.set(ClientPhase::Head { is_timed: false });
        }
    }

    fn waits_for_more(&self) {
        if self.phase.get() == (ClientPhase::Head { is_timed: false }) {
            self.phase.set(ClientPhase::Head { is_timed: true });
            self.timer.arm(Instant::now() + self.listener.settings.header_timeout);
        }
    }

    fn sent(&self, bytes: usize) {
        self.worker.metrics.downstream_sent_bytes.add(bytes as u64);
        self.progress();
    }

    /// The client takes no bytes at the moment.
    fn stalls(&self) {
        let is_running = matches!(self.phase.get(), ClientPhase::Exchange | ClientPhase::Answer);
        if is_running && self.is_progressed.replace(false) {
            self.arm(Instant::now(), self.stream_idle.get());
        }
    }

    /// What an expired timer means when the request itself has not reacted to it.
    fn expiry(&self) -> Expiry {
        match self.phase.get() {
            ClientPhase::Idle => Expiry::Idle,
            ClientPhase::Head { .. } => Expiry::Head,
            ClientPhase::Exchange | ClientPhase::Answer => Expiry::Stalled,
        }
    }
}

/// hyper has no part in this answer, so it is spelt out.
const HEAD_TIMEOUT_ANSWER: &[u8] = b"HTTP/1.1 408 Request Timeout\r\n\
    proxy-status: trunkline; error=http_request_error\r\n\
    connection: close\r\n\
    content-length: 0\r\n\r\n";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expiry {
    Idle,
    Head,
    Stalled,
}

/// Serves one client connection to its end.
pub(crate) async fn serve(
    worker: Rc<Worker>,
    listener: Arc<ListenerShared>,
    stream: TcpStream,
    peer: SocketAddr,
    permit: ConnectionPermit,
) {
    let _permit = permit;
    let client = Rc::new(Client::new(worker.clone(), listener, peer));
    let _registration = worker.register(&client);
    let settings = &client.listener.settings;
    let io = ClientIo { stream, client: client.clone(), is_begun: false };
    let service = service_fn({
        let client = client.clone();
        move |request| super::forward::forward(client.clone(), request)
    });
    // Not `pipeline_flush`: with it hyper takes an answer without bound, however slowly the client reads.
    let mut connection = http1::Builder::new()
        .keep_alive(true)
        .half_close(false)
        .header_read_timeout(None)
        .max_headers(settings.headers_max)
        .max_header_size(settings.header_bytes_max)
        .max_buf_size(settings.header_bytes_max.max(BUFFER_BYTES))
        .auto_date_header(false)
        .serve_connection(TokioIo::new(io), service);
    let mut is_closing = false;
    let ended = poll_fn(|cx| {
        client.timer.register(cx);
        let mut polled = Pin::new(&mut connection).poll(cx);
        if polled.is_pending() && client.is_closing() && !is_closing && !client.lingers() {
            is_closing = true;
            // The answer says `Connection: close`.
            Pin::new(&mut connection).graceful_shutdown();
            polled = Pin::new(&mut connection).poll(cx);
        }
        match polled {
            Poll::Ready(result) => Poll::Ready(Ok(result)),
            Poll::Pending if client.timer.is_expired() => Poll::Ready(Err(client.expiry())),
            Poll::Pending => Poll::Pending,
        }
    })
    .await;
    match ended {
        Ok(Ok(())) | Err(Expiry::Idle) => {}
        Ok(Err(error)) => head_fault(&client, &error),
        Err(Expiry::Stalled) => client.ended.set(Some(DownstreamFault::WriteStalled)),
        Err(Expiry::Head) => {
            let io = connection.into_parts().io.into_inner();
            if io.is_begun {
                tell_fault(&client, DownstreamFault::HeadTimeout);
                // One try: a client that is slow to write may be slow to read.
                let _ = io.stream.try_write(HEAD_TIMEOUT_ANSWER);
            }
        }
    }
}

/// hyper has answered a head that it could not read; the record is made here.
fn head_fault(client: &Client, error: &hyper::Error) {
    if error.is_parse_too_large() {
        tell_fault(client, DownstreamFault::HeadTooLarge);
    } else if error.is_parse() {
        tell_fault(client, DownstreamFault::MalformedHead);
    } else {
        tracing::debug!(peer = %client.peer, %error, "client connection ended");
    }
}

fn tell_fault(client: &Client, fault: DownstreamFault) {
    let mut exchange = Exchange::begin(client.worker.clone(), client.peer.ip(), Instant::now());
    exchange.fault = Some(fault.into());
}

/// A client's socket, which tells its [`Client`] what moves.
struct ClientIo {
    stream: TcpStream,
    client: Rc<Client>,
    is_begun: bool,
}

impl AsyncRead for ClientIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        match &polled {
            Poll::Ready(Ok(())) => {
                self.is_begun = true;
                self.client.received(buf.filled().len() - before);
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.client.waits_for_more(),
        }
        polled
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.client.written(&polled);
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.client.written(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Client {
    fn written(&self, polled: &Poll<io::Result<usize>>) {
        match polled {
            Poll::Ready(Ok(bytes)) => self.sent(*bytes),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.stalls(),
        }
    }
}
