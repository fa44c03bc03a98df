//! An HTTP/1.1 origin that answers with the test's bytes, right or wrong.
//!
//! Runs on the test's runtime: the test accepts, reads a request, and writes what it likes.

use std::net::SocketAddr;

use bytes::Bytes;
use tokio::net::{TcpListener, TcpStream};

use crate::harness::watched::within;
use crate::harness::wire::{BodyReader, Broken, Head, Socket, Wire};

/// Listens on a free port of 127.0.0.1.
pub async fn raw_h1() -> RawOrigin {
    RawOrigin { listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
}

pub struct RawOrigin {
    listener: TcpListener,
}

impl RawOrigin {
    pub fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// Waits for the next connection.
    pub async fn accept(&self) -> RawConnection {
        let (stream, _) = within("connection", self.listener.accept()).await.unwrap();
        stream.set_nodelay(true).unwrap();
        RawConnection::new(stream)
    }

    /// As [`RawOrigin::accept`], for as long as it takes.
    pub async fn accept_any_time(&self) -> RawConnection {
        let (stream, _) = self.listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        RawConnection::new(stream)
    }

    /// Answers every request on every connection with `answer`, until the runtime ends.
    pub fn answer_all(self, answer: &'static [u8]) -> SocketAddr {
        let address = self.address();
        tokio::spawn(async move {
            while let Ok((stream, _)) = self.listener.accept().await {
                let mut connection = RawConnection::new(stream);
                tokio::spawn(async move {
                    while connection.request().await.is_ok() && connection.wire.write(answer).await.is_ok() {}
                });
            }
        });
        address
    }
}

impl std::fmt::Display for RawOrigin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.address().fmt(f)
    }
}

pub struct RawConnection {
    wire: Wire,
}

/// A request as the origin got it.
#[derive(Debug)]
pub struct RawRequest {
    pub head: Head,
    pub body: Bytes,
    pub trailers: Vec<(String, String)>,
}

impl RawConnection {
    pub fn new(stream: TcpStream) -> Self {
        Self { wire: Wire::new(Socket::Plain(stream)) }
    }

    /// Reads one whole request; panics if it is cut or breaks RFC 9112.
    pub async fn expect_request(&mut self) -> RawRequest {
        within("request", self.request()).await.unwrap_or_else(|broken| panic!("no request: {broken:?}"))
    }

    /// Reads a request head alone.
    pub async fn expect_head(&mut self) -> Head {
        within("request head", self.wire.head()).await.unwrap_or_else(|broken| panic!("no request head: {broken:?}"))
    }

    /// Reads the body behind a head that was read alone.
    pub async fn expect_body(&mut self, head: &Head) -> Bytes {
        let mut reader = BodyReader::new(head.request_framing().unwrap());
        within("request body", reader.all(&mut self.wire)).await.unwrap_or_else(|broken| panic!("no body: {broken:?}"))
    }

    /// Whatever comes next, at least one byte; empty at the end of the connection.
    pub async fn some(&mut self) -> Result<Bytes, Broken> {
        within("bytes", self.wire.some()).await
    }

    /// As [`RawConnection::some`], for as long as it takes.
    pub async fn some_any_time(&mut self) -> Result<Bytes, Broken> {
        self.wire.some().await
    }

    /// Ends our direction and goes on reading.
    pub async fn shutdown_write(&mut self) {
        self.wire.shutdown_write().await;
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        _ = within("written bytes", self.wire.write(bytes.as_ref())).await;
    }

    /// Expects the proxy to end the connection, orderly or by reset, without another byte.
    pub async fn expect_close(&mut self) {
        if let Ok(leftover) = within("end of the connection", self.wire.end()).await {
            assert!(leftover.is_empty(), "bytes before the end: {}", leftover.escape_ascii());
        }
    }

    /// Ends the connection in order; bytes not yet read turn that into a reset, as TCP does.
    pub async fn close(mut self) {
        self.wire.shutdown_write().await;
    }

    pub fn abort(self) {
        self.wire.abort();
    }

    pub async fn request(&mut self) -> Result<RawRequest, Broken> {
        let head = self.wire.head().await?;
        let mut reader = BodyReader::new(head.request_framing()?);
        let body = reader.all(&mut self.wire).await?;
        Ok(RawRequest { head, body, trailers: reader.trailers })
    }
}
