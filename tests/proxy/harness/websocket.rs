//! `WebSocket` by hand: frames, clients and services that echo, over streams of HTTP/2 and over HTTP/1.1.
//!
//! Written independently of the proxy's own idea of frames. RFC 6455 §4, §5.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::{Bytes, BytesMut};
use h2::ext::Protocol;
use http::{HeaderMap, Request};
use sha1::{Digest as _, Sha1};
use tokio_rustls::TlsConnector;

use super::client::h2::Stream;
use super::client::{self, Client, H2Client, RawClient};
use super::origin::exchange::Exchange;
use super::origin::log::Ending;
use super::origin::raw_h1;
use super::origin::raw_h1::RawConnection;
use super::wire::Broken;

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

/// The same of a client of HTTP/2, by extended CONNECT.
pub fn connect(client: &H2Client, target: &str) -> Request<()> {
    let request = client.request(target).method("CONNECT").extension(Protocol::from_static("websocket"));
    request.header("sec-websocket-version", "13").body(()).unwrap()
}

/// A client whose WebSocket is open.
pub struct WebSocket {
    line: Line,
    /// What the service has chosen of those that were offered.
    pub subprotocol: Option<String>,
    frames: Frames,
}

enum Line {
    Http1(RawClient),
    Http2(Stream),
}

/// Opens a WebSocket; panics if it is not accepted.
pub async fn open(address: SocketAddr, target: &str) -> WebSocket {
    open_as(address, &request(target)).await
}

pub async fn open_as(address: SocketAddr, request: &Request<()>) -> WebSocket {
    open_by(client::h1(address).await, request).await
}

/// As [`open`], over TLS.
pub async fn open_tls(address: SocketAddr, connector: &TlsConnector, target: &str) -> WebSocket {
    open_by(client::h1_tls(address, connector).await, &request(target)).await
}

async fn open_by(mut client: Client, request: &Request<()>) -> WebSocket {
    client.start(request, false).await.unwrap();
    let head = client.head().await.unwrap();
    assert_eq!(head.status(), Ok(101), "{head:?}");
    assert_eq!(head.header("sec-websocket-accept"), Some(ACCEPT), "{head:?}");
    assert_eq!(head.header("upgrade"), Some("websocket"), "{head:?}");
    assert_eq!(head.headers("connection").collect::<Vec<_>>(), ["upgrade"], "{head:?}");
    let subprotocol = head.header(SUBPROTOCOL).map(str::to_owned);
    WebSocket { line: Line::Http1(client.into_raw()), subprotocol, frames: Frames::default() }
}

/// Opens a WebSocket on one stream of `client`'s connection; panics if it is not accepted.
pub async fn open_on(client: &H2Client, target: &str) -> WebSocket {
    open_on_as(client, connect(client, target)).await
}

pub async fn open_on_as(client: &H2Client, request: Request<()>) -> WebSocket {
    client.may_connect().await;
    let mut stream = client.open(request, false).await.unwrap();
    let head = stream.head().await.unwrap();
    assert_eq!(head.status(), 200, "{head:?}");
    for absent in ["sec-websocket-accept", "upgrade", "connection", "content-length"] {
        assert!(!head.headers().contains_key(absent), "{head:?}");
    }
    let subprotocol = subprotocol(head.headers());
    WebSocket { line: Line::Http2(stream), subprotocol, frames: Frames::default() }
}

fn subprotocol(headers: &HeaderMap) -> Option<String> {
    headers.get(SUBPROTOCOL).map(|value| value.to_str().unwrap().to_owned())
}

impl WebSocket {
    pub async fn send(&mut self, frame: &Frame) {
        self.send_bytes(&frame.bytes(true)).await;
    }

    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        match &mut self.line {
            Line::Http1(wire) => wire.send(bytes).await,
            // What a service that has ended does not take shows in what comes back.
            Line::Http2(stream) => _ = stream.upload(Bytes::copy_from_slice(bytes), false).await,
        }
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
            let bytes = match &mut self.line {
                Line::Http1(wire) => wire.some().await?,
                Line::Http2(stream) => stream.part().await.map_err(|_| Broken::Reset)?.unwrap_or_default(),
            };
            if bytes.is_empty() {
                assert!(self.frames.is_empty(), "the connection ends within a frame");
                if let Line::Http1(wire) = &self.line {
                    assert!(!wire.is_cut(), "TLS ends without close_notify");
                }
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
        if let Line::Http2(stream) = &mut self.line {
            stream.upload_end();
        }
    }
}

/// What an echoing service says to a frame.
pub fn reply(frame: &Frame) -> Frame {
    Frame::new(if frame.opcode == PING { PONG } else { frame.opcode }, frame.payload.clone())
}

/// A service on streams of HTTP/2 (RFC 8441): echoes messages, answers pings and Close frames, then ends.
pub async fn echo(mut exchange: Exchange) -> Result<(), Ending> {
    let head = exchange.response(if exchange.head.method == "CONNECT" { 200 } else { 400 });
    let head = match exchange.head.headers.get(SUBPROTOCOL) {
        Some(protocol) => head.header(SUBPROTOCOL, protocol),
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
                    if let Some(key) = request.head.header("sec-websocket-key") {
                        connection.send(switching_for(key)).await;
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
    switching_for(KEY)
}

/// The head with which an HTTP/1.1 service accepts `key`.
pub fn switching_for(key: &str) -> String {
    let accept = BASE64_STANDARD.encode(Sha1::digest(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11")));
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
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

const SUBPROTOCOL: &str = "sec-websocket-protocol";
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
