//! `${NAME}` inside values: the environment's part of a configuration.
//!
//! `${X}` must be set, `${X:-default}` falls back if it is unset or empty, `${X:?message}` refuses with its own
//! words, `$$` is a dollar. A dollar before anything else is itself. Nothing nests, as in Compose files.
//!
//! Pure: the environment is a function.

use std::borrow::Cow;

use super::source::Environment;

/// Why a value could not be completed, and what to do about it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) message: String,
    pub(super) advice: String,
}

/// Replaces every reference in `text`.
pub(super) fn expand<'t>(text: &'t str, env: Environment<'_>) -> Result<Cow<'t, str>, Failure> {
    if !text.contains('$') {
        return Ok(Cow::Borrowed(text));
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(after) = rest.strip_prefix('{') {
            let Some(end) = after.find('}') else {
                return Err(fail("`${` has no closing `}`", "write ${NAME}, or $$ for a dollar"));
            };
            out.push_str(&look_up(&after[..end], env)?);
            rest = &after[end + 1..];
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    Ok(Cow::Owned(out))
}

fn look_up(reference: &str, env: Environment<'_>) -> Result<String, Failure> {
    if reference.contains("${") {
        return Err(fail("a `${...}` stands inside another one", "references do not nest"));
    }
    let end = reference.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(reference.len());
    let (name, rule) = reference.split_at(end);
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(fail(format!("`${{{reference}}}` names no variable"), "write ${NAME}, or $$ for a dollar"));
    }
    let set = env(name);
    if rule.is_empty() {
        return set.ok_or_else(|| {
            fail(format!("${{{name}}} is not set"), format!("set it, or give a default: ${{{name}:-value}}"))
        });
    }
    let set = set.filter(|value| !value.is_empty());
    if let Some(default) = rule.strip_prefix(":-") {
        Ok(set.unwrap_or_else(|| default.to_owned()))
    } else if let Some(message) = rule.strip_prefix(":?") {
        let message = if message.is_empty() { "it must be set" } else { message };
        set.ok_or_else(|| fail(format!("${{{name}}} is not set: {message}"), "set it in the environment"))
    } else {
        Err(fail(
            format!("`${{{reference}}}` is not understood"),
            format!("write ${{{name}}}, ${{{name}:-default}} or ${{{name}:?message}}"),
        ))
    }
}

fn fail(message: impl Into<String>, advice: impl Into<String>) -> Failure {
    Failure { message: message.into(), advice: advice.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(text: &str) -> Result<String, String> {
        let env = |name: &str| match name {
            "A" => Some("one".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        expand(text, &env).map(Cow::into_owned).map_err(|failure| failure.message)
    }

    #[test]
    fn references_are_replaced_and_the_rest_is_kept() {
        assert_eq!(run("x${A}y${A}").unwrap(), "xoney".to_owned() + "one");
        assert_eq!(run("${B:-two:-three}").unwrap(), "two:-three");
        assert_eq!(run("${EMPTY:-two}").unwrap(), "two");
        assert_eq!(run("[${EMPTY}]${A:?no}${B:-}").unwrap(), "[]one");
        assert_eq!(run("$$ $${A} $x 5$").unwrap(), "$ ${A} $x 5$");
    }

    #[test]
    fn values_are_not_expanded_again() {
        assert_eq!(expand("${A}", &|_| Some("${A}".to_owned())).unwrap(), "${A}");
    }

    #[test]
    fn what_cannot_be_replaced_says_why() {
        assert_eq!(run("${B}").unwrap_err(), "${B} is not set");
        assert_eq!(run("${EMPTY:?give an address}").unwrap_err(), "${EMPTY} is not set: give an address");
        assert_eq!(run("${A").unwrap_err(), "`${` has no closing `}`");
        assert_eq!(run("${}").unwrap_err(), "`${}` names no variable");
        assert_eq!(run("${1A}").unwrap_err(), "`${1A}` names no variable");
        assert_eq!(run("${A-x}").unwrap_err(), "`${A-x}` is not understood");
        assert_eq!(run("${A:-${B}}").unwrap_err(), "a `${...}` stands inside another one");
    }
}
