//! Checks that are repeated while connections are open (`docs/spec/view-syncer.md` §11.6):
//! each connection is validated anew with the app, and each group's queries are transformed
//! anew. Only a refusal of identity ends a connection; other failures are tried again later.
//!
//! What is due when is decided by [`Upkeep`]; the checks of one group follow one another.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use kelvin_io::executor::{sleep, spawn};

use super::core::Core;
use super::serving::Serving;
use super::session::Session;
use super::transforms::{ask, transform_once};
use crate::auth::upkeep::{Intervals, Upkeep, Validated};
use crate::model::ids::ConnectionId;
use crate::protocol::error::ProtocolError;
use crate::views::pace::Pace;

/// Time between looks at what is due.
const ROUND: Duration = Duration::from_secs(1);

/// A group with open connections.
#[derive(Default)]
struct Checked {
    upkeep: RefCell<Upkeep>,
    /// Its checks are being done.
    busy: Cell<bool>,
    /// Its connections as of this round.
    sessions: RefCell<Vec<Rc<Session>>>,
}

/// Runs for as long as the core does.
pub async fn run(serving: Rc<Serving>) {
    let core: &Core = &serving;
    let auth = &core.config.auth;
    let intervals = Intervals::new(auth.revalidate_interval, auth.retransform_interval);
    let is_off = intervals.revalidate.is_none() && intervals.retransform.is_none();
    if core.config.query.urls.is_empty() || is_off {
        return std::future::pending().await;
    }
    let mut groups: HashMap<String, Rc<Checked>> = HashMap::new();
    let mut pace = core.pace("looking after connections");
    loop {
        pace.end();
        sleep(ROUND).await;
        pace.begin();
        let sessions: Vec<Rc<Session>> =
            core.live.borrow().values().filter_map(std::rc::Weak::upgrade).collect();
        for session in sessions {
            let id = &session.request.group_id;
            let group = match groups.get(id) {
                Some(group) => group,
                None => groups.entry(id.clone()).or_default(),
            };
            group.sessions.borrow_mut().push(session);
            if pace.due() {
                pace.rest().await;
            }
        }
        // Groups without connections fall out; those whose checks are under way are kept.
        groups.retain(|_, group| group.busy.get() || !group.sessions.borrow().is_empty());
        for group in groups.values() {
            let sessions = group.sessions.take();
            if !group.busy.get() && group.is_due(&sessions, intervals, core.clock()) {
                let (checking, serving) = (Checking::begin(group.clone()), serving.clone());
                spawn(async move { checking.0.check(&serving, &sessions, intervals).await }).detach();
            }
            if pace.due() {
                pace.rest().await;
            }
        }
    }
}

/// Checks of a group that are under way, until they are over or have panicked.
struct Checking(Rc<Checked>);

impl Checking {
    fn begin(group: Rc<Checked>) -> Checking {
        group.busy.set(true);
        Checking(group)
    }
}

impl Drop for Checking {
    fn drop(&mut self) {
        self.0.busy.set(false);
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
    fn is_due(&self, sessions: &[Rc<Session>], intervals: Intervals, now: f64) -> bool {
        let open = validated(sessions);
        let mut upkeep = self.upkeep.borrow_mut();
        let retransform = upkeep.retransformation(&open, intervals, now).is_some();
        retransform || !upkeep.revalidations(&open, intervals, now).is_empty()
    }

    async fn check(&self, serving: &Serving, sessions: &[Rc<Session>], intervals: Intervals) {
        let core: &Core = serving;
        let due = self.upkeep.borrow().revalidations(&validated(sessions), intervals, core.clock());
        for session in due.into_iter().filter_map(|id| find(sessions, id)) {
            if let Err(error) = refused(session, ask(session, &[]).await.map(drop)) {
                crate::info!("a connection was not validated anew: {}", error.message);
                return self.upkeep.borrow_mut().defer(intervals.revalidate, core.clock());
            }
        }
        loop {
            let now = core.clock();
            let chosen = self.upkeep.borrow_mut().retransformation(&validated(sessions), intervals, now);
            let Some(session) = chosen.and_then(|id| find(sessions, id)) else { return };
            let outcome = refused(session, transform_once(session, serving, true).await);
            let mut upkeep = self.upkeep.borrow_mut();
            match outcome {
                // The credentials of another connection are tried.
                Ok(Refusal::Yes) => {}
                Ok(Refusal::No) => return upkeep.retransformed(intervals, core.clock()),
                Err(error) => {
                    crate::info!("queries were not transformed anew: {}", error.message);
                    return upkeep.defer(intervals.retransform, core.clock());
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
