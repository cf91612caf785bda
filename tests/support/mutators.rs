//! What the app of the tests does with mutations: each runs in a transaction of its own, with its last mutation
//! id. What Postgres does not take is the call's failure, as it is of an app that somebody has written.

use std::io;

use serde_json::{Value, json};

use super::sql::Sql;

/// Runs the mutations of a push; returns what the app answers. An error: what the connection is in the middle of
/// is not known.
pub fn run_all(sql: &mut Sql, body: &Value) -> io::Result<Value> {
    let group = body["clientGroupID"].as_str().unwrap_or_default();
    let mut results = Vec::new();
    for mutation in body["mutations"].as_array().cloned().unwrap_or_default() {
        if mutation["name"] == "_zero_cleanupResults" {
            clean_up(sql, &mutation["args"][0])?;
            continue;
        }
        let client = mutation["clientID"].as_str().unwrap_or_default();
        let id = mutation["id"].as_u64().unwrap_or_default();
        match run_one(sql, group, client, id, &mutation)? {
            Ok(result) => results.push(json!({"id": {"clientID": client, "id": id}, "result": result})),
            Err(expected) => {
                let answer = json!({
                    "kind": "PushFailed", "origin": "server", "reason": "oooMutation",
                    "message": format!("expected mutation {expected}, got {id}"),
                    "mutationIDs": [{"clientID": client, "id": id}],
                });
                return Ok(answer);
            }
        }
    }
    Ok(json!({"kind": "MutateResponse", "mutations": results}))
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Runs one mutation; `Err`: the id that should have come.
fn run_one(
    sql: &mut Sql,
    group: &str,
    client: &str,
    id: u64,
    mutation: &Value,
) -> io::Result<Result<Value, u64>> {
    let (group, client) = (literal(group), literal(client));
    let advance = format!(
        r#"INSERT INTO zero_0.clients AS c ("clientGroupID", "clientID", "lastMutationID")
           VALUES ({group}, {client}, 1)
           ON CONFLICT ("clientGroupID", "clientID") DO UPDATE SET "lastMutationID" = c."lastMutationID" + 1
           RETURNING "lastMutationID""#
    );
    sql.query("BEGIN")?;
    let expected: u64 = number(sql, &advance)?;
    if id != expected {
        sql.query("ROLLBACK")?;
        return Ok(if id < expected { Ok(json!({"error": "alreadyProcessed"})) } else { Err(expected) });
    }
    let arg = &mutation["args"][0];
    let text = |name: &str| literal(arg[name].as_str().unwrap_or_default());
    let n = arg["n"].as_i64().unwrap_or_default();
    let statement = match mutation["name"].as_str().unwrap_or_default() {
        "put" => format!(
            "INSERT INTO item VALUES ({}, {}, {n}, NULL) ON CONFLICT (id) DO UPDATE SET n = EXCLUDED.n",
            text("id"),
            text("owner")
        ),
        "del" => format!("DELETE FROM item WHERE id = {}", text("id")),
        other => {
            sql.query("ROLLBACK; BEGIN")?;
            // Another request may have had the same mutation meanwhile: one that a dead server sent.
            if number(sql, &advance)? != id {
                sql.query("ROLLBACK")?;
                return Ok(Ok(json!({"error": "alreadyProcessed"})));
            }
            let error =
                json!({"error": "app", "message": format!("no mutator {other}"), "details": {"n": n}});
            sql.query(&format!(
                r#"INSERT INTO zero_0.mutations ("clientGroupID", "clientID", "mutationID", result)
                   VALUES ({group}, {client}, {id}, {}); COMMIT"#,
                literal(&error.to_string())
            ))?;
            return Ok(Ok(error));
        }
    };
    sql.query(&format!("{statement}; COMMIT"))?;
    Ok(Ok(json!({})))
}

/// The number that a statement returns.
fn number(sql: &mut Sql, statement: &str) -> io::Result<u64> {
    let rows = sql.query(statement)?;
    let value = rows.first().and_then(|row| row[0].as_ref()?.parse().ok());
    value.ok_or_else(|| io::Error::other(format!("no number: {statement}")))
}

fn clean_up(sql: &mut Sql, arg: &Value) -> io::Result<()> {
    let group = literal(arg["clientGroupID"].as_str().unwrap_or_default());
    let matching = if arg["type"] == "single" {
        let client = literal(arg["clientID"].as_str().unwrap_or_default());
        format!(r#""clientID" = {client} AND "mutationID" <= {}"#, arg["upToMutationID"])
    } else {
        let ids = arg["clientIDs"].as_array().cloned().unwrap_or_default();
        let ids: Vec<String> = ids.iter().map(|id| literal(id.as_str().unwrap_or_default())).collect();
        format!(r#""clientID" IN ({})"#, ids.join(","))
    };
    let statement = format!(r#"DELETE FROM zero_0.mutations WHERE "clientGroupID" = {group} AND {matching}"#);
    sql.query(&statement).map(drop)
}
