//! Patch operations of mutation results, as clients read them (`docs/spec/sync-protocol.md` §9).

/// Patch operation that gives a mutation's result.
pub fn result_put(client: &str, id: u64, result: &str) -> String {
    let client = serde_json::Value::from(client);
    format!(
        "{{\"op\":\"put\",\"mutation\":{{\"id\":{{\"clientID\":{client},\"id\":{id}}},\"result\":{result}}}}}"
    )
}

/// Whether a patch operation takes a result away.
pub fn is_removal(op: &str) -> bool {
    op.starts_with("{\"op\":\"del\"")
}

/// Patch operation that takes a mutation's result away.
pub fn result_del(client: &str, id: u64) -> String {
    let client = serde_json::Value::from(client);
    format!("{{\"op\":\"del\",\"id\":{{\"clientID\":{client},\"id\":{id}}}}}")
}
