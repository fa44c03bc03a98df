//! A message body, read piece by piece under its framing.
//!
//! RFC 9112 §6, §7.1.

use bytes::{Bytes, BytesMut};

use super::head::{malformed, parse_field};
use super::{Broken, Wire};

/// What says where a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    None,
    Length(u64),
    Chunked,
    UntilClose,
}

/// The place in a body.
pub struct BodyReader {
    framing: Framing,
    /// Bytes left of the body (`Length`) or of the present chunk (`Chunked`).
    left: u64,
    is_in_chunk: bool,
    is_ended: bool,
    received_bytes: usize,
    pub trailers: Vec<(String, String)>,
}

impl BodyReader {
    pub fn new(framing: Framing) -> Self {
        let left = if let Framing::Length(length) = framing { length } else { 0 };
        let is_ended = matches!(framing, Framing::None | Framing::Length(0));
        Self { framing, left, is_in_chunk: false, is_ended, received_bytes: 0, trailers: Vec::new() }
    }

    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// Reads what has come of the body, at least one byte; `None` at its end.
    pub async fn part(&mut self, wire: &mut Wire) -> Result<Option<Bytes>, Broken> {
        while !self.is_ended {
            if self.framing == Framing::Chunked && self.left == 0 {
                self.next_chunk(wire).await?;
                continue;
            }
            if wire.buffer.is_empty() && !self.fill(wire).await? {
                self.is_ended = true;
                break;
            }
            let limit = if self.framing == Framing::UntilClose { u64::MAX } else { self.left };
            let length = wire.buffer.len().min(usize::try_from(limit).unwrap_or(usize::MAX));
            let part = wire.buffer.split_to(length).freeze();
            self.received_bytes += length;
            self.left = self.left.saturating_sub(length as u64);
            self.is_ended = matches!(self.framing, Framing::Length(_)) && self.left == 0;
            return Ok(Some(part));
        }
        Ok(None)
    }

    pub async fn all(&mut self, wire: &mut Wire) -> Result<Bytes, Broken> {
        let mut body = BytesMut::new();
        while let Some(part) = self.part(wire).await? {
            body.extend_from_slice(&part);
        }
        Ok(body.freeze())
    }

    /// Reads the end of the last chunk and the size of the next, or the trailers after the last.
    async fn next_chunk(&mut self, wire: &mut Wire) -> Result<(), Broken> {
        if self.is_in_chunk {
            let line = self.line(wire).await?;
            if !line.is_empty() {
                return Err(malformed("end of chunk", line.as_bytes()));
            }
        }
        let size = self.line(wire).await?;
        let is_hex = !size.is_empty() && size.bytes().all(|byte| byte.is_ascii_hexdigit());
        let size = u64::from_str_radix(&size, 16)
            .ok()
            .filter(|_| is_hex)
            .ok_or_else(|| malformed("chunk size", size.as_bytes()))?;
        self.left = size;
        self.is_in_chunk = true;
        if size == 0 {
            loop {
                let line = self.line(wire).await?;
                if line.is_empty() {
                    break;
                }
                self.trailers.push(parse_field(&line)?);
            }
            self.is_ended = true;
        }
        Ok(())
    }

    async fn line(&mut self, wire: &mut Wire) -> Result<String, Broken> {
        loop {
            if let Some(end) = memchr::memmem::find(&wire.buffer, b"\r\n") {
                let line = wire.buffer.split_to(end + 2);
                return match std::str::from_utf8(&line[..end]) {
                    Ok(line) => Ok(line.to_owned()),
                    Err(_) => Err(malformed("line", &line)),
                };
            }
            if wire.buffer.len() > LINE_BYTES_MAX {
                return Err(malformed("line without end", &wire.buffer[..100]));
            }
            self.fill(wire).await?;
        }
    }

    /// Reads more; `false` at the end of the stream, where only an unframed body may end.
    async fn fill(&self, wire: &mut Wire) -> Result<bool, Broken> {
        let is_more = wire.fill().await?;
        if !is_more && self.framing != Framing::UntilClose {
            return Err(Broken::ClosedInBody { received_bytes: self.received_bytes });
        }
        Ok(is_more)
    }
}

const LINE_BYTES_MAX: usize = 64 * 1024;
