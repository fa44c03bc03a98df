//! The rules as tables, and the check of one file against them.

use crate::scan::Source;

/// Top-level modules and what each may import besides itself. A module without a row is a finding.
const LAYERS: &[(&str, &[&[&str]])] = &[
    ("main", &[&["cli"]]),
    ("lib", &[&["cli", "control", "worker"], EDGES, PURE]),
    ("cli", &[&["control", "worker"], EDGES, PURE]),
    ("control", &[&["worker"], EDGES, PURE]),
    ("worker", &[EDGES, PURE]),
    ("tls", &[EDGES, PURE]),
    ("metrics", &[EDGES, PURE]),
    ("access_log", &[EDGES, PURE]),
    ("config", &[PURE]),
    ("error", &[PURE]),
    ("route", &[PURE]),
    ("balance", &[PURE]),
    ("translate", &[PURE]),
    ("events", &[PURE]),
    ("grpc", &[PURE]),
];

/// Used by both planes.
const EDGES: &[&str] = &["tls", "metrics", "access_log"];

/// No tokio, no hyper, no clock, no I/O.
const PURE: &[&str] = &["config", "error", "route", "balance", "translate", "events", "grpc"];

/// What the files of `worker/` may import of each other; never upwards. A file without a row is a leaf: all the
/// others may use it, and it may use only leaves.
const WORKER: &[(&str, &[&str])] = &[
    ("listener", &["crew", "downstream", "local", "proxy_protocol"]),
    ("proxy_protocol", &["local"]),
    ("downstream", &["body", "client", "exchange", "forward", "handshake", "local", "socket", "tunnel"]),
    ("handshake", &["client"]),
    ("socket", &["client"]),
    ("again", &["client"]),
    ("forward", &["acquire", "again", "upgrade", "body", "call", "client", "exchange", "respond"]),
    (
        "upgrade",
        &[
            "acquire",
            "again",
            "body",
            "call",
            "client",
            "exchange",
            "exclusive",
            "http1",
            "mux",
            "routing",
            "stream",
            "tunnel",
        ],
    ),
    (
        "call",
        &[
            "body",
            "client",
            "event_stream",
            "exchange",
            "exclusive",
            "http1",
            "mux",
            "routing",
            "stream",
            "tunnel",
            "upload",
        ],
    ),
    ("acquire", &["client", "exchange", "exclusive", "mux", "pool", "routing"]),
    ("respond", &["body", "client", "exchange"]),
    ("tunnel", &["client", "exchange", "exclusive", "local", "socket", "stream"]),
    ("body", &["client", "event_stream", "exchange", "exclusive", "stream", "tunnel", "upload"]),
    ("upload", &["client", "mux"]),
    ("event_stream", &["client", "routing"]),
    ("stream", &["mux"]),
    ("exchange", &["local", "routing"]),
    ("client", &["local"]),
    ("local", &["crew", "routing", "snapshot"]),
    ("crew", &["snapshot"]),
    ("routing", &["discovery", "exclusive", "pool", "share", "snapshot"]),
    ("snapshot", &["share"]),
    ("pool", &["dial", "discovery", "mux", "queue", "share"]),
    ("queue", &["mux", "share"]),
    ("exclusive", &["http1", "share"]),
    ("share", &["dial", "discovery", "http1", "mux"]),
    ("http1", &["dial", "discovery", "mux"]),
    ("discovery", &["dial"]),
    ("probe", &["dial", "mux", "share"]),
    ("dial", &["mux", "upstream_io", "vigil"]),
    ("vigil", &["mux"]),
    ("mux", &["upstream_io"]),
];

/// Words that must not appear in the code of some modules: which modules, the words, the rule.
type WordRule = (fn(&Source) -> bool, &'static [&'static str], &'static str);

const WORDS: &[WordRule] = &[
    (is_pure, &["tokio", "hyper", "hyper_util", "bb8"], "pure modules know no tokio and no hyper"),
    (
        // The one place that reads files and the time, for whoever loads a configuration.
        |source| is_pure(source) && source.name() != "config::source",
        &["Instant::now", "SystemTime::now", "std::fs", "fs::read", "TcpStream"],
        "pure modules know no clock and no I/O",
    ),
    (
        |source| !matches!(source.name().as_str(), "worker" | "control" | "cli::demo"),
        &["thread::spawn", "thread::Builder", "thread::scope"],
        "only worker.rs and control.rs start threads",
    ),
    (
        |source| source.top() == "worker",
        &[
            "BAD_REQUEST",
            "REQUEST_TIMEOUT",
            "INTERNAL_SERVER_ERROR",
            "BAD_GATEWAY",
            "SERVICE_UNAVAILABLE",
            "GATEWAY_TIMEOUT",
        ],
        "only error.rs chooses a status code",
    ),
];

/// Everything in one file that breaks a rule, as `file:line: rule`.
pub fn findings(source: &Source, all: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    if source.path.ends_with("mod.rs") {
        findings.push(format!("{}:1: foo.rs beside foo/, never mod.rs", source.path));
    }
    if !LAYERS.iter().any(|(name, _)| *name == source.top()) {
        findings.push(format!("{}:1: `{}` has no row in the table of layers", source.path, source.top()));
    }
    for import in source.imports() {
        if let Some(rule) = broken_rule(source, &import.path, all) {
            findings.push(format!("{}:{}: `{}`: {rule}", source.path, import.line, import.path.join("::")));
        }
    }
    for (_, words, rule) in WORDS.iter().filter(|(applies, _, _)| applies(source)) {
        for word in *words {
            let lines = source.lines_with(word);
            findings.extend(lines.iter().map(|line| format!("{}:{line}: `{word}`: {rule}", source.path)));
        }
    }
    findings
}

/// The rule that an import of `path` (from the crate's root) breaks, if any.
fn broken_rule(source: &Source, path: &[String], all: &[Source]) -> Option<String> {
    let (from, to) = (source.top(), path.first()?.as_str());
    if !LAYERS.iter().any(|(name, _)| *name == to) {
        // Not a module: an item that lib.rs exports.
        return None;
    }
    if from != to {
        let allowed = LAYERS.iter().find(|(name, _)| *name == from).map_or(&[][..], |(_, allowed)| *allowed);
        if !allowed.iter().any(|group| group.contains(&to)) {
            return Some(format!("{from} may not import {to}"));
        }
        let part = part_of_worker(path, all).filter(|_| from != "lib");
        return part.map(|part| format!("worker's root API only, not worker::{part}"));
    }
    let file = source.module.get(1).filter(|_| from == "worker")?;
    let part = part_of_worker(path, all);
    let Some(part) = part else {
        return Some("never upwards: a file of worker/ does not import worker.rs".to_owned());
    };
    let row = |name: &str| WORKER.iter().find(|(row, _)| *row == name).map(|(_, allowed)| *allowed);
    let is_allowed = part == file || row(part).is_none() || row(file).is_some_and(|allowed| allowed.contains(&part));
    (!is_allowed).then(|| format!("worker::{file} may not import worker::{part}"))
}

/// The file of `worker/` that a path leads into.
fn part_of_worker<'a>(path: &'a [String], all: &[Source]) -> Option<&'a str> {
    let part = path.get(1).filter(|_| path[0] == "worker")?;
    let is_file = all.iter().any(|source| source.module.len() > 1 && source.module[..2] == path[..2]);
    is_file.then_some(part.as_str())
}

fn is_pure(source: &Source) -> bool {
    PURE.contains(&source.top())
}

mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn each_rule_finds_what_breaks_it() {
        for (file, text, rule) in [
            ("route.rs", "use tokio::time::sleep;", "pure modules know no tokio"),
            ("config/schema.rs", "fn f() { hyper::body::Bytes::new(); }", "pure modules know no tokio"),
            ("balance.rs", "let now = Instant::now();", "no clock"),
            ("error.rs", "use crate::worker::Worker;", "error may not import worker"),
            ("metrics.rs", "use crate::control::Control;", "metrics may not import control"),
            ("worker.rs", "use crate::control::Snapshot;", "worker may not import control"),
            ("worker/forward.rs", "fn f() -> crate::control::Snapshot {}", "worker may not import control"),
            ("control.rs", "use crate::{config::Config, worker::pool::Pool};", "root API only"),
            ("worker/pool.rs", "use super::forward::Outcome;", "worker::pool may not import worker::forward"),
            ("worker/mux.rs", "use crate::worker::{\n    pool::Pool,\n};", "worker::mux may not import worker::pool"),
            ("worker/pool.rs", "use super::{body, mux};", "worker::pool may not import worker::body"),
            ("worker/clock.rs", "use super::mux::Mux;", "worker::clock may not import worker::mux"),
            ("worker/mux.rs", "use super::Worker;", "never upwards"),
            ("worker/listener.rs", "std::thread::spawn(f);", "start threads"),
            ("worker/downstream.rs", "StatusCode::BAD_GATEWAY", "chooses a status"),
            ("main.rs", "use trunkline::worker::Worker;", "main may not import worker"),
            ("control/mod.rs", "", "never mod.rs"),
            ("common.rs", "", "no row"),
        ] {
            let found = check(file, text);
            assert!(found.iter().any(|finding| finding.contains(rule)), "{file}: {text}: {found:?}");
        }
    }

    #[test]
    fn what_the_house_allows_is_not_found() {
        for (file, text) in [
            ("main.rs", "use trunkline::cli;"),
            ("control.rs", "use crate::{config::Config, worker::{self, Worker}};\nstd::thread::Builder::new();"),
            ("worker.rs", "use crate::error::Fault;\nuse self::pool::Pool;\nthread::spawn(f);"),
            ("worker/listener.rs", "use super::downstream;\nuse super::clock::Clock;"),
            ("worker/acquire.rs", "use crate::worker::{mux::Mux, pool::Pool};\nuse crate::translate;"),
            ("worker/pool.rs", "use super::mux;\n// crate::control decides\nlet s = \"crate::control\";"),
            ("worker/mux.rs", "fn f() {}\n#[cfg(test)]\nmod tests {\n    use super::*;\n    use tokio::time;\n}"),
            ("route.rs", "//! Not for tokio.\nuse crate::config::Route;\nlet hyperbole = 1;"),
            ("cli/demo.rs", "use crate::control::Process;\nthread::spawn(f);"),
        ] {
            assert_eq!(check(file, text), Vec::<String>::new(), "{file}: {text}");
        }
    }

    #[test]
    fn finding_names_file_and_line() {
        let found = check("worker/mux.rs", "//! Mux.\n\nuse super::{\n    clock::Clock,\n    pool::Pool,\n};");
        assert_eq!(found, ["worker/mux.rs:5: `worker::pool::Pool`: worker::mux may not import worker::pool"]);
    }

    fn check(file: &str, text: &str) -> Vec<String> {
        let others = ["listener", "downstream", "forward", "body", "tunnel", "pool", "mux", "clock"];
        let others = others.map(|name| Source::new(Path::new(&format!("worker/{name}.rs")), ""));
        findings(&Source::new(Path::new(file), text), &others)
    }
}
