//! A page names a file that is not there, or says a number that the code does not.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use regex_lite::Regex;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Files below a folder, as paths from the root.
fn files(folder: &str, ending: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(root().join(&folder)).expect("a folder").flatten() {
            let path = folder.join(entry.file_name());
            match entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                true => folders.push(path),
                false if path.to_string_lossy().ends_with(ending) => found.push(path.display().to_string()),
                false => {}
            }
        }
    }
    found.sort();
    found
}

/// The pages that speak of this code. `docs/spec/` speaks of the reference's, too.
fn pages() -> Vec<String> {
    let mut pages: Vec<String> = files("docs", ".md").into_iter().filter(|p| !p.contains("/spec/")).collect();
    pages.extend(["README.md".to_owned(), "demo/README.md".to_owned()]);
    pages
}

/// What `make bench` leaves.
const MADE: [&str; 2] = ["table.md", "table.json"];

/// Where a path in a page may begin: pages name files of `src/` and of the page's own folder without it. A name
/// alone may be that of a file or folder anywhere.
fn is_there(page: &str, path: &str) -> bool {
    if !path.trim_end_matches('/').contains('/') {
        let end = format!("/{}", path.trim_end_matches('/'));
        let named = |file: &String| {
            file.ends_with(&end) || (path.ends_with('/') && file.contains(&format!("{end}/")))
        };
        let folders = ["src", "io/src", "tests", "demo", "docs", "benches"];
        if folders.iter().any(|folder| files(folder, "").iter().any(named)) {
            return true;
        }
    }
    let folder = root().join(page).parent().expect("a folder").to_owned();
    let from = [root().to_owned(), root().join("src"), root().join("io"), root().join("tests"), folder];
    from.iter().any(|from| from.join(path).exists())
}

#[test]
fn every_file_and_folder_that_a_page_names_is_there() {
    let named = Regex::new(r"`([A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)*(?:\.(?:rs|mjs|sql|md|json|toml|sh)|/))`")
        .expect("a pattern");
    let (mut count, mut missing) = (0, Vec::new());
    for page in pages() {
        for found in named.captures_iter(&text(&page)) {
            // Built, or of whoever runs the server.
            let path = &found[1];
            if path.starts_with("target/") || path.contains("node_modules") || MADE.contains(&path) {
                continue;
            }
            count += 1;
            if !is_there(&page, path) {
                missing.push(format!("{page}: {path}"));
            }
        }
    }
    assert!(count > 80, "{count} are named");
    assert!(missing.is_empty(), "not there: {missing:#?}");
}

#[test]
fn every_link_leads_somewhere() {
    let link = Regex::new(r"\]\(([^)#:]+)(?:#[^)]*)?\)").expect("a pattern");
    let (mut count, mut missing) = (0, Vec::new());
    for page in pages() {
        for found in link.captures_iter(&text(&page)) {
            count += 1;
            let folder = root().join(&page).parent().expect("a folder").to_owned();
            if !folder.join(&found[1]).exists() {
                missing.push(format!("{page}: {}", &found[1]));
            }
        }
    }
    assert!(count > 15, "{count} links");
    assert!(missing.is_empty(), "they lead nowhere: {missing:#?}");
}

#[test]
fn the_map_names_every_folder_of_the_source() {
    let page = text("docs/architecture.md");
    let row = Regex::new(r"(?m)^\| `src/([a-z]+)/` \|").expect("a pattern");
    let named: BTreeSet<String> = row.captures_iter(&page).map(|found| found[1].to_owned()).collect();
    let folders = std::fs::read_dir(root().join("src")).expect("a folder").flatten();
    let there: BTreeSet<String> = folders
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(named, there);
}

#[test]
fn every_metric_that_a_page_or_the_generator_names_is_one() {
    let series = text("src/observe/metrics.rs") + &text("src/observe/exposition.rs");
    let named = Regex::new(r"kelvin_([a-z_]+)").expect("a pattern");
    let sources: Vec<String> = pages().into_iter().chain(files("benches/generator/src", ".rs")).collect();
    let mut count = 0;
    for source in sources {
        for found in named.captures_iter(&text(&source)) {
            let name = found[1].trim_end_matches("_bucket").trim_end_matches("_seconds");
            // The crate of the runtime.
            if name != "io" {
                count += 1;
                let is_one =
                    series.contains(&format!("\"{name}")) || series.contains(&format!("\"kelvin_{name}"));
                assert!(is_one, "{source}: kelvin_{}", &found[1]);
            }
        }
    }
    assert!(count > 10, "{count} are named");
}

#[test]
fn only_io_names_the_runtime_and_only_the_settings_read_the_environment() {
    for file in files("src", ".rs") {
        let source = text(&file);
        assert!(!source.contains("glommio"), "{file} names the runtime");
        let reads = source.contains("env::var") && !file.starts_with("src/config/");
        assert!(!reads, "{file} reads the environment");
    }
}

/// A sentence of a page, and the file and text that make it true.
const SAID: &[(&str, &str, &str, &str)] = &[
    ("README.md", "12,000 issues", "scripts/stack/seed.mjs", "issues: 12_000"),
    (
        "demo/README.md",
        "12,000 issues and 60,000 comments",
        "scripts/stack/seed.mjs",
        "issues: 12_000, comments: 60_000",
    ),
    ("README.md", "(protocol 30 to 52)", "src/protocol/connect.rs", "PROTOCOL_VERSION: u32 = 52"),
    ("README.md", "(protocol 30 to 52)", "src/protocol/connect.rs", "MIN_PROTOCOL_VERSION: u32 = 30"),
    ("README.md", "fifty times", "scripts/soak-kills", "KELVIN_SOAK_ROUNDS:-50"),
    ("docs/decisions/008-overload.md", "5 to 15 seconds", "src/core/overload.rs", "BACK_AFTER"),
    ("docs/decisions/008-overload.md", "three quarters", "src/server/budget.rs", "DEFAULT_SHARE: usize = 75"),
    (
        "docs/decisions/008-overload.md",
        "4,000 per second and core",
        "src/server/accept.rs",
        "ACCEPTS_PER_SECOND: f64 = 4_000.0",
    ),
    (
        "docs/decisions/008-overload.md",
        "5,000 and 16 MiB per second",
        "src/server/frame_rates.rs",
        "MESSAGES_PER_SECOND: f64 = 5_000.0",
    ),
    (
        "docs/decisions/008-overload.md",
        "16 MiB of a group; 64 MiB of a core",
        "src/core/limits.rs",
        "of_group: 16 << 20",
    ),
    (
        "docs/decisions/008-overload.md",
        "16 MiB of a group; 64 MiB of a core",
        "src/core/limits.rs",
        "of_core: 64 << 20",
    ),
    (
        "docs/decisions/008-overload.md",
        "4,000,000 rows",
        "src/views/scan.rs",
        "MAX_MEMBERS: usize = 4_000_000",
    ),
    (
        "docs/decisions/004-looking-again.md",
        "More than 1,000 parents of a key, more than 2,000 keys",
        "src/views/limits.rs",
        "parents: 1_000",
    ),
    (
        "docs/decisions/004-looking-again.md",
        "More than 1,000 parents of a key, more than 2,000 keys",
        "src/views/limits.rs",
        "dirty_keys: 2_000",
    ),
    ("docs/decisions/003-streams.md", "1 MiB", "src/core/limits.rs", "stream_from: 1 << 20"),
    ("docs/decisions/005-hydrations.md", "(`OutboxLimits::sends`)", "src/core/limits.rs", "sends: 100"),
    (
        "docs/decisions/005-hydrations.md",
        "\"nice\" 5; 15 once",
        "src/server/reading_threads.rs",
        "NICE: i32 = 5",
    ),
    (
        "docs/decisions/002-unreported-readiness.md",
        "fifty times a second",
        "io/src/watchdog.rs",
        "BEAT: Duration = Duration::from_millis(20)",
    ),
];

#[test]
fn what_pages_say_in_numbers_is_what_the_code_has() {
    for (page, sentence, file, code) in SAID {
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words(&text(page)).contains(sentence), "{page} does not say {sentence:?} any more");
        assert!(text(file).contains(code), "{page} says {sentence:?}, but {file} has no {code:?}");
    }
}
