//! What was asked for, on stdout.

use std::io::{self, Write as _};

use super::Failure;

/// Writes `text` to stdout. A reader that has seen enough (`| head`) is no failure.
///
/// # Errors
/// The text could not be written, as on a full disk.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::Runtime(format!("cannot write to stdout: {error}")))
        }
        _ => Ok(()),
    }
}
