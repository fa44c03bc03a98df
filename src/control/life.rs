//! The life of the control thread: what it is asked, one thing after the other, until the process has drained.
//!
//! Also who asks by a signal, and what the service manager is told.
//!
//! Runs on control.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedReceiver;

use super::watch::{self, Watch};
use super::{Ask, Control, Stage, reload, renewal};
use crate::worker::Command;

/// Does what it is asked until the process has drained; tells how many connections were cut.
pub(super) async fn run(control: &Arc<Control>, mut inbox: UnboundedReceiver<Ask>) -> u32 {
    let changed = Arc::new(Notify::new());
    let mut watch = Watch::new(changed.clone());
    watch.follow(renewal::files(&control.applied().config));
    // They may have changed since they were read.
    changed.notify_one();
    tokio::spawn({
        let (asks, changed) = (control.asks.clone(), changed.clone());
        async move {
            loop {
                watch::settled(&changed).await;
                let _ = asks.send(Ask::Renew);
            }
        }
    });
    loop {
        let ask = match watch.look_interval() {
            None => inbox.recv().await,
            Some(interval) => match tokio::time::timeout(interval, inbox.recv()).await {
                Ok(ask) => ask,
                Err(_) => Some(Ask::Renew),
            },
        };
        let Some(ask) = ask else { return 0 };
        match ask {
            Ask::Reload(reply) => {
                // Seen before endpoints are made anew.
                control.cold_endpoints();
                let reloaded = reload::reload(control);
                watch.follow(renewal::files(&control.applied().config));
                // What was read for the reload may have changed before it was watched.
                changed.notify_one();
                if let Some(reply) = reply {
                    let _ = reply.send(reloaded);
                }
            }
            Ask::Renew => {
                watch.follow(renewal::files(&control.applied().config));
                control.cold_endpoints();
                renewal::renew(control);
            }
            Ask::Drain => return drain(control, &mut inbox).await,
            Ask::Stop => return control.crew.connections(),
        }
    }
}

/// Not ready, a delay for the load balancer to notice, then no new connections, then the end of those that run.
async fn drain(control: &Control, inbox: &mut UnboundedReceiver<Ask>) -> u32 {
    let shutdown = control.applied().config.shutdown.clone();
    control.stage.store(2, Ordering::Release);
    tracing::info!(connections = control.crew.connections(), timeout = ?shutdown.timeout, "draining");
    notify(&[sd_notify::NotifyState::Stopping]);
    let drained = async {
        tokio::time::sleep(shutdown.delay).await;
        // Whoever comes later is to find no socket.
        control.applied().unix_bindings.clear();
        control.crew.broadcast(|| Command::Drain);
        let deadline = tokio::time::Instant::now() + shutdown.timeout;
        while !control.crew.is_idle() && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(DRAIN_POLL).await;
        }
    };
    let stopped = async {
        // A second request to end means now; a reload means nothing any more.
        while !matches!(inbox.recv().await, Some(Ask::Drain | Ask::Stop) | None) {}
    };
    tokio::select! {
        () = drained => {}
        () = stopped => tracing::warn!("asked to end at once"),
    }
    let cut_connections = control.crew.connections();
    if cut_connections > 0 {
        tracing::warn!(cut_connections, "ended before every client had its answer");
    } else {
        tracing::info!("drained");
    }
    cut_connections
}

/// Ends the workers, then the writers of what they have logged.
pub(super) fn finish(control: &Control, worker_threads: Vec<JoinHandle<()>>) {
    control.stage.store(2, Ordering::Release);
    control.applied().unix_bindings.clear();
    control.crew.broadcast(|| Command::Stop);
    for thread in worker_threads {
        if thread.join().is_err() {
            tracing::error!("a worker has panicked");
        }
    }
    let writers = {
        let mut applied = control.applied();
        // A writer ends when the last sink is gone, and the snapshot holds one.
        applied.retire_sink();
        std::mem::take(&mut applied.writers)
    };
    // An output that nobody reads must not keep the process.
    let deadline = Instant::now() + WRITERS_TIMEOUT;
    while !writers.iter().all(JoinHandle::is_finished) && Instant::now() < deadline {
        std::thread::sleep(DRAIN_POLL);
    }
}

/// SIGTERM and SIGINT drain, again they end now; SIGHUP reloads.
pub(super) fn follow_signals(control: &Arc<Control>) -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let is_signalled = Arc::new(AtomicBool::new(false));
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let mut signals = signal(kind)?;
        let control = control.clone();
        let is_signalled = is_signalled.clone();
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                if is_signalled.swap(true, Ordering::AcqRel) {
                    control.stop();
                } else if control.stage() != Stage::Draining {
                    // A preStop hook may have posted /drain: the signal that follows must not cut what still runs.
                    control.drain();
                }
            }
        });
    }
    let mut hangups = signal(SignalKind::hangup())?;
    let control = control.clone();
    tokio::spawn(async move {
        while hangups.recv().await.is_some() {
            let _ = control.asks.send(Ask::Reload(None));
        }
    });
    Ok(())
}

/// Tells systemd, when it has asked to be told.
pub(super) fn notify(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "cannot notify the service manager");
    }
}

/// How long the access log may take to write its last lines.
const WRITERS_TIMEOUT: Duration = Duration::from_secs(1);
/// How often a draining process looks whether the last client has gone.
const DRAIN_POLL: Duration = Duration::from_millis(5);
