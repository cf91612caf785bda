//! `bench seed`: the issue tracker, with as many rows as the load needs.

use std::time::Instant;

use super::args::{Args, Flag};
use super::error::BenchError;
use super::sql::Sql;

const SCHEMA: &str = include_str!("../../../demo/seed/schema.sql");
const ROWS: &str = include_str!("../../../demo/seed/seed.sql");

/// Flags of `bench seed`.
pub const FLAGS: &[Flag] = &[
    Flag { name: "upstream", value: "URL", default: None, help: "an empty database" },
    Flag { name: "issues", value: "N", default: Some("100000"), help: "issues" },
    Flag {
        name: "projects",
        value: "N",
        default: Some("1000"),
        help: "projects; the issues are spread evenly",
    },
    Flag { name: "users", value: "N", default: Some("1000"), help: "users" },
    Flag { name: "comments", value: "N", default: Some("100000"), help: "comments" },
];

/// Runs `bench seed`.
pub fn run(args: &Args) -> Result<(), BenchError> {
    let mut counts = Vec::new();
    for name in ["issues", "projects", "users", "comments"] {
        counts.push((name, args.number::<u64>(name)?));
    }
    let mut sql = Sql::connect(args.text("upstream")?)?;
    let begun = Instant::now();
    sql.execute(SCHEMA)?;
    sql.execute(&fill(ROWS, &counts))?;
    println!("seeded {counts:?} in {:.1} s", begun.elapsed().as_secs_f64());
    Ok(())
}

/// Puts the counts in the place of `:name`, as psql does: not after another colon (a cast),
/// and not where the name goes on.
fn fill(text: &str, counts: &[(&str, u64)]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(':') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let word =
            after.len() - after.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '_').len();
        let count = counts.iter().find(|(name, _)| *name == &after[..word]);
        match count {
            Some((_, count)) if !out.ends_with(':') => out.push_str(&count.to_string()),
            _ => {
                out.push(':');
                out.push_str(&after[..word]);
            }
        }
        rest = &after[word..];
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_and_what_only_looks_like_them() {
        let counts = [("issues", 7), ("users", 3)];
        let text = "i % :users, ':issues_x' x::issues '10:00' :issues; a:=1 :";
        assert_eq!(fill(text, &counts), "i % 3, ':issues_x' x::issues '10:00' 7; a:=1 :");
    }

    #[test]
    fn the_files_have_all_placeholders() {
        let filled = fill(ROWS, &[("issues", 1), ("projects", 1), ("users", 1), ("comments", 1)]);
        assert_ne!(filled, ROWS);
        for name in ["issues", "projects", "users", "comments"] {
            assert!(ROWS.contains(&format!(":{name}")), "{name}");
        }
    }
}
