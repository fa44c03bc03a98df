//! The command line: what may be written, and which file does it.
//!
//! One file per subcommand. Errors go to stderr and what was asked for to stdout; nothing here panics on a closed
//! pipe or shows a backtrace. Exit codes: 0 ok, 1 runtime, 2 usage, 78 configuration (sysexits' `EX_CONFIG`, which
//! systemd can be told not to restart on).
//!
//! Runs on the main thread. Knows control's handle, not workers or requests.

mod check;
mod completions;
mod config_file;
mod defaults;
mod demo;
mod failure;
mod healthcheck;
mod logging;
mod man;
mod open_files;
mod proxy;
mod run;
mod schema;
mod serve;
mod stdout;
mod text;

use clap::{Parser, Subcommand};

pub(crate) use failure::Failure;

/// An L7 multiplexing reverse proxy: many HTTP/1.1 client connections on a few HTTP/2 connections to the service
/// beside it.
#[derive(Debug, Parser)]
#[command(name = "trunkline", version, disable_help_subcommand = true, max_term_width = 110, after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve without a file: one listener, one upstream
    Proxy(proxy::Proxy),
    /// Serve what a configuration file says
    Run(run::Run),
    /// Find every mistake in a configuration, and look at its endpoints
    Check(check::Check),
    /// See it work: a service, a sidecar and many clients in this one process
    Demo(demo::Demo),
    /// Ask a running process whether it is ready: exit code 0 or 1
    Healthcheck(healthcheck::Healthcheck),
    /// Print the JSON Schema of the configuration, for editors
    Schema,
    /// Print every key of the configuration with its default and meaning
    Defaults,
    /// Print the completions for a shell
    Completions(completions::Completions),
    /// Print the manual page (read it with `trunkline man | man -l -`)
    Man,
}

/// Does what the command line says.
///
/// # Errors
/// What the user is told, and the exit code.
pub(crate) fn dispatch(arguments: Arguments) -> Result<(), Failure> {
    match arguments.command {
        Command::Proxy(arguments) => proxy::proxy(&arguments),
        Command::Run(arguments) => run::run(&arguments),
        Command::Check(arguments) => check::check(&arguments),
        Command::Demo(arguments) => demo::demo(&arguments),
        Command::Healthcheck(arguments) => healthcheck::healthcheck(&arguments),
        Command::Schema => schema::schema(),
        Command::Defaults => defaults::defaults(),
        Command::Completions(arguments) => completions::completions(&arguments),
        Command::Man => man::man(),
    }
}

const AFTER_HELP: &str = "\
Start here:
  trunkline demo
  trunkline proxy --listen 127.0.0.1:8080 --to h2c://127.0.0.1:9000

Exit codes: 0 ok, 1 runtime, 2 usage, 78 configuration. TRUNKLINE_LOG=debug shows more.";
