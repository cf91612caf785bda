//! One call of an endpoint of the app, with the retries of `docs/spec/view-syncer.md` §7.

use std::time::Duration;

use bytes::Bytes;
use kelvin_io::executor::sleep;
use kelvin_io::http_client::{FetchError, HttpClient};
use serde_json::{Map, Value, json};
use url::Position;

use super::context::Context;
use super::turns::{CallKind, Turns};
use crate::config::{App, Endpoint, without_secrets};
use crate::protocol::error::{Kind, ProtocolError};
use crate::protocol::problem::bounded;

/// Attempts of one call; only failures that may pass are tried again.
const ATTEMPTS: u32 = 4;

/// Longest body preview in an error, in characters.
const PREVIEW: usize = 512;

/// Why a call failed as a whole.
#[derive(Debug, Clone, PartialEq)]
pub struct CallError {
    /// `http`, `parse`, `internal`, `timeout`, or the app's own reason.
    pub reason: String,
    /// `zeroCache`, or `server` for the app's own.
    pub origin: &'static str,
    /// Status, if there was an answer.
    pub status: Option<u16>,
    /// Beginning of the answer.
    pub preview: Option<String>,
    /// Cause and remedy.
    pub message: String,
    /// Further details of the app.
    pub details: Option<Box<Value>>,
}

impl CallError {
    /// A failure that this server decided on.
    pub fn internal(reason: &str, message: impl Into<String>) -> CallError {
        CallError {
            reason: reason.to_owned(),
            origin: "zeroCache",
            status: None,
            preview: None,
            message: message.into(),
            details: None,
        }
    }

    /// The error that clients are told; `ids`: name and value of the field that lists what
    /// was asked for.
    pub fn to_protocol(&self, kind: Kind, ids: (&str, Value)) -> ProtocolError {
        let mut fields = Map::new();
        fields.insert("origin".into(), json!(self.origin));
        fields.insert("reason".into(), json!(self.reason));
        if let Some(status) = self.status {
            fields.insert("status".into(), json!(status));
        }
        if let Some(preview) = &self.preview {
            fields.insert("bodyPreview".into(), json!(preview));
        }
        if let Some(details) = &self.details {
            fields.insert("details".into(), Value::clone(details));
        }
        fields.insert(ids.0.into(), ids.1);
        ProtocolError { kind, message: bounded(self.message.clone()), fields }
    }
}

/// The endpoints of the app, as one core calls them.
#[derive(Clone)]
pub struct Caller {
    client: HttpClient,
    app: App,
    turns: Turns,
}

impl Caller {
    /// For an app; connections are kept per core.
    pub fn new(app: App) -> Caller {
        Caller { client: HttpClient::default(), app, turns: Turns::default() }
    }

    /// POSTs a body for a client group and returns the answer's, if its status says success.
    pub async fn post(
        &self,
        (kind, group): (CallKind, &str),
        endpoint: &Endpoint,
        context: &Context,
        body: Bytes,
    ) -> Result<Bytes, CallError> {
        let url = endpoint
            .target(context.url.as_deref(), &self.app)
            .map_err(|e| CallError::internal("internal", e.to_string()))?;
        let shown = without_secrets(url.as_str());
        let headers = context.headers(endpoint);
        let mut attempt = 1;
        loop {
            let is_listed = endpoint.lists(context.url.as_deref());
            let turn = self.turns.wait(kind, &url[..Position::BeforeQuery], is_listed, group).await;
            let answer = self.client.post(&url, &headers, body.clone()).await;
            drop(turn);
            let failed = match answer {
                Ok(answer) if (200..300).contains(&answer.status) => return Ok(without_mark(answer.body)),
                Ok(answer) => http_error(&shown, answer.status, &answer.body),
                Err(FetchError::Connection(what)) => CallError::internal(
                    "internal",
                    format!("{shown} cannot be reached: fetch failed: {what}"),
                ),
                Err(FetchError::Timeout(_)) => {
                    return Err(CallError::internal("timeout", format!("{shown} did not answer in time")));
                }
                Err(e) => return Err(CallError::internal("internal", format!("{shown}: {e}"))),
            };
            let may_pass = failed.status.is_none_or(|s| s >= 500);
            if !may_pass || attempt == ATTEMPTS {
                return Err(failed);
            }
            sleep(backoff(attempt)).await;
            attempt += 1;
        }
    }
}

/// The text of an answer without the byte order mark that some frameworks put before it.
fn without_mark(body: Bytes) -> Bytes {
    if body.starts_with(b"\xef\xbb\xbf") { body.slice(3..) } else { body }
}

/// Time before retry n.
fn backoff(attempt: u32) -> Duration {
    Duration::from_millis((100u64 << (attempt - 1)).min(1000))
}

fn http_error(url: &str, status: u16, body: &[u8]) -> CallError {
    let text = String::from_utf8_lossy(body);
    let mut preview: String = text.chars().take(PREVIEW).collect();
    if preview.len() < text.len() {
        preview.push_str("...");
    }
    CallError {
        reason: "http".to_owned(),
        origin: "zeroCache",
        status: Some(status),
        preview: Some(preview),
        message: format!("{url} answered with status {status}"),
        details: None,
    }
}
