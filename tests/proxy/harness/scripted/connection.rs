//! The reading side of a scripted connection: bytes to frames, and the answers that are given unasked.
//!
//! A task of its own, so that SETTINGS and PING are acknowledged at once while the test waits elsewhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::BytesMut;
use loona_hpack::Decoder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Mutex, Notify, mpsc};

use super::frame::{
    ACK, CONTINUATION, END_HEADERS, END_STREAM, Frame, HEADERS, Head, PING, RawFrame, SETTINGS, encode,
};

/// The writing side, shared by the script and the unasked answers; `None` once it was given up.
pub struct Writer {
    pub half: Mutex<Option<OwnedWriteHalf>>,
    pub is_acking_settings: AtomicBool,
    pub is_acking_pings: AtomicBool,
    /// What comes stays in the kernel's buffer.
    pub is_deaf: AtomicBool,
    pub hears_again: Notify,
}

impl Writer {
    /// Writes all; a connection that has ended already takes nothing and says nothing.
    pub async fn write(&self, bytes: &[u8]) {
        if let Some(half) = self.half.lock().await.as_mut() {
            _ = half.write_all(bytes).await;
        }
    }
}

/// Reads until the connection ends, and reports that too.
pub async fn read(
    mut half: OwnedReadHalf,
    has_preface: bool,
    writer: Arc<Writer>,
    frames: mpsc::UnboundedSender<Frame>,
) {
    let mut preface = [0; PREFACE.len()];
    if has_preface && half.read_exact(&mut preface).await.is_ok() {
        assert_eq!(preface.escape_ascii().to_string(), PREFACE.escape_ascii().to_string());
        _ = frames.send(Frame::Preface);
    }
    let mut decoder = Decoder::new();
    loop {
        while writer.is_deaf.load(Ordering::Relaxed) {
            writer.hears_again.notified().await;
        }
        let frame = match RawFrame::read(&mut half).await {
            Ok(Some(frame)) if frame.kind == HEADERS => head(&mut half, frame, &mut decoder).await.map(Frame::Headers),
            Ok(Some(frame)) => Some(frame.meaning()),
            Ok(None) => Some(Frame::Closed { is_reset: false }),
            Err(_) => None,
        };
        let frame = frame.unwrap_or(Frame::Closed { is_reset: true });
        match &frame {
            Frame::Settings(_) if writer.is_acking_settings.load(Ordering::Relaxed) => {
                writer.write(&encode(SETTINGS, ACK, 0, &[])).await;
            }
            Frame::Ping(payload) if writer.is_acking_pings.load(Ordering::Relaxed) => {
                writer.write(&encode(PING, ACK, 0, payload)).await;
            }
            _ => {}
        }
        let is_end = matches!(frame, Frame::Closed { .. });
        if frames.send(frame).is_err() || is_end {
            return;
        }
    }
}

/// Reads the CONTINUATIONs of a HEADERS frame and decodes the whole; `None` if the connection breaks off.
async fn head(half: &mut OwnedReadHalf, first: RawFrame, decoder: &mut Decoder<'_>) -> Option<Head> {
    let mut block = BytesMut::from(&first.content()[..]);
    let mut flags = first.flags;
    while flags & END_HEADERS == 0 {
        let next = RawFrame::read(half).await.ok().flatten()?;
        assert_eq!((next.kind, next.stream), (CONTINUATION, first.stream), "HEADERS must be followed by its rest");
        block.extend_from_slice(&next.payload);
        flags = next.flags;
    }
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("the proxy sends text fields");
    let fields = decoder.decode(&block).expect("the proxy sends valid HPACK");
    let fields = fields.into_iter().map(|(name, value)| (text(name), text(value))).collect();
    Some(Head { stream: first.stream, fields, is_end: first.flags & END_STREAM != 0 })
}

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
