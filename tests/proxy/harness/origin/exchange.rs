//! One request at an origin and the means to answer it, the same for HTTP/1.1 and HTTP/2.
//!
//! Runs on the origin's thread. Every operation that can fail returns the [`Ending`] it met; dropping the
//! exchange writes that ending to the log, so that none goes missing, whatever the handler does.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use h2::Reason;
use http::response::Builder;
use http::{HeaderMap, Method, Response, StatusCode, request};

use super::log::{Ending, Log, Request};
use super::{h1, h2 as http2};
use crate::harness::watched::Watched;

/// A request as it arrived, and its answer in the making.
pub struct Exchange {
    pub head: request::Parts,
    /// The value of `x-request-id`, empty if there was none.
    pub id: Box<str>,
    body: RequestBody,
    reply: Reply,
    is_bodiless: bool,
    log: Arc<Watched<Log>>,
    /// Index into [`Log::requests`].
    record: usize,
    ending: Option<Ending>,
}

pub enum RequestBody {
    H1(hyper::body::Incoming),
    H2(h2::RecvStream),
}

pub enum Reply {
    H1(h1::Reply),
    H2(http2::Reply),
}

/// Where an exchange belongs.
pub struct Place {
    pub connection: usize,
    pub stream: u32,
    pub is_log_compact: bool,
}

impl Exchange {
    pub fn begin(head: request::Parts, body: RequestBody, reply: Reply, place: &Place, log: Arc<Watched<Log>>) -> Self {
        let id: Box<str> = text(&head.headers, "x-request-id").into();
        let is_compact = place.is_log_compact;
        let request = Request {
            id: id.clone(),
            method: head.method.clone(),
            target: if is_compact { "".into() } else { target(&head).into() },
            authority: if is_compact { "".into() } else { authority(&head).into() },
            headers: if is_compact { HeaderMap::new() } else { head.headers.clone() },
            body_bytes: 0,
            trailers: None,
            stream: place.stream,
            connection: place.connection,
            began: Instant::now(),
            ended: None,
        };
        let record = log.change(|log| log.begin(request));
        Self { head, id, body, reply, is_bodiless: false, log, record, ending: None }
    }

    pub fn path(&self) -> &str {
        self.head.uri.path()
    }

    /// The number in `?name=N`, if it is there.
    pub fn number(&self, name: &str) -> Option<u64> {
        let query = self.head.uri.query().unwrap_or_default();
        query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
    }

    /// The next part of the request body; `None` at its end. Gives the window back.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Ending> {
        let frame = match &mut self.body {
            RequestBody::H1(body) => h1::chunk(body).await,
            RequestBody::H2(body) => http2::chunk(body).await,
        };
        let frame = self.note(frame)?;
        let record = self.record;
        Ok(frame.and_then(|frame| match frame.into_data() {
            Ok(bytes) => {
                self.log.change(|log| log.requests[record].body_bytes += bytes.len() as u64);
                Some(bytes)
            }
            Err(frame) => {
                self.log.change(|log| log.requests[record].trailers = frame.into_trailers().ok());
                None
            }
        }))
    }

    /// The whole request body.
    pub async fn body(&mut self) -> Result<Bytes, Ending> {
        let mut body = BytesMut::new();
        while let Some(chunk) = self.chunk().await? {
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }

    /// A head with this status that echoes the request's id.
    pub fn response(&self, status: u16) -> Builder {
        let builder = Response::builder().status(status);
        if self.id.is_empty() { builder } else { builder.header("x-request-id", &*self.id) }
    }

    /// Sends an interim head (1xx).
    pub fn inform(&mut self, status: u16) -> Result<(), Ending> {
        let head = Response::builder().status(status).body(()).expect("a status is all there is");
        let result = match &mut self.reply {
            Reply::H1(_) => panic!("hyper's HTTP/1.1 server sends no 1xx but 100: use `origin::raw_h1`"),
            Reply::H2(reply) => reply.inform(head),
        };
        self.note(result)
    }

    /// Sends the head. A bodiless answer (HEAD, 204, 304) ends here, and its data is dropped.
    pub fn start(&mut self, head: Builder) -> Result<(), Ending> {
        let head = head.body(()).expect("the handler builds a valid head");
        let is_status_bodiless = matches!(head.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        self.is_bodiless = self.head.method == Method::HEAD || is_status_bodiless;
        let result = match &mut self.reply {
            Reply::H1(reply) => reply.start(head),
            Reply::H2(reply) => reply.start(head, self.is_bodiless),
        };
        self.note(result)?;
        if self.is_bodiless {
            self.ending = Some(Ending::Complete);
        }
        Ok(())
    }

    /// Sends a part of the body as fast as the peer's window takes it.
    pub async fn send(&mut self, bytes: impl Into<Bytes>) -> Result<(), Ending> {
        self.send_part(bytes.into(), false).await
    }

    /// Sends the last part of the body.
    pub async fn finish(&mut self, bytes: impl Into<Bytes>) -> Result<(), Ending> {
        self.send_part(bytes.into(), true).await
    }

    pub async fn trailers(&mut self, trailers: HeaderMap) -> Result<(), Ending> {
        let result = match &mut self.reply {
            _ if self.is_bodiless => Ok(()),
            Reply::H1(reply) => reply.trailers(trailers).await,
            Reply::H2(reply) => reply.trailers(trailers),
        };
        self.note(result)?;
        self.ending = Some(Ending::Complete);
        Ok(())
    }

    /// Sends the whole answer, with its content-length.
    pub async fn answer(&mut self, head: Builder, body: impl Into<Bytes>) -> Result<(), Ending> {
        let body = body.into();
        self.start(head.header("content-length", body.len()))?;
        self.finish(body).await
    }

    /// Ends the exchange with `RST_STREAM`, or by cutting the HTTP/1.1 connection.
    pub fn reset(&mut self, reason: Reason) -> Result<(), Ending> {
        match &mut self.reply {
            Reply::H1(reply) => reply.cut(),
            Reply::H2(reply) => reply.reset(reason),
        }
        let is_refused = reason == Reason::REFUSED_STREAM;
        self.note(Err(if is_refused { Ending::Refused } else { Ending::ResetByOrigin(reason) }))
    }

    /// Awaits `future`, or meets the exchange's end if the peer gives up first.
    pub async fn until<T>(&mut self, future: impl Future<Output = T>) -> Result<T, Ending> {
        let reset = async {
            match &mut self.reply {
                Reply::H1(reply) => reply.gone().await,
                Reply::H2(reply) => reply.gone().await,
            }
        };
        let result = tokio::select! {
            output = future => Ok(output),
            ending = reset => Err(ending),
        };
        self.note(result)
    }

    /// Lets time pass as a slow service does.
    pub async fn pause(&mut self, duration: Duration) -> Result<(), Ending> {
        self.until(tokio::time::sleep(duration)).await
    }

    /// Does nothing until the peer gives up.
    pub async fn hang(&mut self) -> Result<(), Ending> {
        self.until(std::future::pending()).await
    }

    async fn send_part(&mut self, bytes: Bytes, is_last: bool) -> Result<(), Ending> {
        if self.is_bodiless {
            return Ok(());
        }
        let result = match &mut self.reply {
            Reply::H1(reply) => reply.send(bytes, is_last).await,
            Reply::H2(reply) => reply.send(bytes, is_last).await,
        };
        self.note(result)?;
        if is_last {
            self.ending = Some(Ending::Complete);
        }
        Ok(())
    }

    fn note<T>(&mut self, result: Result<T, Ending>) -> Result<T, Ending> {
        if let Err(ending) = &result {
            self.ending.get_or_insert(*ending);
        }
        result
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let ending = self.ending.unwrap_or(Ending::ConnectionLost);
        self.log.change(|log| log.end(self.record, ending));
    }
}

/// The value of a field as text, empty if it is absent.
fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn target(head: &request::Parts) -> String {
    head.uri.path_and_query().map_or_else(|| head.uri.to_string(), ToString::to_string)
}

/// `:authority` of HTTP/2, or Host of HTTP/1.1.
pub fn authority(head: &request::Parts) -> String {
    let authority = head.uri.authority().map(|authority| authority.as_str().to_owned());
    authority.unwrap_or_else(|| text(&head.headers, "host").to_owned())
}
