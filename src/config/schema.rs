//! What the YAML says, made into a [`Config`].
//!
//! The keys are decoded first, all of them, then put together ([`Draft`]) and checked against each other
//! ([`check`]), so that one reading shows everything that is wrong.
//!
//! Pure, except for the certificate files that a configuration names: [`load`] reads them through `files`.

use std::io;
use std::path::Path;

use super::assemble::{Draft, admin_part};
use super::check::check;
use super::decode::Decoder;
use super::diagnostic::{Diagnostic, Diagnostics};
use super::keys::RootKeys;
use super::source::{Environment, Source};
use super::yaml::{self, Node, NodeValue};
use super::{Admin, Config};

/// Reads the files that a configuration names.
pub(super) type Files<'a> = &'a dyn Fn(&Path) -> io::Result<Vec<u8>>;

/// Turns a text into a configuration, with the warnings about it.
///
/// # Errors
/// Everything that is wrong, at once, in the order of the text; warnings among it.
pub fn load(source: &Source, env: Environment<'_>) -> Result<(Config, Diagnostics), Diagnostics> {
    load_with(source, env, &super::source::read_named)
}

/// Where operators look, whatever else is wrong: a process goes on with what it has read before, and is to be found.
///
/// # Errors
/// The text is no YAML, or its `admin` is wrong.
pub fn admin(source: &Source, env: Environment<'_>) -> Result<Admin, Diagnostics> {
    let root = yaml::parse(source)?;
    let NodeValue::Map(entries) = &root.value else { return Ok(Admin::default()) };
    let Some(entry) = entries.iter().find(|entry| entry.key == "admin") else { return Ok(Admin::default()) };
    let mut cx = Decoder::new(source, Some(env));
    let keys = cx.within("admin", |cx| cx.section(&entry.node, entry.key_span));
    let diagnostics = cx.finish();
    if diagnostics.has_errors() { Err(diagnostics) } else { Ok(admin_part(&keys).0) }
}

/// As [`load`], with the named files read by `files`.
pub(super) fn load_with(
    source: &Source,
    env: Environment<'_>,
    files: Files<'_>,
) -> Result<(Config, Diagnostics), Diagnostics> {
    let root = yaml::parse(source)?;
    if matches!(root.value, NodeValue::Null) {
        return Err(Diagnostic::error(format!("{} is empty", source.name))
            .note("the smallest configuration is two lines:")
            .note("listen: 127.0.0.1:8080")
            .note("upstream: h2c://127.0.0.1:9000")
            .into());
    }
    build(&root, Decoder::new(source, Some(env)), files)
}

/// Decodes `root`, puts the parts together and checks them.
pub(super) fn build(root: &Node, mut cx: Decoder<'_>, files: Files<'_>) -> Result<(Config, Diagnostics), Diagnostics> {
    let keys: RootKeys = cx.section(root, root.span);
    let draft = Draft::assemble(keys, root, &mut cx);
    check(&draft, files, &mut cx);
    let diagnostics = cx.finish();
    if diagnostics.has_errors() {
        return Err(diagnostics);
    }
    Ok((draft.config, diagnostics))
}

#[cfg(test)]
mod tests;
