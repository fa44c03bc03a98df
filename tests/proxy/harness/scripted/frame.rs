//! Frames as bytes and as meaning, and field sections as literals.
//!
//! RFC 9113 §4.1, §6; RFC 7541 §6.2.2.

use std::io;

use bytes::{BufMut, Bytes};
use h2::Reason;
use tokio::io::{AsyncRead, AsyncReadExt};

/// What arrived from the proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// The connection preface (RFC 9113 §3.4).
    Preface,
    /// HEADERS with its CONTINUATIONs, decoded: a request, or trailers.
    Headers(Head),
    Data {
        stream: u32,
        bytes: Bytes,
        is_end: bool,
    },
    Reset {
        stream: u32,
        code: Reason,
    },
    Settings(Vec<(u16, u32)>),
    SettingsAck,
    Ping([u8; 8]),
    Pong([u8; 8]),
    GoAway {
        last_stream: u32,
        code: Reason,
    },
    WindowUpdate {
        stream: u32,
        bytes: u32,
    },
    Other(RawFrame),
    /// The end of the connection.
    Closed {
        is_reset: bool,
    },
}

/// A field section on a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    pub stream: u32,
    /// Pseudo-header fields first, in the order sent.
    pub fields: Vec<(String, String)>,
    pub is_end: bool,
}

impl Head {
    /// The value of the first field of this name (`:path` too), empty if it is absent.
    pub fn field(&self, name: &str) -> &str {
        let field = self.fields.iter().find(|(field, _)| field == name);
        field.map_or("", |(_, value)| value.as_str())
    }

    pub fn has(&self, name: &str) -> bool {
        self.fields.iter().any(|(field, _)| field == name)
    }
}

/// A frame as it is on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawFrame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Bytes,
}

impl RawFrame {
    /// Reads one frame; `None` at an end between frames.
    pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Self>> {
        let mut header = [0; 9];
        if stream.read(&mut header[..1]).await? == 0 {
            return Ok(None);
        }
        stream.read_exact(&mut header[1..]).await?;
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).await?;
        Ok(Some(Self { kind: header[3], flags: header[4], stream: number(&header[5..]), payload: payload.into() }))
    }

    /// The payload of DATA or HEADERS without padding and priority.
    pub fn content(&self) -> Bytes {
        let padding = if self.flags & PADDED == 0 { None } else { Some(usize::from(self.payload[0])) };
        let priority_bytes = if self.kind == HEADERS && self.flags & PRIORITY != 0 { 5 } else { 0 };
        let start = usize::from(padding.is_some()) + priority_bytes;
        self.payload.slice(start..self.payload.len() - padding.unwrap_or(0))
    }

    /// What the frame says; HEADERS and CONTINUATION need the connection's HPACK state and stay raw.
    pub fn meaning(self) -> Frame {
        let payload = &self.payload;
        match self.kind {
            DATA => Frame::Data { stream: self.stream, bytes: self.content(), is_end: self.flags & END_STREAM != 0 },
            RST_STREAM => Frame::Reset { stream: self.stream, code: number(payload).into() },
            SETTINGS if self.flags & ACK != 0 => Frame::SettingsAck,
            SETTINGS => {
                let pair = |pair: &[u8]| (u16::from_be_bytes([pair[0], pair[1]]), number(&pair[2..]));
                Frame::Settings(payload.chunks_exact(6).map(pair).collect())
            }
            PING => {
                let payload = payload[..].try_into().expect("PING carries 8 bytes");
                if self.flags & ACK == 0 { Frame::Ping(payload) } else { Frame::Pong(payload) }
            }
            GOAWAY => Frame::GoAway { last_stream: number(payload), code: number(&payload[4..]).into() },
            WINDOW_UPDATE => Frame::WindowUpdate { stream: self.stream, bytes: number(payload) },
            _ => Frame::Other(self),
        }
    }
}

/// The bytes of one frame.
pub fn encode(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(9 + payload.len());
    bytes.put_uint(payload.len() as u64, 3);
    bytes.put_u8(kind);
    bytes.put_u8(flags);
    bytes.put_u32(stream);
    bytes.extend_from_slice(payload);
    bytes
}

/// A field section of literals without indexing and Huffman: it needs no state and may say anything.
pub fn encode_fields<'a>(fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.extend(loona_hpack::encoder::encode_integer(text.len(), 7));
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// A 32-bit number at the start of `bytes`, without the reserved bit that ids and increments have.
fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes[..4].try_into().expect("four bytes of a number"))
}

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

/// No flag at all.
pub const OPEN: u8 = 0;
pub const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;
pub const PRIORITY: u8 = 32;

pub const HEADER_TABLE_SIZE: u16 = 1;
pub const MAX_CONCURRENT_STREAMS: u16 = 3;
pub const INITIAL_WINDOW_SIZE: u16 = 4;
pub const MAX_FRAME_SIZE: u16 = 5;
pub const MAX_HEADER_LIST_SIZE: u16 = 6;
pub const ENABLE_CONNECT_PROTOCOL: u16 = 8;
