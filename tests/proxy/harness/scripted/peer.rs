//! The script's verbs: what to send, and what to expect.
//!
//! An expectation takes the first frame that fits and leaves the others for later expectations, so streams may
//! interleave. It panics, listing what came instead, when the connection ends or after the harness's bound.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Bytes, BytesMut};
use h2::Reason;
use tokio::net::TcpStream;
use tokio::sync::{Mutex, Notify, mpsc};
use tokio::task::JoinHandle;

use super::connection::{self, Writer};
use super::frame::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, OPEN, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE,
    encode, encode_fields,
};
use super::{Frame, Head};
use crate::harness::origin::reset_on_close;
use crate::harness::watched::BOUND;

/// One connection from the proxy, or to it.
pub struct Peer {
    writer: Arc<Writer>,
    frames: mpsc::UnboundedReceiver<Frame>,
    /// Came, and was not expected yet.
    waiting: VecDeque<Frame>,
    reader: JoinHandle<()>,
    pings_sent: u64,
}

impl Peer {
    /// The service's end: the proxy begins with its preface.
    pub fn new(stream: TcpStream) -> Self {
        Self::with(stream, true)
    }

    /// A client's end. Nothing is sent yet, not even the preface.
    pub fn client(stream: TcpStream) -> Self {
        Self::with(stream, false)
    }

    fn with(stream: TcpStream, has_preface: bool) -> Self {
        let (read_half, write_half) = stream.into_split();
        let writer = Arc::new(Writer {
            half: Mutex::new(Some(write_half)),
            is_acking_settings: AtomicBool::new(true),
            is_acking_pings: AtomicBool::new(true),
            is_deaf: AtomicBool::new(false),
            hears_again: Notify::new(),
        });
        let (sender, frames) = mpsc::unbounded_channel();
        let reader = tokio::spawn(connection::read(read_half, has_preface, writer.clone(), sender));
        Self { writer, frames, waiting: VecDeque::new(), reader, pings_sent: 0 }
    }

    /// Leaves SETTINGS unacknowledged from now on.
    pub fn stop_acking_settings(&self) {
        self.writer.is_acking_settings.store(false, Ordering::Relaxed);
    }

    /// Leaves PING unanswered from now on, as a dead peer does.
    pub fn stop_acking_pings(&self) {
        self.writer.is_acking_pings.store(false, Ordering::Relaxed);
    }

    /// Becomes a black hole: reads one frame more at most and acknowledges nothing. What is sent is up to the script.
    pub fn fall_silent(&self) {
        self.stop_acking_settings();
        self.stop_acking_pings();
        self.writer.is_deaf.store(true, Ordering::Relaxed);
    }

    /// Reads again, acknowledging nothing, to tell what a black hole has swallowed.
    pub fn hear_again(&self) {
        self.writer.is_deaf.store(false, Ordering::Relaxed);
        self.writer.hears_again.notify_one();
    }

    // What to send.

    pub async fn settings(&self, settings: &[(u16, u32)]) {
        let payload: Vec<u8> =
            settings.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
        self.raw(encode(SETTINGS, OPEN, 0, &payload)).await;
    }

    /// Sends a response head; `flags` is [`END_STREAM`] or [`OPEN`].
    pub async fn headers(&self, stream: u32, status: u16, fields: &[(&str, &str)], flags: u8) {
        let status = status.to_string();
        let fields = [(":status", status.as_str())].into_iter().chain(fields.iter().copied());
        self.raw(encode(HEADERS, flags | END_HEADERS, stream, &encode_fields(fields))).await;
    }

    /// Sends a response head of any size: HEADERS and as many CONTINUATIONs as it takes.
    pub async fn head_in_parts(&self, stream: u32, status: u16, fields: &[(&str, &str)]) {
        let status = status.to_string();
        let fields = [(":status", status.as_str())].into_iter().chain(fields.iter().copied());
        let block = encode_fields(fields);
        let parts = block.chunks(FRAME_BYTES);
        let last = parts.len() - 1;
        for (position, part) in parts.enumerate() {
            let kind = if position == 0 { HEADERS } else { CONTINUATION };
            let flags = if position == last { END_HEADERS } else { OPEN };
            self.raw(encode(kind, flags, stream, part)).await;
        }
    }

    /// Sends a field section without a status of its own: whole, wrong or empty.
    pub async fn fields(&self, stream: u32, fields: &[(&str, &str)], flags: u8) {
        self.raw(encode(HEADERS, flags | END_HEADERS, stream, &encode_fields(fields.iter().copied()))).await;
    }

    pub async fn trailers(&self, stream: u32, fields: &[(&str, &str)]) {
        let block = encode_fields(fields.iter().copied());
        self.raw(encode(HEADERS, END_STREAM | END_HEADERS, stream, &block)).await;
    }

    pub async fn data(&self, stream: u32, bytes: impl AsRef<[u8]>, flags: u8) {
        self.raw(encode(DATA, flags, stream, bytes.as_ref())).await;
    }

    /// Answers a request whole, with its id.
    pub async fn answer(&self, request: &Head, status: u16, body: impl AsRef<[u8]>) {
        self.headers(request.stream, status, &[("x-request-id", request.field("x-request-id"))], OPEN).await;
        self.data(request.stream, body, END_STREAM).await;
    }

    /// Answers so many requests, one after the other; their paths in the order in which they have come.
    pub async fn answer_in_turn(&mut self, count: usize) -> Vec<String> {
        let mut paths = Vec::new();
        for _ in 0..count {
            let request = self.expect_headers().await;
            self.answer(&request, 200, "").await;
            paths.push(request.field(":path").to_owned());
        }
        paths
    }

    /// Answers every request whose body does not matter, for as long as the connection lasts.
    pub fn answer_all(mut self, body: &'static str) -> JoinHandle<()> {
        tokio::spawn(async move {
            while let Some(frame) = self.next().await {
                if let Frame::Headers(head) = frame {
                    self.answer(&head, 200, body).await;
                }
            }
        })
    }

    pub async fn rst_stream(&self, stream: u32, code: Reason) {
        self.raw(encode(RST_STREAM, OPEN, stream, &u32::from(code).to_be_bytes())).await;
    }

    pub async fn goaway(&self, last_stream: u32, code: Reason) {
        let payload = [last_stream.to_be_bytes(), u32::from(code).to_be_bytes()].concat();
        self.raw(encode(GOAWAY, OPEN, 0, &payload)).await;
    }

    pub async fn window_update(&self, stream: u32, bytes: u32) {
        self.raw(encode(WINDOW_UPDATE, OPEN, stream, &bytes.to_be_bytes())).await;
    }

    pub async fn ping(&self, payload: [u8; 8]) {
        self.raw(encode(PING, OPEN, 0, &payload)).await;
    }

    pub async fn raw(&self, bytes: impl AsRef<[u8]>) {
        self.writer.write(bytes.as_ref()).await;
    }

    /// Ends our direction (FIN) and goes on reading.
    pub async fn finish(&self) {
        self.writer.half.lock().await.take();
    }

    /// Ends the connection in order (FIN), before this returns.
    pub async fn close(self) {
        self.writer.half.lock().await.take();
        self.end().await;
    }

    /// Ends the connection with a reset (RST), before this returns.
    pub async fn abort(self) {
        if let Some(half) = self.writer.half.lock().await.take() {
            reset_on_close(half.as_ref());
            // Without this the half would send a FIN first.
            half.forget();
        }
        self.end().await;
    }

    /// Lets go of the reading half, and so of the socket.
    async fn end(mut self) {
        self.reader.abort();
        _ = (&mut self.reader).await;
    }

    // What to expect.

    /// Expects the preface and the client's first SETTINGS, and returns those.
    pub async fn expect_preface(&mut self) -> Vec<(u16, u32)> {
        self.expect("preface", |frame| (*frame == Frame::Preface).then_some(())).await;
        self.expect_settings().await
    }

    pub async fn expect_settings(&mut self) -> Vec<(u16, u32)> {
        self.expect(
            "SETTINGS",
            |frame| if let Frame::Settings(settings) = frame { Some(settings.clone()) } else { None },
        )
        .await
    }

    pub async fn expect_settings_ack(&mut self) {
        self.expect("SETTINGS with ACK", |frame| (*frame == Frame::SettingsAck).then_some(())).await;
    }

    /// The next request head, on whichever stream, or trailers.
    pub async fn expect_headers(&mut self) -> Head {
        self.expect("HEADERS", |frame| if let Frame::Headers(head) = frame { Some(head.clone()) } else { None }).await
    }

    /// The next DATA of a stream, and whether it is the last.
    pub async fn expect_data(&mut self, stream: u32) -> (Bytes, bool) {
        let what = format!("DATA on stream {stream}");
        self.expect(&what, |frame| match frame {
            Frame::Data { stream: of, bytes, is_end } if *of == stream => Some((bytes.clone(), *is_end)),
            _ => None,
        })
        .await
    }

    /// All DATA of a stream up to `END_STREAM`; the windows are the script's business.
    pub async fn expect_body(&mut self, stream: u32) -> Bytes {
        let mut body = BytesMut::new();
        loop {
            let (bytes, is_end) = self.expect_data(stream).await;
            body.extend_from_slice(&bytes);
            if is_end {
                return body.freeze();
            }
        }
    }

    pub async fn expect_rst(&mut self, stream: u32) -> Reason {
        let what = format!("RST_STREAM on stream {stream}");
        self.expect(&what, |frame| match frame {
            Frame::Reset { stream: of, code } if *of == stream => Some(*code),
            _ => None,
        })
        .await
    }

    /// The client's GOAWAY: its last stream id and code.
    pub async fn expect_goaway(&mut self) -> (u32, Reason) {
        self.expect("GOAWAY", |frame| match frame {
            Frame::GoAway { last_stream, code } => Some((*last_stream, *code)),
            _ => None,
        })
        .await
    }

    pub async fn expect_ping(&mut self) -> [u8; 8] {
        self.expect("PING", |frame| if let Frame::Ping(payload) = frame { Some(*payload) } else { None }).await
    }

    pub async fn expect_window_update(&mut self, stream: u32) -> u32 {
        let what = format!("WINDOW_UPDATE on stream {stream}");
        self.expect(&what, |frame| match frame {
            Frame::WindowUpdate { stream: of, bytes } if *of == stream => Some(*bytes),
            _ => None,
        })
        .await
    }

    /// Expects the end of the connection; what came before it does not matter.
    pub async fn expect_closed(&mut self) {
        self.expect("end of the connection", |frame| matches!(frame, Frame::Closed { .. }).then_some(())).await;
    }

    /// Everything that the proxy had sent when it answered a PING sent now: without one, nothing more came.
    ///
    /// This is how a script shows that something was *not* sent, without waiting for time to pass.
    pub async fn gather(&mut self) -> Vec<Frame> {
        self.pings_sent += 1;
        let payload = self.pings_sent.to_be_bytes();
        self.ping(payload).await;
        let mut gathered = Vec::from(std::mem::take(&mut self.waiting));
        self.expect("answer to a PING", |frame| {
            if *frame == Frame::Pong(payload) {
                return Some(());
            }
            gathered.push(frame.clone());
            None
        })
        .await;
        self.waiting.clear();
        gathered
    }

    /// The next frame, whatever it is; `None` after the last. For services that expect nothing in particular.
    pub async fn next(&mut self) -> Option<Frame> {
        self.frames.recv().await
    }

    /// Takes the first frame that `pick` accepts; the others wait, in order.
    async fn expect<T>(&mut self, what: &str, mut pick: impl FnMut(&Frame) -> Option<T>) -> T {
        for at in 0..self.waiting.len() {
            if let Some(picked) = pick(&self.waiting[at]) {
                self.waiting.remove(at);
                return picked;
            }
        }
        let deadline = tokio::time::Instant::now() + BOUND;
        loop {
            let Ok(frame) = tokio::time::timeout_at(deadline, self.frames.recv()).await else {
                panic!("no {what} within {BOUND:?}; not expected so far: {:#?}", self.waiting);
            };
            let Some(frame) = frame else {
                panic!("no {what}: the connection has ended; not expected so far: {:#?}", self.waiting);
            };
            if let Some(picked) = pick(&frame) {
                return picked;
            }
            self.waiting.push_back(frame);
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// The most that a frame may hold unless the peer allows more (RFC 9113 §4.2).
const FRAME_BYTES: usize = 16 * 1024;
