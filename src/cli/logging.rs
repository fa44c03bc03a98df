//! The process's own log: text on stderr, one constant sentence a line with its fields.
//!
//! The level comes from the configuration and follows its reloads; `$TRUNKLINE_LOG` overrides it with an env-filter
//! (`debug`, or `trunkline=debug,h2=trace`) for as long as the process lives.

use std::io;

use tracing::Level;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry, fmt, reload};
use trunkline::config::{Diagnostic, Diagnostics};

use super::failure::is_coloured;

/// The running log.
#[derive(Clone)]
pub(super) struct Logging {
    /// `None` if the variable decides.
    filter: Option<reload::Handle<EnvFilter, Registry>>,
}

impl Logging {
    /// Starts logging; once per process.
    ///
    /// # Errors
    /// `$TRUNKLINE_LOG` is not a filter.
    pub(super) fn start(level: Level) -> Result<Self, Diagnostics> {
        let override_text = std::env::var(VARIABLE).ok().filter(|text| !text.trim().is_empty());
        let filter = match &override_text {
            Some(text) => EnvFilter::try_new(text).map_err(|error| {
                Diagnostic::error(format!("${VARIABLE} is not a log filter: {error}"))
                    .note("write a level (error, warn, info, debug, trace) or a list such as trunkline=debug,h2=info")
            })?,
            None => filter(level),
        };
        let (filter, handle) = reload::Layer::new(filter);
        let lines = fmt::layer().with_writer(io::stderr).with_ansi(is_coloured()).with_target(false);
        tracing_subscriber::registry().with(lines.with_filter(filter)).init();
        Ok(Self { filter: override_text.is_none().then_some(handle) })
    }

    /// Logs at `level` from now on, unless the variable decides.
    pub(super) fn set_level(&self, level: Level) {
        if let Some(handle) = &self.filter {
            // Fails only when the subscriber is gone, and it lives as long as the process.
            let _ = handle.reload(filter(level));
        }
    }
}

/// Ours at `level`; the crates below us only from warnings up, because h2 tells every frame.
fn filter(level: Level) -> EnvFilter {
    let below = level.min(Level::WARN);
    EnvFilter::new(format!("{below},trunkline={level}"))
}

const VARIABLE: &str = "TRUNKLINE_LOG";
