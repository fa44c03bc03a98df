//! An upgraded connection: bytes both ways between a client and a service, until both have said all.
//!
//! Each direction holds one chunk at most, and reads the next when that has been taken, so a slow reader slows only who
//! talks to it. Each ends on its own: FIN becomes `END_STREAM` and the other way round; a reset of one end resets the
//! other. A tunnel in which nothing moves either way is given up after the route's `stream_idle`.
//!
//! While the process drains, or when the listener is gone, a WebSocket's client is told to go: a Close frame with 1001 is
//! put between two frames of the service, at a moment that differs from tunnel to tunnel. What the service says
//! after that is dropped; the client's own Close goes up as it is, and the service ends the tunnel, or the time does.
//!
//! Lives on one worker. RFC 6455 §5.5.1, §7.4.1, RFC 8441 §5.

mod end;
mod frames;

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, Sleep, sleep};

pub(crate) use self::end::End;
use self::frames::Frames;
use super::client::Client;
use super::exchange::{Exchange, Phase};
use super::jitter::spread;
use super::local::Local;
use crate::error::{DownstreamFault, Fault, ProxyFault, UpstreamFault};
use crate::metrics::Gauge;

/// What the service has switched to.
pub(crate) struct Switched {
    pub(crate) service: End,
    pub(crate) is_websocket: bool,
    pub(crate) idle: Option<Duration>,
}

/// A tunnel whose client has yet to hear of it.
pub(crate) struct Tunnel {
    switched: Switched,
    exchange: Box<Exchange>,
}

impl Tunnel {
    pub(crate) fn new(switched: Switched, mut exchange: Box<Exchange>) -> Self {
        exchange.is_tunnel = true;
        Self { switched, exchange }
    }

    /// Relays until it is over; why it was cut. `client_end` is what follows the head of the answer.
    pub(crate) async fn run(self, client: Rc<Client>, client_end: End) -> Result<(), Fault> {
        let Self { switched: Switched { service, is_websocket, idle }, mut exchange } = self;
        client.tunnel_began(idle);
        exchange.phase = Phase::Tunnel;
        let received_bytes: Arc<AtomicU64> = Arc::default();
        exchange.received_bytes = Some(received_bytes.clone());
        let mut running = Running {
            _counted: Counted::new(client.local.clone(), is_websocket),
            client_end,
            service,
            up: Direction::default(),
            down: Direction::default(),
            farewell: if is_websocket { Farewell::Possible(Frames::default()) } else { Farewell::Impossible },
            received_bytes,
            exchange: Some(exchange),
            client,
            idle,
        };
        let over = poll_fn(|cx| running.poll(cx)).await;
        running.over(over);
        over
    }
}

/// The way from one end to the other.
#[derive(Default)]
struct Direction {
    /// Read, and not yet taken by the other end.
    chunk: Bytes,
    /// What was written may wait in a buffer.
    is_unflushed: bool,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Open,
    /// Nothing more comes; the other end is to be told.
    Ending,
    Ended,
}

impl Direction {
    /// Writes some of the first `bytes_max` bytes of the chunk; what was taken.
    fn poll_write(&mut self, cx: &mut Context<'_>, to: &mut End, bytes_max: usize) -> Poll<Result<Bytes, Fault>> {
        let part = self.chunk.slice(..bytes_max.min(self.chunk.len()));
        let taken = ready!(to.poll_write(cx, &part))?;
        self.is_unflushed = true;
        Poll::Ready(Ok(self.chunk.split_to(taken)))
    }

    /// Takes the next chunk; `false` when there is none any more, and the other end knows.
    fn poll_next(&mut self, cx: &mut Context<'_>, from: &mut End, to: &mut End) -> Poll<Result<bool, Fault>> {
        if self.is_unflushed {
            ready!(to.poll_flush(cx))?;
            self.is_unflushed = false;
        }
        loop {
            match self.stage {
                Stage::Open => match ready!(from.poll_read(cx))? {
                    Some(chunk) => {
                        self.chunk = chunk;
                        return Poll::Ready(Ok(true));
                    }
                    None => self.stage = Stage::Ending,
                },
                Stage::Ending => {
                    ready!(to.poll_finish(cx))?;
                    self.stage = Stage::Ended;
                }
                Stage::Ended => return Poll::Ready(Ok(false)),
            }
        }
    }
}

/// The Close frame of ours that a client gets before its tunnel is cut.
enum Farewell {
    /// There is none in this protocol.
    Impossible,
    /// Where the service's frames end is known.
    Possible(Frames),
    /// The client is to go, when its turn among others comes.
    Waiting(Frames, Pin<Box<Sleep>>),
    /// At the end of the frame that has begun.
    Due(Frames),
    /// Both sides have until then to answer and to end.
    Said(Pin<Box<Sleep>>),
}

impl Farewell {
    fn frames(&mut self) -> Option<&mut Frames> {
        match self {
            Self::Possible(frames) | Self::Waiting(frames, _) | Self::Due(frames) => Some(frames),
            Self::Impossible | Self::Said(_) => None,
        }
    }
}

/// A tunnel at work.
struct Running {
    client_end: End,
    service: End,
    up: Direction,
    down: Direction,
    farewell: Farewell,
    received_bytes: Arc<AtomicU64>,
    /// Taken at the end.
    exchange: Option<Box<Exchange>>,
    client: Rc<Client>,
    idle: Option<Duration>,
    _counted: Counted,
}

impl Running {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        self.client.timer.register(cx);
        self.poll_farewell(cx);
        let up = self.poll_up(cx);
        let down = self.poll_down(cx);
        let is_said = matches!(self.farewell, Farewell::Said(_));
        match (up, down) {
            (Poll::Ready(Err(fault)), _) | (_, Poll::Ready(Err(fault))) => {
                return Poll::Ready(self.unless_ended(fault));
            }
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(Ok(())),
            // After a Close frame the end of one side is that of both.
            (Poll::Ready(Ok(())), _) | (_, Poll::Ready(Ok(()))) if is_said => return Poll::Ready(Ok(())),
            _ => {}
        }
        if self.up.stage != Stage::Ended
            && let Poll::Ready(fault) = self.service.poll_refusal(cx)
        {
            return Poll::Ready(self.unless_ended(fault));
        }
        if self.down.stage != Stage::Ended
            && let Poll::Ready(fault) = self.client_end.poll_refusal(cx)
        {
            return Poll::Ready(self.unless_ended(fault));
        }
        if self.poll_overdue(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        if self.client.is_out_of_time(self.idle) {
            let is_client_slow = !self.down.chunk.is_empty();
            let fault: Fault =
                if is_client_slow { DownstreamFault::WriteStalled.into() } else { UpstreamFault::StreamIdle.into() };
            return Poll::Ready(Err(fault));
        }
        Poll::Pending
    }

    /// Who has said all may leave before it has heard all: then nothing is cut.
    fn unless_ended(&self, fault: Fault) -> Result<(), Fault> {
        let left = if matches!(fault, Fault::Downstream(_)) { [&self.up, &self.down] } else { [&self.down; 2] };
        if left.iter().any(|direction| direction.stage == Stage::Ended) { Ok(()) } else { Err(fault) }
    }

    /// Sees whether the client is to go.
    fn poll_farewell(&mut self, cx: &mut Context<'_>) {
        if let Farewell::Possible(frames) = &mut self.farewell
            && self.client.is_closing()
        {
            // Not all clients at once: they will all come back.
            let time = spread(self.client.local.drain_timeout() / 2, 0.0..1.0);
            self.farewell = Farewell::Waiting(std::mem::take(frames), Box::pin(sleep(time)));
        }
        if let Farewell::Waiting(frames, time) = &mut self.farewell
            && time.as_mut().poll(cx).is_ready()
        {
            self.farewell = Farewell::Due(std::mem::take(frames));
        }
    }

    /// Whether both sides have had their time to end behind our Close frame.
    fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.farewell {
            Farewell::Said(time) => time.as_mut().poll(cx),
            _ => Poll::Pending,
        }
    }

    fn poll_up(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        loop {
            if self.up.chunk.is_empty() {
                if !ready!(self.up.poll_next(cx, &mut self.client_end, &mut self.service))? {
                    return Poll::Ready(Ok(()));
                }
            } else {
                let taken = ready!(self.up.poll_write(cx, &mut self.service, usize::MAX))?;
                self.client_end.taken(taken.len());
                self.received_bytes.fetch_add(taken.len() as u64, Ordering::Relaxed);
            }
            self.client.progress();
        }
    }

    fn poll_down(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        loop {
            let passable_bytes = match &self.farewell {
                Farewell::Due(frames) if !frames.is_closed() && self.down.stage == Stage::Open => {
                    if frames.is_between() {
                        self.service.taken(self.down.chunk.len());
                        self.down.chunk = Bytes::from_static(GOING_AWAY);
                        let time = self.client.local.drain_timeout() / 4;
                        self.farewell = Farewell::Said(Box::pin(sleep(time)));
                        GOING_AWAY.len()
                    } else {
                        frames.begun_bytes(&self.down.chunk)
                    }
                }
                _ => usize::MAX,
            };
            if !self.down.chunk.is_empty() {
                let taken = ready!(self.down.poll_write(cx, &mut self.client_end, passable_bytes))?;
                if !matches!(self.farewell, Farewell::Said(_)) {
                    self.service.taken(taken.len());
                }
                if let Some(frames) = self.farewell.frames() {
                    frames.advance(&taken);
                }
                if let Some(exchange) = &mut self.exchange {
                    exchange.sent_bytes += taken.len() as u64;
                }
            } else if !ready!(self.down.poll_next(cx, &mut self.service, &mut self.client_end))? {
                return Poll::Ready(Ok(()));
            } else if matches!(self.farewell, Farewell::Said(_)) {
                // Nothing follows a Close frame.
                self.service.taken(std::mem::take(&mut self.down.chunk).len());
            }
            self.client.progress();
        }
    }

    fn over(mut self, over: Result<(), Fault>) {
        if let Some(mut exchange) = self.exchange.take() {
            exchange.fault = over.err();
            exchange.complete(Instant::now());
        }
        match over {
            Err(Fault::Downstream(_)) => {
                self.service.reset();
                self.client_end.reset();
            }
            Err(Fault::Upstream(UpstreamFault::BodyCut)) => self.client_end.reset(),
            Ok(()) | Err(_) => self.client_end.end(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(exchange) = &mut self.exchange
            && self.client.local.is_draining()
        {
            exchange.fault = Some(ProxyFault::Draining.into());
        }
    }
}

/// A tunnel, in the gauge of its protocol.
struct Counted {
    local: Rc<Local>,
    is_websocket: bool,
}

impl Counted {
    fn new(local: Rc<Local>, is_websocket: bool) -> Self {
        let counted = Self { local, is_websocket };
        counted.gauge().add(1);
        counted
    }

    fn gauge(&self) -> &Gauge {
        let [websocket, other] = &self.local.metrics.tunnels;
        if self.is_websocket { websocket } else { other }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.gauge().add(-1);
    }
}

/// A Close frame with the code 1001, "going away", as servers send it: unmasked.
const GOING_AWAY: &[u8] = &[0x88, 2, 0x03, 0xe9];
