//! A well-behaved HTTP/1.1 client on one keep-alive connection.
//!
//! Head and body can be read apart, so that a test can stop reading in between.

use std::fmt::Write;

use bytes::Bytes;
use http::Request;

use super::raw::RawClient;
use crate::harness::watched::within;
use crate::harness::wire::{BodyReader, Broken, Head, Response, Wire};

pub struct Client {
    wire: Wire,
    /// The value of Host unless a request brings its own.
    host: String,
    method: String,
    body: Option<BodyReader>,
}

impl Client {
    pub(super) fn new(wire: Wire, host: String) -> Self {
        Self { wire, host, method: String::new(), body: None }
    }

    /// Asks for `target` and reads the whole answer; panics if it breaks off.
    pub async fn get(&mut self, target: &str) -> Response {
        let request = Request::get(target).body(Bytes::new()).unwrap();
        self.send(&request).await.unwrap_or_else(|broken| panic!("GET {target}: {broken:?}"))
    }

    pub async fn post(&mut self, target: &str, body: impl Into<Bytes>) -> Response {
        let request = Request::post(target).body(body.into()).unwrap();
        self.send(&request).await.unwrap_or_else(|broken| panic!("POST {target}: {broken:?}"))
    }

    /// Sends a request with its content-length and reads the whole answer.
    pub async fn send(&mut self, request: &Request<Bytes>) -> Result<Response, Broken> {
        let body = request.body();
        let length =
            (!body.is_empty() || request.method() == "POST").then(|| format!("content-length: {}\r\n", body.len()));
        let mut bytes = self.head_bytes(request, length.as_deref().unwrap_or_default());
        bytes.extend_from_slice(body);
        within("written request", self.wire.write(&bytes)).await?;
        within("response", self.wire.response(&self.method)).await
    }

    /// Sends a head alone; a body, if `is_chunked`, follows by [`Client::send_chunk`].
    pub async fn start<T>(&mut self, request: &Request<T>, is_chunked: bool) -> Result<(), Broken> {
        let bytes = self.head_bytes(request, if is_chunked { "transfer-encoding: chunked\r\n" } else { "" });
        within("written head", self.wire.write(&bytes)).await
    }

    pub async fn send_chunk(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
        chunk.extend_from_slice(bytes);
        chunk.extend_from_slice(b"\r\n");
        within("written chunk", self.wire.write(&chunk)).await
    }

    pub async fn end_chunks(&mut self) -> Result<(), Broken> {
        within("written end", self.wire.write(b"0\r\n\r\n")).await
    }

    /// Reads one response head, interim or final.
    pub async fn head(&mut self) -> Result<Head, Broken> {
        let head = within("response head", self.wire.head()).await?;
        self.body = Some(BodyReader::new(head.response_framing(&self.method)?));
        Ok(head)
    }

    /// Reads a part of the body, at least one byte; `None` at its end.
    pub async fn part(&mut self) -> Result<Option<Bytes>, Broken> {
        let body = self.body.as_mut().expect("the head was read");
        within("part of the body", body.part(&mut self.wire)).await
    }

    /// Reads the rest of the body.
    pub async fn body(&mut self) -> Result<Bytes, Broken> {
        let body = self.body.as_mut().expect("the head was read");
        within("body", body.all(&mut self.wire)).await
    }

    /// Goes on with bytes: after an upgrade, or to misbehave.
    pub fn into_raw(self) -> RawClient {
        RawClient::new(self.wire)
    }

    /// Leaves with a reset.
    pub fn abort(self) {
        self.wire.abort();
    }

    fn head_bytes<T>(&mut self, request: &Request<T>, framing: &str) -> Vec<u8> {
        request.method().as_str().clone_into(&mut self.method);
        let mut head = format!("{} {} HTTP/1.1\r\n", request.method(), request.uri());
        if !request.headers().contains_key("host") {
            write!(head, "host: {}\r\n", self.host).unwrap();
        }
        head.push_str(framing);
        let mut bytes = head.into_bytes();
        for (name, value) in request.headers() {
            bytes.extend_from_slice(name.as_str().as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value.as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"\r\n");
        bytes
    }
}
