//! The flags of `trunkline proxy` as a configuration.
//!
//! The flags become the tree that a file with the same meaning would have been, so every rule and every message is
//! the same. Messages point into the command line as it would have been typed.
//!
//! Pure.

use super::Config;
use super::assemble::SHORT_UPSTREAM;
use super::decode::Decoder;
use super::diagnostic::Diagnostics;
use super::schema::build;
use super::source::{Source, Span};
use super::yaml::{Entry, Node, NodeValue};

/// What was given on the command line, as text: the rules are here.
#[derive(Debug, Clone, Copy, Default)]
pub struct Flags<'a> {
    /// `--listen`: where clients connect.
    pub listen: &'a str,
    /// `--to`, once for each endpoint.
    pub to: &'a [String],
    /// `--connections`: at most so many to each endpoint.
    pub connections: Option<u32>,
    /// `--workers`: `auto` or a number.
    pub workers: Option<&'a str>,
    /// `--admin`: the address for operators.
    pub admin: Option<&'a str>,
    /// `--probes`: the address for health checks and metrics.
    pub probes: Option<&'a str>,
}

/// Turns flags into a configuration, with the warnings about it. Variables are left to the shell.
///
/// # Errors
/// Everything that is wrong, at once.
pub fn from_flags(flags: Flags<'_>) -> Result<(Config, Diagnostics), Diagnostics> {
    let Flags { listen, to, connections, workers, admin, probes } = flags;
    let mut line = Line { text: "trunkline proxy".to_owned() };

    let address = line.flag("--listen", listen);
    let endpoints = to.iter().map(|url| line.flag("--to", url)).collect();
    let mut upstream = vec![entry("endpoints", Node { span: line.end(), value: NodeValue::List(endpoints) })];
    if let Some(connections) = connections {
        let max = line.flag("--connections", &connections.to_string());
        upstream.push(entry("pool", map(vec![entry("max_connections", max)])));
    }
    let listeners = NodeValue::List(vec![map(vec![entry("address", address)])]);
    let mut root = vec![
        entry("listeners", Node { span: Span::default(), value: listeners }),
        entry("upstreams", map(vec![entry(SHORT_UPSTREAM, map(upstream))])),
    ];
    if let Some(workers) = workers {
        root.push(entry("runtime", map(vec![entry("workers", line.flag("--workers", workers))])));
    }
    let addresses = [("address", "--admin", admin), ("probes", "--probes", probes)];
    let addresses = addresses.into_iter().filter_map(|(key, flag, value)| Some((key, flag, value?)));
    let addresses: Vec<_> = addresses.map(|(key, flag, value)| entry(key, line.flag(flag, value))).collect();
    if !addresses.is_empty() {
        root.push(entry("admin", map(addresses)));
    }

    let mut source = Source::new("command line", line.text);
    source.has_lines = false;
    let cx = Decoder::new(&source, None).renaming(&flag_of);
    build(&map(root), cx, &super::source::read_named)
}

/// The flag that a path comes from.
fn flag_of(path: &str) -> Option<&'static str> {
    match path {
        "listeners[0].address" => Some("--listen"),
        "upstreams.default.pool.max_connections" => Some("--connections"),
        "runtime.workers" => Some("--workers"),
        "admin.address" => Some("--admin"),
        "admin.probes" => Some("--probes"),
        _ if path.starts_with("upstreams.default.endpoints") => Some("--to"),
        _ => None,
    }
}

/// The command line while it is put together.
struct Line {
    text: String,
}

impl Line {
    fn flag(&mut self, name: &str, value: &str) -> Node {
        self.text.extend([" ", name, " "]);
        let start = self.text.len();
        self.text.push_str(value);
        Node::scalar(value, Span { start, end: self.text.len() })
    }

    fn end(&self) -> Span {
        Span { start: self.text.len(), end: self.text.len() }
    }
}

/// A key that nobody wrote points at its value.
fn entry(key: &str, node: Node) -> Entry {
    Entry { key: key.to_owned(), key_span: node.span, node }
}

fn map(entries: Vec<Entry>) -> Node {
    let span = entries.first().map_or(Span::default(), |entry| entry.node.span);
    Node { span, value: NodeValue::Map(entries) }
}

#[cfg(test)]
mod tests {
    use super::super::Workers;
    use super::*;

    #[test]
    fn flags_make_the_configuration_that_the_short_form_makes() {
        let to = ["h2c://127.0.0.1:9000".to_owned(), "h2c://127.0.0.1:9001".to_owned()];
        let (config, _) = from_flags(Flags { listen: "127.0.0.1:8080", to: &to, ..Flags::default() }).unwrap();
        let text = "listen: 127.0.0.1:8080\nupstream: [\"h2c://127.0.0.1:9000\", \"h2c://127.0.0.1:9001\"]\n";
        let (same, _) = super::super::load(&Source::new("t.yaml", text), &|_| None).unwrap();
        assert_eq!(config, same);
    }

    #[test]
    fn both_sides_may_be_unix_sockets() {
        let to = ["h2c+unix:/run/app.sock".to_owned()];
        let (config, _) = from_flags(Flags { listen: "unix:/run/t.sock", to: &to, ..Flags::default() }).unwrap();
        assert_eq!(config.listeners[0].address.to_string(), "unix:/run/t.sock");
        assert_eq!(config.upstreams[0].endpoints[0].to_string(), to[0]);
    }

    #[test]
    fn every_flag_has_its_effect() {
        let to = ["h2c://127.0.0.1:9000".to_owned()];
        let (config, warnings) = from_flags(Flags {
            listen: "127.0.0.1:0",
            to: &to,
            connections: Some(7),
            workers: Some("2"),
            admin: Some("127.0.0.1:9900"),
            probes: Some("127.0.0.1:9901"),
        })
        .unwrap();
        assert_eq!(config.upstreams[0].pool.max_connections, 7);
        assert_eq!(config.runtime.workers, Workers::Count(2));
        assert_eq!(config.admin.address, Some("127.0.0.1:9900".parse().unwrap()));
        assert_eq!(config.admin.probes, Some("127.0.0.1:9901".parse().unwrap()));
        assert_eq!(warnings.list, []);
    }

    #[test]
    fn wrong_flags_are_all_shown_in_the_command_line() {
        let to = ["h2c://127.0.0.1".to_owned(), "${X}".to_owned()];
        let flags = Flags { listen: ":80", to: &to, connections: Some(0), workers: Some("x"), ..Flags::default() };
        assert_eq!(
            from_flags(flags).unwrap_err().to_string(),
            "\
error: --listen: `:80` has no IP address
 --> command line
  |
  | trunkline proxy --listen :80 --to h2c://127.0.0.1 --to ${X} --connections 0 --workers x
  |                          ^^^ write 127.0.0.1:80 for this machine only, or 0.0.0.0:80 for every interface

error: --to: `h2c://127.0.0.1` has no port
 --> command line
  |
  | trunkline proxy --listen :80 --to h2c://127.0.0.1 --to ${X} --connections 0 --workers x
  |                                   ^^^^^^^^^^^^^^^ write host:port, for example h2c://127.0.0.1:9000

error: --to: `${X}` has no scheme
 --> command line
  |
  | trunkline proxy --listen :80 --to h2c://127.0.0.1 --to ${X} --connections 0 --workers x
  |                                                        ^^^^ write h2c://${X} for HTTP/2, or http1://${X} for HTTP/1.1

error: --connections: `0` is out of range
 --> command line
  |
  | trunkline proxy --listen :80 --to h2c://127.0.0.1 --to ${X} --connections 0 --workers x
  |                                                                           ^ write a whole number from 1 to 10000

error: --workers: `x` is not a whole number
 --> command line
  |
  | trunkline proxy --listen :80 --to h2c://127.0.0.1 --to ${X} --connections 0 --workers x
  |                                                                                       ^ write a whole number from 1 to 256, or auto"
        );
    }
}
