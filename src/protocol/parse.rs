//! Reads messages of clients. Validation is strict, as the reference's: an unknown key anywhere is an error.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Number;
use serde_json::value::RawValue;

use super::client_schema::ClientSchema;
use super::inspect;
use super::list::{AtMost, MapAtMost, Unread, UnreadTexts};
use super::problem::{Invalid, problem, short};
use super::upstream::{
    InitConnection, MAX_CLIENT_IDS, MAX_HEADERS, MAX_MUTATIONS, MAX_NAME, MAX_QUERY_OPS, MAX_TEXT, Mutation,
    Push, QueryBody, QueryOp, Upstream,
};

type ClientIds = AtMost<String, MAX_CLIENT_IDS>;
type RawHeaders = MapAtMost<String, MAX_HEADERS>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawInit<'m> {
    #[serde(rename = "desiredQueriesPatch", borrow)]
    desired: AtMost<RawOp<'m>, MAX_QUERY_OPS>,
    #[serde(rename = "clientSchema")]
    client_schema: Option<ClientSchema>,
    deleted: Option<RawDeleted>,
    #[serde(rename = "userPushURL")]
    push_url: Option<String>,
    #[serde(rename = "userPushHeaders")]
    push_headers: Option<RawHeaders>,
    #[serde(rename = "userQueryURL")]
    query_url: Option<String>,
    #[serde(rename = "userQueryHeaders")]
    query_headers: Option<RawHeaders>,
    #[serde(rename = "activeClients")]
    active_clients: Option<ClientIds>,
    #[serde(rename = "traceparent")]
    _traceparent: Option<String>,
    // Clients of protocol 30 (ruling 13).
    #[serde(rename = "userPushParams", borrow)]
    _push_params: Option<&'m RawValue>,
    #[serde(rename = "userQueryParams", borrow)]
    _query_params: Option<&'m RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDeleted {
    #[serde(rename = "clientIDs")]
    client_ids: Option<ClientIds>,
    #[serde(rename = "clientGroupIDs")]
    _group_ids: Option<UnreadTexts>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawOp<'m> {
    op: String,
    hash: Option<String>,
    ttl: Option<f64>,
    #[serde(borrow)]
    ast: Option<&'m RawValue>,
    name: Option<String>,
    #[serde(borrow)]
    args: Option<&'m RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawChange<'m> {
    #[serde(rename = "desiredQueriesPatch", borrow)]
    desired: AtMost<RawOp<'m>, MAX_QUERY_OPS>,
    #[serde(rename = "traceparent")]
    _traceparent: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPush<'m> {
    #[serde(rename = "clientGroupID")]
    group_id: String,
    #[serde(borrow)]
    mutations: AtMost<&'m RawValue, MAX_MUTATIONS>,
    #[serde(rename = "pushVersion")]
    push_version: Number,
    #[serde(rename = "schemaVersion")]
    schema_version: Option<Number>,
    timestamp: Number,
    #[serde(rename = "requestID")]
    request_id: String,
    #[serde(rename = "auth")]
    _auth: Option<String>,
    #[serde(rename = "traceparent")]
    _traceparent: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMutation {
    #[serde(rename = "type")]
    kind: String,
    id: f64,
    #[serde(rename = "clientID")]
    client_id: String,
    name: String,
    #[serde(rename = "args")]
    _args: Unread,
    #[serde(rename = "timestamp")]
    _timestamp: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAuth {
    auth: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAck {
    id: f64,
    #[serde(rename = "clientID")]
    client_id: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Empty {}

/// Reads one message.
pub fn parse(message: &str) -> Result<Upstream<'_>, Invalid> {
    let (kind, body): (&str, &RawValue) =
        serde_json::from_str(message).map_err(|e| format!("not a message: {}", problem(&e)))?;
    let body = body.get();
    match kind {
        "initConnection" => init(read(body, kind)?).map(|i| Upstream::InitConnection(Box::new(i))),
        "changeDesiredQueries" => {
            let raw: RawChange = read(body, kind)?;
            Ok(Upstream::ChangeDesiredQueries(ops(raw.desired)?))
        }
        "deleteClients" => {
            let raw: RawDeleted = read(body, kind)?;
            Ok(Upstream::DeleteClients(raw.client_ids.map_or(Ok(Vec::new()), client_ids)?))
        }
        "push" => push(read(body, kind)?).map(|p| Upstream::Push(Box::new(p))),
        "ping" => read::<Empty>(body, kind).map(|_| Upstream::Ping),
        "updateAuth" => Ok(Upstream::UpdateAuth(read::<RawAuth>(body, kind)?.auth)),
        "ackMutationResponses" => {
            let raw: RawAck = read(body, kind)?;
            let client_id = name(raw.client_id, "clientID")?;
            Ok(Upstream::AckMutationResponses { client_id, id: whole(raw.id, "id")? })
        }
        "pull" | "closeConnection" => Ok(Upstream::Ignored),
        "inspect" => {
            let (id, request) = inspect::request(read(body, kind)?)?;
            Ok(Upstream::Inspect { id, request })
        }
        other => Err(format!("unknown type of message {:?}", short(other))),
    }
}

fn read<'m, T: Deserialize<'m>>(body: &'m str, kind: &str) -> Result<T, Invalid> {
    // A list of values in the right order would be taken for the object.
    if !body.starts_with('{') {
        return Err(format!("invalid {kind} message: it must be an object"));
    }
    serde_json::from_str(body).map_err(|e| format!("invalid {kind} message: {}", problem(&e)))
}

fn whole(n: f64, what: &str) -> Result<u64, Invalid> {
    if n.fract() == 0.0 && (0.0..=9_007_199_254_740_991.0).contains(&n) {
        return Ok(n as u64);
    }
    Err(format!("{what} must be a whole number, got {n}"))
}

fn name(text: String, what: &str) -> Result<String, Invalid> {
    if text.len() > MAX_NAME {
        return Err(format!("{what} is longer than {MAX_NAME} bytes"));
    }
    Ok(text)
}

fn client_ids(ids: ClientIds) -> Result<Vec<String>, Invalid> {
    ids.0.into_iter().map(|id| name(id, "clientID")).collect()
}

fn text(text: Option<String>, what: &str) -> Result<Option<String>, Invalid> {
    match text {
        Some(text) if text.len() > MAX_TEXT => Err(format!("{what} is longer than {MAX_TEXT} bytes")),
        text => Ok(text.filter(|text| !text.is_empty())),
    }
}

fn headers(headers: Option<RawHeaders>) -> Result<BTreeMap<String, String>, Invalid> {
    let headers = headers.map(|headers| headers.0).unwrap_or_default();
    if headers.iter().any(|(name, value)| name.len() > MAX_NAME || value.len() > MAX_TEXT) {
        return Err("a header for an endpoint is too long".to_owned());
    }
    Ok(headers)
}

fn ops(raw: AtMost<RawOp<'_>, MAX_QUERY_OPS>) -> Result<Vec<QueryOp<'_>>, Invalid> {
    raw.0.into_iter().map(op).collect()
}

fn op(raw: RawOp<'_>) -> Result<QueryOp<'_>, Invalid> {
    let hash = |hash: Option<String>| match hash {
        Some(hash) => name(hash, "hash"),
        None => Err("a query operation lacks its hash".to_owned()),
    };
    match raw.op.as_str() {
        "put" => {
            let query = match (raw.ast, raw.name, raw.args) {
                (None, None, None) => None,
                (Some(ast), None, None) => Some(QueryBody::Ast(ast)),
                (None, Some(query), Some(args)) if args.get().starts_with('[') => {
                    Some(QueryBody::Named { name: name(query, "name of a query")?, args })
                }
                _ => return Err("a put needs either ast, or name and args".to_owned()),
            };
            Ok(QueryOp::Put { hash: hash(raw.hash)?, ttl: raw.ttl, query })
        }
        "del" => Ok(QueryOp::Del { hash: hash(raw.hash)? }),
        "clear" => Ok(QueryOp::Clear),
        other => Err(format!("unknown query operation {:?}", short(other))),
    }
}

fn init(raw: RawInit<'_>) -> Result<InitConnection<'_>, Invalid> {
    Ok(InitConnection {
        desired: ops(raw.desired)?,
        client_schema: raw.client_schema.map(ClientSchema::normalised),
        deleted: raw.deleted.map(|d| d.client_ids.map_or(Ok(Vec::new()), client_ids)).transpose()?,
        push_url: text(raw.push_url, "userPushURL")?,
        push_headers: headers(raw.push_headers)?,
        query_url: text(raw.query_url, "userQueryURL")?,
        query_headers: headers(raw.query_headers)?,
        active_clients: raw.active_clients.map(client_ids).transpose()?,
    })
}

fn push(raw: RawPush<'_>) -> Result<Push<'_>, Invalid> {
    let raw_mutations = raw.mutations.0;
    let mut mutations = Vec::with_capacity(raw_mutations.len());
    for text in raw_mutations {
        let mutation: RawMutation = read(text.get(), "mutation of a push")?;
        let crud = match mutation.kind.as_str() {
            "crud" => true,
            "custom" => false,
            other => return Err(format!("unknown type of mutation {:?}", short(other))),
        };
        name(mutation.name, "name of a mutator")?;
        mutations.push(Mutation {
            raw: text,
            crud,
            id: whole(mutation.id, "id of a mutation")?,
            client_id: name(mutation.client_id, "clientID")?,
        });
    }
    Ok(Push {
        group_id: raw.group_id,
        mutations,
        push_version: raw.push_version,
        schema_version: raw.schema_version,
        timestamp: raw.timestamp,
        request_id: name(raw.request_id, "requestID")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::client_schema::MAX_TABLES;

    #[test]
    fn messages_of_stock_clients_are_read() {
        let init = r#"["initConnection",{"desiredQueriesPatch":[{"op":"put","hash":"1","name":"q","args":[],"ttl":300000},{"op":"del","hash":"2"}],"clientSchema":{"tables":{"t":{"columns":{"id":{"type":"string"}},"primaryKey":["id"]}}},"activeClients":["c"]}]"#;
        let Ok(Upstream::InitConnection(init)) = parse(init) else { panic!() };
        assert_eq!(init.desired.len(), 2);
        assert!(init.deleted.is_none());
        let push = r#"["push",{"clientGroupID":"g","mutations":[{"type":"custom","id":4,"clientID":"c","name":"m","args":[{"a":1}],"timestamp":1.5}],"pushVersion":1,"timestamp":1,"requestID":"r"}]"#;
        let Ok(Upstream::Push(push)) = parse(push) else { panic!() };
        assert_eq!(push.mutations[0].id, 4);
        assert!(push.mutations[0].raw.get().contains("\"timestamp\":1.5"));
        assert!(matches!(parse(r#"["ping",{}]"#), Ok(Upstream::Ping)));
        assert!(matches!(parse(r#"["closeConnection",[]]"#), Ok(Upstream::Ignored)));
    }

    #[test]
    fn lists_and_texts_have_their_limits() {
        let ids = |count: usize| {
            let ids: Vec<String> = (0..count).map(|n| format!("c{n}")).collect();
            serde_json::to_string(&ids).unwrap()
        };
        let delete = |ids: String| format!(r#"["deleteClients",{{"clientIDs":{ids}}}]"#);
        let init = |more: String| format!(r#"["initConnection",{{"desiredQueriesPatch":[],{more}}}]"#);
        let tables = |count: usize| {
            let table = |n| format!(r#""t{n}":{{"columns":{{}},"primaryKey":[]}}"#);
            (0..count).map(table).collect::<Vec<_>>().join(",")
        };
        let (long, longer) = ("x".repeat(MAX_NAME + 1), "x".repeat(MAX_TEXT + 1));
        assert!(parse(&delete(ids(MAX_CLIENT_IDS))).is_ok());
        assert!(parse(&init(format!(r#""activeClients":{}"#, ids(MAX_CLIENT_IDS)))).is_ok());
        let schema = format!(r#""clientSchema":{{"tables":{{{}}}}}"#, tables(MAX_TABLES));
        assert!(parse(&init(schema)).is_ok());
        let many: BTreeMap<String, &str> = (0..=MAX_HEADERS).map(|n| (format!("h{n}"), "")).collect();
        let many = serde_json::to_string(&many).unwrap();
        for bad in [
            delete(ids(1_000_000)),
            delete(format!("[{long:?}]")),
            init(format!(r#""activeClients":{}"#, ids(MAX_CLIENT_IDS + 1))),
            init(format!(r#""deleted":{{"clientIDs":{}}}"#, ids(MAX_CLIENT_IDS + 1))),
            init(format!(r#""clientSchema":{{"tables":{{{}}}}}"#, tables(MAX_TABLES + 1))),
            init(format!(r#""userPushURL":{longer:?}"#)),
            init(format!(r#""userQueryURL":{longer:?}"#)),
            init(format!(r#""userPushHeaders":{many}"#)),
            init(format!(r#""userQueryHeaders":{{"a":{longer:?}}}"#)),
            format!(r#"["ackMutationResponses",{{"id":1,"clientID":{long:?}}}]"#),
            format!(
                r#"["push",{{"clientGroupID":"g","mutations":[],"pushVersion":1,"timestamp":1,"requestID":{long:?}}}]"#
            ),
        ] {
            let error = parse(&bad).err().unwrap_or_default();
            let named = ["more than", "longer than", "too long"].iter().any(|what| error.contains(what));
            assert!(named, "{error:?} of {}", &bad[..60]);
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in [
            "",
            "{}",
            "[]",
            r#"["noSuchMessage",{}]"#,
            r#"["ping",{"a":1}]"#,
            r#"["ping",[]]"#,
            r#"["ping",{}"#,
            r#"["initConnection",{}]"#,
            r#"["initConnection",{"desiredQueriesPatch":[],"surprise":1}]"#,
            r#"["changeDesiredQueries",{"desiredQueriesPatch":[{"op":"put","hash":"1","name":"q"}]}]"#,
            r#"["changeDesiredQueries",{"desiredQueriesPatch":[{"op":"put","hash":"1","name":"q","args":{}}]}]"#,
            r#"["changeDesiredQueries",{"desiredQueriesPatch":[{"op":"move","hash":"1"}]}]"#,
            r#"["ackMutationResponses",{"id":1.5,"clientID":"c"}]"#,
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
