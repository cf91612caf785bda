//! A view-syncer core as a value.

use std::cell::Ref;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;
use std::sync::Arc;

use futures_lite::FutureExt;

use super::admission::{self, Arrived};
use super::effect::{Effect, End, Event, Reported};
use super::limits::Limits;
use super::recording::{self, RecordQueue};
use super::rounds::Rounds;
use super::session::Session;
use super::state::{Call, CoreState, Parts};
use super::tasks::{TaskId, Tasks};
use super::{batch, groups, hydration, messages};
use crate::groups::reading::Reading;
use crate::groups::syncer::Syncer;
use crate::model::catalogue::Catalogue;
use crate::model::ids::ConnectionId;
use crate::protocol::connect::ConnectRequest;
use crate::protocol::error::ProtocolError;
use crate::replica::reader::{ReadError, Reader};
use crate::testing::panics;
use crate::views::view::ViewId;

/// One core: its groups and its views, and what is under way for them.
pub struct ViewSyncer {
    state: Rc<CoreState>,
    tasks: Tasks,
    /// What time brings.
    rounds: Rounds,
}

impl ViewSyncer {
    /// A core that has groups and nothing else.
    pub fn new(parts: Parts) -> ViewSyncer {
        let state = Rc::new(CoreState::new(parts));
        let mut core =
            ViewSyncer { state: state.clone(), tasks: Tasks::default(), rounds: Rounds::default() };
        core.spawn("batches", batch::run(state.clone()));
        core.spawn("the work of groups", groups::work(state.clone()));
        core.spawn("starting hydrations", hydration::start_waiting(state.clone()));
        core.spawn("filling record logs", groups::fill_records(state));
        core
    }

    /// A part that is there for as long as the core is.
    fn spawn(&mut self, what: &'static str, part: impl Future<Output = ()> + 'static) {
        self.tasks.spawn(what, Box::pin(part.or(panics::when_ordered(what))));
    }

    /// Calls into the groups. The call must not wait, and must not come back here.
    pub fn with<T>(&mut self, f: impl FnOnce(&mut Syncer) -> T) -> T {
        self.state.hold();
        let out = self.state.with(f);
        self.state.record();
        out
    }

    /// The groups, as they are.
    pub fn look(&self) -> Ref<'_, Syncer> {
        self.state.look()
    }

    /// The groups, for one call.
    pub fn groups(&self) -> Entry<'_> {
        self.state.hold();
        Entry(Some(self.state.call()), &self.state)
    }

    /// Other limits, from now on.
    pub fn limit(&mut self, limits: Limits) {
        self.state.limits.set(limits);
        self.state.connections.send_buffer.limit(limits.outboxes);
    }

    /// Its limits.
    pub fn limits(&self) -> Limits {
        self.state.limits.get()
    }

    /// Serves those who were let in before the replica could be read.
    pub fn open(&mut self) {
        let sessions = self.state.entrance.sessions.all();
        sessions.iter().for_each(|session| messages::handle_waiting(&self.state, session));
        self.start_spawned();
    }

    /// Why somebody is not let in, if that can be said before its token is judged.
    pub fn refusal(&self, request: &ConnectRequest) -> Option<ProtocolError> {
        self.state.entrance.refusal(request, Some(&self.state))
    }

    /// Lets somebody in, or says why not.
    pub fn admit(&mut self, arrived: Arrived) -> Option<Rc<Session>> {
        self.state.hold();
        let session = self.state.entrance.admit(arrived, Some(&self.state));
        session.iter().for_each(|session| messages::handle_waiting(&self.state, session));
        self.state.record();
        self.start_spawned();
        session
    }

    /// A connection is over.
    fn leave(&self, id: ConnectionId, end: End) {
        let state = &self.state;
        let Some(session) = state.entrance.leave(id) else { return };
        match end {
            End::Peer => state.entrance.sessions.linger(session, state.now()),
            End::Ours => session.cancelled.raise(),
        }
        state.hold();
        admission::disconnect(state, id);
        state.record();
    }

    /// Takes an event.
    pub fn handle(&mut self, event: Event) {
        self.take(event);
        self.start_spawned();
    }

    fn take(&mut self, event: Event) {
        let state = &self.state;
        match event {
            // Nothing of the groups has changed.
            Event::Committed => {
                state.signals.commits.raise();
                state.signals.batch.raise();
            }
            Event::Recorded => state.recorded(),
            Event::Read(id, report) => self.reported(id, report),
            Event::Indexed(catalogue) => {
                self.tasks.spawn("a catalogue", Box::pin(take_catalogue(self.state.clone(), catalogue)));
            }
            Event::Rebegin => self.tasks.spawn("a snapshot", Box::pin(rebegin(self.state.clone()))),
            Event::StartRecords(name) => {
                state.recording.start();
                self.with(|s| s.shared.record_log.start(name));
            }
            Event::RecordFailed => state.record_failed(&recording::refusal()),
            Event::RecordRecovered => {
                state.recording.recovered();
                self.with(|s| s.restart_records());
            }
            Event::Drained => state.go_on_with_drained(),
            // Nothing of the groups has changed.
            Event::Message(id, message) => {
                if let Some(session) = state.entrance.sessions.get(id) {
                    session.inbox.push(message);
                    messages::handle_waiting(state, &session);
                }
            }
            Event::Left(id, end) => self.leave(id, end),
            Event::Answered(id, answer) => drop(state.calls.reply(id, answer)),
            Event::Judged(id, verdict) => drop(state.verdicts.reply(id, verdict)),
            Event::Inspected(id) => drop(state.inspections.reply(id, ())),
            Event::Tick { clock_zero } => {
                state.hold();
                self.rounds.tick(state, clock_zero);
                state.record();
            }
        }
    }

    fn reported(&mut self, id: u64, report: Reported) {
        if let Some(late) = self.state.readings.reply(id, report) {
            match late {
                Reported::Chunk(_) => self.state.effect(Effect::ReadOn(id)),
                Reported::End(reader, _) => {
                    reader.into_iter().for_each(|reader| self.state.give_reader_back(reader));
                }
            }
        }
    }

    /// A slice of work begins: what is sent is collected until it is over.
    pub fn begin_slice(&mut self) {
        self.state.begin_slice();
    }

    /// It is over.
    pub fn end_slice(&mut self) {
        self.state.end_slice();
    }

    /// Whether it has to end.
    pub fn is_over(&self) -> bool {
        self.state.is_over()
    }

    /// Whether there is something to go on with.
    pub fn is_ready(&self) -> bool {
        // What a panic left half done is not gone on with.
        !self.is_broken() && self.tasks.is_ready()
    }

    /// What there is to go on with, longest waiting first.
    pub fn ready(&self) -> Vec<(TaskId, &'static str)> {
        self.tasks.ready()
    }

    /// Goes on, for a slice, with what has waited longest. Returns what that was.
    pub fn step(&mut self) -> Option<&'static str> {
        self.tasks.first().and_then(|first| self.run(first))
    }

    /// Goes on, for a slice, with a task that is ready.
    pub fn run(&mut self, task: TaskId) -> Option<&'static str> {
        self.state.hold();
        let what = self.tasks.run(task);
        self.state.record();
        self.start_spawned();
        what
    }

    fn start_spawned(&mut self) {
        for (what, work) in self.state.take_spawned() {
            self.tasks.spawn(what, work);
        }
    }

    /// What is to be performed outside.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        self.state.take_effects()
    }

    /// A call into the groups has panicked: nobody may be told anything of what it left.
    pub fn is_broken(&self) -> bool {
        self.state.is_broken()
    }

    /// Nobody is told anything any more of what is there.
    pub fn abandon(&mut self) {
        self.state.abandon();
    }

    /// How many hydrations are under way.
    pub fn hydrating(&self) -> usize {
        self.state.hydrations.running()
    }

    /// What is being read for hydrations, and whether it is sent meanwhile.
    pub fn readings(&self) -> Vec<(Reading, bool)> {
        self.state.hydrations.list()
    }

    /// How much waits to be recorded.
    pub fn record_queue(&self) -> RecordQueue {
        self.state.record_queue()
    }

    /// Whether somebody depends on the version of the core: a batch is half way, or a view joins.
    pub fn is_version_held(&self) -> bool {
        self.state.version_lock.is_held()
    }

    /// How many groups wait for a view, or have it.
    pub fn subscribers(&self, view: ViewId) -> usize {
        self.state.look().shared.views.subscribers(view)
    }

    /// A reader that is not in use, for something that is no hydration.
    pub fn take_reader(&mut self) -> Result<Reader, ReadError> {
        self.state.take_reader()
    }

    /// Takes it back.
    pub fn give_reader_back(&mut self, reader: Reader) {
        self.state.give_reader_back(reader);
    }
}

/// A call into the groups from outside: what it changes is recorded.
pub struct Entry<'s>(Option<Call<'s>>, &'s CoreState);

impl Deref for Entry<'_> {
    type Target = Syncer;

    fn deref(&self) -> &Syncer {
        self.0.as_ref().expect("there until the end")
    }
}

impl DerefMut for Entry<'_> {
    fn deref_mut(&mut self) -> &mut Syncer {
        self.0.as_mut().expect("there until the end")
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        drop(self.0.take());
        self.1.record();
    }
}

async fn take_catalogue(state: Rc<CoreState>, catalogue: Arc<Catalogue>) {
    let _held = state.version_lock.lock().await;
    state.with(|s| s.take_catalogue(&catalogue));
}

/// Moves all read transactions of the core to the newest snapshot, if none is in use.
async fn rebegin(state: Rc<CoreState>) {
    let could = try_rebegin(&state).await;
    state.effect(Effect::Rebegun(could));
}

async fn try_rebegin(state: &CoreState) -> bool {
    if state.hydrations.running() > 0 {
        return false;
    }
    let Some(_held) = state.version_lock.try_lock() else { return false };
    for _ in 0..=state.limits.get().begins {
        if batch::advance(state).await.is_err() {
            return false;
        }
        // Begins anew even if there was nothing to take: it is what releases the log.
        if state.with(|s| s.shared.reader.begin().is_ok_and(|version| version == s.shared.version)) {
            return true;
        }
        // A commit came between the two.
        state.torn.set(true);
    }
    state.signals.batch.raise();
    false
}
