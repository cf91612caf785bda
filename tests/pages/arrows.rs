//! A folder uses another that it must not use: the arrows of `docs/architecture.md` are those of the code.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use regex_lite::Regex;

type Arrows = BTreeMap<String, BTreeSet<String>>;

/// What every folder may use without an arrow: the macros that write to the log.
const MACROS: [&str; 5] = ["debug", "info", "warn", "error", "log_at"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The arrows of the page: rows `| folder | folders that it uses |`.
fn allowed() -> Arrows {
    let page = std::fs::read_to_string(root().join("docs/architecture.md")).expect("the page");
    let section = page.split("\n## ").find(|section| section.starts_with("Arrows\n")).expect("a section");
    let name = Regex::new("`([a-z_]+)`").expect("a pattern");
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    let arrow = |row: &str| {
        let (from, to) = row.split_once("` | ")?;
        Some((from.to_owned(), name.captures_iter(to).map(|found| found[1].to_owned()).collect()))
    };
    rows.filter_map(arrow).collect()
}

/// The source files below a folder.
fn sources(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        if entry.is_dir() {
            sources(&entry, found);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            found.push(entry);
        }
    }
}

/// The arrows of the code that serves, each with a file that has it.
fn found() -> BTreeMap<(String, String), String> {
    let root = root().join("src");
    let used = Regex::new(r"\bcrate::([a-z_]+)|\bkelvin_(io)::").expect("a pattern");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut found = BTreeMap::new();
    for file in files {
        let name = file.strip_prefix(&root).expect("below").to_string_lossy().into_owned();
        let Some((from, _)) = name.split_once('/') else { continue };
        let text = std::fs::read_to_string(&file).expect("a file");
        let serves = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        let code = serves.lines().filter(|line| !line.trim_start().starts_with("//"));
        for hit in code.flat_map(|line| used.captures_iter(line)) {
            let to = hit.get(1).or(hit.get(2)).expect("one of both").as_str();
            if to != from && !MACROS.contains(&to) && name != "config/tests.rs" {
                found.insert((from.to_owned(), to.to_owned()), name.clone());
            }
        }
    }
    found
}

#[test]
fn a_folder_uses_only_what_the_page_allows() {
    let (allowed, found) = (allowed(), found());
    assert!(found.len() > 30, "{found:?}");
    let is_allowed = |from: &str, to: &str| allowed.get(from).is_some_and(|all| all.contains(to));
    let more: Vec<_> = found.iter().filter(|((from, to), _)| !is_allowed(from, to)).collect();
    assert!(more.is_empty(), "the page does not allow: {more:#?}");
    let arrows = allowed.iter().flat_map(|(from, all)| all.iter().map(move |to| (from.clone(), to.clone())));
    let fewer: Vec<_> = arrows.filter(|arrow| !found.contains_key(arrow)).collect();
    assert!(fewer.is_empty(), "the page allows what nobody uses: {fewer:?}");
}

#[test]
fn arrows_form_no_circle() {
    let mut left = allowed();
    loop {
        let names: BTreeSet<String> = left.keys().cloned().collect();
        let before = left.len();
        left.retain(|_, uses| uses.iter().any(|name| names.contains(name)));
        if left.len() == before {
            break;
        }
    }
    assert!(left.is_empty(), "these form circles: {left:#?}");
}
