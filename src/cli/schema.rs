//! `trunkline schema`: the JSON Schema of the configuration.

use super::{Failure, stdout};

pub(super) fn schema() -> Result<(), Failure> {
    stdout::print(&format!("{:#}\n", trunkline::config::schema()))
}
