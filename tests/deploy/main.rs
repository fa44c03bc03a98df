//! What users copy works: configurations in `deploy/` and in the documents load, and the files around them agree with them.

#![allow(clippy::unwrap_used, reason = "a test: a panic is how it reports")]
#![allow(unreachable_pub, reason = "a test binary exports nothing: `pub` marks what other files of it use")]

mod documents;
mod kubernetes;
mod systemd;

use std::path::{Path, PathBuf};
use std::time::Duration;

use trunkline::config::{Config, Source, load};

/// A file of the project.
fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Loads a configuration that users find at `place`; no variable is set.
#[track_caller]
fn configuration(place: &str, text: &str) -> Config {
    let loaded = load(&Source::new(place, text), &|_| None);
    let (config, warnings) = loaded.unwrap_or_else(|errors| panic!("{place}:\n{errors}\n{text}"));
    assert!(warnings.to_string().is_empty(), "{place}:\n{warnings}");
    config
}

/// How long a drain may take at most.
fn drain(config: &Config) -> Duration {
    config.shutdown.delay + config.shutdown.timeout
}
