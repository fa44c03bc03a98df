//! Who may import whom, who may start threads, and what the pure modules must not name.
//!
//! Reads `src/` as text and compares it with the tables of [`rules`]; each finding says file, line and rule.
//! ARCHITECTURE.md gives the reasons.

#![allow(unreachable_pub, reason = "a test binary exports nothing: `pub` marks what other files of it use")]

mod rules;
mod scan;

use std::fs;
use std::path::{Path, PathBuf};

use self::scan::Source;

#[test]
fn sources_keep_to_the_rules_of_the_house() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let sources: Vec<Source> = rust_files(&root)
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).expect("a source file is readable text");
            Source::new(path.strip_prefix(&root).expect("found under the root"), &text)
        })
        .collect();
    assert!(!sources.is_empty(), "no sources under {}", root.display());
    let findings: Vec<String> = sources.iter().flat_map(|source| rules::findings(source, &sources)).collect();
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}
