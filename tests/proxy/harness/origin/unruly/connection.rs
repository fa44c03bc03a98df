//! One connection of the unruly service: its streams, its limit, and its end.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use h2::Reason;
use http::HeaderMap;
use tokio::sync::{broadcast, mpsc};

use super::{Command, Service};
use crate::harness::origin::behaviour::pattern;
use crate::harness::origin::log::{Closing, Ending, Request};
use crate::harness::scripted::frame::{
    DATA, END_HEADERS, END_STREAM, HEADERS, MAX_CONCURRENT_STREAMS, OPEN, encode, encode_fields,
};
use crate::harness::scripted::{Frame, Head, Peer};

/// Serves one connection until it ends.
pub async fn serve(peer: Peer, index: usize, service: Arc<Service>, mut commands: broadcast::Receiver<Command>) {
    let (due, mut due_streams) = mpsc::unbounded_channel();
    let mut connection = Connection {
        peer,
        index,
        service: service.clone(),
        streams: BTreeMap::new(),
        limit: service.stream_limit.load(Ordering::Relaxed),
        limits_sent: VecDeque::new(),
        last_stream: None,
        newest: 0,
        accepted: 0,
        due,
    };
    connection.tell_limit().await;
    let end = loop {
        tokio::select! {
            frame = connection.peer.next() => match frame {
                Some(Frame::Closed { .. }) | None => break Closing::Clean,
                Some(frame) => connection.take(frame).await,
            },
            Some(stream) = due_streams.recv() => connection.answer(stream).await,
            command = commands.recv() => match command {
                Ok(Command::GoAway) => connection.goaway().await,
                Ok(Command::GoAwayBelow) => connection.goaway_below().await,
                Ok(Command::Limit) => connection.tell_limit().await,
                Ok(Command::Crash) => break Closing::Aborted,
                Ok(Command::FallSilent(of)) if of == index => break connection.swallow(&mut commands).await,
                Ok(Command::FallSilent(_) | Command::LookInside) => {}
                Err(_) => return,
            },
        }
    };
    if end == Closing::Aborted {
        service.tally.change(|tally| tally.broken.insert(index));
    }
    connection.end(end).await;
}

struct Connection {
    peer: Peer,
    /// In the log's connections.
    index: usize,
    service: Arc<Service>,
    /// Those in flight, by id.
    streams: BTreeMap<u32, Stream>,
    /// As many streams as the proxy has acknowledged that it may open.
    limit: u32,
    limits_sent: VecDeque<u32>,
    /// Named in a GOAWAY: younger ones are not looked at.
    last_stream: Option<u32>,
    newest: u32,
    accepted: u32,
    due: mpsc::UnboundedSender<u32>,
}

struct Stream {
    head: Head,
    body: BytesMut,
    /// In the log's requests.
    record: usize,
}

impl Connection {
    async fn take(&mut self, frame: Frame) {
        match frame {
            Frame::Headers(head) if self.streams.contains_key(&head.stream) => self.schedule(head.stream),
            Frame::Headers(head) => self.begin(head).await,
            Frame::Data { stream, bytes, is_end } => self.gather(stream, &bytes, is_end).await,
            Frame::Reset { stream, code } => {
                if let Some(stream) = self.streams.remove(&stream) {
                    self.log_end(&stream, Ending::ResetByPeer(code));
                }
                self.finish_if_done().await;
            }
            Frame::SettingsAck => self.limit = self.limits_sent.pop_front().expect("one for each SETTINGS"),
            // The answer to the PING behind the first step: what was on its way has come.
            Frame::Pong(_) => {
                self.last_stream = Some(self.newest);
                self.peer.goaway(self.newest, Reason::NO_ERROR).await;
                self.finish_if_done().await;
            }
            _ => {}
        }
    }

    async fn begin(&mut self, head: Head) {
        self.newest = head.stream;
        if self.is_cut_off(head.stream) {
            let id = head.field("x-request-id");
            self.service.tally.change(|tally| {
                tally.cut_off += 1;
                tally.undo(id);
            });
            return;
        }
        if self.streams.len() >= self.limit as usize {
            self.service.tally.change(|tally| tally.in_excess += 1);
            return self.peer.rst_stream(head.stream, Reason::REFUSED_STREAM).await;
        }
        self.accepted += 1;
        let every = |every: u32| every > 0 && self.accepted.is_multiple_of(every);
        let is_goaway_due = every(self.service.goaway_every.load(Ordering::Relaxed));
        if every(self.service.refuse_every.load(Ordering::Relaxed)) && self.refuses(&head) {
            self.peer.rst_stream(head.stream, Reason::REFUSED_STREAM).await;
        } else {
            let (id, is_end) = (head.stream, head.is_end);
            let stream = self.log_begin(head);
            self.streams.insert(id, stream);
            if is_end {
                self.schedule(id);
            }
        }
        if is_goaway_due && self.last_stream.is_none() {
            self.goaway().await;
        }
    }

    fn is_cut_off(&self, id: u32) -> bool {
        self.last_stream.is_some_and(|last| id > last)
    }

    fn refuses(&self, head: &Head) -> bool {
        let id = head.field("x-request-id");
        self.service.tally.change(|tally| {
            let is_refused = tally.may_undo(id);
            if is_refused {
                tally.refused += 1;
                tally.undo(id);
            }
            is_refused
        })
    }

    async fn gather(&mut self, id: u32, bytes: &Bytes, is_end: bool) {
        if !bytes.is_empty() {
            let bytes = bytes.len() as u32;
            self.peer.window_update(0, bytes).await;
            if !is_end {
                self.peer.window_update(id, bytes).await;
            }
        }
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.body.extend_from_slice(bytes);
        if is_end {
            self.schedule(id);
        }
    }

    /// Answers after the request's `?delay=MS`.
    fn schedule(&self, id: u32) {
        let due = self.due.clone();
        let query = self.streams[&id].head.field(":path").split_once("?delay=");
        match query.and_then(|(_, delay)| delay.parse().ok()) {
            None => _ = due.send(id),
            Some(delay_ms) => {
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(delay_ms)).await;
                    _ = due.send(id);
                });
            }
        }
    }

    async fn answer(&mut self, id: u32) {
        // It may have been reset, or cut off, meanwhile.
        let Some(stream) = self.streams.remove(&id) else { return };
        let request_id = stream.head.field("x-request-id");
        let path = stream.head.field(":path").split('?').next().unwrap_or_default();
        let body = match path.strip_prefix("/bytes/") {
            Some(length) => pattern(request_id, length.parse().unwrap_or(0)),
            None => stream.body.clone().freeze(),
        };
        let length = body.len().to_string();
        let fields = [(":status", "200"), ("x-request-id", request_id), ("content-length", &length)];
        let mut bytes = encode(HEADERS, END_HEADERS, id, &encode_fields(fields));
        if self.service.has_empty_data.load(Ordering::Relaxed) {
            bytes.extend(encode(DATA, OPEN, id, &[]));
        }
        let parts = body.len().div_ceil(FRAME_BYTES).max(1);
        for part in 0..parts {
            let payload = &body[part * FRAME_BYTES..body.len().min((part + 1) * FRAME_BYTES)];
            bytes.extend(encode(DATA, if part + 1 == parts { END_STREAM } else { OPEN }, id, payload));
        }
        // Told before it is sent: a client that has its answer must find it in the log.
        self.log_end(&stream, Ending::Complete);
        self.peer.raw(bytes).await;
        self.finish_if_done().await;
    }

    async fn tell_limit(&mut self) {
        let limit = self.service.stream_limit.load(Ordering::Relaxed);
        self.limits_sent.push_back(limit);
        self.peer.settings(&[(MAX_CONCURRENT_STREAMS, limit)]).await;
    }

    /// The first of the two steps (RFC 9113 §6.8).
    async fn goaway(&mut self) {
        if self.last_stream.is_none() {
            self.service.log.change(|log| log.connections[self.index].is_goaway_sent = true);
            self.peer.goaway((1 << 31) - 1, Reason::NO_ERROR).await;
            self.peer.ping(*b"last one").await;
        }
    }

    async fn goaway_below(&mut self) {
        if self.last_stream.is_some() {
            return;
        }
        let ids: Vec<u32> = self.streams.keys().copied().collect();
        let kept = ids.get((ids.len() / 2).wrapping_sub(1)).copied();
        let mut last = kept.unwrap_or(if ids.is_empty() { self.newest } else { ids[0] - 1 });
        self.service.tally.change(|tally| {
            let spared = self.streams.range(last + 1..);
            let spared = spared.filter(|(_, stream)| !tally.may_undo(stream.head.field("x-request-id")));
            last = spared.map(|(id, _)| *id).next_back().unwrap_or(last);
        });
        for (_, stream) in self.streams.split_off(&(last + 1)) {
            self.service.tally.change(|tally| {
                tally.cut_off += 1;
                tally.undo(stream.head.field("x-request-id"));
            });
            self.log_end(&stream, Ending::Refused);
        }
        self.service.log.change(|log| log.connections[self.index].is_goaway_sent = true);
        self.last_stream = Some(last);
        self.peer.goaway(last, Reason::NO_ERROR).await;
        self.finish_if_done().await;
    }

    /// The end that a GOAWAY has announced. Closing altogether would reset the connection under what still comes.
    async fn finish_if_done(&self) {
        if self.last_stream.is_some() && self.streams.is_empty() {
            self.peer.finish().await;
        }
    }

    /// A black hole; when it is looked into, what has come goes to the log.
    async fn swallow(&mut self, commands: &mut broadcast::Receiver<Command>) -> Closing {
        self.peer.fall_silent();
        self.service.tally.change(|tally| tally.broken.insert(self.index));
        while !matches!(commands.recv().await, Ok(Command::LookInside) | Err(broadcast::error::RecvError::Closed)) {}
        self.peer.hear_again();
        while let Some(frame) = self.peer.next().await {
            match frame {
                Frame::Headers(head) if !self.streams.contains_key(&head.stream) && !self.is_cut_off(head.stream) => {
                    let (id, stream) = (head.stream, self.log_begin(head));
                    self.streams.insert(id, stream);
                }
                Frame::Closed { .. } => break,
                _ => {}
            }
        }
        Closing::Failed("fell silent".to_owned())
    }

    async fn end(self, closing: Closing) {
        for stream in self.streams.values() {
            self.log_end(stream, Ending::ConnectionLost);
        }
        self.service.log.change(|log| log.close_connection(self.index, closing.clone()));
        if closing == Closing::Aborted {
            self.peer.abort().await;
        }
    }

    fn log_begin(&self, head: Head) -> Stream {
        let request = Request {
            id: head.field("x-request-id").into(),
            method: head.field(":method").parse().expect("a method"),
            target: "".into(),
            authority: "".into(),
            headers: HeaderMap::new(),
            body_bytes: 0,
            trailers: None,
            stream: head.stream,
            connection: self.index,
            began: Instant::now(),
            ended: None,
        };
        let record = self.service.log.change(|log| log.begin(request));
        Stream { head, body: BytesMut::new(), record }
    }

    fn log_end(&self, stream: &Stream, ending: Ending) {
        self.service.log.change(|log| log.end(stream.record, ending));
    }
}

/// The most that a frame may hold (RFC 9113 §4.2).
const FRAME_BYTES: usize = 16 * 1024;
