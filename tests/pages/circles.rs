//! Files of a folder that need each other, of which `docs/architecture.md` does not say why: a reader of one has to
//! read all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use regex_lite::Regex;

/// What each file of a folder uses of the others.
type Uses = BTreeMap<String, BTreeSet<String>>;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Code of each file of a folder, with that of the files below it.
fn code(folder: &Path) -> BTreeMap<String, String> {
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    let mut folders = vec![(folder.to_owned(), None::<String>)];
    while let Some((path, of)) = folders.pop() {
        for entry in std::fs::read_dir(&path).expect("a folder").flatten().map(|entry| entry.path()) {
            let name =
                of.clone().unwrap_or_else(|| entry.file_stem().expect("a name").to_string_lossy().into());
            if entry.is_dir() {
                folders.push((entry, Some(name)));
            } else if name != "mod" {
                let text = std::fs::read_to_string(&entry).expect("a file");
                let serves = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
                let code = serves.lines().filter(|line| !line.trim_start().starts_with("//"));
                let code: Vec<&str> = code.collect();
                // Below, one more step leads to the others.
                let code = if of.is_some() {
                    code.join("\n").replace("super::super::", "super::")
                } else {
                    code.join("\n")
                };
                found.entry(name).or_default().push_str(&code);
            }
        }
    }
    found
}

fn uses(folder: &str) -> Uses {
    let code = code(&root().join("src").join(folder));
    let one = Regex::new(&format!(r"\b(?:super|crate::{folder})::([a-z_0-9]+)")).expect("a pattern");
    let several = Regex::new(&format!(r"\b(?:super|crate::{folder})::\{{([^}}]*)\}}")).expect("a pattern");
    let names = |text: &str| -> BTreeSet<String> {
        let mut found: BTreeSet<String> = one.captures_iter(text).map(|hit| hit[1].to_owned()).collect();
        for hit in several.captures_iter(text) {
            found.extend(
                hit[1].split(',').filter_map(|part| Some(part.trim().split("::").next()?.to_owned())),
            );
        }
        found
    };
    let used = |(file, text): (&String, &String)| {
        let others = names(text).into_iter().filter(|name| code.contains_key(name) && name != file);
        (file.clone(), others.collect())
    };
    code.iter().map(used).collect()
}

/// What can be reached from a file.
fn reached(uses: &Uses, from: &str) -> BTreeSet<String> {
    let mut reached = BTreeSet::new();
    let mut next: Vec<&String> = uses[from].iter().collect();
    while let Some(file) = next.pop() {
        if reached.insert(file.clone()) {
            next.extend(&uses[file]);
        }
    }
    reached
}

fn circles() -> BTreeSet<(String, BTreeSet<String>)> {
    let mut found = BTreeSet::new();
    for folder in std::fs::read_dir(root().join("src")).expect("a folder").flatten() {
        if !folder.path().is_dir() {
            continue;
        }
        let folder = folder.file_name().to_string_lossy().into_owned();
        let uses = uses(&folder);
        let reached: Uses = uses.keys().map(|file| (file.clone(), reached(&uses, file))).collect();
        for (file, there) in reached.iter().filter(|(file, there)| there.contains(*file)) {
            let circle = there.iter().filter(|other| reached[*other].contains(file)).cloned();
            found.insert((folder.clone(), circle.collect()));
        }
    }
    found
}

/// The circles of the page: rows `| folder | files | why |`.
fn said() -> BTreeSet<(String, BTreeSet<String>)> {
    let page = std::fs::read_to_string(root().join("docs/architecture.md")).expect("the page");
    let section = page.split("\n## ").find(|section| section.starts_with("Circles\n")).expect("a section");
    let name = Regex::new("`([a-z_]+)`").expect("a pattern");
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    let circle = |row: &str| {
        let (folder, rest) = row.split_once("` | ")?;
        let (files, why) = rest.split_once(" | ")?;
        assert!(why.len() > 20, "{folder} has a circle for no reason");
        Some((folder.to_owned(), name.captures_iter(files).map(|found| found[1].to_owned()).collect()))
    };
    rows.filter_map(circle).collect()
}

#[test]
fn files_of_a_folder_need_each_other_only_where_the_page_says_why() {
    let (found, said) = (circles(), said());
    let more: Vec<_> = found.difference(&said).collect();
    assert!(more.is_empty(), "the page does not say why: {more:#?}");
    let fewer: Vec<_> = said.difference(&found).collect();
    assert!(fewer.is_empty(), "these are no circles any more: {fewer:#?}");
}
