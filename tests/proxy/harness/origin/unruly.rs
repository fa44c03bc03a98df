//! An HTTP/2 service made of frames that answers tagged load (`/bytes/N`, `/echo`, `?delay=MS`) and misbehaves when told to.
//!
//! The h2 crate's server would not do most of it: name a stream below those in flight in its GOAWAY, move its limit, add
//! empty frames, fall silent. The log is that of every origin; what was left undone on purpose, and why, is in [`Tally`].
//! No request is left undone more than three times: a request has five attempts, and chance alone would use them up.
//!
//! Runs on the test's runtime. RFC 9113 §5.1.2, §6.8, §8.7.

mod connection;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, MutexGuard};

use tokio::sync::broadcast;
use tokio::task::JoinHandle;

use super::log::Log;
use super::socket::ReservedAddress;
use crate::harness::scripted;
use crate::harness::watched::Watched;

/// Starts a service that behaves well until it is told otherwise.
pub fn unruly() -> Unruly {
    let service = Service {
        log: Watched::new(Log::default()),
        tally: Watched::new(Tally::default()),
        commands: broadcast::Sender::new(64),
        stream_limit: AtomicU32::new(USUAL_LIMIT),
        goaway_every: AtomicU32::new(0),
        refuse_every: AtomicU32::new(0),
        has_empty_data: AtomicBool::new(false),
    };
    let mut unruly = Unruly { reserved: ReservedAddress::new(), service: Arc::new(service), accepting: None };
    unruly.come_back();
    unruly
}

/// A running service, written as its address.
pub struct Unruly {
    reserved: ReservedAddress,
    service: Arc<Service>,
    /// `None` while it is away.
    accepting: Option<JoinHandle<()>>,
}

/// What it has done on purpose.
#[derive(Debug, Default)]
pub struct Tally {
    /// Streams refused with `REFUSED_STREAM` without a reason.
    pub refused: u32,
    /// Streams above the last one of a GOAWAY.
    pub cut_off: u32,
    /// Streams that came although as many as allowed were open. They are refused.
    pub in_excess: u32,
    /// Connections that were reset or fell silent, as indices into [`Log::connections`].
    pub broken: BTreeSet<usize>,
    /// How often each request was left undone.
    undone: BTreeMap<Box<str>, u32>,
}

impl Tally {
    fn may_undo(&self, id: &str) -> bool {
        self.undone.get(id).is_none_or(|times| *times < UNDONE_MAX)
    }

    fn undo(&mut self, id: &str) {
        *self.undone.entry(id.into()).or_default() += 1;
    }
}

impl Unruly {
    pub fn address(&self) -> SocketAddr {
        self.reserved.address()
    }

    pub fn log(&self) -> MutexGuard<'_, Log> {
        self.service.log.read()
    }

    pub fn tally(&self) -> MutexGuard<'_, Tally> {
        self.service.tally.read()
    }

    /// Waits until the log meets a condition; see [`Watched::wait_for`].
    #[track_caller]
    pub fn wait_for(&self, is_met: impl FnMut(&Log) -> bool) -> impl Future<Output = ()> {
        self.service.log.wait_for(is_met)
    }

    /// Announces the end of every connection, in two steps: nothing that comes before the second one is left undone.
    pub fn goaway(&self) {
        self.command(Command::GoAway);
    }

    /// Announces the end of every connection, and leaves the younger half of the streams in flight undone.
    pub fn goaway_below(&self) {
        self.command(Command::GoAwayBelow);
    }

    /// Does [`Unruly::goaway`] on a connection after each `requests` requests on it; 0: no more.
    pub fn goaway_every(&self, requests: u32) {
        self.service.goaway_every.store(requests, Ordering::Relaxed);
    }

    /// Refuses each `streams`-th stream; 0: no more.
    pub fn refuse_every(&self, streams: u32) {
        self.service.refuse_every.store(streams, Ordering::Relaxed);
    }

    /// Tells every connection, and those to come, of a new `SETTINGS_MAX_CONCURRENT_STREAMS`.
    pub fn limit(&self, streams: u32) {
        self.service.stream_limit.store(streams, Ordering::Relaxed);
        self.command(Command::Limit);
    }

    /// Sends an empty DATA frame in each answer.
    pub fn send_empty_data(&self, is_sending: bool) {
        self.service.has_empty_data.store(is_sending, Ordering::Relaxed);
    }

    /// Resets every connection (RST) and goes on accepting.
    pub fn crash(&self) {
        self.command(Command::Crash);
    }

    /// Falls silent on the connection with the most streams, once there is one: reads no more, answers nothing, and
    /// stays open.
    pub async fn fall_silent(&self) {
        let broken = self.tally().broken.clone();
        let mut busiest = None;
        self.wait_for(|log| {
            let connections = log.connections.iter().enumerate().filter(|(index, connection)| {
                connection.streams_open > 0 && !connection.is_goaway_sent && !broken.contains(index)
            });
            busiest = connections.max_by_key(|(_, connection)| connection.streams_open).map(|(index, _)| index);
            busiest.is_some()
        })
        .await;
        self.command(Command::FallSilent(busiest.expect("waited for")));
    }

    /// Reads what the silent connections have been sent, into the log, up to the end that the proxy has put to them.
    pub async fn look_inside(&self) {
        self.command(Command::LookInside);
        let broken = self.tally().broken.clone();
        self.wait_for(|log| broken.iter().all(|index| log.connections[*index].closed.is_some())).await;
    }

    /// Stops listening and ends every connection in order; the port then refuses.
    pub async fn leave(&mut self) {
        let accepting = self.accepting.take().expect("it is there");
        accepting.abort();
        _ = accepting.await;
        self.goaway();
        let broken = self.tally().broken.clone();
        let is_over = |log: &Log| {
            let mut connections = log.connections.iter().enumerate();
            connections.all(|(index, connection)| connection.closed.is_some() || broken.contains(&index))
        };
        self.wait_for(is_over).await;
    }

    /// Listens again.
    pub fn come_back(&mut self) {
        let listener = tokio::net::TcpListener::from_std(self.reserved.listen()).unwrap();
        let service = self.service.clone();
        self.accepting = Some(tokio::spawn(async move {
            loop {
                let (stream, peer) = listener.accept().await.expect("the test's descriptors suffice");
                stream.set_nodelay(true).unwrap();
                let index = service.log.change(|log| log.open_connection(peer));
                let commands = service.commands.subscribe();
                tokio::spawn(connection::serve(scripted::Peer::new(stream), index, service.clone(), commands));
            }
        }));
    }

    /// Behaves well again.
    pub fn calm_down(&self) {
        self.goaway_every(0);
        self.refuse_every(0);
        self.send_empty_data(false);
        self.limit(USUAL_LIMIT);
    }

    fn command(&self, command: Command) {
        _ = self.service.commands.send(command);
    }
}

impl Drop for Unruly {
    fn drop(&mut self) {
        if let Some(accepting) = &self.accepting {
            accepting.abort();
        }
    }
}

impl fmt::Display for Unruly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address().fmt(f)
    }
}

/// What its connections share.
struct Service {
    log: Watched<Log>,
    tally: Watched<Tally>,
    commands: broadcast::Sender<Command>,
    stream_limit: AtomicU32,
    goaway_every: AtomicU32,
    refuse_every: AtomicU32,
    has_empty_data: AtomicBool,
}

#[derive(Debug, Clone, Copy)]
enum Command {
    GoAway,
    GoAwayBelow,
    Limit,
    Crash,
    /// Only for the connection of this index.
    FallSilent(usize),
    LookInside,
}

pub const USUAL_LIMIT: u32 = 100;
const UNDONE_MAX: u32 = 3;
