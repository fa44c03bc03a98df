//! `trunkline completions`: what a shell needs to complete our arguments.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::{Arguments, Failure, stdout};

#[derive(Debug, Args)]
pub(super) struct Completions {
    shell: Shell,
}

pub(super) fn completions(arguments: &Completions) -> Result<(), Failure> {
    let mut out = Vec::new();
    clap_complete::generate(arguments.shell, &mut Arguments::command(), "trunkline", &mut out);
    stdout::print(&String::from_utf8_lossy(&out))
}
