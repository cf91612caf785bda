//! What tasks of a core ask of others, and wait for: of the app, of whoever judges tokens, of the inspector.

use std::rc::Rc;

use bytes::Bytes;

use super::effect::{AppCall, Effect};
use super::replies::QuestionId;
use super::session::Session;
use super::state::CoreState;
use crate::auth::token::Token;
use crate::backend::call::CallError;
use crate::protocol::error::ProtocolError;
use crate::protocol::inspect::Request;

/// Calls the app. Whoever drops it does not want the answer any more.
pub async fn call(state: &CoreState, call: AppCall) -> Result<Bytes, CallError> {
    let open = state.calls.open();
    state.effect(Effect::Call(open.id, Box::new(call)));
    let mut unwanted = Unwanted { state, id: Some(open.id) };
    let answer = open.next().await;
    unwanted.id = None;
    answer
}

/// A call that nobody waits for any more, unless it was answered.
struct Unwanted<'s> {
    state: &'s CoreState,
    id: Option<QuestionId>,
}

impl Drop for Unwanted<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.state.effect(Effect::DropCall(id));
        }
    }
}

/// Has a token judged.
pub async fn judge(
    state: &CoreState,
    token: &str,
    user_id: Option<&str>,
) -> Result<Option<Token>, ProtocolError> {
    let open = state.verdicts.open();
    let (token, user_id) = (token.to_owned(), user_id.map(str::to_owned));
    state.effect(Effect::Judge { id: open.id, token, user_id });
    open.next().await
}

/// Has a request of the inspector answered, or begun to be.
pub async fn inspect(state: &CoreState, session: &Rc<Session>, request_id: String, request: Request) {
    let open = state.inspections.open();
    state.effect(Effect::Inspect { id: open.id, session: session.clone(), request_id, request });
    open.next().await;
}
