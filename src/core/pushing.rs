//! Brings mutations to the app (`docs/spec/view-syncer.md` §9): one request of a group at a time.

use std::panic::AssertUnwindSafe;
use std::rc::Rc;

use futures_lite::FutureExt;

use super::asking;
use super::effect::AppCall;
use super::session::Session;
use super::state::CoreState;
use super::transforms::{nanoseconds, warn_of_endpoint};
use super::warning::Warning;
use crate::backend::call::CallError;
use crate::backend::push::{self, PushBatch};
use crate::backend::turns::CallKind;
use crate::groups::sink::Sink;
use crate::protocol::error::{Kind, ProtocolError};
use crate::protocol::upstream::Push;
use crate::testing::panics;

/// Queues mutations for the app.
pub async fn push(
    state: &Rc<CoreState>,
    session: &Rc<Session>,
    body: &Push<'_>,
) -> Result<(), ProtocolError> {
    if body.group_id != session.request.group_id {
        return Err(ProtocolError::new(
            Kind::InvalidPush,
            "the mutations are of another client group than the connection",
        ));
    }
    let Some(first) = body.mutations.first() else { return Ok(()) };
    if first.crud {
        return Err(ProtocolError::new(
            Kind::InvalidPush,
            "CRUD mutations are not executed by this server; use custom mutators and ZERO_MUTATE_URL",
        ));
    }
    if !state.entrance.settings.has_mutations {
        let message = "custom mutations need the app's endpoint: set ZERO_MUTATE_URL";
        state.host.warn(Warning::NoEndpoint, format_args!("{message}"));
        return Err(ProtocolError::new(Kind::InvalidPush, message));
    }
    let group: Rc<str> = session.request.group_id.as_str().into();
    state.pushes.until_room(&group, || state.limits.get().pushes).await;
    let batch = PushBatch::new(session.id, session.push_context.borrow().clone(), body);
    if state.pushes.add(&group, batch) {
        let shared = state.clone();
        state.spawn("mutations", async move {
            let pushing = AssertUnwindSafe(Box::pin(drain(&shared, &group))).catch_unwind();
            if pushing.await.is_err() {
                // What it had taken of the queue is lost: its clients send it again.
                shared.pushes.remove(&group);
                let now = shared.now();
                shared.with(|s| s.send_away(&group, &push_lost(), now));
            }
        });
    }
    Ok(())
}

/// What the clients of a group are told whose mutations were not brought to the app.
fn push_lost() -> ProtocolError {
    ProtocolError::new(Kind::Rehome, "mutations could not be brought to the app; they are sent again")
}

/// Sends a group's queue, one request at a time.
async fn drain(state: &CoreState, group: &Rc<str>) {
    while let Some(batch) = state.pushes.next(group) {
        panics::here("a push");
        let began = state.now();
        let (group, context) = (group.clone(), batch.context.clone());
        let call = AppCall { kind: CallKind::Push, group: group.clone(), context, body: batch.body() };
        let body = asking::call(state, call).await;
        let outcome = body.and_then(|body| push::response(&body, &batch.ids));
        let is_taken = outcome.as_ref().is_ok_and(|outcome| outcome.errors.is_empty());
        state.metrics.push_done(is_taken, nanoseconds(state.now() - began));
        if let Err(error) = &outcome {
            warn_of_endpoint(state, Warning::Mutate, error);
        }
        for (client, error) in errors(state, &batch, outcome) {
            tell(state, &group, &client, &error);
        }
    }
}

/// What the clients of these mutations are told.
fn errors(
    state: &CoreState,
    batch: &PushBatch,
    outcome: Result<push::PushOutcome, CallError>,
) -> Vec<(String, ProtocolError)> {
    match outcome {
        Err(error) => push::per_client(&error, &batch.ids),
        Ok(outcome) if is_other_user(state, batch, &outcome) => {
            let message = "the mutate endpoint says that the connection is another user's";
            let refused = CallError { status: Some(401), ..CallError::internal("http", message) };
            push::per_client(&refused, &batch.ids)
        }
        Ok(outcome) => {
            if outcome.errors.is_empty() {
                let_in(state, batch);
            }
            outcome.errors
        }
    }
}

/// The app has let in the connection that sent these mutations, if it still has the token that
/// it had then.
fn let_in(state: &CoreState, batch: &PushBatch) {
    if let Some(session) = sender(state, batch) {
        session.validated_at.set(Some(state.now()));
    }
}

/// The connection that sent these mutations, if it is there and has the token that it had then: of who is
/// there now the app has said nothing otherwise.
fn sender(state: &CoreState, batch: &PushBatch) -> Option<Rc<Session>> {
    let session = state.entrance.sessions.get(batch.connection);
    session.filter(|s| s.initialised.get() && *s.push_context.borrow() == batch.context)
}

fn is_other_user(state: &CoreState, batch: &PushBatch, outcome: &push::PushOutcome) -> bool {
    let Some(said) = &outcome.user_id else { return false };
    sender(state, batch).is_some_and(|session| session.request.user_id != *said)
}

/// Tells the current connection of a client; nobody if it has none.
fn tell(state: &CoreState, group: &str, client: &str, error: &ProtocolError) {
    let connection = state.look().connection_of(group, client);
    if let Some(outbox) = connection.and_then(|id| state.connections.get(id)) {
        crate::info!(client = client, group = group, kind = error.kind.name(); "a push failed: {}", error.message);
        outbox.fail(error);
    }
}
