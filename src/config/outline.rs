//! The key table for readers: the full shape with every default, and the JSON Schema for editors.
//!
//! Both walk the declarations of `keys`, so they cannot name a key that is not read, or miss one that is.
//!
//! Pure.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::decode::{Key, Presence, Section as _, Shape};
use super::keys::RootKeys;

/// Writes the full shape with every default and what it means; what is not set by default is commented out.
///
/// The text is itself a valid configuration.
pub fn defaults() -> String {
    outline(HEADER, Unset::CommentedOut)
}

/// Writes `config/full.yaml`: as [`defaults`], but with an example for every key that has no default.
pub fn full() -> String {
    outline(FULL_HEADER, Unset::AsExample)
}

/// The JSON Schema (draft 2020-12) of the configuration.
pub fn schema() -> Value {
    let mut root = section_schema(RootKeys::KEYS);
    let members = root.as_object_mut().expect("a section's schema is an object");
    members.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
    members.insert("title".to_owned(), json!("Trunkline configuration"));
    members.insert("type".to_owned(), json!("object"));
    members.insert(
        "oneOf".to_owned(),
        json!([
            {"required": ["listen", "upstream"], "not": {"anyOf": [
                {"required": ["listeners"]}, {"required": ["routes"]}, {"required": ["upstreams"]}]}},
            {"required": ["listeners", "upstreams"], "not": {"anyOf": [
                {"required": ["listen"]}, {"required": ["upstream"]}]}},
        ]),
    );
    root
}

/// The schema of one mapping with fixed keys.
pub(super) fn section_schema(keys: &[Key]) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for key in keys {
        let mut schema = key.rule.json_schema();
        let members = schema.as_object_mut().expect("every rule's schema is an object");
        members.insert("description".to_owned(), json!(key.meaning.replace('\n', " ")));
        match key.presence {
            Presence::Default(text) => {
                let default = text.parse::<u64>().map_or_else(|_| json!(text), |number| json!(number));
                members.insert("default".to_owned(), default);
            }
            Presence::Required(_) => required.push(key.name),
            Presence::Optional(_) | Presence::Below | Presence::Apart => {}
        }
        properties.insert(key.name.to_owned(), schema);
    }
    // A key whose children are all commented out has the value null.
    let types = if required.is_empty() { json!(["object", "null"]) } else { json!("object") };
    json!({"type": types, "additionalProperties": false, "properties": properties, "required": required})
}

/// What becomes of keys without a default.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unset {
    CommentedOut,
    AsExample,
}

fn outline(header: &str, unset: Unset) -> String {
    let mut out = header.to_owned();
    for key in RootKeys::KEYS {
        let mut lines = Vec::new();
        if SHORT.contains(&key.name) {
            // The short form excludes the long one, so it can only be told.
            let example = Key { presence: key.presence, ..*key };
            write_key(&example, 0, Unset::CommentedOut, &mut lines);
        } else {
            write_key(key, 0, unset, &mut lines);
        }
        for line in std::iter::once(String::new()).chain(lines) {
            writeln!(out, "{line}").expect("writing to a string cannot fail");
        }
    }
    out
}

fn write_key(key: &Key, indent: usize, unset: Unset, lines: &mut Vec<String>) {
    let Key { name, meaning, presence, rule } = key;
    let space = " ".repeat(indent);
    let is_value = matches!(rule.shape(), Shape::Value);
    let is_unset = is_value && matches!(presence, Presence::Optional(_));
    lines.extend(meaning.lines().map(|line| format!("{space}# {line}")));
    let (comment, remark) = match unset {
        Unset::CommentedOut if is_unset => ("# ", ""),
        Unset::AsExample if is_unset => ("", "  # example"),
        Unset::CommentedOut | Unset::AsExample => ("", ""),
    };
    match rule.shape() {
        Shape::Value => {
            let (Presence::Default(text) | Presence::Optional(text) | Presence::Required(text)) = *presence else {
                unreachable!("only sections leave the defaults to the keys below");
            };
            lines.push(format!("{space}{comment}{name}: {text}{remark}"));
        }
        Shape::Section(keys) if unset == Unset::CommentedOut && matches!(presence, Presence::Apart) => {
            let mut example = vec![format!("{space}{name}:")];
            write_keys(keys, indent + 2, Unset::AsExample, &mut example);
            lines.extend(example.iter().map(|line| format!("{space}# {}", &line[indent..])));
        }
        Shape::Section(keys) => {
            // A section of which everything is commented out would otherwise stand there as null.
            lines.push(format!("{space}{name}:"));
            write_keys(keys, indent + 2, unset, lines);
        }
        Shape::List(keys) => {
            lines.push(format!("{space}{name}:"));
            write_item(keys, indent + 2, unset, lines);
        }
        Shape::Named(keys) => {
            lines.push(format!("{space}{name}:"));
            lines.push(format!("{space}  {NAMED}:"));
            write_keys(keys, indent + 4, unset, lines);
        }
        Shape::Mixed(keys) => {
            lines.push(format!("{space}{name}:"));
            lines.push(format!("{space}  - {ENDPOINT}"));
            write_item(keys, indent + 2, unset, lines);
        }
    }
}

fn write_keys(keys: &[Key], indent: usize, unset: Unset, lines: &mut Vec<String>) {
    for key in keys {
        write_key(key, indent, unset, lines);
    }
}

/// Writes one item of a list; its dash goes before the first line that is not a comment.
fn write_item(keys: &[Key], indent: usize, unset: Unset, lines: &mut Vec<String>) {
    let start = lines.len();
    write_keys(keys, indent + 2, unset, lines);
    let first = lines[start..].iter_mut().find(|line| !line.trim_start().starts_with('#'));
    first.expect("a section in a list has a required key").replace_range(indent..=indent, "-");
}

const SHORT: [&str; 2] = ["listen", "upstream"];
const NAMED: &str = "api";
const ENDPOINT: &str = "h2c://127.0.0.1:9000";
const HEADER: &str = "\
# Every key of a Trunkline configuration and its default. Keys without a default are commented out, with an example.
# Copy only what you change. Durations need a unit (ms, s, m, h, d), sizes too (B, KiB, MiB, GiB, kB, MB, GB).
# ${X}, ${X:-default} and ${X:?message} in a value are taken from the environment; $$ is a dollar.
";
const FULL_HEADER: &str = "\
# Every key of a Trunkline configuration, what it means and its default. `# example` marks what has none.
# Copy only what you change: config/minimal.yaml is two lines long. `trunkline check` finds mistakes, and files that
# are named here and do not exist.
# Durations need a unit (ms, s, m, h, d), sizes too (B, KiB, MiB, GiB, kB, MB, GB).
# ${X}, ${X:-default} and ${X:?message} in a value are taken from the environment; $$ is a dollar.
#
# Written from src/config/keys.rs: to change it, change that and run
#   TRUNKLINE_BLESS=1 cargo test --lib full_yaml_is_what
";

#[cfg(test)]
mod tests {
    use super::super::schema::load_with;
    use super::super::{Config, Source};
    use super::*;

    const FULL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/full.yaml");
    const MINIMAL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/minimal.yaml");

    fn read(name: &str, text: &str) -> Config {
        // Each file that is named is a certificate, its key and a CA.
        let made = rcgen::generate_simple_self_signed(["a".to_owned()]).unwrap();
        let pem = made.cert.pem() + &made.signing_key.serialize_pem();
        let files = |_: &std::path::Path| Ok(pem.clone().into_bytes());
        let (config, warnings) =
            load_with(&Source::new(name, text), &|_| None, &files).unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(warnings.list, [], "{warnings}");
        config
    }

    /// Every path of the table, with what it is if absent.
    fn paths(keys: &'static [Key], above: &str, out: &mut Vec<(String, Key)>) {
        for key in keys {
            let path = format!("{above}/{}", key.name);
            out.push((path.clone(), *key));
            match key.rule.shape() {
                Shape::Value => {}
                Shape::Section(keys) | Shape::List(keys) | Shape::Mixed(keys) => paths(keys, &path, out),
                Shape::Named(keys) => paths(keys, &format!("{path}/{NAMED}"), out),
            }
        }
    }

    /// Every path of a YAML text with its single value, if it has one; comments that hold a key count as well.
    fn written(text: &str) -> Vec<(String, String)> {
        let mut stack: Vec<(usize, String)> = Vec::new();
        let mut found = Vec::new();
        for line in text.lines() {
            let line = line.replacen("- ", "  ", 1);
            let body = line.trim_start();
            let Some((key, value)) = body.split_once(':') else { continue };
            if !(value.is_empty() || value.starts_with(' '))
                || !key.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
            {
                continue;
            }
            let indent = line.len() - body.len();
            stack.retain(|(other, _)| *other < indent);
            stack.push((indent, key.to_owned()));
            let path: String = stack.iter().flat_map(|(_, key)| ["/", key]).collect();
            found.push((path, value.trim().to_owned()));
        }
        found
    }

    #[test]
    fn full_yaml_is_what_the_table_says() {
        if std::env::var_os("TRUNKLINE_BLESS").is_some() {
            std::fs::write(FULL, full()).unwrap();
        }
        let file = std::fs::read_to_string(FULL).unwrap();
        assert!(file == full(), "config/full.yaml is old: run TRUNKLINE_BLESS=1 cargo test --lib full_yaml_is_what");
    }

    #[test]
    fn full_yaml_names_every_key_of_the_table_and_no_other_and_states_its_default() {
        let mut table = Vec::new();
        paths(RootKeys::KEYS, "", &mut table);
        let file = written(&std::fs::read_to_string(FULL).unwrap());
        for (path, key) in &table {
            if SHORT.contains(&&path[1..]) {
                continue;
            }
            let (_, value) =
                file.iter().find(|(other, _)| other == path).unwrap_or_else(|| panic!("{path} is missing"));
            if let Presence::Default(default) = key.presence {
                assert_eq!(value, default, "{path}");
            }
        }
        for (path, _) in &file {
            assert!(path == "/upstreams/api" || table.iter().any(|(other, _)| other == path), "{path} is not a key");
        }
    }

    #[test]
    fn full_yaml_loads() {
        let config = read("full.yaml", &std::fs::read_to_string(FULL).unwrap());
        assert_eq!(config.routes[0].matches.hosts.len(), 2);
    }

    #[test]
    fn defaults_are_those_of_the_smallest_file() {
        let mut config = read("defaults", &defaults());
        let minimal = read("minimal.yaml", &std::fs::read_to_string(MINIMAL).unwrap());
        config.upstreams[0].endpoints.truncate(1);
        config.upstreams[0].name.clone_from(&minimal.upstreams[0].name);
        config.routes[0].upstream.clone_from(&minimal.routes[0].upstream);
        assert_eq!(config, minimal);
    }

    #[test]
    fn schema_allows_exactly_the_keys_of_the_table() {
        fn count(schema: &Value) -> usize {
            match schema {
                Value::Object(members) => {
                    let own = members.get("properties").and_then(Value::as_object).map_or(0, Map::len);
                    own + members.values().map(count).sum::<usize>()
                }
                Value::Array(items) => items.iter().map(count).sum(),
                _ => 0,
            }
        }
        let mut table = Vec::new();
        paths(RootKeys::KEYS, "", &mut table);
        let schema = schema();
        assert_eq!(count(&schema), table.len());
        let pool = &schema["properties"]["upstreams"]["additionalProperties"]["properties"]["pool"];
        assert_eq!(pool["additionalProperties"], json!(false));
        assert_eq!(pool["properties"]["max_pending"]["default"], json!(1024));
        assert_eq!(schema["properties"]["listeners"]["items"]["required"], json!(["address"]));
    }

    #[test]
    fn every_meaning_is_a_sentence() {
        let mut table = Vec::new();
        paths(RootKeys::KEYS, "", &mut table);
        for (path, key) in table {
            assert!(key.meaning.ends_with('.'), "{path}");
            assert!(key.meaning.lines().all(|line| line.len() <= 112), "{path} has a long line");
        }
    }
}
