//! What a connection's messages do (`docs/spec/sync-protocol.md` §7).

use std::rc::Rc;

use super::clean_ups::clean_up;
use super::pushes::push;
use super::serving::Serving;
use super::session::Session;
use super::transforms::{ask, give, transform_missing};
use super::warnings::Warning;
use crate::auth::token::{Token, succeed};
use crate::backend::clean_up::Forget;
use crate::groups::syncer::Arrival;
use crate::groups::user::User;
use crate::protocol::dialect::Dialect;
use crate::protocol::downstream;
use crate::protocol::error::{Kind, ProtocolError};
use crate::protocol::parse::parse;
use crate::protocol::upstream::{InitConnection, QueryBody, QueryOp, Upstream};
use crate::zql::limits::Limits;
use crate::zql::parser::{self, ParseError, Strictness};

/// Handles one message. An error ends the connection.
pub async fn handle(
    session: &Rc<Session>,
    serving: &Rc<Serving>,
    message: &str,
) -> Result<(), ProtocolError> {
    let parsed = parse(message).map_err(|why| ProtocolError::new(Kind::InvalidMessage, why))?;
    match parsed {
        // Of a connection that has gone, only the mutations count.
        Upstream::InitConnection(_) if session.outbox.has_ended() => return Ok(()),
        Upstream::InitConnection(body) => return init(session, serving, &body).await,
        Upstream::Ping => {
            session.outbox.urgent(downstream::PONG);
            return Ok(());
        }
        Upstream::Push(body) => return push(session, serving, &body).await,
        Upstream::Ignored => return Ok(()),
        _ => {}
    }
    // Before initConnection, and on a connection that was replaced, these mean nothing.
    if !session.initialised.get() || !session.is_current(serving) {
        return Ok(());
    }
    match parsed {
        Upstream::ChangeDesiredQueries(ops) => {
            check_asts(&ops)?;
            let clock = session.core.clock();
            serving.with(|s| s.change_desired(session.id, &ops, clock))?;
            transform_missing(session, serving, false);
        }
        Upstream::DeleteClients(ids) => {
            // Answers to somebody who does not read them must not pile up.
            session.outbox.until_caught_up().await;
            let clock = session.core.clock();
            serving.with(|s| s.delete_clients(session.id, &ids, clock))?;
            if !ids.is_empty() {
                clean_up(session, Forget::Clients(ids));
            }
        }
        Upstream::UpdateAuth(token) => update_auth(session, serving, &token).await?,
        Upstream::AckMutationResponses { client_id, id } => {
            clean_up(session, Forget::UpTo { client_id, id });
        }
        Upstream::Inspect { id, request } => {
            session.outbox.until_caught_up().await;
            super::inspect::handle(session, serving, &id, request).await;
        }
        _ => {}
    }
    Ok(())
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
pub fn check_first(session: &Session, message: &str) -> Result<(), ProtocolError> {
    let parsed = parse(message).map_err(|why| ProtocolError::new(Kind::InvalidMessage, why))?;
    let Upstream::InitConnection(body) = parsed else { return Ok(()) };
    check_asts(&body.desired)?;
    let Some(serving) = session.core.serving() else { return Ok(()) };
    serving.with(|s| s.check(&arrival(session), &body))
}

async fn init(
    session: &Rc<Session>,
    serving: &Rc<Serving>,
    body: &InitConnection<'_>,
) -> Result<(), ProtocolError> {
    if session.initialised.replace(true) {
        return Err(ProtocolError::new(Kind::Internal, "a connection is initialised only once"));
    }
    check_asts(&body.desired)?;
    {
        let mut query = session.query_context.borrow_mut();
        query.url.clone_from(&body.query_url);
        query.client_headers.clone_from(&body.query_headers);
        let mut push = session.push_context.borrow_mut();
        let push = Rc::make_mut(&mut push);
        push.url.clone_from(&body.push_url);
        push.client_headers.clone_from(&body.push_headers);
    }
    let core = &session.core;
    serving.with(|s| s.check(&arrival(session), body))?;
    let clock = core.clock();
    serving.with(|s| s.touch(&session.request.group_id, clock));
    // Asking for the transformations is also what lets the app refuse the connection: no row
    // and no record before that (view-syncer §11.4).
    let asked = serving.with(|s| s.prospective(&session.request.group_id, &body.desired));
    let is_answered = !core.config.query.urls.is_empty();
    let answer = if is_answered { ask(session, &asked).await? } else { None };
    if session.outbox.has_ended() {
        return Ok(());
    }
    let clock = core.clock();
    serving.with(|s| s.init(arrival(session), body, clock))?;
    session.validated_at.set(Some(clock));
    core.live.borrow_mut().insert(session.id, Rc::downgrade(session));
    if let Some(answer) = answer {
        give(serving, &session.request.group_id, None, answer).await;
    } else if !is_answered && !asked.is_empty() {
        let text = format_args!("named queries stay without an answer: ZERO_QUERY_URL is not set");
        core.warnings.warn(Warning::NoEndpoint, text);
    }
    transform_missing(session, serving, false);
    Ok(())
}

fn arrival(session: &Session) -> Arrival {
    Arrival {
        id: session.id,
        client_id: session.request.client_id.clone(),
        group_id: session.request.group_id.as_str().into(),
        user: User {
            id: session.request.user_id.clone(),
            is_proved: session.token.borrow().as_ref().is_some_and(Token::is_verified),
        },
        profile_id: session.request.profile_id.clone(),
        base_cookie: session.base_cookie,
        dialect: Dialect::of(session.request.protocol_version().unwrap_or(0)),
        sink: session.outbox.shared(),
    }
}

/// Takes another token (view-syncer §11.5). The app has to see it before the connection counts
/// as let in again.
async fn update_auth(session: &Rc<Session>, serving: &Rc<Serving>, auth: &str) -> Result<(), ProtocolError> {
    let next = session.core.authenticator.admit(Some(auth), session.request.user_id.as_deref()).await?;
    // Somebody may have taken its place while keys were fetched.
    if !session.is_current(serving) {
        return Ok(());
    }
    let token = succeed(session.token.borrow().as_ref(), next)?;
    let Some(token) = token else { return Ok(()) };
    session.query_context.borrow_mut().token = Some(token.expose().to_owned());
    Rc::make_mut(&mut session.push_context.borrow_mut()).token = Some(token.expose().to_owned());
    *session.token.borrow_mut() = Some(token);
    session.revision.set(session.revision.get() + 1);
    session.validated_at.set(None);
    transform_missing(session, serving, true);
    Ok(())
}
