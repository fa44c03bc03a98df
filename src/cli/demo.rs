//! `trunkline demo`: a service, a sidecar and many clients in one process, to see the multiplexing work.
//!
//! What it shows is counted, not claimed: every request carries an id that the service has to send back, the service
//! counts the connections that it sees, and the sidecar's own part is measured by one more client that asks in turn
//! through the sidecar and directly. What it does not show is how fast anything is elsewhere: all three share this
//! machine, and the end says so.
//!
//! Each part has its own thread, as it would have its own process.

mod load;
mod pair;
mod service;
mod sidecar;
mod total;
mod view;

use std::future::Future;
use std::io;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use clap::Args;
use clap::builder::FalseyValueParser;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;
use tracing::Level;

use super::Failure;
use super::failure::Exit;
use super::logging::Logging;
use load::{Load, Tally};
use pair::Pair;
use service::Service;
use sidecar::Sidecar;
use total::Total;
use view::{Frame, View};

#[derive(Debug, Args)]
pub(super) struct Demo {
    /// Client connections of the built-in client, each with one request at a time
    #[arg(long, value_name = "N", env = "TRUNKLINE_DEMO_CONNECTIONS", default_value_t = 256,
          value_parser = clap::value_parser!(u32).range(1..=20_000))]
    connections: u32,
    /// Connections between the sidecar and the service
    #[arg(long, value_name = "N", env = "TRUNKLINE_DEMO_UPSTREAM_CONNECTIONS", default_value_t = 4,
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    upstream_connections: u32,
    /// The sidecar's threads [default: one per core]
    #[arg(long, value_name = "N", env = "TRUNKLINE_DEMO_WORKERS", value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: Option<u16>,
    /// End after so many seconds [default: at Ctrl-C]
    #[arg(long, value_name = "N", env = "TRUNKLINE_DEMO_SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    seconds: Option<u64>,
    /// Do not send requests: wait for yours
    #[arg(long, env = "TRUNKLINE_DEMO_NO_LOAD", value_parser = FalseyValueParser::new())]
    no_load: bool,
}

pub(super) fn demo(arguments: &Demo) -> Result<(), Failure> {
    // The view is all that should be seen.
    Logging::start(Level::ERROR)?;
    // Both ends of every connection are ours.
    let needed = 2 * u64::from(arguments.connections + arguments.upstream_connections) + FILES_MARGIN;
    if rlimit::increase_nofile_limit(u64::MAX).is_ok_and(|limit| limit < needed) {
        let why = format!("--connections {} needs {needed} open files: raise `ulimit -n`", arguments.connections);
        return Err(Failure::Runtime(why));
    }
    let failed = |what: &str, error: &io::Error| Failure::Runtime(format!("the demo's {what}: {error}"));

    let service = Service::start().map_err(|error| failed("service", &error))?;
    let sidecar = Sidecar::start(arguments, service.address())?;
    let clients = if arguments.no_load {
        None
    } else {
        let load = Load::start(sidecar.address(), arguments.connections).map_err(|error| failed("client", &error))?;
        let pair = Pair::start(sidecar.address(), service.address(), load.is_up())
            .map_err(|error| failed("second client", &error))?;
        Some((load, pair))
    };
    let start = Instant::now();
    let mut view = View::new(&sidecar, clients.is_some().then_some(arguments.connections));
    let mut total = Total::default();
    let watched = watch(arguments.seconds, &mut view, |view| {
        let figures = sidecar.figures();
        let (tally, pair) = match &clients {
            Some((load, pair)) => (load.take(), pair.medians()),
            None => (Tally::default(), None),
        };
        total.add(&tally, figures);
        view.show(&Frame { elapsed: start.elapsed(), figures, tally: &tally, total: &total, pair })
    });
    view.leave();

    // Clients first: then a cut answer could only be the sidecar's fault.
    if let Some((load, pair)) = clients {
        total.pair = pair.stop();
        total.add(&load.stop(), sidecar.figures());
    } else {
        total.is_own_load = true;
    }
    total.elapsed = start.elapsed();
    total.cut_connections = sidecar.stop();
    total.service_connections = service.stop();
    // A reader that has left does not read the total either.
    match watched.and_then(|()| view.print(&total.to_string())) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(failed("view", &error)),
        _ if total.is_clean() => Ok(()),
        _ => Err(Failure::Told(Exit::Runtime)),
    }
}

/// Starts a part of the demo: a thread with a runtime of its own.
fn spawn<F: Future<Output = ()>>(name: &str, part: impl FnOnce() -> F + Send + 'static) -> io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name(name.to_owned()).spawn(move || LocalSet::new().block_on(&runtime, part()))
}

/// Calls `show` now and then until the time is over or the user has had enough.
fn watch(seconds: Option<u64>, view: &mut View, mut show: impl FnMut(&mut View) -> io::Result<()>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let end = async {
            match seconds {
                Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(end);
        let period = view.period();
        let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
        loop {
            tokio::select! {
                // The frame of the last second is shown before the end.
                biased;
                _ = ticks.tick() => show(view)?,
                () = &mut end => return Ok(()),
                _ = interrupt.recv() => return Ok(()),
                _ = terminate.recv() => return Ok(()),
            }
        }
    })
}

/// Listeners, runtimes, what the process has anyway.
const FILES_MARGIN: u64 = 64;
