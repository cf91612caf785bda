//! What the app says of a request that failed as a whole (`docs/spec/sync-protocol.md` §17).
//! It is passed on to clients, who stop for good at one that they cannot read.

use serde::Deserialize;
use serde_json::Value;

use super::call::CallError;

/// Body of `TransformFailed` or `PushFailed`, its lists of ids left out.
#[derive(Deserialize)]
pub(super) struct Failure {
    origin: String,
    reason: String,
    message: String,
    #[serde(default)]
    status: Option<u16>,
    #[serde(rename = "bodyPreview", default)]
    preview: Option<String>,
    #[serde(default)]
    details: Option<Value>,
}

impl Failure {
    /// The failure, if clients can read it. `reasons`: those that apps give.
    pub(super) fn accept(self, reasons: &[&str]) -> Option<CallError> {
        let origin = match (self.origin.as_str(), self.reason.as_str()) {
            ("server", reason) if reasons.contains(&reason) => "server",
            ("zeroCache", "http") if self.status.is_some() => "zeroCache",
            ("zeroCache", "timeout" | "parse" | "internal") => "zeroCache",
            _ => return None,
        };
        Some(CallError {
            reason: self.reason,
            origin,
            status: self.status,
            preview: self.preview,
            message: self.message,
            details: self.details.map(Box::new),
        })
    }
}
