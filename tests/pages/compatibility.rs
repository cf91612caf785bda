//! `docs/compatibility.md` promises a test that is not there.

use std::path::Path;

use regex_lite::Regex;

#[test]
fn every_test_that_is_named_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/compatibility.md")).expect("the page");
    let named = Regex::new(r"`((?:src/)?[a-z_/]+)(?:\.rs)?: ([a-z0-9_]+)`").expect("a pattern");
    let mut missing = Vec::new();
    let mut count = 0;
    for found in named.captures_iter(&page) {
        count += 1;
        let (file, test) = (&found[1], &found[2]);
        let folders: &[&str] =
            if file.starts_with("src/") { &[""] } else { &["tests/engine/", "tests/server/", "tests/"] };
        let holds_it = |folder: &&str| {
            let source = std::fs::read_to_string(root.join(format!("{folder}{file}.rs")));
            source.is_ok_and(|source| source.contains(&format!("fn {test}(")))
        };
        if !folders.iter().any(holds_it) {
            missing.push(format!("{file}: {test}"));
        }
    }
    assert!(count > 100, "{count} tests are named");
    assert!(missing.is_empty(), "not there: {missing:#?}");
}

#[test]
fn every_row_of_the_checklists_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/compatibility.md")).expect("the page");
    let sections: Vec<&str> = page.split("\n## ").collect();
    let numbers = |prefix: &str| -> Vec<u32> {
        let rows = sections.iter().filter(|s| s.starts_with(prefix)).flat_map(|s| s.lines());
        let first = rows.filter_map(|l| l.strip_prefix("| ")?.split(" | ").next());
        let expand = |cell: &str| -> Vec<u32> {
            let parts: Vec<u32> = cell.split(['–', ',']).filter_map(|n| n.trim().parse().ok()).collect();
            match (cell.contains('–'), parts.as_slice()) {
                (true, [from, to]) => (*from..=*to).collect(),
                _ => parts,
            }
        };
        first.flat_map(expand).collect()
    };
    assert_eq!(numbers("View-syncer §17"), (1..=110).collect::<Vec<_>>());
    assert_eq!(numbers("View-syncer §19.1"), (1..=10).collect::<Vec<_>>());
    assert_eq!(numbers("Sync-protocol §21"), (1..=40).collect::<Vec<_>>());
}
