//! The YAML blocks of the documents.

use std::fs;
use std::path::{Path, PathBuf};

use crate::{configuration, project};

#[test]
fn every_configuration_in_a_document_loads() {
    for path in documents() {
        let text = fs::read_to_string(&path).unwrap();
        for (line, block) in yaml_blocks(&text).into_iter().filter(|(_, block)| is_configuration(block)) {
            configuration(&format!("{}:{line}", path.display()), &block);
        }
    }
}

/// Markdown at the top and below `docs/`.
fn documents() -> Vec<PathBuf> {
    let mut documents = Vec::new();
    collect(&project("."), false, &mut documents);
    collect(&project("docs"), true, &mut documents);
    documents
}

fn collect(folder: &Path, is_deep: bool, documents: &mut Vec<PathBuf>) {
    // There may be no docs/.
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() && is_deep {
            collect(&path, is_deep, documents);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            documents.push(path);
        }
    }
}

/// Fenced blocks called `yaml`, each with the line at which it begins.
fn yaml_blocks(text: &str) -> Vec<(usize, String)> {
    let mut blocks = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        if line.trim() == "```yaml" {
            let block: Vec<_> = lines.by_ref().map(|(_, line)| line).take_while(|line| line.trim() != "```").collect();
            blocks.push((number + 1, block.join("\n")));
        }
    }
    blocks
}

/// A whole configuration starts with one of these; anything else is a piece of one, or somebody else's.
fn is_configuration(block: &str) -> bool {
    let first = block.lines().find(|line| !line.is_empty() && !line.starts_with('#')).unwrap_or_default();
    ["version:", "listen:", "listeners:"].iter().any(|key| first.starts_with(key))
}

#[test]
fn blocks_are_found_with_their_lines() {
    let text = "a\n```yaml\nlisten: x\n```\nb\n```sh\nlisten: y\n```\n```yaml\n# z\nversion: 1\n```\n";
    let blocks = yaml_blocks(text);
    assert_eq!(blocks, [(2, "listen: x".to_owned()), (9, "# z\nversion: 1".to_owned())]);
    assert!(blocks.iter().all(|(_, block)| is_configuration(block)) && !is_configuration("upstreams: {}"));
}
