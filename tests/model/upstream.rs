//! What a tab sends: messages as the stock client writes them (`docs/spec/sync-protocol.md` §5, §7).

use kelvin::protocol::client_schema::ClientSchema;
use kelvin::protocol::upstream::{QueryBody, QueryOp};
use serde_json::{Value, json};

fn op(op: &QueryOp<'_>) -> Value {
    match op {
        QueryOp::Put { hash, ttl, query } => {
            let mut out = json!({"op": "put", "hash": hash});
            if let Some(ttl) = ttl {
                out["ttl"] = json!(ttl);
            }
            let raw = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
            match query {
                Some(QueryBody::Named { name, args }) => {
                    out["name"] = json!(name);
                    out["args"] = raw(args.get());
                }
                Some(QueryBody::Ast(ast)) => out["ast"] = raw(ast.get()),
                None => {}
            }
            out
        }
        QueryOp::Del { hash } => json!({"op": "del", "hash": hash}),
        QueryOp::Clear => json!({"op": "clear"}),
    }
}

fn ops(all: &[QueryOp<'_>]) -> Value {
    all.iter().map(op).collect()
}

/// The first message.
pub fn init(
    desired: &[QueryOp<'_>],
    schema: Option<&ClientSchema>,
    active_clients: Option<&[String]>,
) -> String {
    let mut body = json!({"desiredQueriesPatch": ops(desired)});
    if let Some(schema) = schema {
        body["clientSchema"] = json!(schema);
    }
    if let Some(clients) = active_clients {
        body["activeClients"] = json!(clients);
    }
    json!(["initConnection", body]).to_string()
}

pub fn change(desired: &[QueryOp<'_>]) -> String {
    json!(["changeDesiredQueries", {"desiredQueriesPatch": ops(desired)}]).to_string()
}

pub fn delete(clients: &[String]) -> String {
    json!(["deleteClients", {"clientIDs": clients}]).to_string()
}

pub fn token(token: &str) -> String {
    json!(["updateAuth", {"auth": token}]).to_string()
}

pub fn acknowledge(client: &str, id: u64) -> String {
    json!(["ackMutationResponses", {"clientID": client, "id": id}]).to_string()
}

pub fn push(group: &str, client: &str, id: u64) -> String {
    let mutation =
        json!({"type": "custom", "id": id, "clientID": client, "name": "write", "args": [], "timestamp": 0});
    let body = json!({
        "clientGroupID": group,
        "mutations": [mutation],
        "pushVersion": 1,
        "timestamp": 0,
        "requestID": format!("{client} {id}"),
    });
    json!(["push", body]).to_string()
}
