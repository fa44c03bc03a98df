//! HTTP/1.1 at the origin: one connection on hyper's server, and the answers on it.
//!
//! The handler runs in a task of its own and feeds the answer through a channel of one frame, so that a peer
//! that stops reading stops the handler. Runs on the origin's thread.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{broadcast, mpsc, oneshot};

use super::exchange::{Exchange, Place, Reply as AnyReply, RequestBody};
use super::log::{Closing, Ending};
use super::{Command, Io, Service};

/// Serves one connection until it ends or [`Command::Abort`] asks for a reset.
pub async fn serve(
    io: Box<dyn Io>,
    connection: usize,
    service: Arc<Service>,
    mut commands: broadcast::Receiver<Command>,
) -> Closing {
    let count = AtomicU32::new(0);
    let exchange_service = service.clone();
    let is_ending = Arc::new(AtomicBool::new(false));
    let ending = is_ending.clone();
    let exchange = hyper::service::service_fn(move |request| {
        let stream = count.fetch_add(1, Ordering::Relaxed) + 1;
        let answer = begin(request, connection, stream, &exchange_service);
        let is_ending = is_ending.clone();
        async move {
            let mut answer = answer.await?;
            if is_ending.load(Ordering::Relaxed) {
                answer.headers_mut().insert("connection", HeaderValue::from_static("close"));
            }
            Ok::<_, Cut>(answer)
        }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(None);
    let http1 = builder.serve_connection(TokioIo::new(io), exchange);
    tokio::pin!(http1);
    loop {
        tokio::select! {
            result = http1.as_mut() => return match result {
                Ok(()) => Closing::Clean,
                Err(error) => Closing::Failed(error.to_string()),
            },
            command = commands.recv() => match command {
                Ok(Command::GoAway) => {
                    service.log.change(|log| log.connections[connection].is_goaway_sent = true);
                    ending.store(true, Ordering::Relaxed);
                    if !service.options.is_patient {
                        http1.as_mut().graceful_shutdown();
                    }
                }
                Ok(Command::Abort) | Err(_) => return Closing::Aborted,
            },
        }
    }
}

/// Starts the handler; the future is its head, or an error that makes hyper cut the connection.
fn begin(
    request: Request<Incoming>,
    connection: usize,
    stream: u32,
    service: &Arc<Service>,
) -> impl Future<Output = Result<Response<FrameBody>, Cut>> + use<> {
    let (head, body) = request.into_parts();
    let (head_sender, head_receiver) = oneshot::channel();
    let (frame_sender, frame_receiver) = mpsc::channel(1);
    let reply = Reply { head: Some((head_sender, FrameBody(frame_receiver))), frames: Some(frame_sender) };
    let place = Place { connection, stream, is_log_compact: service.options.is_log_compact };
    let exchange = Exchange::begin(head, RequestBody::H1(body), AnyReply::H1(reply), &place, service.log.clone());
    tokio::spawn((service.handler)(exchange));
    async move { head_receiver.await.map_err(|_| Cut) }
}

pub async fn chunk(body: &mut Incoming) -> Result<Option<Frame<Bytes>>, Ending> {
    body.frame().await.transpose().map_err(|_| Ending::ConnectionLost)
}

/// The answer to one request.
pub struct Reply {
    head: Option<(oneshot::Sender<Response<FrameBody>>, FrameBody)>,
    /// `None` after the end.
    frames: Option<mpsc::Sender<Result<Frame<Bytes>, Cut>>>,
}

impl Reply {
    pub fn start(&mut self, head: Response<()>) -> Result<(), Ending> {
        let (sender, body) = self.head.take().expect("one head");
        sender.send(head.map(|()| body)).map_err(|_| Ending::ConnectionLost)
    }

    pub async fn send(&mut self, bytes: Bytes, is_last: bool) -> Result<(), Ending> {
        if !bytes.is_empty() {
            self.push(Ok(Frame::data(bytes))).await?;
        }
        if is_last {
            self.frames = None;
        }
        Ok(())
    }

    pub async fn trailers(&mut self, trailers: HeaderMap) -> Result<(), Ending> {
        self.push(Ok(Frame::trailers(trailers))).await?;
        self.frames = None;
        Ok(())
    }

    /// Cuts the connection: before the head, or in the middle of the body.
    pub fn cut(&mut self) {
        self.head = None;
        if let Some(frames) = self.frames.take() {
            // A full channel is waited for: what was sent before the cut goes out before it.
            tokio::spawn(async move { frames.send(Err(Cut)).await });
        }
    }

    /// Resolves when the connection has ended under the exchange.
    pub async fn gone(&mut self) -> Ending {
        match (&mut self.head, &self.frames) {
            // hyper drops the future that waits for the head.
            (Some((head, _)), _) => head.closed().await,
            (None, Some(frames)) => frames.closed().await,
            (None, None) => std::future::pending::<()>().await,
        }
        Ending::ConnectionLost
    }

    async fn push(&mut self, frame: Result<Frame<Bytes>, Cut>) -> Result<(), Ending> {
        let frames = self.frames.as_ref().expect("frames before the end");
        frames.send(frame).await.map_err(|_| Ending::ConnectionLost)
    }
}

/// A body that is fed frame by frame.
pub struct FrameBody(mpsc::Receiver<Result<Frame<Bytes>, Cut>>);

impl Body for FrameBody {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        self.0.poll_recv(cx)
    }
}

/// The order to cut the connection.
#[derive(Debug)]
pub struct Cut;

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("cut by the test")
    }
}

impl std::error::Error for Cut {}
