//! Errors and warnings about a configuration: where, what was found, what is allowed, the nearest right word.
//!
//! A [`Diagnostic`] owns all that it shows, so that it outlives the text it points into. The rendered form is
//! the one that compilers taught everybody to read:
//!
//! ```text
//! error: unknown key `max_conections` in upstreams.api.pool
//!   --> trunkline.yaml:14:7
//!    |
//! 14 |       max_conections: 4
//!    |       ^^^^^^^^^^^^^^ did you mean `max_connections`?
//! ```
//!
//! Pure: renders to a string and to JSON; printing is the caller's.

use std::fmt::{self, Write as _};

use serde_json::{Value, json};

use super::source::{Source, Span};

/// Whether the configuration can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Severity {
    Error,
    Warning,
}

impl Severity {
    /// The word in both renderings.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// One thing that is wrong, or looks wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    pub severity: Severity,
    /// One line: what was found, and in which part of the configuration.
    pub message: String,
    /// `None` if there is no text to point at, as when the file is missing.
    pub place: Option<Place>,
    /// Follows the carets: what to write instead.
    pub label: Option<String>,
    /// All words that would be right here, if they can be listed.
    pub allowed: Vec<String>,
    /// Further lines below the snippet.
    pub notes: Vec<String>,
}

impl Diagnostic {
    pub fn error(message: impl Into<String>) -> Self {
        let message = message.into();
        Self { severity: Severity::Error, message, place: None, label: None, allowed: Vec::new(), notes: Vec::new() }
    }

    pub fn warning(message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(message) }
    }

    #[must_use]
    pub fn at(mut self, source: &Source, span: Span) -> Self {
        self.place = Some(Place::of(source, span));
        self
    }

    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// States the right words; the nearest one to `found` becomes the label.
    #[must_use]
    pub fn allowed<'a>(mut self, found: &str, words: impl IntoIterator<Item = &'a str>) -> Self {
        self.allowed = words.into_iter().map(str::to_owned).collect();
        if let Some(word) = nearest(found, self.allowed.iter().map(String::as_str)) {
            self.label = Some(format!("did you mean `{word}`?"));
        }
        self
    }

    /// Writes the human form, ending in a line feed.
    fn render(&self, out: &mut String, colour: bool) -> fmt::Result {
        let paint = Paint::of(self.severity, colour);
        writeln!(out, "{}{}{}: {}{}", paint.severity, self.severity.word(), paint.text, self.message, paint.end)?;
        let mut gutter = 0;
        if let Some(place) = &self.place {
            let number = place.line.map_or(String::new(), |line| line.to_string());
            gutter = number.len().max(1);
            let (rule, end) = (paint.rule, paint.end);
            writeln!(out, "{:gutter$}{rule}-->{end} {place}", "")?;
            writeln!(out, "{:gutter$} {rule}|{end}", "")?;
            writeln!(out, "{rule}{number:gutter$} |{end} {}", place.text)?;
            let (indent, width) = (place.offset, place.width);
            write!(out, "{:gutter$} {rule}|{end} {:indent$}{}{:^<width$}", "", "", paint.severity, "")?;
            if let Some(label) = &self.label {
                write!(out, " {label}")?;
            }
            writeln!(out, "{end}")?;
        } else if let Some(label) = &self.label {
            writeln!(out, "  = {label}")?;
        }
        // With a near word the list would only hide it.
        if !self.allowed.is_empty() && !self.label.as_ref().is_some_and(|label| label.starts_with("did you mean")) {
            writeln!(out, "{:gutter$} = allowed: {}", "", self.allowed.join(", "))?;
        }
        for note in &self.notes {
            writeln!(out, "{:gutter$} = {note}", "")?;
        }
        Ok(())
    }

    fn to_json(&self) -> Value {
        let Self { severity, message, place, label, allowed, notes } = self;
        json!({
            "severity": severity.word(),
            "message": message,
            "place": place.as_ref().map(|Place { source, line, column, text, offset: _, width }| json!({
                "source": source, "line": line, "column": column, "width": width, "text": text,
            })),
            "label": label,
            "allowed": allowed,
            "notes": notes,
        })
    }
}

/// A range on one line of a named text, with the line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub source: String,
    /// From 1; `None` where lines mean nothing (a command line).
    pub line: Option<usize>,
    /// From 1, in characters.
    pub column: usize,
    /// The line, cut around the range if it is very long, without control characters.
    pub text: String,
    /// Characters of `text` before the range.
    pub offset: usize,
    /// Characters in the range, at least 1.
    pub width: usize,
}

impl Place {
    fn of(source: &Source, span: Span) -> Self {
        let text = source.text.as_str();
        let start = text.floor_char_boundary(span.start);
        let end = text.floor_char_boundary(span.end).max(start);
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let characters: Vec<char> = text[line_start..line_end].trim_end_matches('\r').chars().map(visible).collect();
        let before = text[line_start..start].chars().count();
        let width = text[start..end.min(line_end)].trim_end().chars().count();

        let first = if before + width > LINE_CHARACTERS_MAX { before.saturating_sub(20) } else { 0 };
        let shown: Vec<char> = characters.into_iter().skip(first).take(LINE_CHARACTERS_MAX).collect();
        let offset = before - first;
        Self {
            source: source.name.clone(),
            line: source.has_lines.then(|| source.line(span)),
            column: before + 1,
            width: width.min(shown.len().saturating_sub(offset)).max(1),
            text: shown.into_iter().collect::<String>().trim_end().to_owned(),
            offset,
        }
    }
}

/// `source:line:column`.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}:{}", self.source, self.column),
            None => f.write_str(&self.source),
        }
    }
}

/// All that was found in one configuration, in the order of its text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Diagnostics {
    pub list: Vec<Diagnostic>,
}

impl Diagnostics {
    pub fn has_errors(&self) -> bool {
        self.list.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
    }

    pub fn count(&self, severity: Severity) -> usize {
        self.list.iter().filter(|diagnostic| diagnostic.severity == severity).count()
    }

    /// Renders for people, ending in a line feed; `colour` only if a terminal reads it.
    pub fn render(&self, colour: bool) -> String {
        let mut out = String::new();
        for (position, diagnostic) in self.list.iter().enumerate() {
            if position > 0 {
                out.push('\n');
            }
            diagnostic.render(&mut out, colour).expect("writing to a string cannot fail");
        }
        out
    }

    /// Renders for programs. The field names are stable; new ones may be added.
    pub fn to_json(&self) -> Value {
        json!({
            "errors": self.count(Severity::Error),
            "warnings": self.count(Severity::Warning),
            "diagnostics": self.list.iter().map(Diagnostic::to_json).collect::<Vec<_>>(),
        })
    }

    pub(super) fn sort(&mut self) {
        self.list.sort_by_key(|found| found.place.as_ref().map(|place| (place.line, place.column)));
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.render(false).trim_end())
    }
}

impl std::error::Error for Diagnostics {}

impl From<Diagnostic> for Diagnostics {
    fn from(diagnostic: Diagnostic) -> Self {
        Self { list: vec![diagnostic] }
    }
}

/// The word that was most likely meant: few edits away for its length.
pub(super) fn nearest<'w>(found: &str, words: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    let found = found.to_ascii_lowercase();
    // Edit distance is quadratic, and nothing that long is a slip of the finger.
    if found.len() > 64 {
        return None;
    }
    let edits = |word: &str| {
        let edits = strsim::damerau_levenshtein(&found, &word.to_ascii_lowercase());
        // Half a word, or a word and its ending: `warning` for `warn`.
        let is_part = found.len() >= 3 && (found.starts_with(word) || word.starts_with(&found));
        let is_near = edits <= (word.len().max(found.len()) / 3).max(1);
        (is_near || is_part).then_some(edits)
    };
    let near = words.into_iter().filter_map(|word| Some((edits(word)?, word)));
    near.min_by_key(|(edits, _)| *edits).map(|(_, word)| word)
}

fn visible(character: char) -> char {
    if character == '\t' {
        ' '
    } else if character.is_control() {
        char::REPLACEMENT_CHARACTER
    } else {
        character
    }
}

struct Paint {
    severity: &'static str,
    text: &'static str,
    rule: &'static str,
    end: &'static str,
}

impl Paint {
    fn of(severity: Severity, colour: bool) -> Self {
        if !colour {
            return Self { severity: "", text: "", rule: "", end: "" };
        }
        let severity = match severity {
            Severity::Error => "\x1b[1;31m",
            Severity::Warning => "\x1b[1;33m",
        };
        Self { severity, text: "\x1b[0;1m", rule: "\x1b[1;34m", end: "\x1b[0m" }
    }
}

/// After so many the reader starts again anyway; it also bounds the work on a hostile text.
pub(super) const DIAGNOSTICS_MAX: usize = 100;
/// Of a longer line only the part around the range is shown.
const LINE_CHARACTERS_MAX: usize = 160;

#[cfg(test)]
mod tests {
    use super::*;

    fn pointing(text: &str, part: &str) -> Diagnostic {
        let start = text.find(part).unwrap();
        let source = Source::new("trunkline.yaml", text);
        Diagnostic::error("unknown key `max_conections` in upstreams.api.pool")
            .at(&source, Span { start, end: start + part.len() })
            .allowed(part, ["min_connections", "max_connections", "max_pending"])
    }

    #[test]
    fn rendered_error_has_the_form_of_the_manual() {
        let text = format!("{}      max_conections: 4\n", "\n".repeat(13));
        let shown = Diagnostics::from(pointing(&text, "max_conections")).render(false);
        assert_eq!(
            shown,
            "\
error: unknown key `max_conections` in upstreams.api.pool
  --> trunkline.yaml:14:7
   |
14 |       max_conections: 4
   |       ^^^^^^^^^^^^^^ did you mean `max_connections`?
"
        );
    }

    #[test]
    fn words_far_from_all_allowed_ones_list_them_instead_of_guessing() {
        let shown = Diagnostics::from(pointing("pool: {zebra: 1}", "zebra")).render(false);
        assert!(
            shown.ends_with("  | \u{20}      ^^^^^\n  = allowed: min_connections, max_connections, max_pending\n"),
            "{shown}"
        );
    }

    #[test]
    fn columns_count_characters_and_escapes_never_reach_the_terminal() {
        let place = pointing("é\x1b[31m\tkey: 1\r\n", "key").place.unwrap();
        assert_eq!((place.line, place.column, place.width), (Some(1), 8, 3));
        assert_eq!(place.text, "é\u{fffd}[31m key: 1");
    }

    #[test]
    fn long_lines_are_cut_around_the_range() {
        let place = pointing(&format!("{}key{}", "a".repeat(5000), "b".repeat(5000)), "key").place.unwrap();
        assert_eq!((place.column, place.offset, place.width, place.text.len()), (5001, 20, 3, 160));
    }

    #[test]
    fn colour_is_only_written_when_asked_for() {
        let all = Diagnostics::from(pointing("key", "key"));
        assert!(!all.render(false).contains('\x1b'));
        assert!(all.render(true).starts_with("\x1b[1;31merror\x1b[0;1m: "));
    }

    #[test]
    fn json_field_names_are_stable() {
        let all = Diagnostics::from(pointing("max_conections: 4", "max_conections"));
        assert_eq!(
            all.to_json(),
            json!({"errors": 1, "warnings": 0, "diagnostics": [{
                "severity": "error",
                "message": "unknown key `max_conections` in upstreams.api.pool",
                "place": {"source": "trunkline.yaml", "line": 1, "column": 1, "width": 14, "text": "max_conections: 4"},
                "label": "did you mean `max_connections`?",
                "allowed": ["min_connections", "max_connections", "max_pending"],
                "notes": [],
            }]})
        );
    }
}
