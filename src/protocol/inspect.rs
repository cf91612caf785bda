//! The inspector's messages (`docs/spec/sync-protocol.md` §18): what developers ask of a server
//! through a client's socket.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::problem::{Invalid, short};

/// What is asked for.
#[derive(Debug, PartialEq)]
pub enum Request {
    /// The administrator's password.
    Authenticate(String),
    /// Version of the server.
    Version,
    /// Times of all queries of the group.
    Metrics,
    /// The group's queries.
    Queries {
        /// Of this client alone.
        client_id: Option<String>,
    },
    /// What answering a query takes.
    Analyze(Analyze),
}

/// A query to be analysed.
#[derive(Debug, Default, PartialEq)]
pub struct Analyze {
    /// As it is spelled out: JSON text.
    pub ast: Option<String>,
    /// As the app knows it: name, and arguments as JSON text.
    pub named: Option<(String, String)>,
    /// The answer's rows are wanted, too.
    pub synced_rows: bool,
    /// The same by the statements that gave them.
    pub read_rows: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawInspect<'a> {
    op: String,
    id: String,
    #[serde(rename = "clientID")]
    client_id: Option<String>,
    #[serde(borrow)]
    value: Option<&'a RawValue>,
    #[serde(borrow)]
    ast: Option<&'a RawValue>,
    name: Option<String>,
    #[serde(borrow)]
    args: Option<&'a RawValue>,
    #[serde(default)]
    options: RawOptions,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawOptions {
    vended_rows: Option<bool>,
    synced_rows: Option<bool>,
    /// There are no such events here: SQLite's plans show the side that is read from.
    #[serde(rename = "joinPlans")]
    _join_plans: Option<bool>,
}

/// The id to repeat in the answer, and what is asked for.
pub(super) fn request(raw: RawInspect<'_>) -> Result<(String, Request), Invalid> {
    let request = match raw.op.as_str() {
        "authenticate" => {
            let value = raw.value.ok_or("inspect: authenticate needs a value")?;
            let password = serde_json::from_str(value.get());
            Request::Authenticate(password.map_err(|_| "inspect: the password must be a string")?)
        }
        "version" => Request::Version,
        "metrics" => Request::Metrics,
        "queries" => Request::Queries { client_id: raw.client_id },
        "analyze-query" => {
            let named = raw.name.zip(raw.args).map(|(name, args)| (name, args.get().to_owned()));
            Request::Analyze(Analyze {
                ast: raw.ast.or(raw.value).map(|ast| ast.get().to_owned()),
                named,
                synced_rows: raw.options.synced_rows.unwrap_or(true),
                read_rows: raw.options.vended_rows.unwrap_or(false),
            })
        }
        other => return Err(format!("inspect: unknown operation {:?}", short(other))),
    };
    Ok((raw.id, request))
}

/// An answer.
pub fn reply(op: &str, id: &str, value: Value) -> Vec<u8> {
    json!(["inspect", {"op": op, "id": id, "value": value}]).to_string().into_bytes()
}

/// Whoever asks has to authenticate, or has done so.
pub fn authenticated(id: &str, is: bool) -> Vec<u8> {
    reply("authenticated", id, json!(is))
}

/// It could not be answered.
pub fn failed(id: &str, why: &str) -> Vec<u8> {
    reply("error", id, json!(why))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Request, Invalid> {
        let raw: RawInspect = serde_json::from_str(text).map_err(|e| e.to_string())?;
        request(raw).map(|(id, request)| {
            assert_eq!(id, "r");
            request
        })
    }

    #[test]
    fn what_is_asked_for_is_understood() {
        assert_eq!(read(r#"{"op":"version","id":"r"}"#), Ok(Request::Version));
        let all = Request::Queries { client_id: None };
        assert_eq!(read(r#"{"op":"queries","id":"r"}"#), Ok(all));
        let password = Request::Authenticate("p\"".into());
        assert_eq!(read(r#"{"op":"authenticate","id":"r","value":"p\""}"#), Ok(password));
        let old = Analyze { ast: Some(r#"{"table":"t"}"#.into()), synced_rows: true, ..Analyze::default() };
        assert_eq!(
            read(r#"{"op":"analyze-query","id":"r","value":{"table":"t"}}"#),
            Ok(Request::Analyze(old))
        );
        let named =
            Analyze { named: Some(("q".into(), "[1]".into())), read_rows: true, ..Analyze::default() };
        let text = r#"{"op":"analyze-query","id":"r","name":"q","args":[1],
            "options":{"syncedRows":false,"vendedRows":true,"joinPlans":true}}"#;
        assert_eq!(read(text), Ok(Request::Analyze(named)));
        for bad in [r#"{"op":"authenticate","id":"r"}"#, r#"{"op":"authenticate","id":"r","value":1}"#] {
            assert!(read(bad).is_err());
        }
        assert!(read(r#"{"op":"dance","id":"r"}"#).is_err());
    }
}
