//! Asks the app what queries are (`docs/spec/view-syncer.md` §11): one request of a connection at a time.

use std::panic::AssertUnwindSafe;
use std::rc::Rc;

use futures_lite::FutureExt;
use serde_json::json;

use super::asking;
use super::effect::AppCall;
use super::session::{Session, panicked};
use super::slices::Slices;
use super::state::CoreState;
use super::warning::Warning;
use crate::backend::call::CallError;
use crate::backend::transform::{self, Transformation};
use crate::backend::turns::CallKind;
use crate::protocol::error::{Kind, ProtocolError};
use crate::testing::panics;
use crate::zql::custom_query::Named;
use crate::zql::limits::Limits;

/// Asks the app for transformations and checks whom it says it answered. `None`: the token that
/// it was asked with was replaced meanwhile, and its answer, whatever it is, counts for nothing.
pub async fn ask(
    state: &CoreState,
    session: &Session,
    queries: &[Named],
) -> Result<Option<Transformation>, ProtocolError> {
    let (revision, began) = (session.revision.get(), state.now());
    let ids = || json!(queries.iter().map(|q| &q.hash).collect::<Vec<_>>());
    let failed = |e: CallError| e.to_protocol(Kind::TransformFailed, ("queryIDs", ids()));
    let call = AppCall {
        kind: CallKind::Transform,
        group: session.request.group_id.as_str().into(),
        context: session.query_context.borrow().clone(),
        body: transform::request(queries),
    };
    let body = asking::call(state, call).await;
    let answer = body.and_then(|body| transform::response(&body, &Limits::DEFAULT));
    state.metrics.transform_done(answer.is_ok(), nanoseconds(state.now() - began));
    if let Err(error) = &answer {
        warn_of_endpoint(state, Warning::Query, error);
    }
    if session.revision.get() != revision {
        return Ok(None);
    }
    let answer = answer.map_err(failed)?;
    match &answer.user_id {
        Some(user) if *user != session.request.user_id => Err(ProtocolError::new(
            Kind::Unauthorized,
            "the query endpoint says that the connection is another user's",
        )),
        _ => {
            let now = state.now();
            session.validated_at.set(Some(now));
            state.answers.borrow_mut().keep(session.id, revision, queries, &answer, now);
            Ok(Some(answer))
        }
    }
}

/// Of milliseconds of a core.
pub fn nanoseconds(milliseconds: f64) -> u64 {
    (milliseconds * 1e6) as u64
}

/// Warns of an endpoint that does not do its part. That it refuses somebody is between the two of them.
pub fn warn_of_endpoint(state: &CoreState, warning: Warning, error: &CallError) {
    let what = if warning == Warning::Query { "query" } else { "mutate" };
    if !matches!(error.status, Some(401 | 403)) {
        state.host.warn(warning, format_args!("the app's {what} endpoint fails: {}", error.message));
    }
}

/// Has the group's queries transformed that were not yet, or all of them, in the background.
/// One request of a connection is under way at a time: what it wants meanwhile is asked for
/// together, however many messages say so.
pub fn transform_missing(state: &Rc<CoreState>, session: &Rc<Session>, all: bool) {
    let again = session.ask_again.get().unwrap_or(false);
    session.ask_again.set(Some(all || again));
    if session.asking.replace(true) {
        return;
    }
    let (shared, session) = (state.clone(), session.clone());
    state.spawn("asking for queries", async move {
        while let Some(all) = session.ask_again.take() {
            if session.outbox.has_ended() {
                pass_on(&shared, &session.request.group_id);
                break;
            }
            let asking = Box::pin(async {
                panics::here("a transformation");
                transform_once(&shared, &session, all).await
            });
            let asked = AssertUnwindSafe(asking).catch_unwind().await;
            if let Err(error) = asked.unwrap_or_else(|_| Err(panicked())) {
                session.fail(&error);
                pass_on(&shared, &session.request.group_id);
            }
        }
        session.asking.set(false);
    });
}

/// Others of the group may want what could not be asked for with the credentials of one: the next
/// of them asks.
pub fn pass_on(state: &Rc<CoreState>, group: &str) {
    let waiting = state.look().unanswered(group);
    let sessions = waiting.into_iter().filter_map(|id| state.entrance.sessions.get(id));
    if let Some(session) = sessions.into_iter().find(|session| !session.outbox.has_ended()) {
        transform_missing(state, &session, false);
    }
}

/// Has queries transformed. An error is the app's refusal of the whole request. A connection with
/// a token that the app has not seen shows it, even if there is nothing to transform.
pub async fn transform_once(
    state: &Rc<CoreState>,
    session: &Session,
    all: bool,
) -> Result<(), ProtocolError> {
    let group = &session.request.group_id;
    let (serial, mut queries) = state.with(|s| s.transform(group, all));
    if !all {
        let (revision, now) = (session.revision.get(), state.now());
        let known = state.answers.borrow().find(session.id, revision, &mut queries, now);
        give(state, group, Some(serial), known).await;
    }
    let has_nothing_to_ask = queries.is_empty() && session.validated_at.get().is_some();
    if has_nothing_to_ask || !state.entrance.settings.has_queries {
        state.with(|s| s.transform_failed(group, serial));
        return Ok(());
    }
    let answer = ask(state, session, &queries).await;
    let counts = matches!(answer, Ok(Some(_)));
    let outcome = match answer {
        Ok(answer) => {
            if let Some(answer) = answer {
                give(state, group, Some(serial), answer).await;
            }
            Ok(())
        }
        Err(error) => Err(error),
    };
    // Queries that the answer leaves out stay as they are.
    state.with(|s| s.transform_failed(group, serial));
    // Of an answer that counts for nothing, somebody else may have waited for some.
    if !counts && outcome.is_ok() {
        pass_on(state, group);
    }
    outcome
}

/// Hands an answer to the group, in slices: each query is planned and may have to be read.
pub async fn give(state: &CoreState, group: &str, serial: Option<u64>, answer: Transformation) {
    let slices = Slices::of(state);
    for (hash, query) in answer.queries {
        state.with(|s| s.transformed(group, &hash, serial, query));
        slices.rest_if_over().await;
    }
}
