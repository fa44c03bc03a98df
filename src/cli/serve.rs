//! Serving until the process is told to end: what `run` and `proxy` share.

use trunkline::config::Config;
use trunkline::control::{Process, Reader, worker_count};

use super::{Failure, open_files};

/// Serves `config` until SIGTERM or SIGINT has drained the process. SIGHUP asks `reader`.
///
/// Ends well even if `shutdown.timeout` cut somebody off: that was asked for, and the log tells how many.
///
/// # Errors
/// It cannot start; nothing is left running.
pub(super) fn serve(config: Config, reader: Option<Box<dyn Reader>>) -> Result<(), Failure> {
    open_files::raise_limit(&config);
    let upstreams: Vec<_> = config
        .upstreams
        .iter()
        .flat_map(|upstream| upstream.endpoints.iter().map(move |endpoint| format!("{} {endpoint}", upstream.name)))
        .collect();
    let workers = worker_count(config.runtime.workers);
    let process = Process::start_with(config, reader, true).map_err(|error| Failure::Runtime(error.to_string()))?;
    let listeners: Vec<_> =
        process.control().listeners().into_iter().map(|(name, address)| format!("{name} {address}")).collect();
    tracing::info!(
        listeners = listeners.join(", "),
        upstreams = upstreams.join(", "),
        admin = process.admin_address().map(tracing::field::display),
        probes = process.probes_address().map(tracing::field::display),
        workers,
        pid = std::process::id(),
        version = env!("CARGO_PKG_VERSION"),
        "serving"
    );
    let ending = process.join();
    tracing::info!(cut_connections = ending.cut_connections, "ended");
    Ok(())
}
