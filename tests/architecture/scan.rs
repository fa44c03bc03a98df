//! A source file, and the module paths that its code names.
//!
//! A scanner and no parser: comments, strings and the tests at the bottom are blanked, then every path that
//! begins with `crate::`, `super::`, `self::` or `trunkline::` is followed, through braces too.

use std::path::Path;

pub struct Source {
    /// Relative to `src/`, with `/`.
    pub path: String,
    /// `["worker", "pool"]` for `worker/pool.rs`.
    pub module: Vec<String>,
    /// The text with comments, strings and tests blanked; lines are kept.
    code: String,
}

/// A path from the crate's root that is named in a file.
#[derive(Debug, PartialEq, Eq)]
pub struct Import {
    pub line: usize,
    pub path: Vec<String>,
}

impl Source {
    pub fn new(path: &Path, text: &str) -> Self {
        let module = path.with_extension("");
        let module = module.iter().map(|part| part.to_string_lossy().into_owned()).filter(|part| part != "mod");
        Self { path: path.to_string_lossy().replace('\\', "/"), module: module.collect(), code: code(text) }
    }

    /// The top-level module.
    pub fn top(&self) -> &str {
        &self.module[0]
    }

    pub fn name(&self) -> String {
        self.module.join("::")
    }

    /// Every path into this crate, in the order of the text.
    pub fn imports(&self) -> Vec<Import> {
        let is_root = matches!(self.top(), "lib" | "main");
        let here = if is_root { &[][..] } else { &self.module };
        let parent = &here[..here.len().saturating_sub(1)];
        let mut imports = Vec::new();
        for (start, base) in [("crate::", &[][..]), ("trunkline::", &[]), ("self::", here), ("super::", parent)] {
            for (at, _) in self.code.match_indices(start).filter(|(at, _)| is_path_start(&self.code, *at)) {
                follow(&self.code, at + start.len(), base.to_vec(), &mut imports);
            }
        }
        imports.sort_by_key(|import| import.line);
        imports
    }

    /// The lines that name `word` as a whole word.
    pub fn lines_with(&self, word: &str) -> Vec<usize> {
        let is_whole =
            |line: &str, at: usize| !line[..at].ends_with(is_word) && !line[at + word.len()..].starts_with(is_word);
        let lines = self.code.lines().enumerate();
        lines
            .filter(|(_, line)| line.match_indices(word).any(|(at, _)| is_whole(line, at)))
            .map(|(number, _)| number + 1)
            .collect()
    }
}

/// Reads the path at `at`, which goes on from `path`, and each of a group; returns where it ends.
fn follow(code: &str, mut at: usize, mut path: Vec<String>, imports: &mut Vec<Import>) -> usize {
    let start = at;
    loop {
        at += code[at..].len() - code[at..].trim_start().len();
        let line = code[..at].matches('\n').count() + 1;
        let rest = &code[at..];
        if rest.starts_with('{') {
            at += 1;
            loop {
                at = follow(code, at, path.clone(), imports);
                let end = at + code[at..].find([',', '}']).unwrap_or(code.len() - at);
                let is_more = code[end..].starts_with(',');
                at = (end + 1).min(code.len());
                if !is_more {
                    return at;
                }
            }
        }
        let word = &rest[..rest.find(|next: char| !is_word(next)).unwrap_or(rest.len())];
        match word {
            "super" => _ = path.pop(),
            "self" | "" => {}
            _ => path.push(word.to_owned()),
        }
        at += word.len();
        if code[at..].starts_with("::") && !word.is_empty() {
            at += 2;
            continue;
        }
        // An empty place after a group's last comma is no import.
        if !word.is_empty() || rest.starts_with('*') || at == start {
            let is_blank = word.is_empty() && rest.starts_with('}');
            if !is_blank {
                imports.push(Import { line, path });
            }
        }
        return at;
    }
}

/// Blanks comments, string contents, and all from `#[cfg(test)]` on (tests are at the bottom of a file).
fn code(text: &str) -> String {
    let text = &text[..text.find("#[cfg(test)]").unwrap_or(text.len())];
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skipped = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            '"' => string_bytes(rest),
            '\'' if rest.starts_with("'\"'") => 3,
            _ => 0,
        };
        let taken = if skipped == 0 { first.len_utf8() } else { skipped };
        if skipped == 0 {
            code.push(first);
        } else {
            code.extend(rest[..skipped].chars().filter(|skipped| *skipped == '\n'));
        }
        rest = &rest[taken..];
    }
    code
}

/// The length of the string literal at the start of `text`; a raw string's hashes do not matter for words.
fn string_bytes(text: &str) -> usize {
    let mut is_escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn is_path_start(text: &str, at: usize) -> bool {
    !text[..at].ends_with(|before: char| is_word(before) || before == ':')
}

fn is_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

mod tests {
    use super::*;

    #[test]
    fn groups_and_nesting_are_followed() {
        let text = "use crate::{a, b::{self, C}, d::*,};\npub(super) fn f(x: super::super::e::F) {}\n";
        let source = Source::new(Path::new("x/y/z.rs"), text);
        let imports: Vec<_> =
            source.imports().into_iter().map(|import| (import.line, import.path.join("::"))).collect();
        let expected = [(1, "a"), (1, "b"), (1, "b::C"), (1, "d"), (2, "x::e::F")];
        assert_eq!(imports, expected.map(|(line, path)| (line, path.to_owned())));
    }

    #[test]
    fn comments_strings_and_tests_are_blank() {
        let text = "// crate::a\n/* crate::b */ let s = \"\\\"crate::c\";\nuse crate::d;\n#[cfg(test)]\nuse crate::e;";
        let imports = Source::new(Path::new("x.rs"), text).imports();
        assert_eq!(imports, [Import { line: 3, path: vec!["d".to_owned()] }]);
    }
}
