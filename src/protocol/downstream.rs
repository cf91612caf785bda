//! Messages to clients (`docs/spec/sync-protocol.md` §8, §9), as JSON text.

use serde_json::{Value, json};

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

/// `deleteClients`: acknowledges deletions.
pub fn delete_clients(ids: &[String]) -> Vec<u8> {
    json!(["deleteClients", {"clientIDs": ids}]).to_string().into_bytes()
}

/// `transformError`: queries that the app, or the planner, refused.
pub fn transform_error(errors: &[Value]) -> Vec<u8> {
    json!(["transformError", errors]).to_string().into_bytes()
}

/// `pokeStart`.
pub fn poke_start(poke_id: &str, base: Option<&str>) -> Vec<u8> {
    json!(["pokeStart", {"pokeID": poke_id, "baseCookie": base}]).to_string().into_bytes()
}

/// `pokeEnd`.
pub fn poke_end(poke_id: &str, cookie: &str) -> Vec<u8> {
    json!(["pokeEnd", {"pokeID": poke_id, "cookie": cookie}]).to_string().into_bytes()
}

/// `pokeEnd` of a poke that the client has to forget.
pub fn poke_cancel(poke_id: &str) -> Vec<u8> {
    json!(["pokeEnd", {"pokeID": poke_id, "cookie": "", "cancel": true}]).to_string().into_bytes()
}

/// Whether a message of this module ends a poke that the client keeps.
pub fn ends_poke(message: &[u8]) -> bool {
    message.starts_with(br#"["pokeEnd","#) && !message.ends_with(br#""cancel":true}]"#)
}

/// One operation on a set of queries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueryPatch {
    /// In the set.
    Put(String),
    /// Not in it any more.
    Del(String),
}

impl QueryPatch {
    fn json(&self) -> Value {
        match self {
            QueryPatch::Put(hash) => json!({"op": "put", "hash": hash}),
            QueryPatch::Del(hash) => json!({"op": "del", "hash": hash}),
        }
    }
}

/// The parts of a poke beside its rows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PokeBody {
    /// Changes of desired sets, by client.
    pub desired: Vec<(String, Vec<QueryPatch>)>,
    /// Changes of the got set.
    pub got: Vec<QueryPatch>,
    /// Last mutation ids, by client.
    pub lmids: Vec<(String, u64)>,
    /// Mutation results: JSON of the operations.
    pub mutations: Vec<String>,
    /// Row operations: JSON fragments.
    pub rows: Vec<u8>,
    /// Number of row operations in `rows`.
    pub row_count: usize,
}

impl PokeBody {
    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.desired.is_empty()
            && self.got.is_empty()
            && self.lmids.is_empty()
            && self.mutations.is_empty()
            && self.row_count == 0
    }

    /// Appends one row operation.
    pub fn push_row(&mut self, fragment: &[u8]) {
        if self.row_count > 0 {
            self.rows.push(b',');
        }
        self.rows.extend(fragment);
        self.row_count += 1;
    }

    /// `pokePart` with all of it. Results stand before the last mutation ids that cover
    /// them, or the client would report success.
    pub fn part(&self, poke_id: &str) -> Vec<u8> {
        let mut out = format!("[\"pokePart\",{{\"pokeID\":{}", json!(poke_id)).into_bytes();
        if !self.desired.is_empty() {
            let patches: serde_json::Map<String, Value> = self
                .desired
                .iter()
                .map(|(client, ops)| (client.clone(), ops.iter().map(QueryPatch::json).collect()))
                .collect();
            out.extend(format!(",\"desiredQueriesPatches\":{}", Value::Object(patches)).as_bytes());
        }
        if !self.got.is_empty() {
            let ops: Vec<Value> = self.got.iter().map(QueryPatch::json).collect();
            out.extend(format!(",\"gotQueriesPatch\":{}", Value::Array(ops)).as_bytes());
        }
        if !self.mutations.is_empty() {
            out.extend(format!(",\"mutationsPatch\":[{}]", self.mutations.join(",")).as_bytes());
        }
        if !self.lmids.is_empty() {
            let lmids: serde_json::Map<String, Value> =
                self.lmids.iter().map(|(client, id)| (client.clone(), json!(id))).collect();
            out.extend(format!(",\"lastMutationIDChanges\":{}", Value::Object(lmids)).as_bytes());
        }
        if self.row_count > 0 {
            out.extend(b",\"rowsPatch\":[");
            out.extend(&self.rows);
            out.push(b']');
        }
        out.extend(b"}]");
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_the_json_that_clients_expect() {
        let mut body = PokeBody {
            desired: vec![("c".into(), vec![QueryPatch::Put("h".into())])],
            got: vec![QueryPatch::Del("g".into())],
            lmids: vec![("c".into(), 7)],
            mutations: vec![r#"{"op":"del","id":{"clientID":"c","id":1}}"#.into()],
            ..PokeBody::default()
        };
        body.push_row(br#"{"op":"del","tableName":"t","id":{"id":1}}"#);
        body.push_row(br#"{"op":"del","tableName":"t","id":{"id":2}}"#);
        let part: Value = serde_json::from_slice(&body.part("p")).unwrap();
        assert_eq!(
            part,
            json!(["pokePart", {
                "pokeID": "p",
                "desiredQueriesPatches": {"c": [{"op": "put", "hash": "h"}]},
                "gotQueriesPatch": [{"op": "del", "hash": "g"}],
                "mutationsPatch": [{"op": "del", "id": {"clientID": "c", "id": 1}}],
                "lastMutationIDChanges": {"c": 7},
                "rowsPatch": [
                    {"op": "del", "tableName": "t", "id": {"id": 1}},
                    {"op": "del", "tableName": "t", "id": {"id": 2}},
                ],
            }])
        );
    }
}
