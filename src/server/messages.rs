//! What a connection's messages do (`docs/spec/sync-protocol.md` §7).

use std::cell::RefCell;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;

use futures_lite::FutureExt;
use kelvin_io::executor::{now, sleep, spawn};
use serde_json::json;

use super::clean_ups::clean_up;
use super::core::Core;
use super::session::{Session, panicked};
use super::warnings::Warning;
use crate::auth::token::{Token, succeed};
use crate::backend::call::CallError;
use crate::backend::clean_up::Forget;
use crate::backend::push::{self, Batch, Queue};
use crate::backend::transform::{self, Transformation};
use crate::backend::turns::CallKind;
use crate::groups::sink::Sink;
use crate::groups::syncer::Arrival;
use crate::groups::user::User;
use crate::protocol::dialect::Dialect;
use crate::protocol::downstream;
use crate::protocol::error::{Kind, ProtocolError};
use crate::protocol::parse::parse;
use crate::protocol::upstream::{InitConnection, Push, QueryBody, QueryOp, Upstream};
use crate::testing::panics;
use crate::views::pace::Pace;
use crate::zql::ast::{self, ParseError, Strictness};
use crate::zql::custom_query::Named;
use crate::zql::limits::Limits;

/// Wait of a sender whose group has too many mutations queued.
const PUSH_WAIT: std::time::Duration = std::time::Duration::from_millis(20);

/// Bytes of mutations that wait for the app, over all groups of a core: an app that is away must not
/// fill the memory.
const MAX_PUSHED: usize = 64 << 20;

/// Mutations on their way to the app, by group.
pub type Pushes = RefCell<HashMap<Rc<str>, Queue>>;

/// Handles one message. An error ends the connection.
pub async fn handle(session: &Rc<Session>, message: &str) -> Result<(), ProtocolError> {
    let parsed = parse(message).map_err(|why| ProtocolError::new(Kind::InvalidMessage, why))?;
    match parsed {
        // Of a connection that has gone, only the mutations count.
        Upstream::InitConnection(_) if session.outbox.has_ended() => return Ok(()),
        Upstream::InitConnection(body) => return init(session, &body).await,
        Upstream::Ping => {
            session.outbox.urgent(downstream::PONG);
            return Ok(());
        }
        Upstream::Push(body) => return push(session, &body).await,
        Upstream::Ignored => return Ok(()),
        _ => {}
    }
    // Before initConnection, and on a connection that was replaced, these mean nothing.
    if !session.initialised.get() || !session.is_current() {
        return Ok(());
    }
    match parsed {
        Upstream::ChangeDesiredQueries(ops) => {
            check_asts(&ops)?;
            let clock = session.core.clock();
            session.core.with(|s| s.change_desired(session.id, &ops, clock)).unwrap_or(Ok(()))?;
            transform_missing(session, false);
        }
        Upstream::DeleteClients(ids) => {
            // Answers to somebody who does not read them must not pile up.
            session.outbox.until_caught_up().await;
            let clock = session.core.clock();
            session.core.with(|s| s.delete_clients(session.id, &ids, clock)).unwrap_or(Ok(()))?;
            if !ids.is_empty() {
                clean_up(session, Forget::Clients(ids));
            }
        }
        Upstream::UpdateAuth(token) => update_auth(session, &token).await?,
        Upstream::AckMutationResponses { client_id, id } => {
            clean_up(session, Forget::UpTo { client_id, id });
        }
        Upstream::Inspect { id, request } => {
            session.outbox.until_caught_up().await;
            super::inspect::handle(session, &id, request).await;
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
                ast::parse(text.get(), Strictness::Strict, &Limits::DEFAULT)
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
    session.core.with(|s| s.check(&arrival(session), &body)).unwrap_or(Ok(()))
}

async fn init(session: &Rc<Session>, body: &InitConnection<'_>) -> Result<(), ProtocolError> {
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
    core.with(|s| s.check(&arrival(session), body)).unwrap_or(Ok(()))?;
    let clock = core.clock();
    core.with(|s| s.touch(&session.request.group_id, clock));
    // Asking for the transformations is also what lets the app refuse the connection: no row
    // and no record before that (view-syncer §11.4).
    let asked = core.with(|s| s.prospective(&session.request.group_id, &body.desired)).unwrap_or_default();
    let is_answered = !core.config.query.urls.is_empty();
    let answer = if is_answered { ask(session, &asked).await? } else { None };
    if session.outbox.has_ended() {
        return Ok(());
    }
    let clock = core.clock();
    core.with(|s| s.init(arrival(session), body, clock)).unwrap_or(Ok(()))?;
    session.validated_at.set(Some(clock));
    core.live.borrow_mut().insert(session.id, Rc::downgrade(session));
    if let Some(answer) = answer {
        give(core, &session.request.group_id, None, answer).await;
    } else if !is_answered && !asked.is_empty() {
        let text = format_args!("named queries stay without an answer: ZERO_QUERY_URL is not set");
        core.warnings.warn(Warning::NoEndpoint, text);
    }
    transform_missing(session, false);
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

/// Asks the app for transformations and checks whom it says it answered. `None`: the token that
/// it was asked with was replaced meanwhile, and its answer, whatever it is, counts for nothing.
pub(super) async fn ask(
    session: &Session,
    queries: &[Named],
) -> Result<Option<Transformation>, ProtocolError> {
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
fn warn_of_endpoint(core: &Core, warning: Warning, error: &CallError) {
    let what = if warning == Warning::Query { "query" } else { "mutate" };
    if !matches!(error.status, Some(401 | 403)) {
        core.warnings.warn(warning, format_args!("the app's {what} endpoint fails: {}", error.message));
    }
}

/// Has the group's queries transformed that were not yet, or all of them, in the background.
/// One request of a connection is under way at a time: what it wants meanwhile is asked for
/// together, however many messages say so.
fn transform_missing(session: &Rc<Session>, all: bool) {
    let again = session.ask_again.get().unwrap_or(false);
    session.ask_again.set(Some(all || again));
    if session.asking.replace(true) {
        return;
    }
    let session = session.clone();
    spawn(async move {
        while let Some(all) = session.ask_again.take().filter(|_| !session.outbox.has_ended()) {
            let asking = Box::pin(async {
                panics::here("a transformation");
                transform_once(&session, all).await
            });
            let asked = AssertUnwindSafe(asking).catch_unwind().await;
            if let Err(error) = asked.unwrap_or_else(|_| Err(panicked())) {
                session.fail(&error);
                pass_on(&session.core, &session.request.group_id);
            }
        }
        session.asking.set(false);
    })
    .detach();
}

/// Others of the group may want what could not be asked for with the credentials of one: the next
/// of them asks.
fn pass_on(core: &Core, group: &str) {
    let waiting = core.with(|s| s.unanswered(group)).unwrap_or_default();
    let live = core.live.borrow();
    let mut open = waiting.iter().filter_map(|id| live.get(id)?.upgrade()).filter(|s| !s.outbox.has_ended());
    let next = open.next();
    drop(open);
    drop(live);
    if let Some(session) = next {
        transform_missing(&session, false);
    }
}

/// Has queries transformed. An error is the app's refusal of the whole request. A connection with
/// a token that the app has not seen shows it, even if there is nothing to transform.
pub(super) async fn transform_once(session: &Session, all: bool) -> Result<(), ProtocolError> {
    let core = &session.core;
    let group = &session.request.group_id;
    let Some((serial, mut queries)) = core.with(|s| s.transform(group, all)) else { return Ok(()) };
    if !all {
        let revision = session.revision.get();
        let known = core.answers.borrow().find(session.id, revision, &mut queries, core.clock());
        give(core, group, Some(serial), known).await;
    }
    let has_nothing_to_ask = queries.is_empty() && session.validated_at.get().is_some();
    let outcome = if has_nothing_to_ask || core.config.query.urls.is_empty() {
        Ok(())
    } else {
        match ask(session, &queries).await {
            Ok(Some(answer)) => {
                give(core, group, Some(serial), answer).await;
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        }
    };
    // Queries that the answer leaves out stay as they are.
    core.with(|s| s.transform_failed(group, serial));
    outcome
}

/// Hands an answer to the group, in slices: each query is planned and may have to be read.
async fn give(core: &Core, group: &str, serial: Option<u64>, answer: Transformation) {
    let mut pace = core.pace("messages of a connection");
    for (hash, query) in answer.queries {
        core.with(|s| s.transformed(group, &hash, serial, query));
        if pace.is_over() {
            pace.rest().await;
        }
    }
    pace.end();
}

/// Takes another token (view-syncer §11.5). The app has to see it before the connection counts
/// as let in again.
async fn update_auth(session: &Rc<Session>, auth: &str) -> Result<(), ProtocolError> {
    let next = session.core.authenticator.admit(Some(auth), session.request.user_id.as_deref()).await?;
    // Somebody may have taken its place while keys were fetched.
    if !session.is_current() {
        return Ok(());
    }
    let token = succeed(session.token.borrow().as_ref(), next)?;
    let Some(token) = token else { return Ok(()) };
    session.query_context.borrow_mut().token = Some(token.expose().to_owned());
    Rc::make_mut(&mut session.push_context.borrow_mut()).token = Some(token.expose().to_owned());
    *session.token.borrow_mut() = Some(token);
    session.revision.set(session.revision.get() + 1);
    session.validated_at.set(None);
    transform_missing(session, true);
    Ok(())
}

/// Queues mutations for the app (`docs/spec/view-syncer.md` §9).
async fn push(session: &Rc<Session>, body: &Push<'_>) -> Result<(), ProtocolError> {
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
    let core = &session.core;
    if core.config.mutate.urls.is_empty() {
        let message = "custom mutations need the app's endpoint: set ZERO_MUTATE_URL";
        core.warnings.warn(Warning::NoEndpoint, format_args!("{message}"));
        return Err(ProtocolError::new(Kind::InvalidPush, message));
    }
    let group: Rc<str> = session.request.group_id.as_str().into();
    while must_wait(core, &group) {
        sleep(PUSH_WAIT).await;
    }
    let batch = Batch::new(session.id, session.push_context.borrow().clone(), body);
    let start = {
        let mut pushes = core.pushes.borrow_mut();
        let queue = pushes.entry(group.clone()).or_default();
        queue.push(batch);
        !std::mem::replace(&mut queue.busy, true)
    };
    if start {
        let session = session.clone();
        spawn(async move {
            let pushing = AssertUnwindSafe(Box::pin(drain(&session.core, &group))).catch_unwind();
            if pushing.await.is_err() {
                // What it had taken of the queue is lost: its clients send it again.
                session.core.pushes.borrow_mut().remove(&group);
                session.core.with(|s| s.send_away(&group, &push_lost(), session.core.clock()));
            }
        })
        .detach();
    }
    Ok(())
}

/// What the clients of a group are told whose mutations were not brought to the app.
fn push_lost() -> ProtocolError {
    ProtocolError::new(Kind::Rehome, "mutations could not be brought to the app; they are sent again")
}

/// Whether a group's mutations have to wait before more of them are queued: it has many, or it has
/// some and the core has very many.
fn must_wait(core: &Core, group: &str) -> bool {
    let pushes = core.pushes.borrow();
    let Some(queue) = pushes.get(group) else { return false };
    queue.is_full() || (queue.bytes() > 0 && pushes.values().map(Queue::bytes).sum::<usize>() > MAX_PUSHED)
}

/// Sends a group's queue, one request at a time.
async fn drain(core: &Rc<Core>, group: &Rc<str>) {
    loop {
        let batch = {
            let mut pushes = core.pushes.borrow_mut();
            let Some(batch) = pushes.get_mut(group).and_then(|q| q.pop()) else {
                pushes.remove(group);
                return;
            };
            batch
        };
        panics::here("a push");
        let began = now();
        let call = (CallKind::Push, &**group);
        let body = core.caller.post(call, &core.config.mutate, &batch.context, batch.body()).await;
        let outcome = body.and_then(|body| push::response(&body, &batch.ids));
        let is_taken = outcome.as_ref().is_ok_and(|outcome| outcome.errors.is_empty());
        core.metrics.push_done(is_taken, now().saturating_duration_since(began).as_nanos() as u64);
        if let Err(error) = &outcome {
            warn_of_endpoint(core, Warning::Mutate, error);
        }
        let errors = match outcome {
            Err(error) => push::per_client(&error, &batch.ids),
            Ok(outcome) if is_other_user(core, &batch, &outcome) => {
                let refused = CallError {
                    status: Some(401),
                    ..CallError::internal(
                        "http",
                        "the mutate endpoint says that the connection is another user's",
                    )
                };
                push::per_client(&refused, &batch.ids)
            }
            Ok(outcome) => {
                if outcome.errors.is_empty() {
                    let_in(core, &batch);
                }
                outcome.errors
            }
        };
        for (client, error) in errors {
            tell(core, group, &client, &error);
        }
    }
}

/// The app has let in the connection that sent these mutations, if it still has the token that
/// it had then.
fn let_in(core: &Core, batch: &Batch) {
    if let Some(session) = sender(core, batch) {
        session.validated_at.set(Some(core.clock()));
    }
}

/// The connection that sent these mutations, if it is there and has the token that it had then: of who is
/// there now the app has said nothing otherwise.
fn sender(core: &Core, batch: &Batch) -> Option<Rc<Session>> {
    let session = core.live.borrow().get(&batch.connection).and_then(std::rc::Weak::upgrade);
    session.filter(|s| *s.push_context.borrow() == batch.context)
}

fn is_other_user(core: &Core, batch: &Batch, outcome: &push::Outcome) -> bool {
    let Some(said) = &outcome.user_id else { return false };
    sender(core, batch).is_some_and(|session| session.request.user_id != *said)
}

/// Tells the current connection of a client; nobody if it has none.
fn tell(core: &Core, group: &str, client: &str, error: &ProtocolError) {
    let connection = core.with(|s| s.connection_of(group, client)).flatten();
    let outbox = connection.and_then(|id| core.connections.get(id));
    if let Some(outbox) = outbox {
        crate::info!(client = client, group = group, kind = error.kind.name(); "a push failed: {}", error.message);
        outbox.fail(error);
    }
}
