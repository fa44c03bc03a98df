//! How a command fails: what the user reads, and the exit code.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use trunkline::config::Diagnostics;

/// One variant, one exit code.
#[derive(Debug)]
pub(crate) enum Failure {
    /// One sentence: something outside the configuration did not work.
    Runtime(String),
    Configuration(Diagnostics),
    /// The user has been told already.
    Told(Exit),
}

/// The exit codes beside 0 and clap's 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Runtime = 1,
    Configuration = 78,
}

impl Failure {
    /// Tells the user on stderr; returns the exit code.
    pub(crate) fn tell(self) -> ExitCode {
        let (text, exit) = match self {
            Self::Runtime(why) => (format!("error: {why}\n"), Exit::Runtime),
            Self::Configuration(diagnostics) => (diagnostics.render(is_coloured()), Exit::Configuration),
            Self::Told(exit) => (String::new(), exit),
        };
        tell(&text);
        ExitCode::from(exit as u8)
    }
}

impl From<Diagnostics> for Failure {
    fn from(diagnostics: Diagnostics) -> Self {
        Self::Configuration(diagnostics)
    }
}

/// Writes to stderr; whoever has closed it does not want to know.
pub(super) fn tell(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// Whether stderr is read by a person who wants colours (<https://no-color.org>).
pub(super) fn is_coloured() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
