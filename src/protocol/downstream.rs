//! Messages to clients beside pokes (`docs/spec/sync-protocol.md` §8), as JSON text.

use bytes::Bytes;
use serde_json::{Value, json};

use super::problem::bounded;
use super::websocket::text_frame;

/// `connected`: always the first message. `timestamp` in milliseconds since 1970.
pub fn connected(wsid: &str, timestamp: u64) -> Vec<u8> {
    json!(["connected", {"wsid": wsid, "timestamp": timestamp}]).to_string().into_bytes()
}

/// `pong`.
pub const PONG: &[u8] = b"[\"pong\",{}]";

/// `error`.
pub fn error(body: &Value) -> Vec<u8> {
    json!(["error", body]).to_string().into_bytes()
}

/// The frame of `deleteClients`, which acknowledges deletions.
pub fn delete_clients(ids: &[String]) -> Bytes {
    text_frame(json!(["deleteClients", {"clientIDs": ids}]).to_string().as_bytes())
}

/// `transformError`: queries that the app, or the planner, refused.
pub fn transform_error(errors: &[Value]) -> Vec<u8> {
    json!(["transformError", errors]).to_string().into_bytes()
}

/// An entry of it: a query that cannot be answered, and why.
pub fn refusal(hash: &str, name: &str, message: &str) -> Value {
    json!({"error": "app", "id": hash, "name": name, "message": bounded(message.to_owned())})
}
