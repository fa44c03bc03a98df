//! `trunkline proxy`: serves without a file.

use clap::Args;
use trunkline::config::{Flags, from_flags};

use super::Failure;
use super::failure::{is_coloured, tell};
use super::logging::Logging;
use super::serve::serve;

#[derive(Debug, Args)]
pub(super) struct Proxy {
    #[arg(help = "Where clients connect, for example 127.0.0.1:8080 or unix:/run/trunkline.sock")]
    #[arg(long, value_name = "ADDR", env = "TRUNKLINE_LISTEN")]
    listen: String,
    // clippy wants angle brackets around URLs in doc comments, and this one is read in a terminal.
    #[arg(
        help = "The service, once for each endpoint: h2c://127.0.0.1:9000, h2://host:443 (TLS), http://host:80, h2c+unix:/run/app.sock"
    )]
    #[arg(long, value_name = "URL", env = "TRUNKLINE_TO", value_delimiter = ',', required = true)]
    to: Vec<String>,
    /// At most so many connections to each endpoint [default: 4, or 128 while it speaks HTTP/1.1]
    #[arg(long, value_name = "N", env = "TRUNKLINE_CONNECTIONS")]
    connections: Option<u32>,
    /// Threads that serve [default: auto, one per core]
    #[arg(long, value_name = "N", env = "TRUNKLINE_WORKERS")]
    workers: Option<String>,
    /// The address for operators, on loopback [default: none]
    #[arg(long, value_name = "ADDR", env = "TRUNKLINE_ADMIN")]
    admin: Option<String>,
    /// The address for health checks and metrics [default: none]
    #[arg(long, value_name = "ADDR", env = "TRUNKLINE_PROBES")]
    probes: Option<String>,
}

pub(super) fn proxy(arguments: &Proxy) -> Result<(), Failure> {
    let Proxy { listen, to, connections, workers, admin, probes } = arguments;
    let (config, warnings) = from_flags(Flags {
        listen,
        to,
        connections: *connections,
        workers: workers.as_deref(),
        admin: admin.as_deref(),
        probes: probes.as_deref(),
    })?;
    tell(&warnings.render(is_coloured()));
    Logging::start(config.logs.level)?;
    serve(config, None)
}
