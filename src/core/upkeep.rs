//! Checks that are repeated while connections are open (`docs/spec/view-syncer.md` §11.6):
//! each connection is validated anew with the app, and each group's queries are transformed
//! anew. Only a refusal of identity ends a connection; other failures are tried again later.
//!
//! What is due when is decided by [`crate::auth::upkeep::Upkeep`]; the checks of one group follow one another.

use std::panic::AssertUnwindSafe;
use std::rc::Rc;

use futures_lite::FutureExt;

use super::session::Session;
use super::slices::Slices;
use super::state::CoreState;
use super::transforms::{ask, pass_on, transform_once};
use super::upkeeps::{Checked, Checking};
use crate::auth::upkeep::Validated;
use crate::model::ids::ConnectionId;
use crate::protocol::error::ProtocolError;
use crate::testing::panics;
use crate::views::pace::Pace;

/// Milliseconds between looks at what is due.
const ROUND: f64 = 1_000.0;

/// Has connections looked at, if that is due.
pub fn look_after(state: &Rc<CoreState>) {
    let (settings, upkeeps, now) = (&state.entrance.settings, &state.upkeeps, state.now());
    let is_off = settings.checks.revalidate.is_none() && settings.checks.retransform.is_none();
    if !settings.has_queries || is_off || now - upkeeps.looked_at.get() < ROUND || upkeeps.looking.get() {
        return;
    }
    upkeeps.looked_at.set(now);
    upkeeps.looking.set(true);
    let shared = state.clone();
    state.spawn("looking after connections", async move {
        look(&shared).await;
        shared.upkeeps.looking.set(false);
    });
}

async fn look(state: &Rc<CoreState>) {
    panics::here("looking after connections");
    let mut slices = Slices::of(state);
    for session in state.entrance.sessions.all().into_iter().filter(|s| s.initialised.get()) {
        state.upkeeps.add(session);
        if slices.due() {
            slices.rest().await;
        }
    }
    // Groups without connections fall out; those whose checks are under way are kept.
    let groups: Vec<Rc<Checked>> = {
        let mut groups = state.upkeeps.groups.borrow_mut();
        groups.retain(|_, group| group.busy.get() || !group.sessions.borrow().is_empty());
        groups.values().cloned().collect()
    };
    for group in groups {
        let sessions = group.sessions.take();
        if !group.busy.get() && group.is_due(state, &sessions) {
            let (checking, shared) = (Checking::begin(group), state.clone());
            state.spawn("checks that are repeated", async move {
                let checks = AssertUnwindSafe(Box::pin(checking.0.check(&shared, &sessions)));
                // The next round checks the group again.
                drop(checks.catch_unwind().await);
            });
        }
        if slices.due() {
            slices.rest().await;
        }
    }
}

/// Those of the connections that the app has let in, and that have not ended.
fn validated(sessions: &[Rc<Session>]) -> Vec<Validated> {
    let open = sessions.iter().filter(|s| !s.outbox.has_ended());
    open.filter_map(|s| s.validated_at.get().map(|at| Validated { id: s.id, at })).collect()
}

fn find(sessions: &[Rc<Session>], id: ConnectionId) -> Option<&Rc<Session>> {
    sessions.iter().find(|s| s.id == id)
}

impl Checked {
    fn is_due(&self, state: &CoreState, sessions: &[Rc<Session>]) -> bool {
        let (intervals, now) = (state.entrance.settings.checks, state.now());
        let open = validated(sessions);
        let mut upkeep = self.upkeep.borrow_mut();
        let retransform = upkeep.retransformation(&open, intervals, now).is_some();
        retransform || !upkeep.revalidations(&open, intervals, now).is_empty()
    }

    async fn check(&self, state: &Rc<CoreState>, sessions: &[Rc<Session>]) {
        let intervals = state.entrance.settings.checks;
        let due = self.upkeep.borrow().revalidations(&validated(sessions), intervals, state.now());
        for session in due.into_iter().filter_map(|id| find(sessions, id)) {
            if let Err(error) = refused(session, ask(state, session, &[]).await.map(drop)) {
                crate::info!("a connection was not validated anew: {}", error.message);
                return self.upkeep.borrow_mut().defer(intervals.revalidate, state.now());
            }
        }
        loop {
            let now = state.now();
            let chosen = self.upkeep.borrow_mut().retransformation(&validated(sessions), intervals, now);
            let Some(session) = chosen.and_then(|id| find(sessions, id)) else { return };
            let outcome = refused(session, transform_once(state, session, true).await);
            if !matches!(outcome, Ok(Refusal::No)) {
                // Somebody may have begun to want one of the queries meanwhile.
                pass_on(state, &session.request.group_id);
            }
            let mut upkeep = self.upkeep.borrow_mut();
            match outcome {
                // The credentials of another connection are tried.
                Ok(Refusal::Yes) => {}
                Ok(Refusal::No) => return upkeep.retransformed(intervals, state.now()),
                Err(error) => {
                    crate::info!("queries were not transformed anew: {}", error.message);
                    return upkeep.defer(intervals.retransform, state.now());
                }
            }
        }
    }
}

/// Whether the app refused the identity of a connection.
enum Refusal {
    Yes,
    No,
}

/// Ends a connection whose identity the app refused. Returns errors that may pass.
fn refused(session: &Session, outcome: Result<(), ProtocolError>) -> Result<Refusal, ProtocolError> {
    match outcome {
        Ok(()) => Ok(Refusal::No),
        Err(error) if error.is_auth() => {
            session.fail(&error);
            Ok(Refusal::Yes)
        }
        Err(error) => Err(error),
    }
}
