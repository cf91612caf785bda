//! A query of the demo or of the benchmarks scans or sorts a table for want of an index.

use crate::support::on_executor;
use crate::support::postgres::Cluster;
use crate::support::replicator::{Replicator, Scratch};
use kelvin::model::catalogue::{Catalogue, ColumnIndex, Table};
use kelvin::replica::reader::Reader;
use kelvin::zql::explain::explain;
use kelvin::zql::limits::Limits;
use kelvin::zql::parser::{self, Strictness};
use kelvin::zql::plan::{Keys, Plan, plan};
use kelvin::zql::sql::Statements;
use serde_json::{Value, json};

const SCHEMA: &str = include_str!("../../demo/seed/schema.sql");
const ROWS: &str = include_str!("../../demo/seed/seed.sql");

/// Clients know every table by its best key.
struct BestKeys;

impl Keys for BestKeys {
    fn client_key(&self, table: &Table) -> Option<Vec<ColumnIndex>> {
        table.candidate_keys.first().cloned()
    }
}

fn equals(column: &str, value: Value) -> Value {
    let left = json!({"type": "column", "name": column});
    json!({"type": "simple", "op": "=", "left": left, "right": {"type": "literal", "value": value}})
}

fn all(conditions: Vec<Value>) -> Value {
    json!({"type": "and", "conditions": conditions})
}

fn tied(parent: &str, child: &str, subquery: Value) -> Value {
    let correlation = json!({"parentField": [parent], "childField": [child]});
    json!({"correlation": correlation, "subquery": subquery, "system": "client"})
}

fn exists(parent: &str, child: &str, subquery: Value) -> Value {
    json!({"type": "correlatedSubquery", "op": "EXISTS", "related": tied(parent, child, subquery)})
}

fn labels() -> Value {
    let label = tied("label_id", "id", json!({"table": "labels", "alias": "labels"}));
    tied("id", "issue_id", json!({"table": "issue_labels", "alias": "labels", "related": [label]}))
}

fn person(column: &str) -> Value {
    tied(column, "id", json!({"table": "users", "alias": column}))
}

fn project() -> Value {
    tied("project_id", "id", json!({"table": "projects", "alias": "project"}))
}

fn labelled(id: &str) -> Value {
    let label =
        exists("label_id", "id", json!({"table": "labels", "where": equals("id", json!(id)), "alias": "l"}));
    exists("id", "issue_id", json!({"table": "issue_labels", "where": label, "alias": "j"}))
}

/// The demo's list of issues: `orders` and `filters` as the page can combine them.
fn list(filters: Vec<Value>, order: Value, start: Option<Value>) -> Value {
    let mut query = json!({
        "table": "issues", "orderBy": order, "limit": 50,
        "related": [project(), person("assignee_id"), labels()],
    });
    if !filters.is_empty() {
        query["where"] = all(filters);
    }
    if let Some(row) = start {
        query["start"] = json!({"row": row, "exclusive": true});
    }
    query
}

/// Every query of the demo's `queries.mjs` and of the load generator.
fn queries() -> Vec<(&'static str, Value)> {
    let created = json!([["created_at", "desc"]]);
    let updated = json!([["updated_at", "desc"]]);
    let priority = json!([["priority", "desc"], ["created_at", "desc"]]);
    let of_project = || equals("project_id", json!("p1"));
    let nobody = json!({"type": "simple", "op": "IS", "left": {"type": "column", "name": "assignee_id"},
        "right": {"type": "literal", "value": null}});
    let comments = json!({"table": "comments", "alias": "comments", "orderBy": [["created_at", "asc"]],
        "related": [person("author_id")]});
    let detail = json!({
        "table": "issues", "where": equals("id", json!("i1")), "limit": 1,
        "related": [project(), person("creator_id"), person("assignee_id"), labels(), tied("id", "issue_id", comments)],
    });
    let board = json!({"table": "issues", "where": of_project(), "orderBy": updated, "limit": 50,
        "related": [person("creator_id"), person("assignee_id"), labels()]});
    let after = json!({"id": "i5", "created_at": 5});
    vec![
        ("recent", json!({"table": "issues", "orderBy": created, "limit": 50})),
        ("of a project", json!({"table": "issues", "where": of_project()})),
        ("board", board),
        ("list", list(vec![], created.clone(), None)),
        ("list of a project", list(vec![of_project()], updated.clone(), None)),
        ("list by priority", list(vec![], priority, None)),
        ("list of the unassigned", list(vec![nobody], updated.clone(), None)),
        ("list with a label", list(vec![of_project(), labelled("l1")], created.clone(), None)),
        ("list, next page", list(vec![], created, Some(after))),
        ("detail", detail),
        (
            "mine",
            json!({"table": "issues", "where": equals("assignee_id", json!("u1")), "orderBy": updated, "limit": 100}),
        ),
        ("projects", json!({"table": "projects", "orderBy": [["name", "asc"]], "limit": 1000})),
        ("user", json!({"table": "users", "where": equals("id", json!("u1")), "limit": 1})),
        ("label", json!({"table": "labels", "where": equals("id", json!("l1"))})),
    ]
}

/// Conditions that the root may be read from.
fn drivers(plan: &Plan) -> usize {
    match &plan.nodes[0].statements {
        Statements::Once(once) => once.drivers(),
        _ => 0,
    }
}

fn planned(query: &Value, catalogue: &Catalogue) -> Plan {
    let ast = parser::parse(&query.to_string(), Strictness::Strict, &Limits::DEFAULT).expect("a query");
    plan(&ast, catalogue, &BestKeys, &Limits::DEFAULT).expect("a plan")
}

/// What an index would have made better: a table read from end to end, or sorted as a whole.
fn complaints(reader: &Reader, plan: &Plan, driver: usize) -> Vec<String> {
    let mut scanning = false;
    let mut out = Vec::new();
    for step in explain(reader, plan, driver).expect("it is explained") {
        if step.contains("SCAN t0") || step.contains("SEARCH t0") {
            scanning = step.contains("SCAN t0");
        }
        let scans = step.contains("SCAN t") && !step.contains(" USING ");
        // Few rows are equal in the terms before the last.
        let sorts = scanning && step.contains("TEMP B-TREE") && !step.contains("LAST TERM");
        if scans || sorts {
            out.push(step);
        }
    }
    out
}

#[test]
fn no_query_of_the_demo_scans_or_sorts_a_table() {
    on_executor(|| async {
        let database = Cluster::shared().database().await;
        database.run(SCHEMA).await;
        let rows = ROWS.replace(":issues", "2000").replace(":projects", "50").replace(":users", "40");
        database.run(&rows.replace(":comments", "2000")).await;
        let scratch = Scratch::new();
        let mut replicator = Replicator::follow(&database, &scratch).await;
        let mut catalogue = replicator.ready().await.catalogue;
        let wishes = replicator.record.borrow().index_requests.0.clone();
        let wanted: Vec<_> =
            queries().iter().flat_map(|(_, query)| planned(query, &catalogue).index_requests).collect();
        assert!(!wanted.is_empty(), "projects and priorities have no index upstream");
        for wish in wanted {
            wishes.send(wish).await.expect("it is taken");
        }
        replicator.check(&database).await;
        let missing = |catalogue: &Catalogue| {
            queries().iter().any(|(_, q)| !planned(q, catalogue).index_requests.is_empty())
        };
        replicator.until("all indexes are there", |r| r.indexed.last().is_some_and(|c| !missing(c))).await;
        catalogue.clone_from(replicator.record.borrow().indexed.last().expect("an index"));
        let reader = Reader::open(&scratch.replica()).expect("a reader");
        reader.begin().expect("a snapshot");
        for (name, query) in queries() {
            let plan = planned(&query, &catalogue);
            for driver in 0..=drivers(&plan) {
                let complaints = complaints(&reader, &plan, driver);
                assert!(complaints.is_empty(), "{name}, from condition {driver}: {complaints:#?}");
            }
        }
        replicator.stop().await;
    });
}
