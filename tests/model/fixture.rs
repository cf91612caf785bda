//! The tables of the conformance checklist (`docs/spec/zql.md` §17), and its rows.

use super::cell::Kind;
use super::database::Database;
use super::schema::{Schema, TableSpec};
use super::script;

/// `indexed`: correlated columns have indexes, as an app in production has them.
pub fn schema(indexed: bool) -> Schema {
    let text = |name| (name, Kind::Text, false);
    let key = |name| (name, Kind::Text, true);
    let table = |name, columns, keys: &[&[usize]], indexes: &[&[usize]]| {
        TableSpec::new(name, columns, keys, if indexed { indexes } else { &[] })
    };
    let secret = table("secret", vec![key("id"), text("issueID")], &[&[0]], &[&[1]]);
    Schema::new(vec![
        table(
            "issue",
            vec![key("id"), text("status"), ("p", Kind::Real, false), text("owner")],
            &[&[0]],
            &[&[3]],
        ),
        table("user", vec![key("id"), text("name"), text("team")], &[&[0]], &[]),
        table(
            "comment",
            vec![key("id"), text("issueID"), text("author"), text("txt")],
            &[&[0]],
            &[&[1], &[2]],
        ),
        table("label", vec![key("id"), key("name")], &[&[0], &[1]], &[&[1]]),
        table("issueLabel", vec![key("issueID"), key("labelID")], &[&[0, 1]], &[&[1]]),
        // Columns of the other types.
        table(
            "thing",
            vec![
                key("id"),
                ("flag", Kind::Bool, false),
                ("data", Kind::Json, false),
                ("n", Kind::Int, false),
            ],
            &[&[0]],
            &[],
        ),
        // A table that clients do not know.
        TableSpec { client_key: None, ..secret },
    ])
}

const ROWS: &str = "+issue a open 1 u1; +issue b open - -; +issue c closed 2 u1; +issue d open 2 u2;
    +user u1 A t1; +user u2 B -;
    +comment k0 a u1 hi; +comment k1 a u1 hi; +comment k2 a u1 hi; +comment k3 a u1 hi; +comment k4 a u1 hi;
    +comment z1 c u2 hi; +label l1 bug; +label l2 feat; +issueLabel a l1; +issueLabel c l2;
    +secret s1 a; +thing t1 false {\"a\":1} 5; +thing t2 - - 9007199254740991";

/// The rows of the checklist, as a script.
pub fn rows(db: &mut Database) -> Vec<super::database::Write> {
    script::writes(ROWS, db)
}
