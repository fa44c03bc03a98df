//! Origins: the service behind the proxy, in a thread and runtime of its own, with a log of all it saw.
//!
//! `origin::h2().start()` is up when it returns. What it answers is said by the path ([`behaviour`]) or by a
//! handler. It can announce the end of its connections, reset them, crash, come back on the same port, or
//! freeze as a black hole does.

pub mod behaviour;
pub mod exchange;
mod h1;
mod h2;
pub mod log;
pub mod raw_h1;
mod socket;
pub mod unruly;

use std::fmt;
use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, MutexGuard, mpsc};
use std::thread::JoinHandle;

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{broadcast, oneshot};
use tokio_rustls::TlsAcceptor;

use self::exchange::Exchange;
use self::log::{Closing, Ending, Log};
pub use self::raw_h1::{RawConnection, raw_h1};
pub use self::socket::{ReservedAddress, reset_on_close};
pub use self::unruly::{Unruly, unruly};
use super::tls::Identity;
use super::watched::{Watched, within};

/// An HTTP/2 origin, h2c with prior knowledge.
pub fn h2() -> Builder {
    Builder::new(Protocol::H2, None)
}

/// An HTTP/2 origin over TLS that offers `alpn` (`&["h2"]`).
pub fn h2_tls(identity: &Identity, alpn: &[&str]) -> Builder {
    Builder::new(Protocol::H2, Some(identity.server(alpn)))
}

pub fn h1() -> Builder {
    Builder::new(Protocol::H1, None)
}

/// An HTTP/1.1 origin over TLS that offers `alpn` (`&["http/1.1"]`, or nothing).
pub fn h1_tls(identity: &Identity, alpn: &[&str]) -> Builder {
    Builder::new(Protocol::H1, Some(identity.server(alpn)))
}

/// An origin before it runs.
#[must_use = "an origin runs after `start`"]
pub struct Builder {
    protocol: Protocol,
    tls: Option<Arc<ServerConfig>>,
    options: Options,
    handler: Handler,
}

impl Builder {
    fn new(protocol: Protocol, tls: Option<Arc<ServerConfig>>) -> Self {
        let options = Options {
            max_concurrent_streams: None,
            stream_window_bytes: 64 * 1024,
            connection_window_bytes: 1024 * 1024,
            goaway_every: None,
            refuse_every: None,
            is_log_compact: false,
            is_patient: false,
        };
        let handler: Handler = Arc::new(|exchange| Box::pin(async { _ = behaviour::by_path(exchange).await }));
        Self { protocol, tls, options, handler }
    }

    /// Answers with `handler` instead of [`behaviour::by_path`].
    pub fn handler<H, F>(mut self, handler: H) -> Self
    where
        H: Fn(Exchange) -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), Ending>> + Send + 'static,
    {
        self.handler = Arc::new(move |exchange| {
            let answer = handler(exchange);
            Box::pin(async { _ = answer.await })
        });
        self
    }

    /// `SETTINGS_MAX_CONCURRENT_STREAMS` of every connection. For a limit that changes use [`super::scripted`].
    /// Over TLS by this configuration.
    pub fn tls(mut self, config: Arc<ServerConfig>) -> Self {
        self.tls = Some(config);
        self
    }

    pub fn max_concurrent_streams(mut self, streams: u32) -> Self {
        self.options.max_concurrent_streams = Some(streams);
        self
    }

    pub fn windows(mut self, stream_bytes: u32, connection_bytes: u32) -> Self {
        self.options.stream_window_bytes = stream_bytes;
        self.options.connection_window_bytes = connection_bytes;
        self
    }

    /// Announces the end of a connection after each `requests` requests on it.
    pub fn goaway_every(mut self, requests: u32) -> Self {
        self.options.goaway_every = Some(requests);
        self
    }

    /// Refuses each `requests`-th stream without work.
    pub fn refuse_every(mut self, requests: u32) -> Self {
        self.options.refuse_every = Some(requests);
        self
    }

    /// Announces the end of HTTP/1.1 connections with their next answers, instead of closing those that are idle: a request
    /// that is just being sent on one of them would be lost.
    pub fn patient(mut self) -> Self {
        self.options.is_patient = true;
        self
    }

    /// Keeps only ids and endings, for millions of requests.
    pub fn compact_log(mut self) -> Self {
        self.options.is_log_compact = true;
        self
    }

    /// Binds a free port of 127.0.0.1 and serves it.
    pub fn start(self) -> Origin {
        let mut origin = Origin {
            reserved: ReservedAddress::new(),
            service: self.service(Arc::new(Watched::new(Log::default()))),
            commands: broadcast::Sender::new(16),
            running: None,
        };
        origin.restart();
        origin
    }

    fn service(self, log: Arc<Watched<Log>>) -> Arc<Service> {
        let Self { protocol, tls, options, handler } = self;
        let tls = tls.map(TlsAcceptor::from);
        Arc::new(Service { protocol, tls, options, handler, log, refusal_count: AtomicU32::new(0) })
    }
}

/// A running origin, written as its address in `format!("upstream: h2c://{origin}")`. Dropping it crashes it.
pub struct Origin {
    reserved: ReservedAddress,
    service: Arc<Service>,
    commands: broadcast::Sender<Command>,
    running: Option<Running>,
}

impl Origin {
    pub fn address(&self) -> SocketAddr {
        self.reserved.address()
    }

    pub fn log(&self) -> MutexGuard<'_, Log> {
        self.service.log.read()
    }

    /// Waits until the log meets a condition; see [`Watched::wait_for`].
    #[track_caller]
    pub fn wait_for(&self, is_met: impl FnMut(&Log) -> bool) -> impl Future<Output = ()> {
        self.service.log.wait_for(is_met)
    }

    /// Announces the end of every open connection: GOAWAY in its two steps, or `Connection: close`.
    pub fn goaway(&self) {
        _ = self.commands.send(Command::GoAway);
    }

    /// Resets every open connection (RST) and goes on accepting.
    pub fn abort(&self) {
        _ = self.commands.send(Command::Abort);
    }

    /// Stops accepting, announces the end of every connection, and returns when all have ended.
    pub async fn stop(&mut self) {
        self.end(Command::GoAway).await;
    }

    /// Stops accepting and resets every connection (RST); the port then refuses.
    pub async fn crash(&mut self) {
        self.end(Command::Abort).await;
    }

    /// Serves the same port again after [`Origin::stop`] or [`Origin::crash`]; the log goes on.
    pub fn restart(&mut self) {
        assert!(self.running.is_none(), "restart follows stop or crash");
        self.running = Some(Running::new(self.reserved.listen(), self.service.clone(), self.commands.clone()));
    }

    /// As [`Origin::restart`], as another program.
    pub fn restart_as(&mut self, other: Builder) {
        self.service = other.service(self.service.log.clone());
        self.restart();
    }

    /// Blocks the origin's thread until the guard is dropped: connections stay open, and nothing answers.
    pub fn freeze(&self) -> Frozen {
        let (thaw, thawed) = mpsc::channel::<()>();
        let (frozen, is_frozen) = mpsc::channel::<()>();
        self.running.as_ref().expect("a running origin").runtime.spawn(async move {
            _ = frozen.send(());
            _ = thawed.recv();
        });
        is_frozen.recv().expect("the origin's thread runs");
        Frozen { _thaw: thaw }
    }

    async fn end(&mut self, command: Command) {
        let mut running = self.running.take().expect("a running origin");
        _ = running.stop.take().expect("stopped once").send(command);
        within("end of the origin", &mut running.stopped).await.expect("the origin's thread does not panic");
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address().fmt(f)
    }
}

/// A blocked origin; dropping it lets the origin go on.
#[must_use = "dropping it thaws the origin"]
pub struct Frozen {
    _thaw: mpsc::Sender<()>,
}

/// What every connection of an origin shares.
struct Service {
    protocol: Protocol,
    tls: Option<TlsAcceptor>,
    options: Options,
    handler: Handler,
    log: Arc<Watched<Log>>,
    refusal_count: AtomicU32,
}

impl Service {
    fn is_next_refused(&self) -> bool {
        let count = self.refusal_count.fetch_add(1, Ordering::Relaxed) + 1;
        self.options.refuse_every.is_some_and(|requests| count.is_multiple_of(requests))
    }
}

#[derive(Clone, Copy)]
enum Protocol {
    H1,
    H2,
}

struct Options {
    max_concurrent_streams: Option<u32>,
    stream_window_bytes: u32,
    connection_window_bytes: u32,
    goaway_every: Option<u32>,
    refuse_every: Option<u32>,
    is_log_compact: bool,
    is_patient: bool,
}

type Handler = Arc<dyn Fn(Exchange) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

#[derive(Debug, Clone, Copy)]
enum Command {
    GoAway,
    Abort,
}

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// The thread between a start and a stop.
struct Running {
    runtime: tokio::runtime::Handle,
    stop: Option<oneshot::Sender<Command>>,
    stopped: oneshot::Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    fn new(listener: TcpListener, service: Arc<Service>, commands: broadcast::Sender<Command>) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (stop, stop_receiver) = oneshot::channel();
        let (stopped_sender, stopped) = oneshot::channel();
        let handle = runtime.handle().clone();
        let serve = move || {
            runtime.block_on(accept(listener, service, commands, stop_receiver));
            drop(runtime);
            _ = stopped_sender.send(());
        };
        let thread = std::thread::Builder::new().name("origin".into()).spawn(serve).unwrap();
        Self { runtime: handle, stop: Some(stop), stopped, thread: Some(thread) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            _ = stop.send(Command::Abort);
        }
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
    }
}

async fn accept(
    listener: TcpListener,
    service: Arc<Service>,
    commands: broadcast::Sender<Command>,
    mut stop: oneshot::Receiver<Command>,
) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let command = loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, peer) = accepted.expect("the test's descriptors suffice");
                let connection = service.log.change(|log| log.open_connection(peer));
                tokio::spawn(serve(stream, connection, service.clone(), commands.subscribe()));
            }
            command = &mut stop => break command.unwrap_or(Command::Abort),
        }
    };
    drop(listener);
    _ = commands.send(command);
    service.log.wait_for(|log| log.connections_open == 0).await;
}

async fn serve(
    stream: TcpStream,
    connection: usize,
    service: Arc<Service>,
    mut commands: broadcast::Receiver<Command>,
) {
    _ = stream.set_nodelay(true);
    let resetter = socket::Resetter::new(&stream);
    let io: Result<Box<dyn Io>, std::io::Error> = match &service.tls {
        None => Ok(Box::new(stream)),
        Some(acceptor) => tokio::select! {
            tls = acceptor.accept(stream) => tls.map(|tls| Box::new(tls) as Box<dyn Io>),
            _ = commands.recv() => Err(std::io::ErrorKind::ConnectionAborted.into()),
        },
    };
    let serving = async {
        match (io, service.protocol) {
            (Err(error), _) => Closing::Failed(error.to_string()),
            (Ok(io), Protocol::H2) => h2::serve(io, connection, service.clone(), commands).await,
            (Ok(io), Protocol::H1) => h1::serve(io, connection, service.clone(), commands).await,
        }
    };
    let closing = resetter.reset_if(serving, |closing| *closing == Closing::Aborted).await;
    service.log.change(|log| log.close_connection(connection, closing));
}
