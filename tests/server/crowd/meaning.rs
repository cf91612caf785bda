//! What the tabs of the crowd ask for, and what that means in SQL, by hand.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::support::app::{Query, of, query};
use super::super::support::sql::{Row, Sql};

/// Rows by table and key, their values as text.
pub type Rows = BTreeMap<(String, String), Row>;

/// Something that a tab can ask for.
#[derive(Debug, Clone)]
pub struct Question {
    pub query: Query,
    /// Selects the items and the pairs that it makes a tab hold.
    items: Option<String>,
    pairs: Option<String>,
}

/// Columns of an item, in order.
const ITEM: [&str; 4] = ["id", "owner", "n", "payload"];
const PAIR: [&str; 3] = ["a", "b", "c"];

/// Time that a query is kept when nobody asks for it any more, in milliseconds: over within a
/// round, so that its rows go.
const TIME_TO_LIVE: i64 = 100;

/// Owners that all groups ask about. Commits of the load are about fifty of them.
const OWNERS: u64 = 6;

fn equals(column: &str, value: &str) -> Value {
    json!({"type": "simple", "op": "=", "left": {"type": "column", "name": column},
           "right": {"type": "literal", "value": value}})
}

fn pairs_of_item(limit: Option<u64>) -> Value {
    let mut subquery = json!({"table": "pair", "alias": "pairs", "orderBy": [["a", "asc"], ["b", "asc"]]});
    if let Some(limit) = limit {
        subquery["limit"] = json!(limit);
    }
    json!({"correlation": {"parentField": ["id"], "childField": ["a"]}, "subquery": subquery})
}

fn question(query: Query, items: Option<String>, pairs: Option<String>) -> Question {
    Question { query: query.ttl(TIME_TO_LIVE), items, pairs }
}

fn of_owner(owner: &str) -> Question {
    question(of(owner), Some(format!("SELECT * FROM item WHERE owner = '{owner}'")), None)
}

fn top(limit: u64) -> Question {
    let items = format!("SELECT * FROM item ORDER BY n DESC, id LIMIT {limit}");
    question(query("top", json!([limit])), Some(items), None)
}

/// The first items of an owner, each with the first of its pairs.
fn with_pairs(owner: &str) -> Question {
    let ast = json!({"table": "item", "where": equals("owner", owner), "limit": 8,
                     "orderBy": [["n", "desc"], ["id", "asc"]], "related": [pairs_of_item(Some(1))]});
    let items = format!("SELECT * FROM item WHERE owner = '{owner}' ORDER BY n DESC, id LIMIT 8");
    let pairs = format!(
        "SELECT p.* FROM ({items}) i, LATERAL (SELECT * FROM pair WHERE a = i.id ORDER BY a, b LIMIT 1) p"
    );
    question(query("spelled", json!([ast])), Some(items), Some(pairs))
}

/// The items of an owner that have no pair: no row of `pair` explains one.
fn without_pairs(owner: &str) -> Question {
    let mut related = pairs_of_item(None);
    related["subquery"]["alias"] = json!("zsubq_pairs");
    let condition = json!({"type": "and", "conditions": [
        equals("owner", owner),
        {"type": "correlatedSubquery", "op": "NOT EXISTS", "related": related}]});
    let ast = json!({"table": "item", "where": condition, "orderBy": [["id", "asc"]]});
    let items = format!(
        "SELECT * FROM item i WHERE owner = '{owner}' AND NOT EXISTS (SELECT FROM pair WHERE a = i.id)"
    );
    question(query("spelled", json!([ast])), Some(items), None)
}

/// What the tabs of a group may ask for: most of it others ask for, too.
pub fn questions(group: &str, number: usize) -> Vec<Question> {
    let mut all: Vec<Question> = (0..OWNERS).map(|n| of_owner(&format!("o{n}"))).collect();
    all.extend([top(10), top(40), of_owner("bulk"), with_pairs("o1"), with_pairs("o7"), without_pairs("o2")]);
    all.push(question(query("pairs", json!([])), None, Some("SELECT * FROM pair".to_owned())));
    // And these nobody else does.
    all.extend([of_owner(group), with_pairs(group)]);
    let one = format!("w0-{number}");
    let item = query("item", json!([one]));
    all.push(question(item, Some(format!("SELECT * FROM item WHERE id = '{one}'")), None));
    all
}

impl Question {
    /// The rows that it makes a tab hold, now.
    pub fn rows(&self, sql: &mut Sql) -> Rows {
        let mut rows = Rows::new();
        if let Some(items) = &self.items {
            for row in sql.rows(&format!("SELECT id, owner, n, payload FROM ({items}) t")) {
                rows.insert(("item".to_owned(), json!([row[0]]).to_string()), row);
            }
        }
        if let Some(pairs) = &self.pairs {
            for row in sql.rows(&format!("SELECT a, b, c FROM ({pairs}) t")) {
                let b: i64 = row[1].as_deref().and_then(|b| b.parse().ok()).expect("a number");
                rows.insert(("pair".to_owned(), json!([row[0], b]).to_string()), row);
            }
        }
        rows
    }
}

/// A row that a tab holds, as SQL would print it.
pub fn print(table: &str, row: &Value) -> Row {
    let columns: &[&str] = if table == "item" { &ITEM } else { &PAIR };
    let text = |column: &&str| match &row[*column] {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    };
    columns.iter().map(text).collect()
}
