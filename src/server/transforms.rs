//! Asks the app what queries are (`docs/spec/view-syncer.md` §11): one request of a connection at a time.

use std::panic::AssertUnwindSafe;
use std::rc::Rc;

use futures_lite::FutureExt;
use kelvin_io::executor::{now, spawn};
use serde_json::json;

use super::core::Core;
use super::serving::Serving;
use super::session::{Session, panicked};
use super::warnings::Warning;
use crate::backend::call::CallError;
use crate::backend::transform::{self, Transformation};
use crate::backend::turns::CallKind;
use crate::protocol::error::{Kind, ProtocolError};
use crate::testing::panics;
use crate::views::pace::Pace;
use crate::zql::custom_query::Named;
use crate::zql::limits::Limits;

/// Asks the app for transformations and checks whom it says it answered. `None`: the token that
/// it was asked with was replaced meanwhile, and its answer, whatever it is, counts for nothing.
pub async fn ask(session: &Session, queries: &[Named]) -> Result<Option<Transformation>, ProtocolError> {
    let core = &session.core;
    let revision = session.revision.get();
    let ids = || json!(queries.iter().map(|q| &q.hash).collect::<Vec<_>>());
    let failed = |e: CallError| e.to_protocol(Kind::TransformFailed, ("queryIDs", ids()));
    let context = session.query_context.borrow().clone();
    let began = now();
    let call = (CallKind::Transform, session.request.group_id.as_str());
    let body = core.caller.post(call, &core.config.query, &context, transform::request(queries)).await;
    let answer = body.and_then(|body| transform::response(&body, &Limits::DEFAULT));
    core.metrics.transform_done(answer.is_ok(), now().saturating_duration_since(began).as_nanos() as u64);
    if let Err(error) = &answer {
        warn_of_endpoint(core, Warning::Query, error);
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
            let now = core.clock();
            session.validated_at.set(Some(now));
            core.answers.borrow_mut().keep(session.id, revision, queries, &answer, now);
            Ok(Some(answer))
        }
    }
}

/// Warns of an endpoint that does not do its part. That it refuses somebody is between the two of them.
pub fn warn_of_endpoint(core: &Core, warning: Warning, error: &CallError) {
    let what = if warning == Warning::Query { "query" } else { "mutate" };
    if !matches!(error.status, Some(401 | 403)) {
        core.warnings.warn(warning, format_args!("the app's {what} endpoint fails: {}", error.message));
    }
}

/// Has the group's queries transformed that were not yet, or all of them, in the background.
/// One request of a connection is under way at a time: what it wants meanwhile is asked for
/// together, however many messages say so.
pub fn transform_missing(session: &Rc<Session>, serving: &Rc<Serving>, all: bool) {
    let again = session.ask_again.get().unwrap_or(false);
    session.ask_again.set(Some(all || again));
    if session.asking.replace(true) {
        return;
    }
    let (session, serving) = (session.clone(), serving.clone());
    spawn(async move {
        while let Some(all) = session.ask_again.take().filter(|_| !session.outbox.has_ended()) {
            let asking = Box::pin(async {
                panics::here("a transformation");
                transform_once(&session, &serving, all).await
            });
            let asked = AssertUnwindSafe(asking).catch_unwind().await;
            if let Err(error) = asked.unwrap_or_else(|_| Err(panicked())) {
                session.fail(&error);
                pass_on(&serving, &session.request.group_id);
            }
        }
        session.asking.set(false);
    })
    .detach();
}

/// Others of the group may want what could not be asked for with the credentials of one: the next
/// of them asks.
fn pass_on(serving: &Rc<Serving>, group: &str) {
    let waiting = serving.with(|s| s.unanswered(group));
    let live = serving.live.borrow();
    let mut open = waiting.iter().filter_map(|id| live.get(id)?.upgrade()).filter(|s| !s.outbox.has_ended());
    let next = open.next();
    drop(open);
    drop(live);
    if let Some(session) = next {
        transform_missing(&session, serving, false);
    }
}

/// Has queries transformed. An error is the app's refusal of the whole request. A connection with
/// a token that the app has not seen shows it, even if there is nothing to transform.
pub async fn transform_once(session: &Session, serving: &Serving, all: bool) -> Result<(), ProtocolError> {
    let core = &session.core;
    let group = &session.request.group_id;
    let (serial, mut queries) = serving.with(|s| s.transform(group, all));
    if !all {
        let revision = session.revision.get();
        let known = core.answers.borrow().find(session.id, revision, &mut queries, core.clock());
        give(serving, group, Some(serial), known).await;
    }
    let has_nothing_to_ask = queries.is_empty() && session.validated_at.get().is_some();
    let outcome = if has_nothing_to_ask || core.config.query.urls.is_empty() {
        Ok(())
    } else {
        match ask(session, &queries).await {
            Ok(Some(answer)) => {
                give(serving, group, Some(serial), answer).await;
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        }
    };
    // Queries that the answer leaves out stay as they are.
    serving.with(|s| s.transform_failed(group, serial));
    outcome
}

/// Hands an answer to the group, in slices: each query is planned and may have to be read.
pub async fn give(serving: &Serving, group: &str, serial: Option<u64>, answer: Transformation) {
    let mut pace = serving.pace("messages of a connection");
    for (hash, query) in answer.queries {
        serving.with(|s| s.transformed(group, &hash, serial, query));
        if pace.is_over() {
            pace.rest().await;
        }
    }
    pace.end();
}
