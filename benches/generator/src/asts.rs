//! What the app's backend answers for the queries of the load: ASTs in server names,
//! as the stock library writes them for the issue tracker's schema.

use serde_json::{Value, json};

use super::message::MARKER_TEXT;

/// Issues on a board when the arguments do not say.
const BOARD_LIMIT: u64 = 50;

/// The AST of a named query, or what is wrong with the request.
pub fn ast(name: &str, args: &Value) -> Result<Value, String> {
    let arg = &args[0];
    match name {
        "issue.recent" => {
            let limit = arg["limit"].as_u64().ok_or("limit is not a number")?;
            Ok(json!({"table": "issues", "limit": limit, "orderBy": [["created_at", "desc"]]}))
        }
        "issue.board" => Ok(board(text(arg, "projectID")?, arg["limit"].as_u64().unwrap_or(BOARD_LIMIT))),
        "issue.project" => {
            let limit = arg["limit"].as_u64().ok_or("limit is not a number")?;
            let order = [["updated_at", "desc"]];
            Ok(json!({"table": "issues", "where": equals("project_id", text(arg, "projectID")?),
                      "limit": limit, "orderBy": order}))
        }
        "issue.byID" => Ok(json!({"table": "issues", "where": equals("id", text(arg, "id")?)})),
        "issue.thread" => {
            let comments = related("id", "issue_id", json!({"table": "comments", "alias": "comments"}));
            Ok(json!({"table": "issues", "where": equals("id", text(arg, "id")?), "related": [comments]}))
        }
        "issue.marked" => Ok(marked(text(arg, "projectID")?)),
        "label.byID" => Ok(json!({"table": "labels", "where": equals("id", text(arg, "id")?)})),
        _ => Err(format!("there is no query {name}")),
    }
}

fn text<'a>(arg: &'a Value, name: &str) -> Result<&'a str, String> {
    arg[name].as_str().ok_or_else(|| format!("{name} is not a string"))
}

fn simple(column: &str, op: &str, value: &str) -> Value {
    json!({
        "type": "simple",
        "left": {"type": "column", "name": column},
        "right": {"type": "literal", "value": value},
        "op": op,
    })
}

fn equals(column: &str, value: &str) -> Value {
    simple(column, "=", value)
}

/// A project's issues that have a comment with a marker.
fn marked(project: &str) -> Value {
    let comments = json!({
        "table": "comments",
        "alias": "zsubq_comments",
        "where": simple("body", "LIKE", &format!("{MARKER_TEXT}%")),
    });
    json!({
        "table": "issues",
        "where": {"type": "and", "conditions": [
            equals("project_id", project),
            {"type": "correlatedSubquery", "related": related("id", "issue_id", comments), "op": "EXISTS"},
        ]},
    })
}

fn related(parent: &str, child: &str, subquery: Value) -> Value {
    json!({
        "correlation": {"parentField": [parent], "childField": [child]},
        "subquery": subquery,
        "system": "client",
    })
}

fn board(project: &str, limit: u64) -> Value {
    let label = related("label_id", "id", json!({"table": "labels", "alias": "labels"}));
    let mut labels =
        related("id", "issue_id", json!({"table": "issue_labels", "alias": "labels", "related": [label]}));
    labels["hidden"] = json!(true);
    json!({
        "table": "issues",
        "where": equals("project_id", project),
        "related": [
            related("creator_id", "id", json!({"table": "users", "alias": "creator"})),
            related("assignee_id", "id", json!({"table": "users", "alias": "assignee"})),
            labels,
        ],
        "limit": limit,
        "orderBy": [["updated_at", "desc"]],
    })
}

#[cfg(test)]
mod tests {
    use super::super::query::Query;
    use super::*;

    #[test]
    fn every_query_of_the_load_is_answered() {
        let all = [
            Query::recent(7),
            Query::board(3),
            Query::project(3, 20),
            Query::label("l1"),
            Query::issue("i1"),
            Query::thread("i1"),
            Query::marked("p1"),
        ];
        for query in all {
            let ast = ast(query.name, &json!([query.args])).unwrap();
            assert!(ast["table"].is_string(), "{}", query.name);
        }
        assert_eq!(ast("issue.recent", &json!([{"limit": 7}])).unwrap()["limit"], 7);
    }

    #[test]
    fn bad_requests_are_refused() {
        assert!(ast("issue.none", &json!([])).is_err());
        assert!(ast("issue.recent", &json!([])).is_err());
    }
}
