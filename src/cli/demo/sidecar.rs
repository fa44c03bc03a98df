//! The demo's sidecar: a proxy as `trunkline run` starts it, from the configuration that the view shows.

use std::net::SocketAddr;

use trunkline::config::{self, AccessLogOnly, Source};
use trunkline::control::{Process, StartError};

use super::super::Failure;
use super::Demo;

/// A running sidecar.
pub(super) struct Sidecar {
    process: Process,
    address: SocketAddr,
    /// The same as a file.
    yaml: String,
}

/// What the sidecar counts, at one moment.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Reading {
    pub(super) client_connections: u64,
    pub(super) upstream_connections: u64,
    pub(super) streams: u64,
    /// Requests that wait for a stream.
    pub(super) waiting: u64,
    /// Since the start.
    pub(super) requests: u64,
    /// Since the start.
    pub(super) faults: u64,
}

impl Sidecar {
    /// Listens on 127.0.0.1:8080, or on a free port if that is taken.
    pub(super) fn start(arguments: &Demo, service: SocketAddr) -> Result<Self, Failure> {
        let mut last = None;
        for port in [8080, 0] {
            let listen = SocketAddr::from(([127, 0, 0, 1], port));
            let (mut config, _) = config::load(&Source::new("demo", yaml(arguments, listen, service)), &|_| None)?;
            // Lines of failed requests would tear the view; they are counted in it.
            config.logs.access.only = AccessLogOnly::None;
            match Process::start(config) {
                Ok(process) => {
                    let address =
                        process.control().listeners().first().and_then(|(_, address)| address.tcp()).unwrap_or(listen);
                    return Ok(Self { process, address, yaml: yaml(arguments, address, service) });
                }
                Err(error @ StartError::Bind { .. }) => last = Some(error),
                Err(error) => return Err(Failure::Runtime(error.to_string())),
            }
        }
        Err(Failure::Runtime(last.map_or_else(String::new, |error| error.to_string())))
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn yaml(&self) -> &str {
        &self.yaml
    }

    pub(super) fn workers(&self) -> usize {
        self.process.control().registry().workers().len()
    }

    /// What its workers count together.
    pub(super) fn figures(&self) -> Reading {
        let figures = self.process.control().figures();
        let level = |gauge: i64| u64::try_from(gauge).unwrap_or(0);
        Reading {
            client_connections: level(figures.downstream.connections),
            upstream_connections: level(figures.upstream_connections()),
            streams: level(figures.endpoints.iter().map(|endpoint| endpoint.streams).sum()),
            waiting: level(figures.endpoints.iter().map(|endpoint| endpoint.pending).sum()),
            requests: figures.endpoints.iter().map(|endpoint| endpoint.requests).sum(),
            faults: figures.faults.values().sum(),
        }
    }

    /// Drains it; returns how many client connections had to be cut.
    pub(super) fn stop(self) -> u32 {
        self.process.control().drain();
        self.process.join().cut_connections
    }
}

/// The smallest file that does it: two lines, unless the defaults are not enough for what was asked.
fn yaml(arguments: &Demo, listen: SocketAddr, service: SocketAddr) -> String {
    let Demo { connections, upstream_connections, workers, seconds: _, no_load: _ } = arguments;
    let mut pool = Vec::new();
    if *upstream_connections != 4 {
        pool.push(format!("max_connections: {upstream_connections}"));
    }
    // Whatever has no stream has to wait, and the demo has nothing to refuse.
    if *connections > 1024 {
        pool.push(format!("max_pending: {connections}"));
        pool.push("pending_timeout: 10s".to_owned());
    }
    let runtime = workers.map_or(String::new(), |workers| format!("runtime: {{ workers: {workers} }}\n"));
    if pool.is_empty() {
        return match workers {
            None => format!("listen: {listen}\nupstream: h2c://{service}\n"),
            Some(_) => format!("listen: {listen}\nupstream: h2c://{service}\n{runtime}"),
        };
    }
    format!(
        "listeners: [{{ address: {listen} }}]\nupstreams:\n  default:\n    endpoints: [\"h2c://{service}\"]\n    \
         pool: {{ {} }}\n{runtime}",
        pool.join(", ")
    )
}
