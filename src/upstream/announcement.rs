//! What the messages of the event triggers say (`docs/spec/replication.md` §11.1). Sans-IO.

use serde::Deserialize;
use serde::de::IgnoredAny;

/// Whether a message says nothing but that something is about to be changed, as every temporary table makes one.
pub fn is_context_only(content: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Event<'a> {
        r#type: &'a str,
        schema: Option<IgnoredAny>,
    }
    serde_json::from_slice::<Event<'_>>(content)
        .is_ok_and(|event| event.r#type == "ddlStart" && event.schema.is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_no_schema_is_passed_over() {
        assert!(is_context_only(
            br#"{"type" : "ddlStart", "version" : 2, "event" : {"tag" : "CREATE TABLE"}}"#
        ));
        // zero-cache's own say it always, and a change that its JSON does not show is followed by nothing else.
        assert!(!is_context_only(
            br#"{"type":"ddlStart","version":1,"previousSchema":null,"schema":{"tables":[]}}"#
        ));
        assert!(!is_context_only(br#"{"type":"ddlUpdate","version":1,"schema":{}}"#));
        for other in [&b""[..], b"{", b"[]", b"{\"type\":7}", b"\xff", b"{\"type\":\"ddlUpdate\"}"] {
            assert!(!is_context_only(other));
        }
    }
}
