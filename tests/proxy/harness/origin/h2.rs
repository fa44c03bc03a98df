//! HTTP/2 at the origin: one connection on the `h2` crate's server, and the answers on its streams.
//!
//! Runs on the origin's thread. RFC 9113 §5.1, §6.8.

use std::future::poll_fn;
use std::sync::Arc;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Response};
use hyper::body::Frame;
use tokio::sync::broadcast;

use super::exchange::{Exchange, Place, Reply as AnyReply, RequestBody};
use super::log::{Closing, Ending};
use super::{Command, Io, Service};

/// Serves one connection until it ends or [`Command::Abort`] asks for a reset.
pub async fn serve(
    io: Box<dyn Io>,
    connection: usize,
    service: Arc<Service>,
    mut commands: broadcast::Receiver<Command>,
) -> Closing {
    let options = &service.options;
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(options.stream_window_bytes)
        .initial_connection_window_size(options.connection_window_bytes)
        // A proxy under test cancels many streams: this origin must not be the one that loses patience.
        .max_concurrent_reset_streams(100_000)
        .max_local_error_reset_streams(None)
        .max_pending_accept_reset_streams(100_000)
        .enable_connect_protocol();
    if let Some(streams) = options.max_concurrent_streams {
        builder.max_concurrent_streams(streams);
    }
    let handshake = tokio::select! {
        handshake = builder.handshake::<_, Bytes>(io) => handshake,
        () = aborted(&mut commands) => return Closing::Aborted,
    };
    let mut http2 = match handshake {
        Ok(http2) => http2,
        Err(error) => return Closing::Failed(error.to_string()),
    };
    let mut accepted = 0;
    loop {
        tokio::select! {
            request = http2.accept() => match request {
                Some(Ok((request, reply))) => {
                    accepted += 1;
                    begin(request, reply, connection, &service);
                    if options.goaway_every.is_some_and(|requests| accepted % requests == 0) {
                        service.log.change(|log| log.connections[connection].is_goaway_sent = true);
                        http2.graceful_shutdown();
                    }
                }
                Some(Err(error)) => return Closing::Failed(error.to_string()),
                None => return Closing::Clean,
            },
            command = commands.recv() => match command {
                Ok(Command::GoAway) => {
                    service.log.change(|log| log.connections[connection].is_goaway_sent = true);
                    http2.graceful_shutdown();
                }
                Ok(Command::Abort) | Err(_) => return Closing::Aborted,
            },
        }
    }
}

fn begin(
    request: http::Request<RecvStream>,
    mut reply: SendResponse<Bytes>,
    connection: usize,
    service: &Arc<Service>,
) {
    let (head, body) = request.into_parts();
    let place =
        Place { connection, stream: reply.stream_id().as_u32(), is_log_compact: service.options.is_log_compact };
    let is_refused = service.is_next_refused();
    if is_refused {
        reply.send_reset(Reason::REFUSED_STREAM);
    }
    let reply = AnyReply::H2(Reply { state: State::Head(reply) });
    let mut exchange = Exchange::begin(head, RequestBody::H2(body), reply, &place, service.log.clone());
    if is_refused {
        let _refused = exchange.reset(Reason::REFUSED_STREAM);
    } else {
        tokio::spawn((service.handler)(exchange));
    }
}

async fn aborted(commands: &mut broadcast::Receiver<Command>) {
    while matches!(commands.recv().await, Ok(Command::GoAway)) {}
}

/// The next frame of a request body, its window given back.
pub async fn chunk(body: &mut RecvStream) -> Result<Option<Frame<Bytes>>, Ending> {
    match body.data().await {
        Some(Ok(bytes)) => {
            let released = body.flow_control().release_capacity(bytes.len());
            released.map_err(|error| ending(&error))?;
            Ok(Some(Frame::data(bytes)))
        }
        Some(Err(error)) => Err(ending(&error)),
        None => {
            let trailers = body.trailers().await.map_err(|error| ending(&error))?;
            Ok(trailers.map(Frame::trailers))
        }
    }
}

/// The answer on one stream.
pub struct Reply {
    state: State,
}

enum State {
    Head(SendResponse<Bytes>),
    Body(SendStream<Bytes>),
    Ended,
}

impl Reply {
    pub fn inform(&mut self, head: Response<()>) -> Result<(), Ending> {
        let State::Head(reply) = &mut self.state else { panic!("an interim head after the head") };
        reply.send_informational(head).map_err(|error| ending(&error))
    }

    pub fn start(&mut self, head: Response<()>, is_end: bool) -> Result<(), Ending> {
        let State::Head(reply) = &mut self.state else { panic!("a second head") };
        let stream = reply.send_response(head, is_end).map_err(|error| ending(&error))?;
        self.state = if is_end { State::Ended } else { State::Body(stream) };
        Ok(())
    }

    pub async fn send(&mut self, mut bytes: Bytes, is_last: bool) -> Result<(), Ending> {
        let State::Body(stream) = &mut self.state else { panic!("data before the head or after the end") };
        while !bytes.is_empty() {
            stream.reserve_capacity(bytes.len());
            let capacity = match poll_fn(|cx| stream.poll_capacity(cx)).await {
                Some(Ok(capacity)) => capacity,
                Some(Err(error)) => return Err(ending(&error)),
                None => return Err(reset_reason(poll_fn(|cx| stream.poll_reset(cx)).await)),
            };
            let part = bytes.split_to(capacity.min(bytes.len()));
            let is_end = is_last && bytes.is_empty();
            stream.send_data(part, is_end).map_err(|error| ending(&error))?;
            if is_end {
                self.state = State::Ended;
                return Ok(());
            }
        }
        if is_last {
            stream.send_data(Bytes::new(), true).map_err(|error| ending(&error))?;
            self.state = State::Ended;
        }
        Ok(())
    }

    pub fn trailers(&mut self, trailers: HeaderMap) -> Result<(), Ending> {
        let State::Body(stream) = &mut self.state else { panic!("trailers before the head or after the end") };
        stream.send_trailers(trailers).map_err(|error| ending(&error))?;
        self.state = State::Ended;
        Ok(())
    }

    pub fn reset(&mut self, reason: Reason) {
        match &mut self.state {
            State::Head(reply) => reply.send_reset(reason),
            State::Body(stream) => stream.send_reset(reason),
            State::Ended => {}
        }
        self.state = State::Ended;
    }

    /// Resolves when the peer resets the stream or the connection ends.
    pub async fn gone(&mut self) -> Ending {
        match &mut self.state {
            State::Head(reply) => reset_reason(poll_fn(|cx| reply.poll_reset(cx)).await),
            State::Body(stream) => reset_reason(poll_fn(|cx| stream.poll_reset(cx)).await),
            State::Ended => std::future::pending().await,
        }
    }
}

fn reset_reason(reset: Result<Reason, h2::Error>) -> Ending {
    reset.map_or_else(|error| ending(&error), Ending::ResetByPeer)
}

fn ending(error: &h2::Error) -> Ending {
    match error.reason() {
        Some(reason) if error.is_reset() && error.is_remote() => Ending::ResetByPeer(reason),
        Some(reason) if error.is_reset() => Ending::ResetByOrigin(reason),
        _ => Ending::ConnectionLost,
    }
}
