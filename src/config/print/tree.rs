//! YAML on its way out: how values, lists and mappings are written so that they are read as the same.
//!
//! Pure.

use std::fmt::Write as _;

/// YAML on its way out.
pub(super) enum Tree {
    Text(String),
    /// Single values on one line.
    Line(Vec<String>),
    List(Vec<Tree>),
    Map(Vec<(String, Tree)>),
}

pub(super) fn text(value: impl Into<String>) -> Tree {
    Tree::Text(value.into())
}

pub(super) fn map<'k>(entries: impl IntoIterator<Item = (&'k str, Tree)>) -> Tree {
    Tree::Map(entries.into_iter().map(|(key, tree)| (key.to_owned(), tree)).collect())
}

impl Tree {
    /// Writes from where the cursor stands; nested lines are indented by `indent`.
    pub(super) fn write(&self, out: &mut String, indent: usize) {
        match self {
            Self::Text(value) => out.push_str(&scalar(value)),
            Self::Line(values) => {
                let values: Vec<_> = values.iter().map(|value| scalar(value)).collect();
                write!(out, "[{}]", values.join(", ")).expect("writing to a string cannot fail");
            }
            Self::List(items) => {
                for (position, item) in items.iter().enumerate() {
                    start_line(out, position, indent);
                    out.push_str("- ");
                    item.write(out, indent + 2);
                }
            }
            Self::Map(entries) => {
                for (position, (key, value)) in entries.iter().enumerate() {
                    start_line(out, position, indent);
                    out.push_str(&quote(key));
                    match value {
                        Self::Text(_) | Self::Line(_) => {
                            out.push_str(": ");
                            value.write(out, indent);
                        }
                        Self::List(_) | Self::Map(_) => {
                            writeln!(out, ":\n{:1$}", "", indent + 2).expect("writing to a string cannot fail");
                            out.pop();
                            value.write(out, indent + 2);
                        }
                    }
                }
            }
        }
        if matches!(self, Self::Text(_) | Self::Line(_)) {
            out.push('\n');
        }
    }
}

/// The first line of a collection is already indented by what it stands in.
fn start_line(out: &mut String, position: usize, indent: usize) {
    if position > 0 {
        out.extend(std::iter::repeat_n(' ', indent));
    }
}

/// A value: a dollar is doubled, because reading replaces `${...}` in values, but not in keys.
fn scalar(value: &str) -> String {
    quote(&value.replace('$', "$$"))
}

/// Quotes what YAML would read as anything but the same text.
fn quote(value: &str) -> String {
    let is_plain = value.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/')
        && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_./:-".contains(&byte))
        && !value.ends_with(':')
        && !["null", "true", "false", "yes", "no", "on", "off"].contains(&value.to_ascii_lowercase().as_str());
    if is_plain {
        return value.to_owned();
    }
    let mut out = String::from('"');
    for character in value.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            ' '..='~' => out.push(character),
            _ => write!(out, "\\U{:08x}", u32::from(character)).expect("writing to a string cannot fail"),
        }
    }
    out.push('"');
    out
}
