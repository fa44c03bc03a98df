//! From a tree of nodes to sections of typed values, one declaration per key.
//!
//! `section!` declares a mapping's keys once: name, type, rule, default, meaning. The struct that the
//! conversion takes apart, the check for unknown keys, the JSON Schema and the printed defaults all come from that
//! declaration, so none of them can forget a key. A default is stated as the text that a user would write and goes
//! through the same rule.
//!
//! A [`Decoder`] never stops at an error: it notes it and goes on with the default.
//!
//! Pure.

use super::diagnostic::{DIAGNOSTICS_MAX, Diagnostic, Diagnostics, nearest};
use super::expand::expand;
use super::source::{Environment, Source, Span, Spanned};
use super::yaml::{Entry, Node, NodeValue};

/// What a value may be, as far as the schema and the printed defaults must know.
pub(super) trait Describe: Sync {
    fn json_schema(&self) -> serde_json::Value;

    /// The keys below, if it is a section or a collection of sections.
    fn shape(&self) -> Shape {
        Shape::Value
    }
}

/// How a key's value is built up.
#[derive(Clone, Copy)]
pub(super) enum Shape {
    Value,
    Section(&'static [Key]),
    /// A list whose items are sections.
    List(&'static [Key]),
    /// A mapping from names to sections.
    Named(&'static [Key]),
    /// A list whose items are a single value or a section.
    Mixed(&'static [Key]),
}

/// A rule that turns what was written into a value.
pub(super) trait Rule: Describe {
    type Value;

    /// `None` after noting in `cx` why.
    fn decode(&self, node: &Node, cx: &mut Decoder<'_>) -> Option<Self::Value>;
}

/// One key of a section.
#[derive(Clone, Copy)]
pub(super) struct Key {
    pub(super) name: &'static str,
    /// What it means, its unit and why; one line or more.
    pub(super) meaning: &'static str,
    pub(super) presence: Presence,
    pub(super) rule: &'static dyn Describe,
}

/// What holds if the key is absent. The text is a default or an example, as it would be written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    Default(&'static str),
    Optional(&'static str),
    Required(&'static str),
    /// Every key below has its own.
    Below,
    /// The same, but to write any of them means something: nothing of the section is a default.
    Apart,
}

/// A mapping with fixed keys, declared by `section!`.
pub(super) trait Section: Sized {
    const KEYS: &'static [Key];

    fn decode(map: &Fields<'_>, cx: &mut Decoder<'_>) -> Self;
}

/// The entries of one mapping.
pub(super) struct Fields<'n> {
    entries: &'n [Entry],
    /// Where to point if something is missing.
    pub(super) span: Span,
    pub(super) is_given: bool,
    /// Keys that were meant by unknown ones: they are not missing as well.
    typos: Vec<&'static str>,
}

impl<'n> Fields<'n> {
    /// Nothing was written.
    pub(super) fn empty(span: Span) -> Self {
        Self { entries: &[], span, is_given: false, typos: Vec::new() }
    }

    fn find(&self, name: &str) -> Option<&'n Entry> {
        self.entries.iter().find(|entry| entry.key == name)
    }
}

/// The state of one decoding: where we are, and what was wrong so far.
pub(super) struct Decoder<'s> {
    source: &'s Source,
    /// `None` leaves `${...}` alone, as on a command line, where the shell has seen it.
    env: Option<Environment<'s>>,
    /// Keys and positions from the root, joined with dots: how messages call the place.
    path: Vec<String>,
    /// Calls a path by another name: the flag that it comes from.
    rename: &'s dyn Fn(&str) -> Option<&'static str>,
    diagnostics: Diagnostics,
    /// Noted but not kept, because there were too many.
    hidden: usize,
    is_muted: bool,
}

impl<'s> Decoder<'s> {
    pub(super) fn new(source: &'s Source, env: Option<Environment<'s>>) -> Self {
        Self {
            source,
            env,
            path: Vec::new(),
            rename: &|_| None,
            diagnostics: Diagnostics::default(),
            hidden: 0,
            is_muted: false,
        }
    }

    pub(super) fn renaming(mut self, rename: &'s dyn Fn(&str) -> Option<&'static str>) -> Self {
        self.rename = rename;
        self
    }

    /// All that was noted, in the order of the text.
    pub(super) fn finish(mut self) -> Diagnostics {
        self.diagnostics.sort();
        if self.hidden > 0 {
            self.diagnostics.list.push(Diagnostic::warning(format!("{} more are not shown", self.hidden)));
        }
        self.diagnostics
    }

    /// Notes an error at `span`, which the current path names.
    pub(super) fn error(&mut self, span: Span, message: &str, label: impl Into<String>) {
        let path = self.path();
        self.note(span, Diagnostic::error(format!("{path}: {message}")).label(label));
    }

    pub(super) fn note(&mut self, span: Span, diagnostic: Diagnostic) {
        if self.is_muted {
            return;
        }
        // Counted apart: no number of warnings may hide an error.
        if self.diagnostics.count(diagnostic.severity) < DIAGNOSTICS_MAX {
            self.diagnostics.list.push(diagnostic.at(self.source, span));
        } else {
            self.hidden += 1;
        }
    }

    pub(super) fn line(&self, span: Span) -> usize {
        self.source.line(span)
    }

    pub(super) fn has_lines(&self) -> bool {
        self.source.has_lines
    }

    /// How the current place is called: `upstreams.api.pool`.
    pub(super) fn path(&self) -> String {
        let mut path = String::new();
        for part in &self.path {
            if !path.is_empty() && !part.starts_with('[') {
                path.push('.');
            }
            path.push_str(part);
        }
        self.call(&path)
    }

    /// How `path` is called where it was written.
    pub(super) fn call(&self, path: &str) -> String {
        (self.rename)(path).unwrap_or(path).to_owned()
    }

    /// Goes one level down for the time of `work`.
    pub(super) fn within<T>(&mut self, part: impl Into<String>, work: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(part.into());
        let result = work(self);
        self.path.pop();
        result
    }

    /// The text of a single value, variables replaced; `wanted` completes "expected ...".
    pub(super) fn text(&mut self, node: &Node, wanted: &str) -> Option<String> {
        let NodeValue::Scalar(text) = &node.value else {
            self.error(node.span, &format!("found {}", node.what()), format!("expected {wanted}"));
            return None;
        };
        let Some(env) = self.env else {
            return Some(text.clone());
        };
        match expand(text, env) {
            Ok(text) => Some(text.into_owned()),
            Err(failure) => {
                self.error(node.span, &failure.message, failure.advice);
                None
            }
        }
    }

    /// The entries of a mapping whose keys are free; nothing written is an empty one.
    pub(super) fn entries<'n>(&mut self, node: &'n Node, wanted: &str) -> Option<&'n [Entry]> {
        match &node.value {
            NodeValue::Map(entries) => Some(entries),
            NodeValue::Null => Some(&[]),
            NodeValue::Scalar(_) | NodeValue::List(_) => {
                self.error(node.span, &format!("found {}", node.what()), format!("expected {wanted}"));
                None
            }
        }
    }

    /// The items of a list; a list must not be empty, because then the key means nothing.
    /// `or` is what else may be done about that.
    pub(super) fn items<'n>(&mut self, node: &'n Node, wanted: &str, or: &str) -> Option<&'n [Node]> {
        match &node.value {
            NodeValue::List(items) if items.is_empty() => {
                self.error(node.span, "the list is empty", format!("give at least one {wanted}{or}"));
                None
            }
            NodeValue::List(items) => Some(items),
            NodeValue::Null | NodeValue::Scalar(_) | NodeValue::Map(_) => {
                self.error(node.span, &format!("found {}", node.what()), format!("expected a list: [{wanted}, ...]"));
                None
            }
        }
    }

    /// Decodes a section, noting each key that it does not have.
    pub(super) fn section<S: Section>(&mut self, node: &Node, span: Span) -> S {
        self.section_with(node, span, false)
    }

    /// As [`Decoder::section`]; with `is_given` the section counts as written although nothing is in it.
    fn section_with<S: Section>(&mut self, node: &Node, span: Span, is_given: bool) -> S {
        let entries = match &node.value {
            NodeValue::Map(entries) => entries.as_slice(),
            // A key whose children are all commented out is as good as absent.
            NodeValue::Null => &[],
            NodeValue::Scalar(_) | NodeValue::List(_) => {
                let words = names::<S>().collect::<Vec<_>>().join(", ");
                let path = self.path();
                let subject = if path.is_empty() { "the configuration".to_owned() } else { path };
                let error = Diagnostic::error(format!("{subject}: found {}", node.what()));
                self.note(node.span, error.label(format!("expected a mapping with the keys {words}")));
                return S::decode(&Fields::empty(span), &mut Decoder::muted(self));
            }
        };
        let mut typos = Vec::new();
        for entry in entries {
            if S::KEYS.iter().all(|key| key.name != entry.key) {
                let path = self.path();
                let whole = if path.is_empty() { "at the top level".to_owned() } else { format!("in {path}") };
                let error = Diagnostic::error(format!("unknown key `{}` {whole}", entry.key));
                self.note(entry.key_span, error.allowed(&entry.key, names::<S>()));
                typos.extend(nearest(&entry.key, names::<S>()));
            }
        }
        S::decode(&Fields { entries, span, is_given: is_given || !entries.is_empty(), typos }, self)
    }

    /// Decodes without noting anything: what is missing has been said in other words.
    pub(super) fn muted(of: &Self) -> Self {
        Self { is_muted: true, ..Self::new(of.source, of.env) }
    }

    pub(super) fn field_section<S: Section>(&mut self, map: &Fields<'_>, name: &str) -> S {
        self.within(name, |cx| match map.find(name) {
            Some(entry) => cx.section(&entry.node, entry.key_span),
            None => S::decode(&Fields::empty(map.span), cx),
        })
    }

    /// As [`Decoder::field_section`], for a section whose presence alone means something: an empty one is not absent.
    pub(super) fn field_apart<S: Section>(&mut self, map: &Fields<'_>, name: &str) -> S {
        self.within(name, |cx| match map.find(name) {
            Some(entry) => cx.section_with(&entry.node, entry.key_span, true),
            None => S::decode(&Fields::empty(map.span), cx),
        })
    }

    pub(super) fn field_optional<R: Rule>(
        &mut self,
        map: &Fields<'_>,
        name: &str,
        rule: &R,
    ) -> Option<Spanned<R::Value>> {
        let entry = map.find(name)?;
        let value = self.within(name, |cx| rule.decode(&entry.node, cx))?;
        let span = if matches!(entry.node.value, NodeValue::Scalar(_)) { entry.node.span } else { entry.key_span };
        Some(Spanned { value, span, is_given: true })
    }

    /// `None` has been noted, either as missing or as wrong.
    pub(super) fn field_required<R: Rule>(
        &mut self,
        map: &Fields<'_>,
        name: &str,
        example: &str,
        rule: &R,
    ) -> Option<Spanned<R::Value>> {
        if map.find(name).is_none() && !map.typos.contains(&name) {
            let path = self.path();
            let error = Diagnostic::error(format!("{path}: the key `{name}` is missing"));
            self.note(map.span, error.label(format!("add `{name}: {example}`")));
        }
        self.field_optional(map, name, rule)
    }

    pub(super) fn field_default<R: Rule>(
        &mut self,
        map: &Fields<'_>,
        name: &str,
        default: &str,
        rule: &R,
    ) -> Spanned<R::Value> {
        self.field_optional(map, name, rule).unwrap_or_else(|| {
            let value = rule.decode(&Node::scalar(default, map.span), &mut Decoder::muted(self));
            Spanned { value: value.expect("defaults obey their rules"), span: map.span, is_given: false }
        })
    }
}

pub(super) fn names<S: Section>() -> impl Iterator<Item = &'static str> {
    S::KEYS.iter().map(|key| key.name)
}
