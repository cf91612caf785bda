//! Names: what a table is called in the replica, and which names are refused
//! (`docs/spec/replication.md` §2).

use std::collections::{HashMap, HashSet};

use super::error::Error;
use crate::model::catalogue::Column;
use crate::replica::schema::rowid_name;

/// Column of the replica that holds the version of a row.
pub const ROW_VERSION: &str = "_0_version";

/// Schemas whose tables would take names that the replica uses itself.
const RESERVED_SCHEMAS: [&str; 3] = ["_zero", "_kelvin", "_litestream"];

/// Bare for schema `public`, else `schema.table`, as one identifier.
pub fn in_replica(schema: &str, name: &str) -> String {
    if schema == "public" { name.to_owned() } else { format!("{schema}.{name}") }
}

/// `^[A-Za-z_]+[A-Za-z0-9_-]*$`, and nothing that SQLite or the replica keeps for itself.
pub fn check_table(schema: &str, name: &str) -> Result<(), Error> {
    let shaped = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    let reserved = name.to_ascii_lowercase().starts_with("sqlite_") || RESERVED_SCHEMAS.contains(&schema);
    if shaped && !reserved {
        return Ok(());
    }
    Err(Error::Setup(format!(
        "table {schema}.{name} cannot be replicated under this name: it must begin with a letter or _, hold \
         letters, digits, _ and -, and not begin with sqlite_. Rename it, or leave it out of the publication"
    )))
}

/// `^[A-Za-z_]+[.A-Za-z0-9_-]*$`, and not the row version.
pub fn check_column(table: &str, name: &str) -> Result<(), Error> {
    let shaped = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
    if shaped && !name.eq_ignore_ascii_case(ROW_VERSION) {
        return Ok(());
    }
    Err(Error::Setup(format!(
        "column {name:?} of table {table} cannot be replicated under this name: it must begin with a letter \
         or _, hold letters, digits, _, - and ., and not be {ROW_VERSION}. Rename it, or leave it out of \
         the publication with a column list"
    )))
}

/// SQLite does not tell upper from lower case in names; Postgres does.
pub fn check_unique<'a>(names: impl Iterator<Item = &'a str>) -> Result<(), Error> {
    let mut seen: HashMap<String, &str> = HashMap::new();
    for name in names {
        if let Some(other) = seen.insert(name.to_ascii_lowercase(), name) {
            return Err(Error::Setup(format!(
                "{other:?} and {name:?} differ only in case, which the replica cannot tell apart. Rename \
                 one, or leave it out of the publication"
            )));
        }
    }
    Ok(())
}

/// SQLite reaches a row by its rowid under one of three names, which columns may hide.
pub fn check_rowid(table: &str, columns: &[Column]) -> Result<(), Error> {
    if rowid_name(columns).is_some() {
        return Ok(());
    }
    Err(Error::Setup(format!(
        "table {table} has columns rowid, _rowid_ and oid, which leaves SQLite no name for its row ids. Rename \
         one, or leave it out of the publication"
    )))
}

/// Lengthens the name of an index until nothing else has it. Tables and indexes share
/// their names in SQLite, in any case; in Postgres each schema has its own.
pub fn make_unique(name: &mut String, taken: &mut HashSet<String>) {
    while !taken.insert(name.to_ascii_lowercase()) {
        name.push('_');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_the_replica_cannot_hold_are_refused() {
        assert!(check_table("public", "issue_2-b").is_ok());
        for name in ["", "2x", "a b", "a.b", "é", "a\"b", "sqlite_x"] {
            assert!(check_table("public", name).is_err(), "{name}");
        }
        assert!(check_column("t", "a.b-c").is_ok());
        for name in ["", "1", "a b", "_0_version", "a\"b"] {
            assert!(check_column("t", name).is_err(), "{name}");
        }
        assert!(check_unique(["a", "b"].into_iter()).is_ok());
        assert!(check_unique(["a", "A"].into_iter()).is_err());
        assert_eq!(in_replica("public", "t"), "t");
        assert_eq!(in_replica("zero_0", "clients"), "zero_0.clients");
    }
}
