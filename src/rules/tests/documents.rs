//! Every document that the project shows to people compiles without a word.

use std::fs;
use std::path::Path;

use super::*;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn every_example_under_rules_compiles() {
    let mut found = 0;
    for entry in fs::read_dir(root().join("rules")).unwrap() {
        let path = entry.unwrap().path();
        let table = table(&fs::read_to_string(&path).unwrap());
        assert!(!table.targets().is_empty(), "{}", path.display());
        found += 1;
    }
    assert!(found >= 5, "{found} examples");
}

#[test]
fn every_block_of_the_language_reference_compiles() {
    let text = fs::read_to_string(root().join("docs/rules.md")).unwrap();
    let blocks: Vec<&str> =
        text.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(blocks.len() >= 8, "{} blocks", blocks.len());
    for block in blocks {
        table(block);
    }
}
