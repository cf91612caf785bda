//! Pokes (`docs/spec/sync-protocol.md` §9): their beginning, their end, and what a part of one says.

use bytes::Bytes;
use serde_json::{Value, json};

use super::websocket::text_frame;

/// Most row operations per part, as the reference (`docs/spec/sync-protocol.md` §9.5).
pub const PATCHES_PER_PART: usize = 100;

/// Size at which a part is closed early, in bytes: rows may be large.
pub const PART_SIZE: usize = 256 << 10;

/// The frame of `pokeStart`.
pub fn poke_start(poke_id: &str, base: Option<&str>) -> Bytes {
    text_frame(json!(["pokeStart", {"pokeID": poke_id, "baseCookie": base}]).to_string().as_bytes())
}

/// The frame of `pokeEnd`.
pub fn poke_end(poke_id: &str, cookie: &str) -> Bytes {
    text_frame(json!(["pokeEnd", {"pokeID": poke_id, "cookie": cookie}]).to_string().as_bytes())
}

/// The frame of `pokeEnd` of a poke that the client has to forget.
pub fn poke_cancel(poke_id: &str) -> Bytes {
    text_frame(json!(["pokeEnd", {"pokeID": poke_id, "cookie": "", "cancel": true}]).to_string().as_bytes())
}

/// Whether the text of a message of this module ends a poke that the client keeps.
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

/// What one part of a poke says.
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

    /// Of a client that has to forget everything that it has.
    pub fn clear() -> PokeBody {
        let mut body = PokeBody::default();
        body.push_row(b"{\"op\":\"clear\"}");
        body
    }

    /// Whether no further row operation should be put into this part.
    pub fn is_full(&self) -> bool {
        self.row_count >= PATCHES_PER_PART || self.rows.len() >= PART_SIZE
    }

    /// Appends the JSON object of it. Results stand before the last mutation ids that cover them, or the client would
    /// report success.
    pub fn write(&self, poke_id: &str, out: &mut Vec<u8>) {
        out.extend(format!("{{\"pokeID\":{}", json!(poke_id)).as_bytes());
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
        out.push(b'}');
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
        let mut out = Vec::new();
        body.write("p", &mut out);
        assert_eq!(
            serde_json::from_slice::<Value>(&out).unwrap(),
            json!({
                "pokeID": "p",
                "desiredQueriesPatches": {"c": [{"op": "put", "hash": "h"}]},
                "gotQueriesPatch": [{"op": "del", "hash": "g"}],
                "mutationsPatch": [{"op": "del", "id": {"clientID": "c", "id": 1}}],
                "lastMutationIDChanges": {"c": 7},
                "rowsPatch": [
                    {"op": "del", "tableName": "t", "id": {"id": 1}},
                    {"op": "del", "tableName": "t", "id": {"id": 2}},
                ],
            })
        );
    }
}
