//! The `-c` flag: which file, and what it says.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser as _};
use trunkline::config::{self, Admin, Config, Diagnostics, Source};

use super::failure::{is_coloured, tell};

/// Where the configuration is.
#[derive(Debug, Clone, Args)]
pub(super) struct ConfigFile {
    /// The configuration; else ./trunkline.yaml, else /etc/trunkline/trunkline.yaml
    // An empty variable means that it is not set, as everywhere in containers.
    #[arg(short = 'c', long = "config", value_name = "FILE", env = config::VARIABLE,
          value_parser = OsStringValueParser::new().map(PathBuf::from))]
    path: Option<PathBuf>,
}

impl ConfigFile {
    /// The file to read.
    ///
    /// # Errors
    /// None was named, and none is in the usual places.
    pub(super) fn find(&self) -> Result<PathBuf, Diagnostics> {
        let given = self.path.as_deref().filter(|path| !path.as_os_str().is_empty());
        let path = config::find(given, &environment)?;
        // Nobody wrote the dot of `./trunkline.yaml`.
        Ok(if given.is_none() { path.strip_prefix(".").map_or(path.clone(), Path::to_owned) } else { path })
    }

    /// The configuration, with its warnings told.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub(super) fn load(&self) -> Result<(PathBuf, Config), Diagnostics> {
        let path = self.find()?;
        let (config, warnings) = read(&path)?;
        tell(&warnings.render(is_coloured()));
        Ok((path, config))
    }

    /// Where the operators of a process with this configuration look.
    ///
    /// # Errors
    /// There is no file, or it does not say so. Nothing else in it is judged, and no other file is read.
    pub(super) fn admin(&self) -> Result<Admin, Diagnostics> {
        config::admin(&Source::read(&self.find()?)?, &environment)
    }
}

/// Reads one file, with the warnings about it.
///
/// # Errors
/// Everything that is wrong with it.
pub(super) fn read(path: &Path) -> Result<(Config, Diagnostics), Diagnostics> {
    config::load(&Source::read(path)?, &environment)
}

fn environment(name: &str) -> Option<String> {
    std::env::var_os(name).map(OsString::into_string)?.ok()
}
