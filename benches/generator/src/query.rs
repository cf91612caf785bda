//! The queries of the load, as clients name them, and the schema that they declare.

use serde_json::{Value, json};
use xxhash_rust::xxh32::xxh32;

use super::message::{HASH_DIGITS, HASH_TEXT};

/// How long a query lives after its client is gone, in milliseconds: what a stock client asks for.
const TTL_MS: u64 = 300_000;

/// A named query with its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Name in the app's registry.
    pub name: &'static str,
    /// The one argument.
    pub args: Value,
    /// The digits of its hash.
    pub id: u64,
    ttl_ms: u64,
}

impl Query {
    fn new(name: &'static str, args: Value) -> Query {
        let text = format!("{name}:[{args}]");
        let id = u64::from(xxh32(text.as_bytes(), 0)) << 32 | u64::from(xxh32(text.as_bytes(), 1));
        Query { name, args, id, ttl_ms: TTL_MS }
    }

    /// The same, but it need not be kept when its client is gone.
    pub fn forgotten_at_once(self) -> Query {
        Query { ttl_ms: 0, ..self }
    }

    /// The newest issues.
    pub fn recent(limit: u64) -> Query {
        Query::new("issue.recent", json!({ "limit": limit }))
    }

    /// A project's board: the 50 issues changed last, with people and labels.
    pub fn board(project: u64) -> Query {
        Query::new("issue.board", json!({ "projectID": format!("p{project}") }))
    }

    /// The issues of a project that were changed last.
    pub fn project(project: u64, limit: u64) -> Query {
        Query::new("issue.project", json!({ "projectID": format!("p{project}"), "limit": limit }))
    }

    /// One issue.
    pub fn issue(id: &str) -> Query {
        Query::new("issue.byID", json!({ "id": id }))
    }

    /// One issue with its comments.
    pub fn thread(id: &str) -> Query {
        Query::new("issue.thread", json!({ "id": id }))
    }

    /// A project's issues that have a comment with a marker.
    pub fn marked(project: &str) -> Query {
        Query::new("issue.marked", json!({ "projectID": project }))
    }

    /// One label.
    pub fn label(id: &str) -> Query {
        Query::new("label.byID", json!({ "id": id }))
    }

    /// The id by which client and server speak of it. Of fixed length, so that it can be
    /// found without parsing; servers take it as it is.
    pub fn hash(&self) -> String {
        format!("{HASH_TEXT}{:0width$x}", self.id, width = HASH_DIGITS)
    }

    /// The operation that asks for it.
    pub fn put(&self) -> Value {
        json!({"op": "put", "hash": self.hash(), "name": self.name, "args": [self.args], "ttl": self.ttl_ms})
    }
}

/// Tables of the issue tracker: name, primary key, columns with their client types
/// (s string, n number, b boolean, j json).
const TABLES: &[(&str, &[&str], &str)] = &[
    ("comments", &["id"], "author_id:s body:s created_at:n id:s issue_id:s"),
    ("issue_labels", &["issue_id", "label_id"], "issue_id:s label_id:s"),
    (
        "issues",
        &["id"],
        "assignee_id:s body:s created_at:n creator_id:s estimate:n id:s meta:j num:n priority:n project_id:s \
         rev:n status:s title:s updated_at:n",
    ),
    ("labels", &["id"], "color:s id:s name:s"),
    ("projects", &["id"], "archived:b id:s key:s name:s owner_id:s"),
    ("users", &["id"], "created_at:n email:s id:s name:s role:s"),
];

/// Names of the tables, all of them replicated.
pub fn tables() -> impl Iterator<Item = &'static str> {
    TABLES.iter().map(|t| t.0)
}

/// The schema as a client declares it when it connects for the first time.
pub fn client_schema() -> Value {
    let mut out = serde_json::Map::new();
    for (name, key, columns) in TABLES {
        let columns: serde_json::Map<String, Value> = columns
            .split_whitespace()
            .filter_map(|c| c.split_once(':'))
            .map(|(column, kind)| {
                let kind = match kind {
                    "n" => "number",
                    "b" => "boolean",
                    "j" => "json",
                    _ => "string",
                };
                (column.to_owned(), json!({ "type": kind }))
            })
            .collect();
        out.insert((*name).to_owned(), json!({"columns": columns, "primaryKey": key}));
    }
    json!({ "tables": out })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_have_one_length_and_tell_queries_apart() {
        let all = [Query::recent(1), Query::recent(2), Query::board(1), Query::label("l1")];
        for (i, a) in all.iter().enumerate() {
            assert_eq!(a.hash().len(), HASH_TEXT.len() + HASH_DIGITS);
            assert!(all[i + 1..].iter().all(|b| a.id != b.id));
        }
        assert_eq!(Query::recent(1), Query::recent(1));
    }

    #[test]
    fn the_schema_names_every_seeded_column_once() {
        let schema = client_schema();
        assert_eq!(schema["tables"]["issues"]["columns"].as_object().unwrap().len(), 14);
        assert_eq!(schema["tables"]["issue_labels"]["primaryKey"], json!(["issue_id", "label_id"]));
        assert_eq!(schema["tables"]["projects"]["columns"]["archived"]["type"], "boolean");
    }
}
