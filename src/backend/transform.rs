//! Named queries: what is asked of the app and what it answers
//! (`docs/spec/view-syncer.md` §8).

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::call::CallError;
use super::failure::Failure;
use crate::zql::custom_query::{Named, Transformed};
use crate::zql::limits::Limits;
use crate::zql::parser::{self, ParseError, Strictness};

/// Answer of the app to one request.
pub struct Transformation {
    /// User that the app says the request is of; `None`: it does not say.
    pub user_id: Option<Option<String>>,
    /// By hash.
    pub queries: Vec<(String, Transformed)>,
}

/// The request for these queries; none at all asks only whether the caller is let in.
pub fn request(queries: &[Named]) -> Bytes {
    let mut out = String::from("[\"transform\",[");
    for (i, query) in queries.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        let (id, name) = (Value::from(query.hash.as_str()), Value::from(query.name.as_str()));
        // Arguments keep their spelling.
        out.push_str(&format!("{{\"id\":{id},\"name\":{name},\"args\":{}}}", query.args));
    }
    out.push_str("]]");
    Bytes::from(out)
}

#[derive(Deserialize)]
struct Answer<'a> {
    kind: String,
    #[serde(rename = "userID", default, deserialize_with = "present")]
    user_id: Option<Option<String>>,
    #[serde(borrow, default)]
    queries: Option<Vec<&'a RawValue>>,
}

/// Reasons of the app for a request that failed as a whole.
const REASONS: [&str; 3] = ["database", "parse", "internal"];

#[derive(Deserialize)]
struct Entry<'a> {
    id: String,
    name: String,
    #[serde(borrow, default)]
    ast: Option<&'a RawValue>,
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    message: Option<String>,
}

/// Tells an absent field from one that is null.
fn present<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<Option<String>>, D::Error> {
    Option::<String>::deserialize(d).map(Some)
}

/// Reads an answer. A query in it that is more than the limits allow counts as refused.
pub fn response(body: &[u8], limits: &Limits) -> Result<Transformation, CallError> {
    let text = std::str::from_utf8(body).map_err(|e| malformed(&e.to_string()))?;
    if text.trim_start().starts_with('[') {
        return legacy(text, limits);
    }
    let answer: Answer = read(text)?;
    match (answer.kind.as_str(), answer.queries) {
        ("QueryResponse", Some(queries)) => {
            Ok(Transformation { user_id: answer.user_id, queries: entries(&queries, limits)? })
        }
        ("QueryResponse", None) => Err(malformed("it holds no queries")),
        ("TransformFailed", _) => Err(refused(text)),
        (other, _) => Err(malformed(&format!("unknown kind {other:?}"))),
    }
}

/// The queries that an answer spells out, by hash: JSON text as the app wrote it.
pub fn texts(body: &[u8]) -> Result<Vec<(String, String)>, CallError> {
    let text = std::str::from_utf8(body).map_err(|e| malformed(&e.to_string()))?;
    let entries: Vec<&RawValue> = match text.trim_start().starts_with('[') {
        true => {
            let (_, body): (&str, &RawValue) = read(text)?;
            read(body.get())?
        }
        false => read::<Answer>(text)?.queries.unwrap_or_default(),
    };
    let mut out = Vec::with_capacity(entries.len());
    for entry in entries {
        let entry: Entry = read(entry.get())?;
        out.extend(entry.ast.map(|ast| (entry.id, ast.get().to_owned())));
    }
    Ok(out)
}

fn read<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, CallError> {
    serde_json::from_str(text).map_err(|e| malformed(&e.to_string()))
}

fn legacy(text: &str, limits: &Limits) -> Result<Transformation, CallError> {
    let (kind, body): (&str, &RawValue) = read(text)?;
    match kind {
        "transformed" => {
            let queries: Vec<&RawValue> = read(body.get())?;
            Ok(Transformation { user_id: None, queries: entries(&queries, limits)? })
        }
        "transformFailed" => Err(refused(body.get())),
        other => Err(malformed(&format!("unknown kind {other:?}"))),
    }
}

fn entries(raw: &[&RawValue], limits: &Limits) -> Result<Vec<(String, Transformed)>, CallError> {
    raw.iter().map(|text| entry(text.get(), limits)).collect()
}

fn entry(text: &str, limits: &Limits) -> Result<(String, Transformed), CallError> {
    let entry: Entry = read(text)?;
    match (entry.ast, entry.error.as_deref()) {
        (_, Some("parse")) if entry.message.is_none() => {
            Err(malformed(&format!("the error of query {:?} has no message", entry.name)))
        }
        // Passed on to clients as it is.
        (_, Some("app" | "parse")) => Ok((entry.id, Transformed::Refused(read(text)?))),
        (_, Some(other)) => Err(malformed(&format!("unknown error {other:?} of query {:?}", entry.name))),
        (Some(ast), None) => match parser::parse(ast.get(), Strictness::Tolerant, limits) {
            Ok(ast) => Ok((entry.id, Transformed::Ast(Box::new(ast)))),
            Err(ParseError::TooMuch(what)) => {
                let error =
                    json!({"error": "app", "id": entry.id, "name": entry.name, "message": what.to_string()});
                Ok((entry.id, Transformed::Refused(error)))
            }
            Err(e) => Err(malformed(&format!("the query for {:?} is not one: {e}", entry.name))),
        },
        (None, None) => Err(malformed(&format!("the answer for {:?} holds no query", entry.name))),
    }
}

fn refused(text: &str) -> CallError {
    match read::<Failure>(text) {
        Ok(failure) => {
            failure.accept(&REASONS).unwrap_or_else(|| malformed("unknown origin or reason of a failure"))
        }
        Err(malformed) => malformed,
    }
}

fn malformed(what: &str) -> CallError {
    CallError::internal("parse", format!("the query endpoint's answer is not as expected: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_passed_on_as_they_are_spelled() {
        let queries =
            [Named { hash: "h".into(), name: "q\"".into(), args: "[1.0,{\"b\":1,\"a\":2}]".into() }];
        assert_eq!(
            std::str::from_utf8(&request(&queries)).unwrap(),
            r#"["transform",[{"id":"h","name":"q\"","args":[1.0,{"b":1,"a":2}]}]]"#
        );
        assert_eq!(&request(&[])[..], br#"["transform",[]]"#);
    }

    #[test]
    fn all_shapes_of_answers_are_read() {
        let body = br#"{"kind":"QueryResponse","userID":null,"queries":[{"id":"a","name":"n","ast":{"table":"t","new":1}},{"error":"app","id":"b","name":"n","message":"no","details":{"x":1}}]}"#;
        let answer = response(body, &Limits::DEFAULT).unwrap();
        assert_eq!(answer.user_id, Some(None));
        assert!(matches!(&answer.queries[0], (id, Transformed::Ast(_)) if id == "a"));
        let (_, Transformed::Refused(error)) = &answer.queries[1] else { panic!() };
        assert_eq!(error["details"]["x"], 1);
        let answer =
            response(br#"["transformed",[{"id":"a","name":"n","ast":{"table":"t"}}]]"#, &Limits::DEFAULT)
                .unwrap();
        assert_eq!((answer.user_id, answer.queries.len()), (None, 1));
        let failed = br#"{"kind":"TransformFailed","origin":"server","reason":"database","message":"m","queryIDs":[]}"#;
        assert_eq!(response(failed, &Limits::DEFAULT).err().unwrap().reason, "database");
        assert_eq!(response(b"<html>", &Limits::DEFAULT).err().unwrap().reason, "parse");
        assert_eq!(
            response(br#"{"kind":"QueryResponse","queries":[{"id":"a","error":"zero"}]}"#, &Limits::DEFAULT)
                .err()
                .unwrap()
                .reason,
            "parse"
        );
    }

    #[test]
    fn a_query_that_is_too_much_is_refused_alone() {
        let limits = Limits { nodes: 1, ..Limits::DEFAULT };
        let body = br#"{"kind":"QueryResponse","queries":[
            {"id":"a","name":"n","ast":{"table":"t","where":{"type":"and","conditions":[]}}},
            {"id":"b","name":"n","ast":{"table":"t"}}]}"#;
        let answer = response(body, &limits).unwrap();
        let [(first, Transformed::Refused(error)), (_, Transformed::Ast(_))] = &answer.queries[..] else {
            panic!()
        };
        assert_eq!((first.as_str(), &error["id"]), ("a", &"a".into()));
        assert!(error["message"].as_str().unwrap().contains("more than 1 conditions"), "{error}");
    }
}
