//! `trunkline run`: serves what a file says, and reads it again at SIGHUP.

use std::path::PathBuf;

use clap::Args;
use trunkline::config::Config;
use trunkline::control::Reader;

use super::Failure;
use super::config_file::{self, ConfigFile};
use super::failure::tell;
use super::logging::Logging;
use super::serve::serve;

#[derive(Debug, Args)]
pub(super) struct Run {
    #[command(flatten)]
    file: ConfigFile,
}

pub(super) fn run(arguments: &Run) -> Result<(), Failure> {
    let (path, config) = arguments.file.load()?;
    let logging = Logging::start(config.logs.level)?;
    serve(config, Some(Box::new(Again { path, logging })))
}

/// Reads the configuration again.
struct Again {
    /// The file that was found at the start, even if another one has appeared before it since.
    path: PathBuf,
    logging: Logging,
}

impl Reader for Again {
    fn read(&self) -> Result<Config, String> {
        let (config, warnings) = config_file::read(&self.path).map_err(|errors| errors.to_string())?;
        tell(&warnings.render(false));
        Ok(config)
    }

    fn taken(&self, config: &Config) {
        self.logging.set_level(config.logs.level);
    }
}
