//! `trunkline defaults`: every key with its default, as a configuration that loads.

use super::{Failure, stdout};

pub(super) fn defaults() -> Result<(), Failure> {
    stdout::print(&trunkline::config::defaults())
}
