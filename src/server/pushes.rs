//! Mutations on their way to the app (`docs/spec/view-syncer.md` §9): one request of a group at a time.

use std::cell::RefCell;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;

use futures_lite::FutureExt;
use kelvin_io::executor::{now, sleep, spawn};

use super::core::Core;
use super::serving::Serving;
use super::session::Session;
use super::transforms::warn_of_endpoint;
use super::warnings::Warning;
use crate::backend::call::CallError;
use crate::backend::push::{self, Batch, Queue};
use crate::backend::turns::CallKind;
use crate::groups::sink::Sink;
use crate::protocol::error::{Kind, ProtocolError};
use crate::protocol::upstream::Push;
use crate::testing::panics;

/// Wait of a sender whose group has too many mutations queued.
const PUSH_WAIT: std::time::Duration = std::time::Duration::from_millis(20);

/// Bytes of mutations that wait for the app, over all groups of a core: an app that is away must not
/// fill the memory.
const MAX_PUSHED: usize = 64 << 20;

/// Mutations on their way to the app, by group.
pub type Pushes = RefCell<HashMap<Rc<str>, Queue>>;

/// Queues mutations for the app.
pub async fn push(
    session: &Rc<Session>,
    serving: &Rc<Serving>,
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
        let serving = serving.clone();
        spawn(async move {
            let pushing = AssertUnwindSafe(Box::pin(drain(&serving, &group))).catch_unwind();
            if pushing.await.is_err() {
                // What it had taken of the queue is lost: its clients send it again.
                serving.pushes.borrow_mut().remove(&group);
                serving.with(|s| s.send_away(&group, &push_lost(), serving.clock()));
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
async fn drain(serving: &Serving, group: &Rc<str>) {
    let core: &Core = serving;
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
            tell(serving, group, &client, &error);
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
fn tell(serving: &Serving, group: &str, client: &str, error: &ProtocolError) {
    let connection = serving.with(|s| s.connection_of(group, client));
    let outbox = connection.and_then(|id| serving.connections.get(id));
    if let Some(outbox) = outbox {
        crate::info!(client = client, group = group, kind = error.kind.name(); "a push failed: {}", error.message);
        outbox.fail(error);
    }
}
