//! Rules for single values: numbers, durations, sizes, words, and whatever a function can parse.
//!
//! Durations and sizes always carry a unit; a bare number is answered with the likely one. Ranges are part of the
//! rule and are named whenever a value is outside.
//!
//! Pure.

use std::time::Duration;

use serde_json::{Value, json};

use super::Workers;
use super::decode::{Decoder, Describe, Rule};
use super::diagnostic::Diagnostic;
use super::print::{size_text, time_text};
use super::yaml::Node;

/// What is wrong with a text, and what to write instead.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) message: String,
    pub(super) label: String,
}

pub(super) fn wrong<T>(message: impl Into<String>, label: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong { message: message.into(), label: label.into() })
}

/// The text in backquotes, cut and without control characters.
pub(super) fn quoted(text: &str) -> String {
    let shown: String = text.chars().take(80).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if shown.len() < text.len() && text.chars().count() > 80 { format!("`{shown}...`") } else { format!("`{shown}`") }
}

/// A whole number in a range.
pub(super) struct Count {
    pub(super) min: u32,
    pub(super) max: u32,
}

impl Count {
    fn parse(&self, text: &str) -> Result<u32, Wrong> {
        let range = format!("write a whole number from {} to {}", self.min, self.max);
        match text.parse::<u64>() {
            Ok(count) => match u32::try_from(count) {
                Ok(count) if (self.min..=self.max).contains(&count) => Ok(count),
                _ => wrong(format!("{} is out of range", quoted(text)), range),
            },
            Err(_) if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => {
                wrong(format!("{} is out of range", quoted(text)), range)
            }
            Err(_) => wrong(format!("{} is not a whole number", quoted(text)), range),
        }
    }
}

impl Describe for Count {
    fn json_schema(&self) -> Value {
        or_variable(json!({"type": "integer", "minimum": self.min, "maximum": self.max}))
    }
}

impl Rule for Count {
    type Value = u32;

    fn decode(&self, node: &Node, cx: &mut Decoder<'_>) -> Option<u32> {
        parse_text(node, cx, "a whole number", |text| self.parse(text))
    }
}

/// A duration of at least `min` milliseconds.
pub(super) struct Time {
    pub(super) min_ms: u64,
}

impl Time {
    fn parse(&self, text: &str) -> Result<Duration, Wrong> {
        let Some((number, unit)) = split_unit(text) else {
            let advice = "write a number and a unit, for example 500ms, 10s or 5m";
            return wrong(format!("{} is not a duration", quoted(text)), advice);
        };
        let Some((_, unit_ms)) = TIME_UNITS.iter().find(|(name, _)| *name == unit) else {
            if unit.is_empty() {
                return wrong(format!("{} has no unit", quoted(text)), format!("write {number}s"));
            }
            return wrong(
                format!("{} has an unknown unit {}", quoted(text), quoted(unit)),
                "units are ms, s, m, h and d",
            );
        };
        match number.parse::<u64>().ok().and_then(|number| number.checked_mul(*unit_ms)) {
            Some(ms) if (self.min_ms..=TIME_MS_MAX).contains(&ms) => Ok(Duration::from_millis(ms)),
            _ => {
                let (min, max) = (Duration::from_millis(self.min_ms), Duration::from_millis(TIME_MS_MAX));
                let range = format!("write a duration from {} to {}", time_text(min), time_text(max));
                wrong(format!("{} is out of range", quoted(text)), range)
            }
        }
    }
}

impl Describe for Time {
    fn json_schema(&self) -> Value {
        or_variable(json!({"type": "string", "pattern": "^[0-9]+(ms|s|m|h|d)$"}))
    }
}

impl Rule for Time {
    type Value = Duration;

    fn decode(&self, node: &Node, cx: &mut Decoder<'_>) -> Option<Duration> {
        parse_text(node, cx, "a duration, for example 10s", |text| self.parse(text))
    }
}

/// A duration of at least 1 ms, or `none`.
pub(super) struct TimeLimit;

impl Describe for TimeLimit {
    fn json_schema(&self) -> Value {
        or_variable(json!({"type": "string", "pattern": "^(none|[0-9]+(ms|s|m|h|d))$"}))
    }
}

impl Rule for TimeLimit {
    type Value = Option<Duration>;

    fn decode(&self, node: &Node, cx: &mut Decoder<'_>) -> Option<Option<Duration>> {
        parse_text(node, cx, "a duration, for example 10s, or none", |text| match text {
            "none" => Ok(None),
            _ => Time { min_ms: 1 }.parse(text).map(Some).map_err(|mut error| {
                error.label += ", or none";
                error
            }),
        })
    }
}

/// A number of bytes in a range.
pub(super) struct Size {
    pub(super) min: u64,
    pub(super) max: u64,
}

impl Size {
    fn parse(&self, text: &str) -> Result<u64, Wrong> {
        let Some((number, unit)) = split_unit(text) else {
            let advice = "write a number and a unit, for example 64KiB";
            return wrong(format!("{} is not a size", quoted(text)), advice);
        };
        let Some((_, unit_bytes)) = SIZE_UNITS.iter().find(|(name, _)| *name == unit) else {
            if unit.is_empty() {
                let likely = if number.len() > 3 { "B" } else { "KiB" };
                return wrong(format!("{} has no unit", quoted(text)), format!("write {number}{likely}"));
            }
            let units = "units are B, KiB, MiB and GiB, or kB, MB and GB for powers of ten";
            return wrong(format!("{} has an unknown unit {}", quoted(text), quoted(unit)), units);
        };
        match number.parse::<u64>().ok().and_then(|number| number.checked_mul(*unit_bytes)) {
            Some(bytes) if (self.min..=self.max).contains(&bytes) => Ok(bytes),
            _ => {
                let range = format!("write a size from {} to {}", size_text(self.min), size_text(self.max));
                wrong(format!("{} is out of range", quoted(text)), range)
            }
        }
    }
}

impl Describe for Size {
    fn json_schema(&self) -> Value {
        or_variable(json!({"type": "string", "pattern": "^[0-9]+(B|KiB|MiB|GiB|kB|MB|GB)$"}))
    }
}

impl Rule for Size {
    type Value = u64;

    fn decode(&self, node: &Node, cx: &mut Decoder<'_>) -> Option<u64> {
        parse_text(node, cx, "a size, for example 64KiB", |text| self.parse(text))
    }
}

/// A number of bytes, or `unlimited`.
pub(super) struct SizeLimit;

impl Describe for SizeLimit {
    fn json_schema(&self) -> Value {
        or_variable(json!({"type": "string", "pattern": "^(unlimited|[0-9]+(B|KiB|MiB|GiB|kB|MB|GB))$"}))
    }
}

impl Rule for SizeLimit {
    type Value = Option<u64>;

    fn decode(&self, node: &Node, cx: &mut Decoder<'_>) -> Option<Option<u64>> {
        parse_text(node, cx, "a size, for example 10MiB, or unlimited", |text| match text {
            "unlimited" => Ok(None),
            _ => Size { min: 0, max: SIZE_MAX }.parse(text).map(Some).map_err(|mut error| {
                error.label += ", or unlimited";
                error
            }),
        })
    }
}

/// One of a few words.
pub(super) struct Word<T: 'static>(pub(super) &'static [(&'static str, T)]);

impl<T: Sync> Describe for Word<T> {
    fn json_schema(&self) -> Value {
        or_variable(json!({"enum": self.0.iter().map(|(word, _)| word).collect::<Vec<_>>()}))
    }
}

impl<T: Copy + Sync> Rule for Word<T> {
    type Value = T;

    fn decode(&self, node: &Node, cx: &mut Decoder<'_>) -> Option<T> {
        let words: Vec<_> = self.0.iter().map(|(word, _)| *word).collect();
        let text = cx.text(node, &words.join(" or "))?;
        let found = self.0.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let message = format!("{}: {} is not one of the allowed words", cx.path(), quoted(&text));
            cx.note(node.span, Diagnostic::error(message).allowed(&text, words));
        }
        found
    }
}

/// `auto` or a number of threads.
pub(super) struct WorkersRule;

impl Describe for WorkersRule {
    fn json_schema(&self) -> Value {
        json!({"anyOf": [{"const": "auto"}, Count { min: 1, max: WORKERS_MAX }.json_schema()]})
    }
}

impl Rule for WorkersRule {
    type Value = Workers;

    fn decode(&self, node: &Node, cx: &mut Decoder<'_>) -> Option<Workers> {
        parse_text(node, cx, "auto or a whole number", |text| match text {
            "auto" => Ok(Workers::Auto),
            _ => match (Count { min: 1, max: WORKERS_MAX }).parse(text) {
                Ok(count) => Ok(Workers::Count(u16::try_from(count).expect("the rule's range fits"))),
                Err(error) => wrong(error.message, format!("{}, or auto", error.label)),
            },
        })
    }
}

/// Any value that a function can make from a text.
pub(super) struct Parsed<T> {
    /// Completes "expected ...".
    pub(super) wanted: &'static str,
    /// A regular expression for editors; looser than the function.
    pub(super) pattern: &'static str,
    pub(super) parse: fn(&str) -> Result<T, Wrong>,
}

impl<T> Describe for Parsed<T> {
    fn json_schema(&self) -> Value {
        // A number is fine where a name may be `1`; the pattern only binds strings.
        json!({"type": ["string", "number"], "anyOf": [{"pattern": self.pattern}, {"pattern": VARIABLE}]})
    }
}

impl<T> Rule for Parsed<T> {
    type Value = T;

    fn decode(&self, node: &Node, cx: &mut Decoder<'_>) -> Option<T> {
        parse_text(node, cx, self.wanted, self.parse)
    }
}

fn parse_text<T>(
    node: &Node,
    cx: &mut Decoder<'_>,
    wanted: &str,
    parse: impl FnOnce(&str) -> Result<T, Wrong>,
) -> Option<T> {
    let text = cx.text(node, wanted)?;
    parse(&text).map_err(|error| cx.error(node.span, &error.message, error.label)).ok()
}

/// Digits, then the rest; `None` without digits.
fn split_unit(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    (end > 0).then(|| (&text[..end], text[end..].trim_start()))
}

/// An editor must accept a variable wherever a value may stand.
fn or_variable(schema: Value) -> Value {
    let variable = json!({"type": "string", "pattern": VARIABLE});
    json!({"anyOf": Value::Array(vec![schema, variable])})
}

const VARIABLE: &str = r"\$\{";
const TIME_UNITS: &[(&str, u64)] = &[("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
/// One year: longer is a mistake, and adding it to an instant must not overflow.
const TIME_MS_MAX: u64 = 365 * 86_400_000;
const SIZE_UNITS: &[(&str, u64)] = &[
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("kB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
];
const SIZE_MAX: u64 = 1 << 50;
const WORKERS_MAX: u32 = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Result<Duration, (String, String)> {
        Time { min_ms: 1 }.parse(text).map_err(|error| (error.message, error.label))
    }

    fn size(text: &str) -> Result<u64, (String, String)> {
        Size { min: 1024, max: 1 << 40 }.parse(text).map_err(|error| (error.message, error.label))
    }

    fn said<T: std::fmt::Debug>(result: Result<T, (String, String)>) -> String {
        let (message, label) = result.expect_err("an error");
        format!("{message}; {label}")
    }

    #[test]
    fn durations_take_every_unit() {
        let texts = ["15ms", "15s", "15m", "15h", "15d", "15 s"].map(|text| time(text).unwrap().as_millis());
        assert_eq!(texts, [15, 15_000, 900_000, 54_000_000, 1_296_000_000, 15_000]);
    }

    #[test]
    fn duration_without_unit_says_which_to_write() {
        assert_eq!(said(time("15")), "`15` has no unit; write 15s");
    }

    #[test]
    fn wrong_durations_say_what_is_allowed() {
        assert_eq!(said(time("1.5s")), "`1.5s` has an unknown unit `.5s`; units are ms, s, m, h and d");
        assert_eq!(said(time("5min")), "`5min` has an unknown unit `min`; units are ms, s, m, h and d");
        assert_eq!(
            said(time("soon")),
            "`soon` is not a duration; write a number and a unit, for example 500ms, 10s or 5m"
        );
        assert_eq!(
            said(time("-1s")),
            "`-1s` is not a duration; write a number and a unit, for example 500ms, 10s or 5m"
        );
        assert_eq!(said(time("0s")), "`0s` is out of range; write a duration from 1ms to 365d");
        assert_eq!(
            said(time("99999999999999999999s")).split(';').next(),
            Some("`99999999999999999999s` is out of range")
        );
    }

    #[test]
    fn sizes_take_binary_and_decimal_units() {
        let texts = ["4096B", "4KiB", "4MiB", "4GiB", "4kB", "4MB", "4GB"].map(|text| size(text).unwrap());
        assert_eq!(texts, [4096, 4096, 4 << 20, 4 << 30, 4000, 4_000_000, 4_000_000_000]);
    }

    #[test]
    fn wrong_sizes_say_what_is_allowed() {
        assert_eq!(said(size("64")), "`64` has no unit; write 64KiB");
        assert_eq!(said(size("65536")), "`65536` has no unit; write 65536B");
        assert_eq!(said(size("1B")), "`1B` is out of range; write a size from 1KiB to 1024GiB");
        assert!(said(size("64kb")).starts_with("`64kb` has an unknown unit `kb`; units are B, KiB"));
    }

    #[test]
    fn counts_state_their_range() {
        let count = |text| Count { min: 1, max: 9 }.parse(text).map_err(|error| error.message);
        assert_eq!(count("9"), Ok(9));
        for text in ["0", "10", "4294967297", "99999999999999999999999"] {
            assert_eq!(count(text), Err(format!("`{text}` is out of range")));
        }
        for text in ["", "x", "-1", "1.0", "1e3"] {
            assert_eq!(count(text), Err(format!("`{text}` is not a whole number")));
        }
    }
}
