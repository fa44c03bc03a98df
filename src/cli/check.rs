//! `trunkline check`: every mistake of a configuration at once, and a look at its endpoints.
//!
//! For programs (`--format json`) the answer has the same fields whether the configuration is right or wrong, and is
//! all of stdout. For people the errors are on stderr, like everybody's.

mod endpoints;

use clap::builder::FalseyValueParser;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use trunkline::config::{self, Config, Diagnostics, Secrets};

use super::config_file::{self, ConfigFile};
use super::failure::{Exit, is_coloured, tell};
use super::text::count;
use super::{Failure, stdout};
use endpoints::Found;

#[derive(Debug, Args)]
pub(super) struct Check {
    #[command(flatten)]
    file: ConfigFile,
    /// Print the configuration in its long form, with every default (and nothing else on stdout)
    #[arg(long, value_name = "WHAT", env = "TRUNKLINE_CHECK_PRINT")]
    print: Option<Print>,
    /// Connect to every endpoint and tell what it speaks
    #[arg(long, env = "TRUNKLINE_CHECK_PROBE", value_parser = FalseyValueParser::new())]
    probe: bool,
    /// How to answer
    #[arg(long, value_name = "FORMAT", env = "TRUNKLINE_CHECK_FORMAT", default_value = "human")]
    format: Format,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Print {
    Effective,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Human,
    Json,
}

pub(super) fn check(arguments: &Check) -> Result<(), Failure> {
    let path = arguments.file.find();
    let name = path.as_ref().ok().map(|path| path.display().to_string());
    let loaded = path.and_then(|path| config_file::read(&path));
    let answer = match loaded {
        Err(errors) => Answer { name, errors: Some(errors), ..Answer::default() },
        Ok((config, warnings)) => {
            let found = arguments.probe.then(|| endpoints::probe_all(&config)).transpose()?;
            let effective = arguments.print.map(|Print::Effective| config::print(&config, Secrets::Shown));
            Answer { name, errors: None, warnings, config: Some(config), effective, found }
        }
    };
    match arguments.format {
        Format::Json => stdout::print(&format!("{:#}\n", answer.to_json()))?,
        Format::Human => answer.print()?,
    }
    match answer.exit() {
        None => Ok(()),
        Some(exit) => Err(Failure::Told(exit)),
    }
}

/// What there is to say.
#[derive(Default)]
struct Answer {
    /// The file; `None` if there is none.
    name: Option<String>,
    /// With the warnings among them.
    errors: Option<Diagnostics>,
    warnings: Diagnostics,
    config: Option<Config>,
    effective: Option<String>,
    found: Option<Vec<Found>>,
}

impl Answer {
    fn exit(&self) -> Option<Exit> {
        if self.errors.is_some() {
            return Some(Exit::Configuration);
        }
        let is_unusable = |found: &Found| found.report.is_err();
        self.found.iter().flatten().any(is_unusable).then_some(Exit::Runtime)
    }

    fn print(&self) -> Result<(), Failure> {
        let Self { name, errors, warnings, config, effective, found } = self;
        if let Some(errors) = errors {
            tell(&errors.render(is_coloured()));
            return Ok(());
        }
        tell(&warnings.render(is_coloured()));
        let (Some(name), Some(config)) = (name, config) else { return Ok(()) };
        let mut said = format!("ok: {name}: {}\n", summary(config));
        for found in found.iter().flatten() {
            match found.text() {
                Ok(text) => said.push_str(&text),
                Err(text) => tell(&text),
            }
        }
        match effective {
            // Only YAML, so that it can be redirected into a file.
            Some(effective) => {
                tell(&said);
                stdout::print(effective)
            }
            None => stdout::print(&said),
        }
    }

    fn to_json(&self) -> Value {
        let Self { name, errors, warnings, config, effective, found } = self;
        let mut answer = errors.as_ref().unwrap_or(warnings).to_json();
        let members = answer.as_object_mut().expect("diagnostics are an object in JSON");
        let counted = |count: fn(&Config) -> usize| json!(config.as_ref().map(count));
        members.insert("ok".to_owned(), json!(self.exit().is_none()));
        members.insert("source".to_owned(), json!(name));
        members.insert("listeners".to_owned(), counted(|config| config.listeners.len()));
        members.insert("routes".to_owned(), counted(|config| config.routes.len()));
        members.insert("upstreams".to_owned(), counted(|config| config.upstreams.len()));
        members.insert("effective".to_owned(), json!(effective));
        let endpoints = found.as_ref().map(|found| found.iter().map(Found::to_json).collect::<Vec<_>>());
        members.insert("endpoints".to_owned(), json!(endpoints));
        answer
    }
}

fn summary(config: &Config) -> String {
    let Config { listeners, routes, upstreams, .. } = config;
    let parts = [count(listeners.len(), "listener"), count(routes.len(), "route"), count(upstreams.len(), "upstream")];
    parts.join(", ")
}
