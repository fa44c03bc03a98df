//! YAML text into a tree that knows where everything was written.
//!
//! The only module that knows the YAML parser. It promises a bounded tree: one document, no duplicate keys,
//! plain string keys, no tags, and no more nodes than a configuration can need, however often an alias repeats
//! them. A syntax error ends the reading, so it is always alone; everything later is collected.
//!
//! Pure. YAML 1.2.2.

use std::collections::HashMap;

use granit_parser::{Event, Parser, ScalarStyle, ScanError};

use super::diagnostic::{DIAGNOSTICS_MAX, Diagnostic, Diagnostics};
use super::source::{Source, Span, TEXT_BYTES_MAX, too_large};

/// A value as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    /// Of a collection: its first entry's key or its opening bracket, which is what an error underlines.
    pub(super) span: Span,
    pub(super) value: NodeValue,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NodeValue {
    /// Nothing after the key, `~` or `null`.
    Null,
    /// Any other scalar: YAML's own types mean nothing here, the schema decides.
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_span: Span,
    pub(super) node: Node,
}

impl Node {
    pub(super) fn scalar(text: impl Into<String>, span: Span) -> Self {
        Self { span, value: NodeValue::Scalar(text.into()) }
    }

    /// What it is, for "found ...".
    pub(super) fn what(&self) -> &'static str {
        match self.value {
            NodeValue::Null => "nothing",
            NodeValue::Scalar(_) => "a single value",
            NodeValue::List(_) => "a list",
            NodeValue::Map(_) => "a mapping",
        }
    }

    fn count(&self) -> usize {
        1 + match &self.value {
            NodeValue::Null | NodeValue::Scalar(_) => 0,
            NodeValue::List(items) => items.iter().map(Self::count).sum(),
            NodeValue::Map(entries) => entries.iter().map(|entry| 1 + entry.node.count()).sum(),
        }
    }
}

/// Reads one document; an empty one is [`NodeValue::Null`].
pub(super) fn parse(source: &Source) -> Result<Node, Diagnostics> {
    if source.text.len() > TEXT_BYTES_MAX {
        return Err(too_large(&source.name, source.text.len()).into());
    }
    let body = source.text.strip_prefix('\u{feff}').unwrap_or(&source.text);
    let options = granit_parser::options! {
        emit_comments: false, disallow_directives: true, flow_nesting_limit: DEPTH_MAX, block_nesting_limit: DEPTH_MAX,
    };
    let mut tree = Tree { source, offset: source.text.len() - body.len(), ..Tree::new(source) };
    for event in Parser::new_from_str_with_options(body, options) {
        match event {
            Ok((event, span)) => tree.take(event, span)?,
            Err(error) => return Err(tree.syntax(&error).into()),
        }
    }
    if !tree.diagnostics.list.is_empty() {
        return Err(tree.diagnostics);
    }
    Ok(tree.root.unwrap_or(Node { span: Span::default(), value: NodeValue::Null }))
}

/// The tree while it grows.
struct Tree<'s> {
    source: &'s Source,
    /// Bytes of the byte order mark, which the parser does not see.
    offset: usize,
    root: Option<Node>,
    open: Vec<Open>,
    anchors: Vec<(usize, Node)>,
    nodes: usize,
    documents: usize,
    diagnostics: Diagnostics,
}

/// A collection whose end has not come yet.
struct Open {
    node: Node,
    anchor: usize,
    /// The key that waits for its value.
    key: Option<(String, Span)>,
    /// The keys of a mapping so far, for finding duplicates in a long one.
    keys: HashMap<String, Span>,
}

impl<'s> Tree<'s> {
    fn new(source: &'s Source) -> Self {
        Self {
            source,
            offset: 0,
            root: None,
            open: Vec::new(),
            anchors: Vec::new(),
            nodes: 0,
            documents: 0,
            diagnostics: Diagnostics::default(),
        }
    }

    fn take(&mut self, event: Event<'_>, at: granit_parser::Span) -> Result<(), Diagnostics> {
        let span = self.span(at);
        let tag = event.tag().map(|tag| (tag.original(), at.tag_span().map_or(span, |tag| self.span(tag))));
        if let Some((tag, span)) = tag {
            return Err(self.error(span, format!("tag `{tag}` is not supported")).label("remove it").into());
        }
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    let message = "a second document begins here; a configuration is one document";
                    return Err(self.error(span, message).label("remove it, or put it into a file of its own").into());
                }
            }
            Event::Scalar(text, style, anchor, _) => {
                let is_block = matches!(style, ScalarStyle::Literal | ScalarStyle::Folded);
                let text = if is_block { text.trim_end_matches('\n').into() } else { text };
                let is_null = style == ScalarStyle::Plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                let value = if is_null { NodeValue::Null } else { NodeValue::Scalar(text.into_owned()) };
                return self.place(Node { span, value }, anchor);
            }
            Event::SequenceStart(_, anchor, _) => self.enter(span, NodeValue::List(Vec::new()), anchor),
            Event::MappingStart(_, anchor, _) => self.enter(span, NodeValue::Map(Vec::new()), anchor),
            Event::SequenceEnd | Event::MappingEnd => {
                let mut open = self.open.pop().expect("the parser closes only what it opened");
                if let NodeValue::Map(entries) = &open.node.value
                    && let Some(first) = entries.first()
                {
                    open.node.span = first.key_span;
                }
                return self.place(open.node, open.anchor);
            }
            Event::Alias(anchor) => {
                let Some((_, node)) = self.anchors.iter().find(|(id, _)| *id == anchor) else {
                    return Err(self.error(span, "an alias cannot stand inside its own anchor").into());
                };
                let node = node.clone();
                self.count(node.count(), span)?;
                return self.place(node, 0);
            }
            // Stream marks, and what the options above switch off.
            _ => {}
        }
        Ok(())
    }

    fn count(&mut self, more: usize, span: Span) -> Result<(), Diagnostics> {
        self.nodes += more;
        if self.nodes > NODES_MAX {
            let message = format!("more than {NODES_MAX} values, counting each repetition by an alias");
            return Err(self.error(span, message).into());
        }
        Ok(())
    }

    fn enter(&mut self, span: Span, value: NodeValue, anchor: usize) {
        // A block collection's range runs to its end; only where it starts is worth showing.
        let span = Span { start: span.start, end: span.end.min(span.start + 1) };
        self.open.push(Open { node: Node { span, value }, anchor, key: None, keys: HashMap::new() });
    }

    /// Puts a finished node where it belongs: a key, a key's value, a list's item, or the root.
    fn place(&mut self, node: Node, anchor: usize) -> Result<(), Diagnostics> {
        self.count(1, node.span)?;
        if anchor != 0 {
            self.anchors.push((anchor, node.clone()));
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        let entries = match &mut open.node.value {
            NodeValue::List(items) => {
                items.push(node);
                return Ok(());
            }
            NodeValue::Map(entries) => entries,
            NodeValue::Null | NodeValue::Scalar(_) => unreachable!("scalars are never opened"),
        };
        if let Some((key, key_span)) = open.key.take() {
            let message = format!("key `{key}` is given twice");
            // What is not there cannot be underlined.
            let span = if node.value == NodeValue::Null { key_span } else { node.span };
            let node = Node { span, ..node };
            let earlier = open.keys.insert(key.clone(), key_span);
            entries.push(Entry { key, key_span, node });
            if let Some(earlier) = earlier.filter(|_| self.diagnostics.list.len() < DIAGNOSTICS_MAX) {
                let line = self.source.line(earlier);
                let error = self.error(key_span, message).label(format!("first given in line {line}"));
                self.diagnostics.list.push(error);
            }
            return Ok(());
        }
        match node.value {
            NodeValue::Scalar(text) if text == "<<" => {
                let error = self.error(node.span, "merge keys (`<<`) are not supported");
                Err(error.label("repeat the keys, or use an alias for the whole mapping").into())
            }
            NodeValue::Scalar(text) => {
                open.key = Some((text, node.span));
                Ok(())
            }
            _ => {
                let found = node.what();
                Err(self.error(node.span, format!("a key must be a word, found {found}")).into())
            }
        }
    }

    fn span(&self, at: granit_parser::Span) -> Span {
        let start = self.offset + at.start.byte_offset().unwrap_or(0);
        let end = self.offset + at.end.byte_offset().unwrap_or(0);
        Span { start, end: end.max(start) }
    }

    fn error(&self, span: Span, message: impl Into<String>) -> Diagnostic {
        Diagnostic::error(message).at(self.source, span)
    }

    fn syntax(&self, error: &ScanError) -> Diagnostic {
        let start = self.offset + error.marker().byte_offset().unwrap_or(0);
        let diagnostic = self.error(Span { start, end: start + 1 }, format!("not valid YAML: {}", error.info()));
        let line = diagnostic.place.as_ref().map_or("", |place| place.text.as_str());
        let before = &self.source.text[..self.source.text.floor_char_boundary(start)];
        let raw = &self.source.text[before.rfind('\n').map_or(0, |at| at + 1)..];
        let indent = &raw[..raw.len() - raw.trim_start_matches([' ', '\t']).len()];
        if indent.contains('\t') {
            diagnostic.label("indent with spaces; YAML does not allow tabs there")
        } else if line.contains("${") && line.contains(['{', '[']) {
            diagnostic.note("inside { } or [ ] a value with ${...} needs quotes: \"${NAME}\"")
        } else {
            diagnostic
        }
    }
}

/// Levels of nesting; the deepest key of the schema is at 7.
const DEPTH_MAX: usize = 32;
/// Values and keys. 1 MiB of text holds more only if it is no configuration.
const NODES_MAX: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        parse(&Source::new("t.yaml", text)).expect_err("an error").to_string()
    }

    #[test]
    fn spans_cover_keys_and_values_exactly_after_other_alphabets_and_a_byte_order_mark() {
        let source = Source::new("t.yaml", "\u{feff}# größe\nname: 'ß x' # c\nlist: [a, {b: c}]\n");
        let NodeValue::Map(entries) = parse(&source).unwrap().value else { panic!("a mapping") };
        let text = |span: Span| &source.text[span.start..span.end];
        assert_eq!((text(entries[0].key_span), text(entries[0].node.span)), ("name", "'ß x'"));
        let NodeValue::List(items) = &entries[1].node.value else { panic!("a list") };
        assert_eq!((text(items[0].span), text(items[1].span)), ("a", "b"));
    }

    #[test]
    fn duplicate_keys_are_all_reported() {
        let said = error("a: 1\nb: 2\na: 3\nb: 4\n");
        assert!(said.contains("key `a` is given twice\n --> t.yaml:3:1"), "{said}");
        assert!(
            said.contains("key `b` is given twice\n --> t.yaml:4:1") && said.contains("first given in line 2"),
            "{said}"
        );
    }

    #[test]
    fn tabs_are_named_as_the_cause() {
        let said = error("admin:\n\taddress: 127.0.0.1:9900\n");
        assert!(said.contains("indent with spaces"), "{said}");
    }

    #[test]
    fn unquoted_variables_inside_braces_get_the_hint_to_quote() {
        let said = error("admin: { address: ${ADDR:-a}, probes: b }\n");
        assert!(said.contains("needs quotes"), "{said}");
    }

    #[test]
    fn alias_bombs_end_early() {
        let mut lines = vec!["a0: &a0 [x, x, x, x, x, x, x, x, x, x]".to_owned()];
        for level in 1..9 {
            let item = format!("*a{}, ", level - 1);
            lines.push(format!("a{level}: &a{level} [{}]", item.repeat(10)));
        }
        assert!(error(&lines.join("\n")).contains("more than 100000 values"));
    }

    #[test]
    fn aliases_repeat_a_value_but_not_themselves() {
        let node = parse(&Source::new("t.yaml", "a: &x [1]\nb: *x\n")).unwrap();
        let NodeValue::Map(entries) = node.value else { panic!("a mapping") };
        assert_eq!(entries[0].node, entries[1].node);
        assert!(error("a: &x [*x]\n").contains("inside its own anchor"));
        assert!(error("a: *y\n").contains("not valid YAML"));
    }

    #[test]
    fn nesting_is_bounded() {
        assert!(error(&"[".repeat(10_000)).contains("not valid YAML"));
        assert!(error(&(0..200).map(|n| " ".repeat(n) + "a:\n").collect::<String>()).contains("not valid YAML"));
    }

    #[test]
    fn what_has_no_meaning_in_a_configuration_is_refused() {
        assert!(error("a: !!int 3\n").contains("tag `!!int` is not supported"));
        assert!(error("a: 1\n---\nb: 2\n").contains("a second document"));
        assert!(error("[a]: 1\n").contains("a key must be a word, found a list"));
        assert!(error("a: &x {b: 1}\nc:\n  <<: *x\n").contains("merge keys"));
        assert!(error("%YAML 1.2\n---\na: 1\n").contains("not valid YAML"));
    }
}
