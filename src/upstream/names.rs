//! Names: what a table is called in the replica, and which names are left out
//! (`docs/spec/replication.md` §2).

/// Column of the replica that holds the version of a row.
pub const ROW_VERSION: &str = "_0_version";

/// Schemas whose tables would take names that the replica uses itself.
const RESERVED_SCHEMAS: [&str; 3] = ["_zero", "_kelvin", "_litestream"];

/// Bare for schema `public`, else `schema.table`, as one identifier.
pub fn in_replica(schema: &str, name: &str) -> String {
    if schema == "public" { name.to_owned() } else { format!("{schema}.{name}") }
}

/// Whether clients can name a table so: `^[A-Za-z_]+[A-Za-z0-9_-]*$`, and nothing that SQLite or the replica keeps
/// for itself.
pub fn is_table(schema: &str, name: &str) -> bool {
    let shaped = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    let reserved = name.to_ascii_lowercase().starts_with("sqlite_") || RESERVED_SCHEMAS.contains(&schema);
    shaped && !reserved
}

/// Whether clients can name a column so: `^[A-Za-z_]+[.A-Za-z0-9_-]*$`, and not as the row version.
pub fn is_column(name: &str) -> bool {
    let shaped = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
    shaped && !name.eq_ignore_ascii_case(ROW_VERSION)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_clients_cannot_use_are_left_out() {
        assert!(is_table("public", "issue_2-b"));
        for name in ["", "2x", "a b", "a.b", "é", "a\"b", "sqlite_x"] {
            assert!(!is_table("public", name), "{name}");
        }
        assert!(is_column("a.b-c"));
        for name in ["", "1", "a b", "_0_version", "a\"b"] {
            assert!(!is_column(name), "{name}");
        }
        assert_eq!(in_replica("public", "t"), "t");
        assert_eq!(in_replica("zero_0", "clients"), "zero_0.clients");
    }
}
