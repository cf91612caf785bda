//! Errors that clients are told (`docs/spec/sync-protocol.md` §17).

use serde_json::{Map, Value, json};

use super::problem::bounded;

/// Kind of an error; decides what the client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Kind {
    AuthInvalidated,
    ClientNotFound,
    Internal,
    InvalidConnectionRequest,
    InvalidConnectionRequestBaseCookie,
    InvalidMessage,
    InvalidPush,
    PushFailed,
    Rehome,
    SchemaVersionNotSupported,
    ServerOverloaded,
    TransformFailed,
    Unauthorized,
    VersionNotSupported,
}

impl Kind {
    /// Name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Kind::AuthInvalidated => "AuthInvalidated",
            Kind::ClientNotFound => "ClientNotFound",
            Kind::Internal => "Internal",
            Kind::InvalidConnectionRequest => "InvalidConnectionRequest",
            Kind::InvalidConnectionRequestBaseCookie => "InvalidConnectionRequestBaseCookie",
            Kind::InvalidMessage => "InvalidMessage",
            Kind::InvalidPush => "InvalidPush",
            Kind::PushFailed => "PushFailed",
            Kind::Rehome => "Rehome",
            Kind::SchemaVersionNotSupported => "SchemaVersionNotSupported",
            Kind::ServerOverloaded => "ServerOverloaded",
            Kind::TransformFailed => "TransformFailed",
            Kind::Unauthorized => "Unauthorized",
            Kind::VersionNotSupported => "VersionNotSupported",
        }
    }
}

/// First protocol version whose clients know `PushFailed` and `TransformFailed`.
const FAILED_KINDS_SINCE: u32 = 38;

/// An error for a client. Always carries its origin: newer clients pause without it.
#[derive(Debug, Clone, PartialEq)]
pub struct ProtocolError {
    /// What the client acts on.
    pub kind: Kind,
    /// What people read: cause and remedy.
    pub message: String,
    /// Further fields of the body, `origin` among them.
    pub fields: Map<String, Value>,
}

impl ProtocolError {
    /// An error that this server decided on. A message that is very long is cut.
    pub fn new(kind: Kind, message: impl Into<String>) -> ProtocolError {
        let mut fields = Map::new();
        fields.insert("origin".into(), json!("zeroCache"));
        ProtocolError { kind, message: bounded(message.into()), fields }
    }

    /// This server has no room at the moment: the client comes back after some time, in
    /// milliseconds. A client waits five seconds in any case.
    pub fn overloaded(message: impl Into<String>, after: u64) -> ProtocolError {
        ProtocolError::new(Kind::ServerOverloaded, message).with("minBackoffMs", json!(after))
    }

    /// Adds or replaces a field of the body.
    pub fn with(mut self, name: &str, value: Value) -> ProtocolError {
        self.fields.insert(name.into(), value);
        self
    }

    /// The body as clients of this protocol version can parse it (ruling 13).
    pub fn body(&self, protocol_version: u32) -> Value {
        let mut body = Map::new();
        body.insert("kind".into(), json!(self.kind_for(protocol_version).name()));
        body.insert("message".into(), json!(self.message));
        body.extend(self.fields.clone());
        Value::Object(body)
    }

    /// Whether the app's endpoint refused the client's identity.
    pub fn is_auth(&self) -> bool {
        let status = self.fields.get("status").and_then(Value::as_u64);
        matches!(self.kind, Kind::AuthInvalidated | Kind::Unauthorized)
            || (matches!(self.kind, Kind::PushFailed | Kind::TransformFailed)
                && matches!(status, Some(401 | 403)))
    }

    fn kind_for(&self, protocol_version: u32) -> Kind {
        let failed = matches!(self.kind, Kind::PushFailed | Kind::TransformFailed);
        match (failed && protocol_version < FAILED_KINDS_SINCE, self.is_auth()) {
            (false, _) => self.kind,
            (true, true) => Kind::AuthInvalidated,
            (true, false) => Kind::Internal,
        }
    }
}

/// An entry of `transformError` as clients of this protocol version can read it (ruling 13):
/// older ones know no `parse` and insist on details.
pub fn refusal_for(protocol_version: u32, entry: &Value) -> Value {
    let mut entry = entry.clone();
    if protocol_version < FAILED_KINDS_SINCE {
        entry["error"] = json!("app");
        if entry.get("details").is_none() {
            entry["details"] = entry["message"].clone();
        }
    }
    entry
}

impl std::fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.kind.name(), self.message)
    }
}

impl std::error::Error for ProtocolError {}
