//! A developer asks through a client's socket what a group's queries are and cost, and is told
//! nothing, something wrong, or more than may be known (`docs/spec/sync-protocol.md` §18).

use std::time::Duration;

use crate::support::app::{Answer, THREE, items, of, query};
use crate::support::client::{Client, Event};
use crate::support::stage::Stage;
use serde_json::{Value, json};

const PASSWORD: (&str, &str) = ("ADMIN_PASSWORD", "secret");

/// Asks; the answer's operation and value.
fn ask(tab: &mut Client, mut body: Value) -> (String, Value) {
    body["id"] = json!("r");
    tab.send(json!(["inspect", body]));
    tab.until_event("the answer", |event| match event {
        Event::Other(answer) if answer[0] == "inspect" => {
            let answer = &answer[1];
            assert_eq!(answer["id"], "r");
            Some((answer["op"].as_str().expect("an operation").to_owned(), answer["value"].clone()))
        }
        Event::Other(_) | Event::Error(_) => panic!("no answer to {body}"),
        _ => None,
    })
}

fn let_in(tab: &mut Client) {
    let right = ask(tab, json!({"op": "authenticate", "value": "secret"}));
    assert_eq!(right, ("authenticated".to_owned(), json!(true)));
}

fn values(digest: &Value) -> usize {
    let digest = digest.as_array().expect("a digest");
    assert_eq!(digest[0], json!(1000.0), "its compression");
    digest[1..].chunks(2).map(|centroid| centroid[1].as_u64().expect("a weight") as usize).sum()
}

#[test]
fn nobody_is_told_anything_before_the_password_is_right() {
    let stage = Stage::prepared(THREE, &[PASSWORD]);
    let mut tab = stage.tab(&[items()]);
    let refused = ("authenticated".to_owned(), json!(false));
    let ops = ["version", "metrics", "queries", "analyze-query"].map(|op| json!({"op": op}));
    for op in &ops {
        assert_eq!(ask(&mut tab, op.clone()), refused);
    }
    for wrong in ["", "Secret", "secret "] {
        assert_eq!(ask(&mut tab, json!({"op": "authenticate", "value": wrong})), refused);
        assert_eq!(ask(&mut tab, ops[0].clone()), refused);
    }
    let_in(&mut tab);
    let (op, version) = ask(&mut tab, ops[0].clone());
    assert!(op == "version" && version.is_string());
    let mut sibling = tab.sibling();
    sibling.connect(&[items()]);
    assert_eq!(ask(&mut sibling, ops[0].clone()).0, "version", "it is the group that is let in");
    let mut stranger = stage.tab(&[items()]);
    assert_eq!(ask(&mut stranger, ops[0].clone()), refused);
    assert_eq!(ask(&mut tab, json!({"op": "authenticate", "value": "wrong"})), refused);
    assert_eq!(ask(&mut sibling, ops[0].clone()), refused, "a wrong one takes it back");
}

#[test]
fn a_group_sees_what_its_queries_are_and_cost() {
    let mut stage = Stage::prepared(THREE, &[PASSWORD]);
    let mut tab = stage.tab(&[items(), of("x").ttl(60_000)]);
    let mut sibling = tab.sibling();
    sibling.connect(&[items()]);
    sibling.until_got(&[items()]);
    let_in(&mut tab);
    stage.sql.run("UPDATE item SET n = 777 WHERE id = (SELECT min(id) FROM item)");
    tab.until("the change", |c| c.store.table("item").iter().any(|row| row["n"] == 777));
    tab.change(vec![of("x").del()]);
    tab.round_trip();
    let (op, rows) = ask(&mut tab, json!({"op": "queries"}));
    assert_eq!(op, "queries");
    let rows = rows.as_array().expect("rows").clone();
    let of_tab: Vec<&Value> = rows.iter().filter(|row| row["clientID"] == json!(tab.id)).collect();
    assert_eq!((rows.len(), of_tab.len()), (3, 2), "{rows:#?}");
    let row = |query: &crate::support::app::Query| {
        let hash = query.hash();
        of_tab.iter().find(|row| row["queryID"] == json!(hash)).copied().expect("the query")
    };
    let wanted = row(&items());
    assert_eq!(
        (&wanted["got"], &wanted["deleted"], &wanted["inactivatedAt"]),
        (&json!(true), &json!(false), &Value::Null)
    );
    assert_eq!((&wanted["name"], &wanted["args"]), (&json!("items"), &json!([])));
    assert_eq!(wanted["ast"]["table"], "item", "as the app spells it out");
    assert_eq!(wanted["rowCount"], 3);
    assert!(wanted["metrics"]["query-hydration-server-ms"].as_f64() > Some(0.0), "{wanted:#}");
    assert!(values(&wanted["metrics"]["query-update-server"]) >= 1);
    let unwanted = row(&of("x"));
    assert_eq!((&unwanted["deleted"], &unwanted["ttl"]), (&json!(true), &json!(60_000.0)));
    assert!(unwanted["inactivatedAt"].is_number());
    let known = [
        "clientID",
        "queryID",
        "ast",
        "name",
        "args",
        "got",
        "deleted",
        "ttl",
        "inactivatedAt",
        "rowCount",
        "metrics",
    ];
    let keys = wanted.as_object().expect("an object");
    assert!(keys.keys().all(|key| known.contains(&key.as_str())), "clients refuse other keys: {wanted:#}");
    let (_, own) = ask(&mut tab, json!({"op": "queries", "clientID": sibling.id}));
    assert_eq!(own.as_array().map(Vec::len), Some(1));
    let (op, costs) = ask(&mut tab, json!({"op": "metrics"}));
    assert_eq!((op.as_str(), values(&costs["query-materialization-server"])), ("metrics", 2));
    assert!(values(&costs["query-update-server"]) >= 1);
    // An app that is away hides the text, and nothing else.
    stage.app.script_query([Answer::Status(400, "no")]);
    let (_, rows) = ask(&mut tab, json!({"op": "queries", "clientID": sibling.id}));
    assert_eq!((&rows[0]["ast"], &rows[0]["name"]), (&Value::Null, &json!("items")));
}

#[test]
fn a_query_is_analysed() {
    let stage = Stage::prepared(THREE, &[PASSWORD]);
    let mut tab = stage.tab(&[]);
    let_in(&mut tab);
    let ast = json!({"table": "item", "orderBy": [["id", "asc"]]});
    let (op, result) = ask(&mut tab, json!({"op": "analyze-query", "ast": ast}));
    assert_eq!(op, "analyze-query", "{result:#}");
    assert_eq!((&result["syncedRowCount"], &result["readRowCount"]), (&json!(3), &json!(3)));
    assert_eq!(result["syncedRows"]["item"].as_array().map(Vec::len), Some(3));
    assert!(result["syncedRows"]["item"][0]["id"].is_string() && result.get("readRows").is_none());
    let plans = result["sqlitePlans"].as_object().expect("plans");
    assert!(
        plans.values().all(|steps| steps.as_array().is_some_and(|steps| !steps.is_empty())),
        "{plans:#?}"
    );
    let counts = result["readRowCountsByQuery"]["item"].as_object().expect("counts");
    assert!(counts.keys().all(|sql| plans.contains_key(sql)), "a count for each statement");
    assert!(
        result["elapsed"].as_f64() > Some(0.0) && result["start"].is_number() && result["end"].is_number()
    );
    let options = json!({"syncedRows": false, "vendedRows": true, "joinPlans": true});
    let by_name = json!({"op": "analyze-query", "name": "items", "args": [], "options": options});
    let (_, result) = ask(&mut tab, by_name.clone());
    assert_eq!(result["syncedRowCount"], 3);
    assert!(result.get("syncedRows").is_none());
    let read = result["readRows"]["item"].as_object().expect("rows by statement");
    assert_eq!(read.values().next().and_then(Value::as_array).map(Vec::len), Some(3));
    // What cannot be analysed is said, and the socket goes on.
    let failing = [
        (json!({"op": "analyze-query"}), "neither"),
        (json!({"op": "analyze-query", "ast": {"table": "nobody"}}), "nobody"),
        (json!({"op": "analyze-query", "value": {"table": 7}}), "invalid query"),
        (json!({"op": "analyze-query", "name": "spelled", "args": [{"table": "nobody"}]}), "nobody"),
    ];
    for (body, why) in failing {
        let (op, value) = ask(&mut tab, body);
        assert_eq!(op, "error");
        assert!(value.as_str().is_some_and(|text| text.contains(why)), "{value}");
    }
    stage.app.script_query([Answer::Status(400, "no")]);
    assert_eq!(ask(&mut tab, by_name).0, "error");
    tab.round_trip();
}

#[test]
fn developers_need_no_password_that_nobody_has_set() {
    let stage = Stage::prepared(THREE, &[("NODE_ENV", "development")]);
    let mut tab = stage.tab(&[items()]);
    assert_eq!(ask(&mut tab, json!({"op": "version"})).0, "version");
    let asked = ask(&mut tab, json!({"op": "authenticate", "value": ""}));
    assert_eq!(asked, ("authenticated".to_owned(), json!(true)));
    assert!(tab.settle(Duration::from_millis(100)).is_empty());
}

#[test]
fn older_clients_are_told_times_as_they_know_them() {
    let stage = Stage::prepared(THREE, &[PASSWORD]);
    let mut tab = stage.client();
    tab.version = 50;
    tab.connect(&[items(), query("items", json!([]))]);
    tab.until_got(&[items()]);
    let_in(&mut tab);
    let (_, rows) = ask(&mut tab, json!({"op": "queries"}));
    let metrics = &rows[0]["metrics"];
    assert_eq!(values(&metrics["query-materialization-server"]), 1);
    assert!(metrics.get("query-hydration-server-ms").is_none() && metrics["query-update-server"].is_array());
}
