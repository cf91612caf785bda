//! What the app's backend answers for the queries of the load: ASTs in server names,
//! as the stock library writes them for the issue tracker's schema.

use serde_json::{Value, json};

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
        "issue.board" => {
            let project = arg["projectID"].as_str().ok_or("projectID is not a string")?;
            Ok(board(project, arg["limit"].as_u64().unwrap_or(BOARD_LIMIT)))
        }
        "label.byID" => {
            let id = arg["id"].as_str().ok_or("id is not a string")?;
            Ok(json!({"table": "labels", "where": equals("id", id)}))
        }
        _ => Err(format!("there is no query {name}")),
    }
}

fn equals(column: &str, value: &str) -> Value {
    json!({
        "type": "simple",
        "left": {"type": "column", "name": column},
        "right": {"type": "literal", "value": value},
        "op": "=",
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
        for query in [Query::recent(7), Query::board(3), Query::label("l1")] {
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
