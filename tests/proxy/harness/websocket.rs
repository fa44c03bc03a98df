//! `WebSocket` by hand: frames, a client, and services that echo over a stream of HTTP/2 and over HTTP/1.1.
//!
//! Written independently of the proxy's own idea of frames. RFC 6455 §4, §5.

use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use http::Request;

use super::client::{self, RawClient};
use super::origin::exchange::Exchange;
use super::origin::log::Ending;
use super::origin::raw_h1;
use super::origin::raw_h1::RawConnection;
use super::wire::{Broken, Head};

pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// The sample key of RFC 6455 §1.3, and what proves that it was read.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A whole message or control frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub opcode: u8,
    pub payload: Bytes,
}

impl Frame {
    pub fn new(opcode: u8, payload: impl Into<Bytes>) -> Self {
        Self { opcode, payload: payload.into() }
    }

    pub fn close(code: u16) -> Self {
        Self::new(CLOSE, code.to_be_bytes().to_vec())
    }

    /// As servers send it, or masked as clients do.
    pub fn bytes(&self, is_masked: bool) -> Vec<u8> {
        let mask = if is_masked { 0x80 } else { 0 };
        let mut bytes = vec![0x80 | self.opcode];
        match self.payload.len() {
            length @ 0..126 => bytes.push(mask | length as u8),
            length @ 126..65_536 => {
                bytes.push(mask + 126);
                bytes.extend((length as u16).to_be_bytes());
            }
            length => {
                bytes.push(mask + 127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        if is_masked {
            bytes.extend(MASK);
            bytes.extend(self.payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        } else {
            bytes.extend(&self.payload);
        }
        bytes
    }
}

/// Frames as they come, in whatever pieces.
#[derive(Default)]
pub struct Frames {
    buffer: BytesMut,
}

impl Frames {
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// The next whole frame, and whether it was masked.
    pub fn next(&mut self) -> Option<(Frame, bool)> {
        let (first, second) = (*self.buffer.first()?, *self.buffer.get(1)?);
        let (length, mut header) = match second & 0x7f {
            126 => (u64::from(u16::from_be_bytes(self.buffer.get(2..4)?.try_into().unwrap())), 4),
            127 => (u64::from_be_bytes(self.buffer.get(2..10)?.try_into().unwrap()), 10),
            length => (u64::from(length), 2),
        };
        let is_masked = second & 0x80 != 0;
        let mask: [u8; 4] = if is_masked { self.buffer.get(header..header + 4)?.try_into().unwrap() } else { [0; 4] };
        header += if is_masked { 4 } else { 0 };
        let length = usize::try_from(length).unwrap();
        self.buffer.get(header..header + length)?;
        let mut frame = self.buffer.split_to(header + length).split_off(header);
        frame.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        Some((Frame { opcode: first & 0x0f, payload: frame.freeze() }, is_masked))
    }
}

/// A request for a WebSocket.
pub fn request(target: &str) -> Request<()> {
    Request::get(target)
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-key", KEY)
        .header("sec-websocket-version", "13")
        .body(())
        .unwrap()
}

/// A client whose WebSocket is open.
pub struct WebSocket {
    pub wire: RawClient,
    /// The head of the answer.
    pub head: Head,
    frames: Frames,
}

/// Opens a WebSocket; panics if it is not accepted.
pub async fn open(address: SocketAddr, target: &str) -> WebSocket {
    open_as(address, &request(target)).await
}

pub async fn open_as(address: SocketAddr, request: &Request<()>) -> WebSocket {
    let mut client = client::h1(address).await;
    client.start(request, false).await.unwrap();
    let head = client.head().await.unwrap();
    assert_eq!(head.status(), Ok(101), "{head:?}");
    assert_eq!(head.header("sec-websocket-accept"), Some(ACCEPT), "{head:?}");
    assert_eq!(head.header("upgrade"), Some("websocket"), "{head:?}");
    assert_eq!(head.headers("connection").collect::<Vec<_>>(), ["upgrade"], "{head:?}");
    WebSocket { wire: client.into_raw(), head, frames: Frames::default() }
}

impl WebSocket {
    pub async fn send(&mut self, frame: &Frame) {
        self.wire.send(frame.bytes(true)).await;
    }

    /// The next frame of the service; panics at the end of the connection.
    pub async fn recv(&mut self) -> Frame {
        self.next().await.unwrap().expect("a frame before the end")
    }

    /// The next frame of the service; `None` at the end of the connection, which must not be within a frame.
    pub async fn next(&mut self) -> Result<Option<Frame>, Broken> {
        loop {
            if let Some((frame, is_masked)) = self.frames.next() {
                assert!(!is_masked, "services do not mask");
                return Ok(Some(frame));
            }
            let bytes = self.wire.some().await?;
            if bytes.is_empty() {
                assert!(self.frames.is_empty(), "the connection ends within a frame");
                return Ok(None);
            }
            self.frames.push(&bytes);
        }
    }

    /// Sends a message and expects it back.
    pub async fn expect_echo(&mut self, text: &str) {
        let frame = Frame::new(TEXT, text.to_owned());
        self.send(&frame).await;
        assert_eq!(self.recv().await, frame);
    }

    /// Closes as RFC 6455 has it, and expects the service's Close with the same code and the end.
    pub async fn close(mut self, code: u16) {
        self.send(&Frame::close(code)).await;
        assert_eq!(self.recv().await, Frame::close(code));
        assert_eq!(self.next().await, Ok(None));
    }
}

/// What an echoing service says to a frame.
pub fn reply(frame: &Frame) -> Frame {
    Frame::new(if frame.opcode == PING { PONG } else { frame.opcode }, frame.payload.clone())
}

/// A service on streams of HTTP/2 (RFC 8441): echoes messages, answers pings and Close frames, then ends.
pub async fn echo(mut exchange: Exchange) -> Result<(), Ending> {
    let head = exchange.response(if exchange.head.method == "CONNECT" { 200 } else { 400 });
    let head = match exchange.head.headers.get("sec-websocket-protocol") {
        Some(protocol) => head.header("sec-websocket-protocol", protocol),
        None => head,
    };
    exchange.start(head)?;
    let mut frames = Frames::default();
    while let Some(bytes) = exchange.chunk().await? {
        frames.push(&bytes);
        while let Some((frame, is_masked)) = frames.next() {
            assert!(is_masked, "clients mask");
            exchange.send(reply(&frame).bytes(false)).await?;
            if frame.opcode == CLOSE {
                return exchange.finish("").await;
            }
        }
    }
    exchange.finish("").await
}

/// The same over HTTP/1.1.
pub async fn echo_h1() -> SocketAddr {
    let origin = raw_h1().await;
    let address = origin.address();
    tokio::spawn(async move {
        loop {
            let mut connection = origin.accept_any_time().await;
            tokio::spawn(async move {
                while let Ok(request) = connection.request().await {
                    if request.head.header("upgrade").is_some() {
                        connection.send(switching()).await;
                        _ = echo_on(connection).await;
                        return;
                    }
                    connection.send("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await;
                }
            });
        }
    });
    address
}

/// The head with which an HTTP/1.1 service accepts [`KEY`].
pub fn switching() -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
    )
}

async fn echo_on(mut connection: RawConnection) -> Result<(), Broken> {
    let mut frames = Frames::default();
    loop {
        let bytes = connection.some_any_time().await?;
        if bytes.is_empty() {
            return Ok(());
        }
        frames.push(&bytes);
        while let Some((frame, _)) = frames.next() {
            connection.send(reply(&frame).bytes(false)).await;
            if frame.opcode == CLOSE {
                return Ok(());
            }
        }
    }
}

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
