//! What a connection's messages do (`docs/spec/sync-protocol.md` §7). They are handled strictly one after another.

use std::panic::AssertUnwindSafe;
use std::rc::Rc;

use futures_lite::FutureExt;
use futures_lite::future::yield_now;

use super::asking::{inspect, judge};
use super::clean_ups::clean_up;
use super::pushing::push;
use super::session::{Session, panicked};
use super::state::CoreState;
use super::transforms::{ask, give, transform_missing};
use super::warning::Warning;
use crate::auth::token::succeed;
use crate::backend::clean_up::Forget;
use crate::groups::syncer::Arrival;
use crate::protocol::dialect::Dialect;
use crate::protocol::downstream;
use crate::protocol::error::{Kind, ProtocolError};
use crate::protocol::parse::parse;
use crate::protocol::upstream::{InitConnection, QueryBody, QueryOp, Upstream};
use crate::testing::panics;
use crate::zql::limits::Limits;
use crate::zql::parser::{self, ParseError, Strictness};

/// Has the messages of a connection handled that wait, unless somebody does it already.
pub fn handle_waiting(state: &Rc<CoreState>, session: &Rc<Session>) {
    if session.inbox.is_empty() || session.is_handled.replace(true) {
        return;
    }
    let (shared, session) = (state.clone(), session.clone());
    state.spawn("messages of a connection", async move {
        session.cancelled.wait().or(handle_all(&shared, &session)).await;
        session.is_handled.set(false);
        shared.entrance.sessions.finished(session.id);
    });
}

async fn handle_all(state: &Rc<CoreState>, session: &Rc<Session>) {
    while let Some(message) = session.inbox.pop() {
        let handling = Box::pin(async {
            panics::here("a message");
            handle(state, session, &message).await
        });
        // It would look served: its pings are answered by another task.
        let handled = AssertUnwindSafe(handling).catch_unwind().await;
        if let Err(error) = handled.unwrap_or_else(|_| Err(panicked())) {
            session.fail(&error);
            return session.inbox.stop();
        }
        // Many may be there, and most are handled without a wait.
        yield_now().await;
    }
}

/// Handles one message. An error ends the connection.
async fn handle(state: &Rc<CoreState>, session: &Rc<Session>, message: &str) -> Result<(), ProtocolError> {
    let parsed = parse(message).map_err(|why| ProtocolError::new(Kind::InvalidMessage, why))?;
    match parsed {
        // Of a connection that has gone, only the mutations count.
        Upstream::InitConnection(_) if session.outbox.has_ended() => return Ok(()),
        Upstream::InitConnection(body) => return init(state, session, &body).await,
        Upstream::Ping => {
            session.outbox.urgent(downstream::PONG);
            return Ok(());
        }
        Upstream::Push(body) => return push(state, session, &body).await,
        Upstream::Ignored => return Ok(()),
        _ => {}
    }
    // Before initConnection, and on a connection that was replaced, these mean nothing.
    if !session.initialised.get() || !is_current(state, session) {
        return Ok(());
    }
    match parsed {
        Upstream::ChangeDesiredQueries(ops) => {
            check_asts(&ops)?;
            let now = state.now();
            state.with(|s| s.change_desired(session.id, &ops, now))?;
            transform_missing(state, session, false);
        }
        Upstream::DeleteClients(ids) => {
            // Answers to somebody who does not read them must not pile up.
            session.outbox.until_caught_up().await;
            let now = state.now();
            state.with(|s| s.delete_clients(session.id, &ids, now))?;
            if !ids.is_empty() {
                clean_up(state, session, Forget::Clients(ids));
            }
        }
        Upstream::UpdateAuth(token) => update_auth(state, session, &token).await?,
        Upstream::AckMutationResponses { client_id, id } => {
            clean_up(state, session, Forget::UpTo { client_id, id });
        }
        Upstream::Inspect { id, request } => {
            session.outbox.until_caught_up().await;
            inspect(state, session, id, request).await;
        }
        _ => {}
    }
    Ok(())
}

/// Whether the connection is still the one that its group knows.
fn is_current(state: &CoreState, session: &Session) -> bool {
    state.look().group_of(session.id).is_some()
}

/// What is no query ends the connection. One that is more than one may be is refused alone, later.
fn check_asts(ops: &[QueryOp]) -> Result<(), ProtocolError> {
    for op in ops {
        if let QueryOp::Put { query: Some(QueryBody::Ast(text)), .. } = op
            && let Err(ParseError::Malformed(why)) =
                parser::parse(text.get(), Strictness::Strict, &Limits::DEFAULT)
        {
            return Err(ProtocolError::new(Kind::InvalidMessage, format!("invalid query: {why}")));
        }
    }
    Ok(())
}

/// What can be said of the message that came with the request before anything is asked or done. Before the
/// replica can be read that is less.
pub fn check_first(
    session: &Session,
    message: &str,
    serving: Option<&CoreState>,
) -> Result<(), ProtocolError> {
    panics::here("a first message");
    let parsed = parse(message).map_err(|why| ProtocolError::new(Kind::InvalidMessage, why))?;
    let Upstream::InitConnection(body) = parsed else { return Ok(()) };
    check_asts(&body.desired)?;
    serving.map_or(Ok(()), |state| state.look().check(&arrival(session), &body))
}

async fn init(
    state: &Rc<CoreState>,
    session: &Rc<Session>,
    body: &InitConnection<'_>,
) -> Result<(), ProtocolError> {
    if session.initialised.replace(true) {
        return Err(ProtocolError::new(Kind::Internal, "a connection is initialised only once"));
    }
    check_asts(&body.desired)?;
    {
        let mut query = session.query_context.borrow_mut();
        let query = Rc::make_mut(&mut query);
        query.url.clone_from(&body.query_url);
        query.client_headers.clone_from(&body.query_headers);
        let mut push = session.push_context.borrow_mut();
        let push = Rc::make_mut(&mut push);
        push.url.clone_from(&body.push_url);
        push.client_headers.clone_from(&body.push_headers);
    }
    state.look().check(&arrival(session), body)?;
    let (group, now) = (&session.request.group_id, state.now());
    state.with(|s| s.touch(group, now));
    // Asking for the transformations is also what lets the app refuse the connection: no row
    // and no record before that (view-syncer §11.4).
    let asked = state.look().prospective(group, &body.desired);
    let is_answered = state.entrance.settings.has_queries;
    let answer = if is_answered { ask(state, session, &asked).await? } else { None };
    if session.outbox.has_ended() {
        return Ok(());
    }
    let now = state.now();
    state.with(|s| s.init(arrival(session), body, now))?;
    session.validated_at.set(Some(now));
    if let Some(answer) = answer {
        give(state, group, None, answer).await;
    } else if !is_answered && !asked.is_empty() {
        let text = format_args!("named queries stay without an answer: ZERO_QUERY_URL is not set");
        state.host.warn(Warning::NoEndpoint, text);
    }
    transform_missing(state, session, false);
    Ok(())
}

fn arrival(session: &Session) -> Arrival {
    Arrival {
        id: session.id,
        client_id: session.request.client_id.clone(),
        group_id: session.request.group_id.as_str().into(),
        user: session.user(),
        profile_id: session.request.profile_id.clone(),
        base_cookie: session.base_cookie,
        dialect: Dialect::of(session.request.protocol_version().unwrap_or(0)),
        sink: session.outbox.clone(),
    }
}

/// Takes another token (view-syncer §11.5). The app has to see it before the connection counts
/// as let in again.
async fn update_auth(state: &Rc<CoreState>, session: &Rc<Session>, auth: &str) -> Result<(), ProtocolError> {
    let next = judge(state, auth, session.request.user_id.as_deref()).await?;
    // Somebody may have taken its place while keys were fetched.
    if !is_current(state, session) {
        return Ok(());
    }
    let token = succeed(session.token.borrow().as_ref(), next)?;
    let Some(token) = token else { return Ok(()) };
    for context in [&session.query_context, &session.push_context] {
        Rc::make_mut(&mut context.borrow_mut()).token = Some(token.expose().to_owned());
    }
    *session.token.borrow_mut() = Some(token);
    session.revision.set(session.revision.get() + 1);
    session.validated_at.set(None);
    transform_missing(state, session, true);
    Ok(())
}
