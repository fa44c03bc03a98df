//! A client that sends any bytes, and reads answers strictly.
//!
//! Every expectation panics, with what came instead, at a break or after the harness's bound.

use std::mem::MaybeUninit;
use std::time::Duration;

use bytes::Bytes;

use crate::harness::watched::within;
use crate::harness::wire::{Broken, Head, Response, Socket, Wire};

pub struct RawClient {
    wire: Wire,
}

impl RawClient {
    pub(super) fn new(wire: Wire) -> Self {
        Self { wire }
    }

    /// Writes; a peer that has closed already is no failure here, since many tests provoke just that.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        _ = within("written bytes", self.wire.write(bytes.as_ref())).await;
    }

    /// Writes as much as is taken within `time`; for peers that stop reading.
    pub async fn send_some(&mut self, bytes: &[u8], time: Duration) {
        _ = tokio::time::timeout(time, self.wire.write(bytes)).await;
    }

    /// Reads one head, interim or final.
    pub async fn expect_head(&mut self) -> Head {
        within("head", self.wire.head()).await.unwrap_or_else(|broken| panic!("no head: {broken:?}"))
    }

    /// Reads the answer to a GET or POST.
    pub async fn expect_response(&mut self) -> Response {
        self.expect_response_to("GET").await
    }

    /// Reads the answer to `method`, which decides whether it has a body.
    pub async fn expect_response_to(&mut self, method: &str) -> Response {
        self.response_to(method).await.unwrap_or_else(|broken| panic!("no response: {broken:?}"))
    }

    pub async fn response_to(&mut self, method: &str) -> Result<Response, Broken> {
        within("response", self.wire.response(method)).await
    }

    /// Expects the end of the connection, orderly or by reset, without another byte.
    pub async fn expect_close(&mut self) {
        match within("end of the connection", self.wire.end()).await {
            Ok(leftover) => assert!(leftover.is_empty(), "bytes before the end: {}", leftover.escape_ascii()),
            Err(broken) => assert_eq!(broken, Broken::Reset),
        }
    }

    /// Whatever comes next, at least one byte; empty at the end of the connection.
    pub async fn some(&mut self) -> Result<Bytes, Broken> {
        within("bytes", self.wire.some()).await
    }

    /// Everything until the end of the connection, as it came.
    pub async fn read_to_end(&mut self) -> Result<Vec<u8>, Broken> {
        within("end of the connection", self.wire.end()).await.map(Into::into)
    }

    /// Whether bytes, or the end of the connection, have come and were not read yet.
    pub fn has_input(&self) -> bool {
        !self.wire.leftover().is_empty() || self.wire.socket().bare().peek(&mut [MaybeUninit::new(0)]).is_ok()
    }

    /// What was read beyond the last message.
    pub fn leftover(&self) -> &[u8] {
        self.wire.leftover()
    }

    /// Whether the end came without TLS's own.
    pub fn is_cut(&self) -> bool {
        self.wire.is_cut()
    }

    /// Ends our direction and goes on reading.
    pub async fn shutdown_write(&mut self) {
        self.wire.shutdown_write().await;
    }

    /// Leaves with a reset.
    pub fn abort(self) {
        self.wire.abort();
    }

    pub fn socket(&self) -> &Socket {
        self.wire.socket()
    }
}
