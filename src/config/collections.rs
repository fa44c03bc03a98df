//! Rules for lists and for mappings with free names.
//!
//! Pure.

use std::collections::HashMap;
use std::marker::PhantomData;

use http::{HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::addresses::ENDPOINT;
use super::decode::{Decoder, Describe, Key, Rule, Section, Shape};
use super::keys::EndpointKeys;
use super::outline::section_schema;
use super::parse::{HEADER_NAME, HEADER_VALUE, NAME};
use super::source::{Span, Spanned};
use super::yaml::{Node, NodeValue};
use super::{Endpoint, diagnostic::Diagnostic};

/// A list of single values, at least one.
pub(super) struct Each<R> {
    pub(super) rule: R,
    /// One item, for messages.
    pub(super) item: &'static str,
    /// Whether one value may stand without the brackets.
    pub(super) or_one: bool,
}

impl<R: Describe> Describe for Each<R> {
    fn json_schema(&self) -> Value {
        let list = json!({"type": "array", "minItems": 1, "items": self.rule.json_schema()});
        if self.or_one { json!({"anyOf": [self.rule.json_schema(), list]}) } else { list }
    }
}

impl<R: Rule> Rule for Each<R> {
    type Value = Vec<Spanned<R::Value>>;

    fn decode(&self, node: &Node, cx: &mut Decoder<'_>) -> Option<Self::Value> {
        let one = |item: &Node, cx: &mut Decoder<'_>| {
            let value = self.rule.decode(item, cx)?;
            Some(Spanned { value, span: item.span, is_given: true })
        };
        match &node.value {
            NodeValue::Scalar(_) if self.or_one => Some(vec![one(node, cx)?]),
            _ => Some(decode_items(cx.items(node, self.item, ", or leave the key out")?, cx, one)),
        }
    }
}

/// A list of sections, at least one.
pub(super) struct Sections<S> {
    pub(super) item: &'static str,
    pub(super) of: PhantomData<fn() -> S>,
}

impl<S: Section> Describe for Sections<S> {
    fn json_schema(&self) -> Value {
        json!({"type": "array", "minItems": 1, "items": section_schema(S::KEYS)})
    }

    fn shape(&self) -> Shape {
        Shape::List(S::KEYS)
    }
}

impl<S: Section> Rule for Sections<S> {
    type Value = Vec<S>;

    fn decode(&self, node: &Node, cx: &mut Decoder<'_>) -> Option<Vec<S>> {
        let items = cx.items(node, self.item, "")?;
        Some(decode_items(items, cx, |item, cx| Some(cx.section(item, item.span))))
    }
}

/// A mapping from names to sections, at least one.
pub(super) struct Named<S> {
    pub(super) example: &'static str,
    pub(super) of: PhantomData<fn() -> S>,
}

impl<S: Section> Describe for Named<S> {
    fn json_schema(&self) -> Value {
        json!({"type": "object", "minProperties": 1, "additionalProperties": section_schema(S::KEYS)})
    }

    fn shape(&self) -> Shape {
        Shape::Named(S::KEYS)
    }
}

impl<S: Section> Rule for Named<S> {
    type Value = Vec<(Spanned<String>, S)>;

    fn decode(&self, node: &Node, cx: &mut Decoder<'_>) -> Option<Self::Value> {
        let wanted = format!("a mapping from names: {}", self.example);
        let entries = cx.entries(node, &wanted)?;
        if entries.is_empty() {
            cx.error(node.span, "the mapping is empty", format!("give at least one: {}", self.example));
            return None;
        }
        Some(
            entries
                .iter()
                .map(|entry| {
                    if let Err(error) = (NAME.parse)(&entry.key) {
                        cx.error(entry.key_span, &error.message, error.label);
                    }
                    let name = Spanned { value: entry.key.clone(), span: entry.key_span, is_given: true };
                    (name, cx.within(entry.key.clone(), |cx| cx.section(&entry.node, entry.key_span)))
                })
                .collect(),
        )
    }
}

/// The rule of a key whose value is one section; its keys speak for themselves.
pub(super) struct One<S>(pub(super) PhantomData<fn() -> S>);

impl<S: Section> Describe for One<S> {
    fn json_schema(&self) -> Value {
        section_schema(S::KEYS)
    }

    fn shape(&self) -> Shape {
        Shape::Section(S::KEYS)
    }
}

/// URLs, or mappings of a URL and a weight.
pub(super) struct EndpointsRule;

impl Describe for EndpointsRule {
    fn json_schema(&self) -> Value {
        let keys: &'static [Key] = EndpointKeys::KEYS;
        json!({"type": "array", "minItems": 1, "items": {"anyOf": [ENDPOINT.json_schema(), section_schema(keys)]}})
    }

    fn shape(&self) -> Shape {
        Shape::Mixed(EndpointKeys::KEYS)
    }
}

impl Rule for EndpointsRule {
    type Value = Vec<Spanned<Endpoint>>;

    fn decode(&self, node: &Node, cx: &mut Decoder<'_>) -> Option<Self::Value> {
        let items = cx.items(node, "\"h2c://10.0.0.11:9000\"", "")?;
        Some(decode_items(items, cx, |item, cx| {
            if !matches!(item.value, NodeValue::Map(_)) {
                let value = ENDPOINT.decode(item, cx)?;
                return Some(Spanned { value, span: item.span, is_given: true });
            }
            let EndpointKeys { whole: _, url, weight } = cx.section(item, item.span);
            let url = url?;
            Some(Spanned { value: Endpoint { weight: weight.value, ..url.value }, ..url })
        }))
    }
}

/// Field names and values.
pub(super) struct HeadersRule;

impl Describe for HeadersRule {
    fn json_schema(&self) -> Value {
        json!({"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}})
    }
}

impl Rule for HeadersRule {
    type Value = Vec<(Spanned<HeaderName>, HeaderValue)>;

    fn decode(&self, node: &Node, cx: &mut Decoder<'_>) -> Option<Self::Value> {
        let mut headers: Self::Value = Vec::new();
        let mut seen: HashMap<HeaderName, Span> = HashMap::new();
        for entry in cx.entries(node, "a mapping from field names to values")? {
            let name = match (HEADER_NAME.parse)(&entry.key) {
                Ok(name) => Spanned { value: name, span: entry.key_span, is_given: true },
                Err(error) => {
                    cx.error(entry.key_span, &error.message, error.label);
                    continue;
                }
            };
            if let Some(earlier) = seen.insert(name.value.clone(), name.span) {
                let line = cx.line(earlier);
                let message = format!("{}: field `{}` is given twice", cx.path(), name.value);
                let label = format!("names do not differ by case; first given in line {line}");
                cx.note(name.span, Diagnostic::error(message).label(label));
                continue;
            }
            if let Some(value) = cx.within(entry.key.clone(), |cx| HEADER_VALUE.decode(&entry.node, cx)) {
                headers.push((name, value));
            }
        }
        Some(headers)
    }
}

/// Decodes each item under its position; a wrong one is noted and left out.
fn decode_items<T>(
    items: &[Node],
    cx: &mut Decoder<'_>,
    mut decode: impl FnMut(&Node, &mut Decoder<'_>) -> Option<T>,
) -> Vec<T> {
    items
        .iter()
        .enumerate()
        .filter_map(|(position, item)| cx.within(format!("[{position}]"), |cx| decode(item, cx)))
        .collect()
}
