//! HTTP/1.1 as bytes: a strict reader of messages, for clients and for scripted origins.
//!
//! Strict on purpose: what a lenient client would let pass (a bare LF, a chunk extension, a body after 204) is
//! a defect of the proxy, and shows here as [`Broken::Malformed`] or as leftover bytes. RFC 9112.

mod body;
mod head;
mod socket;

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub use self::body::{BodyReader, Framing};
pub use self::head::Head;
pub use self::socket::Socket;

/// One connection, with what was read and not yet taken.
pub struct Wire {
    socket: Socket,
    buffer: BytesMut,
    is_cut: bool,
}

/// Why a message could not be read to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Broken {
    /// The peer ended the connection between messages.
    Closed,
    ClosedInHead {
        received_bytes: usize,
    },
    /// The end came before the body's length or last chunk.
    ClosedInBody {
        received_bytes: usize,
    },
    /// The peer reset the connection (RST).
    Reset,
    /// The bytes break RFC 9112.
    Malformed(String),
}

impl Wire {
    pub fn new(socket: Socket) -> Self {
        Self { socket, buffer: BytesMut::new(), is_cut: false }
    }

    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        let written = async {
            self.socket.write_all(bytes).await?;
            self.socket.flush().await
        };
        written.await.map_err(|_| Broken::Reset)
    }

    /// Reads one head, up to and with its empty line.
    pub async fn head(&mut self) -> Result<Head, Broken> {
        let mut searched = 0;
        loop {
            if let Some(end) = memchr::memmem::find(&self.buffer[searched..], b"\r\n\r\n") {
                return Head::parse(&self.buffer.split_to(searched + end + 4));
            }
            searched = self.buffer.len().saturating_sub(3);
            if !self.fill().await? {
                let received_bytes = self.buffer.len();
                return Err(if received_bytes == 0 { Broken::Closed } else { Broken::ClosedInHead { received_bytes } });
            }
        }
    }

    /// Reads the final response to `method`, interim ones included.
    pub async fn response(&mut self, method: &str) -> Result<Response, Broken> {
        let mut interim = Vec::new();
        loop {
            let head = self.head().await?;
            if head.status()? < 200 && head.status()? != 101 {
                interim.push(head);
                continue;
            }
            let mut reader = BodyReader::new(head.response_framing(method)?);
            let body = reader.all(self).await?;
            return Ok(Response { head, interim, body, trailers: reader.trailers });
        }
    }

    /// Whatever comes next, at least one byte; empty at the end of the stream.
    pub async fn some(&mut self) -> Result<Bytes, Broken> {
        if self.buffer.is_empty() {
            self.fill().await?;
        }
        Ok(self.buffer.split().freeze())
    }

    /// Reads to the end of the stream; the bytes are what came after the last message.
    pub async fn end(&mut self) -> Result<Bytes, Broken> {
        while self.fill().await? {}
        Ok(self.buffer.split().freeze())
    }

    /// What was read and belongs to no message yet.
    pub fn leftover(&self) -> &[u8] {
        &self.buffer
    }

    /// Ends our direction; the peer may go on.
    pub async fn shutdown_write(&mut self) {
        _ = self.socket.shutdown().await;
    }

    /// Ends both directions with a reset.
    pub fn abort(self) {
        _ = self.socket.bare().set_linger(Some(Duration::ZERO));
    }

    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Whether TCP has ended before TLS, that is, without `close_notify`.
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// Reads more; `false` at the end of the stream.
    async fn fill(&mut self) -> Result<bool, Broken> {
        self.buffer.reserve(8 * 1024);
        match self.socket.read_buf(&mut self.buffer).await {
            Ok(0) => Ok(false),
            Ok(_) => Ok(true),
            // rustls: the end came without close_notify. HTTP's own framing says what was cut.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                self.is_cut = true;
                Ok(false)
            }
            Err(_) => Err(Broken::Reset),
        }
    }
}

/// A response as read from the wire.
#[derive(Debug, Clone)]
pub struct Response {
    pub head: Head,
    /// Heads with status 1xx that came before.
    pub interim: Vec<Head>,
    pub body: Bytes,
    pub trailers: Vec<(String, String)>,
}

impl Response {
    pub fn status(&self) -> u16 {
        self.head.status().expect("only a valid status line makes a response")
    }

    /// The first value of a field.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    pub fn trailer(&self, name: &str) -> Option<&str> {
        let trailer = self.trailers.iter().find(|(field, _)| field.eq_ignore_ascii_case(name));
        trailer.map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a text body")
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }
}
