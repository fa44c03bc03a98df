//! `trunkline run`: serves what a file says, and reads it again at SIGHUP.

use clap::Args;
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
    // The file that was found at the start, even if another one has appeared before it since.
    let reader: Reader = Box::new(move || {
        let (config, warnings) = config_file::read(&path).map_err(|errors| errors.to_string())?;
        tell(&warnings.render(false));
        // Before anything else of it is taken, so that the level already shows how it is taken.
        logging.set_level(config.logs.level);
        Ok(config)
    });
    serve(config, Some(reader))
}
