//! A well-behaved HTTP/2 client on one connection.
//!
//! Head, body and end of each stream can be had apart, so that a test can stop reading in between. RFC 9113.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, Response};

use crate::harness::watched::{Watched, within};
use crate::harness::wire::Socket;

/// How a connection or a stream ended that did not end well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// The code of a reset or a GOAWAY; `None` for a connection that just broke.
    pub code: Option<Reason>,
}

impl From<h2::Error> for Broken {
    fn from(error: h2::Error) -> Self {
        Self { code: error.reason() }
    }
}

/// An answer read to its end.
#[derive(Debug, Clone)]
pub struct Answer {
    pub head: Response<()>,
    pub body: Bytes,
    pub trailers: HeaderMap,
}

impl Answer {
    pub fn status(&self) -> u16 {
        self.head.status().as_u16()
    }

    /// The first value of a field, empty if it is absent.
    pub fn header(&self, name: &str) -> &str {
        self.head.headers().get(name).map_or("", |value| value.to_str().expect("a text value"))
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a text body")
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }
}

pub struct Client {
    sender: SendRequest<Bytes>,
    /// `http://host:port` of targets that are paths.
    origin: String,
    ended: Arc<Watched<Option<Result<(), Broken>>>>,
}

impl Client {
    pub(super) async fn new(socket: Socket, origin: String) -> Self {
        Self::with(socket, origin, |_| {}).await
    }

    pub(super) async fn with(socket: Socket, origin: String, set: impl FnOnce(&mut h2::client::Builder)) -> Self {
        let mut builder = h2::client::Builder::new();
        set(&mut builder);
        let (sender, connection) = within("HTTP/2 handshake", builder.handshake(socket)).await.expect("a handshake");
        let ended = Arc::new(Watched::new(None));
        let told = ended.clone();
        tokio::spawn(async move {
            let result = connection.await.map_err(Broken::from);
            told.change(|ended| *ended = Some(result));
        });
        Self { sender, origin, ended }
    }

    /// A GET of `target`, a path, or with all of its parts.
    pub fn request(&self, target: &str) -> http::request::Builder {
        let uri = if target.starts_with('/') { format!("{}{target}", self.origin) } else { target.to_owned() };
        Request::get(uri)
    }

    /// Asks for `target` and reads the whole answer; panics if it breaks off.
    pub async fn get(&self, target: &str) -> Answer {
        let answer = self.send(self.request(target).body(Bytes::new()).unwrap()).await;
        answer.unwrap_or_else(|broken| panic!("GET {target}: {broken:?}"))
    }

    pub async fn post(&self, target: &str, body: impl Into<Bytes>) -> Answer {
        let answer = self.send(self.request(target).method("POST").body(body.into()).unwrap()).await;
        answer.unwrap_or_else(|broken| panic!("POST {target}: {broken:?}"))
    }

    /// Sends a request, without a content-length, and reads the whole answer.
    pub async fn send(&self, request: Request<Bytes>) -> Result<Answer, Broken> {
        let (head, body) = request.into_parts();
        let mut stream = self.open(Request::from_parts(head, ()), body.is_empty()).await?;
        if !body.is_empty() {
            // An early answer may want no more of it.
            _ = stream.upload(body, true).await;
        }
        stream.answer().await
    }

    /// Opens a stream; a body follows by [`Stream::upload`] unless `is_end`.
    pub async fn open(&self, request: Request<()>, is_end: bool) -> Result<Stream, Broken> {
        let mut sender = within("room for a stream", self.sender.clone().ready()).await?;
        let (response, sending) = sender.send_request(request, is_end)?;
        Ok(Stream { response: Some(response), sending, body: None })
    }

    /// Waits until the peer's SETTINGS say that it takes extended CONNECT.
    pub async fn may_connect(&self) {
        within("an offer of extended CONNECT", async {
            while !self.sender.is_extended_connect_protocol_enabled() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    }

    /// Waits for the connection's end.
    pub async fn ended(&self) -> Result<(), Broken> {
        self.ended.wait_for(Option::is_some).await;
        self.ended.read().clone().expect("just seen")
    }

    pub fn has_ended(&self) -> bool {
        self.ended.read().is_some()
    }

    /// The peer's limit of streams, once its SETTINGS have come.
    pub fn streams_max(&self) -> usize {
        self.sender.current_max_send_streams()
    }
}

/// One stream. Dropping it resets it.
pub struct Stream {
    response: Option<ResponseFuture>,
    pub sending: SendStream<Bytes>,
    body: Option<RecvStream>,
}

impl Stream {
    /// Sends a part of the body as the peer's window allows.
    pub async fn upload(&mut self, mut bytes: Bytes, is_end: bool) -> Result<(), Broken> {
        while !bytes.is_empty() {
            self.sending.reserve_capacity(bytes.len());
            // What is there already is not told again.
            if self.sending.capacity() == 0 {
                let capacity = within("send capacity", poll_fn(|cx| self.sending.poll_capacity(cx))).await;
                capacity.ok_or(Broken { code: None })??;
            }
            let part = bytes.split_to(self.sending.capacity().min(bytes.len()));
            let is_last = is_end && bytes.is_empty();
            self.sending.send_data(part, is_last)?;
        }
        Ok(())
    }

    /// Ends the body; a stream that has ended is left as it is.
    pub fn upload_end(&mut self) {
        _ = self.sending.send_data(Bytes::new(), true);
    }

    pub fn send_trailers(&mut self, fields: HeaderMap) -> Result<(), Broken> {
        Ok(self.sending.send_trailers(fields)?)
    }

    pub fn reset(mut self, code: Reason) {
        self.sending.send_reset(code);
    }

    /// Waits for an interim answer with this status.
    pub async fn interim(&mut self, status: u16) {
        let response = self.response.as_mut().expect("the head was not read yet");
        let interim = within("interim answer", poll_fn(|cx| response.poll_informational(cx))).await;
        assert_eq!(interim.expect("no final answer").unwrap().status(), status);
    }

    /// Waits for the head of the answer.
    pub async fn head(&mut self) -> Result<Response<()>, Broken> {
        let response = self.response.take().expect("the head was not read yet");
        let (parts, body) = within("response head", response).await?.into_parts();
        self.body = Some(body);
        Ok(Response::from_parts(parts, ()))
    }

    /// Reads a part of the body, at least one byte, and gives its window back; `None` at its end.
    pub async fn part(&mut self) -> Result<Option<Bytes>, Broken> {
        let body = self.body.as_mut().expect("the head was read");
        loop {
            let Some(part) = within("part of the body", body.data()).await.transpose()? else { return Ok(None) };
            body.flow_control().release_capacity(part.len())?;
            if !part.is_empty() {
                return Ok(Some(part));
            }
        }
    }

    pub async fn trailers(&mut self) -> Result<HeaderMap, Broken> {
        let body = self.body.as_mut().expect("the head was read");
        Ok(within("trailers", body.trailers()).await?.unwrap_or_default())
    }

    /// Reads the whole answer.
    pub async fn answer(&mut self) -> Result<Answer, Broken> {
        let head = self.head().await?;
        let mut body = Vec::new();
        while let Some(part) = self.part().await? {
            body.extend_from_slice(&part);
        }
        Ok(Answer { head, body: body.into(), trailers: self.trailers().await? })
    }
}
