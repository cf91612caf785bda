//! Custom mutations: queue of a group, requests to the app, its answers
//! (`docs/spec/view-syncer.md` §9).
//!
//! One request of a group is under way at a time; what queues up meanwhile is joined per
//! sending connection, so that the order of each client is kept.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::call::CallError;
use super::context::Context;
use super::failure::Failure;
use crate::model::ids::ConnectionId;
use crate::protocol::error::{Kind, ProtocolError};
use crate::protocol::upstream::Push;

/// Mutations of one connection on their way.
#[derive(Debug)]
pub struct PushBatch {
    /// Sender.
    pub connection: ConnectionId,
    /// What it brings along; captured when the mutations came.
    pub context: Rc<Context>,
    envelope: Value,
    mutations: Vec<Box<str>>,
    /// Client and number of each.
    pub ids: Vec<(String, u64)>,
    bytes: usize,
}

impl PushBatch {
    /// Makes a batch of one message.
    pub fn new(connection: ConnectionId, context: Rc<Context>, push: &Push) -> PushBatch {
        let mut envelope = json!({
            "clientGroupID": push.group_id,
            "pushVersion": push.push_version,
            "timestamp": push.timestamp,
            "requestID": push.request_id,
        });
        if let Some(version) = &push.schema_version {
            envelope["schemaVersion"] = json!(version);
        }
        let mutations: Vec<Box<str>> = push.mutations.iter().map(|m| m.raw.get().into()).collect();
        PushBatch {
            connection,
            context,
            envelope,
            bytes: push.request_id.len() + mutations.iter().map(|m| m.len()).sum::<usize>(),
            mutations,
            ids: push.mutations.iter().map(|m| (m.client_id.clone(), m.id)).collect(),
        }
    }

    /// The request's body.
    pub fn body(&self) -> Bytes {
        let mut out = self.envelope.to_string();
        out.pop();
        out.push_str(",\"mutations\":[");
        out.push_str(&self.mutations.join(","));
        out.push_str("]}");
        Bytes::from(out)
    }
}

/// The pushes of one group.
#[derive(Debug, Default)]
pub struct Queue {
    waiting: VecDeque<PushBatch>,
    bytes: usize,
}

impl Queue {
    /// Adds mutations; joins them to the last waiting ones of the connection, if those are of
    /// the same identity. Joined to earlier ones they would overtake.
    pub fn push(&mut self, batch: PushBatch) {
        self.bytes += batch.bytes;
        let same = |waiting: &&mut PushBatch| {
            waiting.context == batch.context
                && waiting.envelope["pushVersion"] == batch.envelope["pushVersion"]
                && waiting.envelope["schemaVersion"] == batch.envelope["schemaVersion"]
        };
        let last = self.waiting.iter_mut().rev().find(|w| w.connection == batch.connection);
        match last.filter(same) {
            Some(waiting) => {
                waiting.mutations.extend(batch.mutations);
                waiting.ids.extend(batch.ids);
                waiting.bytes += batch.bytes;
            }
            None => self.waiting.push_back(batch),
        }
    }

    /// The next request, in order of arrival.
    pub fn pop(&mut self) -> Option<PushBatch> {
        let batch = self.waiting.pop_front()?;
        self.bytes -= batch.bytes;
        Some(batch)
    }

    /// Bytes of its mutations.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// What the app said of a request.
#[derive(Debug, Default)]
pub struct PushOutcome {
    /// User that the app says the request is of.
    pub user_id: Option<Option<String>>,
    /// Errors to tell, by client.
    pub errors: Vec<(String, ProtocolError)>,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    kind: Option<String>,
    #[serde(rename = "userID", default, deserialize_with = "named")]
    user_id: Option<Value>,
    #[serde(default)]
    mutations: Option<Vec<MutationAnswer>>,
    #[serde(rename = "mutationIDs", default)]
    mutation_ids: Option<Vec<MutationId>>,
    #[serde(default)]
    error: Option<String>,
}

/// Tells an absent field from one that is null.
fn named<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(d).map(Some)
}

impl Answer {
    /// User that the app says the request is of. Answers of older libraries do not say it, whatever they
    /// name so.
    fn user(&mut self) -> Result<Option<Option<String>>, CallError> {
        match (self.kind.as_deref(), self.user_id.take()) {
            (Some("MutateResponse"), Some(user)) => {
                serde_json::from_value(user).map(Some).map_err(|e| malformed(&e.to_string()))
            }
            _ => Ok(None),
        }
    }
}

#[derive(Deserialize)]
struct MutationAnswer {
    id: MutationId,
    result: MutationResult,
}

#[derive(Deserialize)]
struct MutationResult {
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    details: Option<Value>,
}

#[derive(Deserialize, Clone)]
struct MutationId {
    #[serde(rename = "clientID")]
    client_id: String,
    id: u64,
}

/// Reasons of the app for a request that failed as a whole.
const REASONS: [&str; 5] = ["database", "parse", "oooMutation", "unsupportedPushVersion", "internal"];

/// Outcomes of a mutation that are errors.
const RESULT_ERRORS: [&str; 3] = ["app", "oooMutation", "alreadyProcessed"];

/// Reads an answer to a request with these mutations. One that is not understood is an error:
/// its mutations would be waited for without an end.
pub fn response(body: &[u8], ids: &[(String, u64)]) -> Result<PushOutcome, CallError> {
    // A list of values in the right order would be taken for the object.
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(malformed("it is no object"));
    }
    let mut answer: Answer = read(body)?;
    let user_id = answer.user()?;
    let failed = answer.kind.as_deref() == Some("PushFailed");
    if !failed && let Some(mutations) = &answer.mutations {
        return Ok(PushOutcome { user_id, errors: too_early(mutations)? });
    }
    let listed = answer.mutation_ids.map(|l| l.into_iter().map(|m| (m.client_id, m.id)).collect::<Vec<_>>());
    let (error, listed) = match (failed, listed) {
        (true, Some(listed)) => {
            let failure: Failure = read(body)?;
            let error = failure.accept(&REASONS);
            (error.ok_or_else(|| malformed("unknown origin or reason of a failure"))?, listed)
        }
        (true, None) => return Err(malformed("a failure without mutationIDs")),
        // Older libraries may leave the list out.
        (false, listed) => {
            let error = answer.error.ok_or_else(|| malformed("it holds no mutations"))?;
            (legacy_failure(&error, body)?, listed.unwrap_or_else(|| ids.to_vec()))
        }
    };
    Ok(PushOutcome { user_id: None, errors: per_client(&error, &listed) })
}

fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, CallError> {
    serde_json::from_slice(body).map_err(|e| malformed(&e.to_string()))
}

fn malformed(what: &str) -> CallError {
    CallError::internal("parse", format!("the mutate endpoint's answer is not as expected: {what}"))
}

/// Results come back through replication. Only a legacy answer says here that mutations came
/// too early, each client's for itself.
fn too_early(mutations: &[MutationAnswer]) -> Result<Vec<(String, ProtocolError)>, CallError> {
    /// What an answer says of the mutations of one client.
    #[derive(Default)]
    struct OfClient<'a> {
        listed: Vec<(String, u64)>,
        early: Option<&'a MutationAnswer>,
    }
    let mut by_client: BTreeMap<&String, OfClient> = BTreeMap::new();
    for mutation in mutations {
        let of_client = by_client.entry(&mutation.id.client_id).or_default();
        of_client.listed.push((mutation.id.client_id.clone(), mutation.id.id));
        match mutation.result.error.as_deref() {
            Some(error) if !RESULT_ERRORS.contains(&error) => {
                return Err(malformed(&format!("unknown error {error:?} of a mutation")));
            }
            Some("oooMutation") if of_client.early.is_none() => of_client.early = Some(mutation),
            _ => {}
        }
    }
    let told = by_client.into_values().filter_map(|OfClient { listed, early }| {
        let error = CallError {
            details: early?.result.details.clone().map(Box::new),
            ..server_error("oooMutation", "mutations arrived out of order")
        };
        Some(per_client(&error, &listed))
    });
    Ok(told.flatten().collect())
}

fn legacy_failure(error: &str, body: &[u8]) -> Result<CallError, CallError> {
    #[derive(Deserialize)]
    struct Http {
        status: u16,
        details: String,
    }
    #[derive(Deserialize)]
    struct Pusher {
        details: String,
    }
    Ok(match error {
        "http" => {
            let http: Http = read(body)?;
            CallError {
                status: Some(http.status),
                preview: Some(http.details),
                ..CallError::internal("http", "the mutate endpoint reported an HTTP failure")
            }
        }
        "unsupportedPushVersion" => {
            server_error("unsupportedPushVersion", "the app does not support this push version")
        }
        "unsupportedSchemaVersion" => {
            server_error("internal", "the app does not support this schema version")
        }
        "zeroPusher" => server_error("internal", &read::<Pusher>(body)?.details),
        other => return Err(malformed(&format!("unknown error {other:?}"))),
    })
}

fn server_error(reason: &str, message: &str) -> CallError {
    CallError { origin: "server", ..CallError::internal(reason, message) }
}

/// The errors of a failed request, one for each client with mutations in it.
pub fn per_client(error: &CallError, ids: &[(String, u64)]) -> Vec<(String, ProtocolError)> {
    let mut listed: BTreeMap<&String, Vec<Value>> = BTreeMap::new();
    for (client, id) in ids {
        listed.entry(client).or_default().push(json!({"id": id, "clientID": client}));
    }
    let told = |(client, ids): (&String, Vec<Value>)| {
        (client.clone(), error.to_protocol(Kind::PushFailed, ("mutationIDs", Value::Array(ids))))
    };
    listed.into_iter().map(told).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::parse::parse;
    use crate::protocol::upstream::Upstream;

    fn batch(connection: u64, id: u64) -> PushBatch {
        let text = format!(
            r#"["push",{{"clientGroupID":"g","mutations":[{{"type":"custom","id":{id},"clientID":"c{connection}","name":"m","args":[1.0],"timestamp":1}}],"pushVersion":1,"timestamp":1,"requestID":"r{id}"}}]"#
        );
        let Ok(Upstream::Push(push)) = parse(&text) else { panic!() };
        PushBatch::new(ConnectionId(connection), Rc::default(), &push)
    }

    #[test]
    fn pushes_that_wait_are_joined_per_connection_in_order() {
        let mut queue = Queue::default();
        [batch(1, 1), batch(2, 1), batch(1, 2), batch(1, 3)].into_iter().for_each(|b| queue.push(b));
        let first = queue.pop().unwrap();
        let body: Value = serde_json::from_slice(&first.body()).unwrap();
        let ids: Vec<_> = body["mutations"].as_array().unwrap().iter().map(|m| m["id"].clone()).collect();
        assert_eq!(ids, [1, 2, 3]);
        assert_eq!(body["requestID"], "r1");
        assert!(std::str::from_utf8(&first.body()).unwrap().contains("\"args\":[1.0]"));
        assert_eq!(queue.pop().unwrap().ids, [("c2".to_owned(), 1)]);
        assert!(queue.pop().is_none());
        assert_eq!(queue.bytes, 0);
    }

    #[test]
    fn a_request_of_very_many_clients_fails_in_no_time() {
        let ids: Vec<(String, u64)> = (0..200_000).map(|n| (format!("c{}", n % 100_000), n)).collect();
        let told = per_client(&CallError::internal("internal", "no"), &ids);
        assert_eq!(told.len(), 100_000);
        let first = told.iter().find(|(client, _)| client == "c0").unwrap();
        let expected = json!([{"id": 0, "clientID": "c0"}, {"id": 100_000, "clientID": "c0"}]);
        assert_eq!(first.1.fields["mutationIDs"], expected);
    }

    #[test]
    fn answers_of_all_ages_are_understood() {
        let ids = [("c".to_owned(), 4), ("d".to_owned(), 1)];
        let outcome = |body: &str| response(body.as_bytes(), &ids).unwrap();
        assert!(
            outcome(r#"{"kind":"MutateResponse","mutations":[{"id":{"clientID":"c","id":4},"result":{}}]}"#)
                .errors
                .is_empty()
        );
        assert_eq!(
            outcome(r#"{"kind":"MutateResponse","userID":"u","mutations":[]}"#).user_id,
            Some(Some("u".into()))
        );
        let nobody = |body: &str| outcome(body).user_id;
        assert_eq!(nobody(r#"{"kind":"MutateResponse","userID":null,"mutations":[]}"#), Some(None));
        for silent in [
            r#"{"kind":"MutateResponse","mutations":[]}"#,
            r#"{"mutations":[],"userID":"another"}"#,
            r#"{"mutations":[],"userID":7}"#,
        ] {
            assert_eq!(nobody(silent), None, "{silent}");
        }
        let early =
            outcome(r#"{"mutations":[{"id":{"clientID":"c","id":4},"result":{"error":"oooMutation"}}]}"#);
        assert_eq!(early.errors[0].1.fields["reason"], "oooMutation");
        let failed = outcome(
            r#"{"kind":"PushFailed","origin":"server","reason":"database","message":"m","mutationIDs":[{"clientID":"d","id":1}]}"#,
        );
        assert_eq!(failed.errors.len(), 1);
        assert_eq!(failed.errors[0].0, "d");
        let http = outcome(r#"{"error":"http","status":401,"details":"no"}"#);
        assert_eq!(http.errors.len(), 2);
        assert!(http.errors[0].1.is_auth());
        assert!(response(b"nope", &ids).is_err());
    }
}
