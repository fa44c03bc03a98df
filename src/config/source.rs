//! The text of a configuration, and where it is found.
//!
//! A [`Source`] is one text with a name to call it by; a [`Span`] is a range of its bytes. Everything that is
//! reported about a configuration points into one of these. The files are read here and nowhere else.

use std::path::{Path, PathBuf};

use super::diagnostic::{Diagnostic, Diagnostics};

/// Looks up an environment variable; tests pass their own.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A configuration's text and its name in messages: the path as the user wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    pub name: String,
    pub text: String,
    /// Whether line numbers mean anything to the reader; not on a command line.
    pub(super) has_lines: bool,
}

impl Source {
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self { name: name.into(), text: text.into(), has_lines: true }
    }

    /// Reads a configuration file.
    ///
    /// # Errors
    /// The file is missing, a directory, not readable, larger than 1 MiB or not UTF-8; the message says which.
    pub fn read(path: &Path) -> Result<Self, Diagnostics> {
        let name = path.display().to_string();
        let bytes = std::fs::read(path).map_err(|error| cannot_read(path, &error))?;
        if bytes.len() > TEXT_BYTES_MAX {
            return Err(too_large(&name, bytes.len()).into());
        }
        let text = String::from_utf8(bytes).map_err(|error| {
            let good = error.utf8_error().valid_up_to();
            let line = error.as_bytes()[..good].split(|byte| *byte == b'\n').count();
            Diagnostic::error(format!(
                "{name} is not UTF-8 text: the first wrong byte is number {good}, in line {line}"
            ))
            .note("save the file in the encoding UTF-8")
        })?;
        Ok(Self::new(name, text))
    }

    /// The number of the line that `span` starts in, from 1.
    pub(super) fn line(&self, span: Span) -> usize {
        let end = self.text.floor_char_boundary(span.start);
        1 + self.text[..end].matches('\n').count()
    }
}

pub(super) fn too_large(name: &str, bytes: usize) -> Diagnostic {
    Diagnostic::error(format!("{name} is too large: {bytes} bytes, at most {TEXT_BYTES_MAX} are read"))
}

/// A range of bytes in a [`Source`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    pub start: usize,
    pub end: usize,
}

/// A value and where it was written; a default points at the section that it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spanned<T> {
    pub(super) value: T,
    pub(super) span: Span,
    /// False for a default.
    pub(super) is_given: bool,
}

/// Reads a file that a configuration names, such as a certificate.
pub(super) fn read_named(path: &Path) -> std::io::Result<Vec<u8>> {
    std::fs::read(path)
}

/// Seconds since 1970, for what has a time in a file that a configuration names.
pub(super) fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs().cast_signed())
}

/// Picks the configuration file: `flag`, `$TRUNKLINE_CONFIG`, `./trunkline.yaml`, `/etc/trunkline/trunkline.yaml`.
///
/// A file that was asked for by name is returned whether it exists or not, so that reading it says what is wrong.
///
/// # Errors
/// None was named and none exists; the message lists the places and shows the smallest file.
pub fn find(flag: Option<&Path>, env: Environment<'_>) -> Result<PathBuf, Diagnostics> {
    find_among(flag, env, &PLACES.map(Path::new))
}

fn find_among(flag: Option<&Path>, env: Environment<'_>, places: &[&Path]) -> Result<PathBuf, Diagnostics> {
    if let Some(path) = flag {
        return Ok(path.to_owned());
    }
    if let Some(path) = env(VARIABLE).filter(|path| !path.is_empty()) {
        return Ok(path.into());
    }
    if let Some(path) = places.iter().find(|path| path.exists()) {
        return Ok(path.to_path_buf());
    }
    let list: Vec<_> = places.iter().map(|path| path.display().to_string()).collect();
    Err(Diagnostic::error("no configuration file found")
        .note(format!("looked at: -c (not given), ${VARIABLE} (not set), {} (not there)", list.join(", ")))
        .note("two lines make one, with your own addresses:")
        .note(format!("printf 'listen: {LISTEN}\\nupstream: {UPSTREAM}\\n' > trunkline.yaml"))
        .note(format!("or without a file: trunkline proxy --listen {LISTEN} --to {UPSTREAM}"))
        .into())
}

fn cannot_read(path: &Path, error: &std::io::Error) -> Diagnostics {
    use std::io::ErrorKind;
    let name = path.display();
    let diagnostic = match error.kind() {
        ErrorKind::NotFound => Diagnostic::error(format!("{name} does not exist"))
            .note(format!("the file comes from -c or ${VARIABLE}; a relative path starts at the working directory")),
        ErrorKind::IsADirectory => Diagnostic::error(format!("{name} is a directory, not a file"))
            .note(format!("write -c {}", path.join("trunkline.yaml").display())),
        ErrorKind::PermissionDenied => {
            Diagnostic::error(format!("{name} may not be read by this user")).note("give the process read permission")
        }
        _ => Diagnostic::error(format!("{name} cannot be read: {error}")),
    };
    diagnostic.into()
}

/// A configuration has a few hundred lines; more than this is another file.
pub(super) const TEXT_BYTES_MAX: usize = 1024 * 1024;

pub const VARIABLE: &str = "TRUNKLINE_CONFIG";
const PLACES: [&str; 2] = ["./trunkline.yaml", "/etc/trunkline/trunkline.yaml"];
const LISTEN: &str = "127.0.0.1:8080";
const UPSTREAM: &str = "h2c://127.0.0.1:9000";

#[cfg(test)]
mod tests {
    use super::*;

    fn text(result: Result<impl std::fmt::Debug, Diagnostics>) -> String {
        result.expect_err("an error").to_string()
    }

    #[test]
    fn flag_wins_over_the_variable_and_the_variable_over_the_places() {
        let here = tempfile::NamedTempFile::new().unwrap();
        let set = |_: &str| Some("from-variable.yaml".to_owned());
        let unset = |_: &str| None;
        let places = [Path::new("/nonexistent/a.yaml"), here.path()];
        assert_eq!(find_among(Some(Path::new("flag.yaml")), &set, &places).unwrap(), Path::new("flag.yaml"));
        assert_eq!(find_among(None, &set, &places).unwrap(), Path::new("from-variable.yaml"));
        assert_eq!(find_among(None, &unset, &places).unwrap(), here.path());
    }

    #[test]
    fn no_file_anywhere_names_the_places_and_shows_how_to_make_one() {
        let said = text(find_among(None, &|_| None, &[Path::new("/nonexistent/a.yaml")]));
        for part in ["-c (not given)", "$TRUNKLINE_CONFIG (not set)", "/nonexistent/a.yaml", "listen: 127.0.0.1:8080"] {
            assert!(said.contains(part), "{part} is not in {said}");
        }
    }

    #[test]
    fn unreadable_files_say_what_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        assert!(text(Source::read(&folder.path().join("a.yaml"))).contains("a.yaml does not exist"));
        assert!(text(Source::read(folder.path())).contains("is a directory, not a file"));
        let latin1 = folder.path().join("latin1.yaml");
        std::fs::write(&latin1, b"listen: a\n# caf\xe9\n").unwrap();
        assert!(
            text(Source::read(&latin1)).contains("is not UTF-8 text: the first wrong byte is number 15, in line 2")
        );
        let large = folder.path().join("large.yaml");
        std::fs::write(&large, vec![b'#'; TEXT_BYTES_MAX + 1]).unwrap();
        assert!(text(Source::read(&large)).contains("is too large: 1048577 bytes"));
    }
}
