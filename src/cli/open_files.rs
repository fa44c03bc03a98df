//! The limit of open files, which a proxy meets before any other.

use trunkline::config::Config;

/// Raises the soft limit to the hard one, and warns if `config` could need more.
///
/// The soft limit is low (1024) only for programs that use `select`; everybody else is meant to raise it.
pub(super) fn raise_limit(config: &Config) {
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) => {
            let needed = needed(config);
            if limit < needed {
                tracing::warn!(limit, needed, "open files are limited below max_connections: raise `ulimit -n`");
            }
        }
        Err(error) => tracing::warn!(%error, "cannot raise the limit of open files"),
    }
}

/// Files that are open when every listener and every pool is full.
fn needed(config: &Config) -> u64 {
    let clients: u64 = config.listeners.iter().map(|listener| u64::from(listener.max_connections)).sum();
    let connections: u64 = config
        .upstreams
        .iter()
        .map(|upstream| {
            let most = upstream.pool.max_connections.max(upstream.pool.max_http1_connections);
            u64::from(most) * upstream.endpoints.len() as u64
        })
        .sum();
    clients + connections + MARGIN
}

/// Listening sockets, epoll and event descriptors of the workers, logs, operators.
const MARGIN: u64 = 256;
