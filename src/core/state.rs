//! What the tasks of one core share.

use std::cell::{Cell, Ref, RefCell, RefMut};
use std::ops::{Deref, DerefMut};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use super::connections::Connections;
use super::effect::{Effect, Reported};
use super::entrance::Entrance;
use super::host::Host;
use super::hydrations::Hydrations;
use super::limits::Limits;
use super::pushes::Pushes;
use super::queues::Queues;
use super::recent::Recent;
use super::recording::{RecordQueue, Recording};
use super::replies::Replies;
use super::signal::Signal;
use super::tasks::Work;
use super::upkeeps::Upkeeps;
use super::version_lock::VersionLock;
use crate::auth::token::Token;
use crate::backend::answers::Answers;
use crate::backend::call::CallError;
use crate::backend::clean_up::CleanUps;
use crate::groups::syncer::Syncer;
use crate::model::version::StateVersion;
use crate::observe::metrics::Metrics;
use crate::protocol::error::ProtocolError;
use crate::replica::reader::{ReadError, Reader};

/// What tasks wait for.
#[derive(Default)]
pub struct Signals {
    /// There may be commits: a batch is due.
    pub batch: Signal,
    /// There are more commits, for the batch that waits for one.
    pub commits: Signal,
    /// Groups have something to do, or something is given up.
    pub work: Signal,
    /// A view may be hydrated.
    pub hydrate: Signal,
    /// The present file of the record log lacks something.
    pub fill: Signal,
    /// There may be room for more records.
    pub recorded: Signal,
}

/// What a core is made of.
pub struct Parts {
    /// Number of the core, for the log.
    pub index: usize,
    /// Its groups.
    pub syncer: Syncer,
    /// Those who were let in.
    pub entrance: Rc<Entrance>,
}

/// The state of a core. Tasks hold no borrow of it while they rest.
pub struct CoreState {
    /// Number of the core, for the log.
    pub index: usize,
    /// Whoever runs it.
    pub host: Rc<dyn Host>,
    /// Its numbers.
    pub metrics: Arc<Metrics>,
    /// Its limits.
    pub limits: Rc<Cell<Limits>>,
    /// Those who were let in.
    pub entrance: Rc<Entrance>,
    /// Their connections.
    pub connections: Rc<Connections>,
    /// What is written down.
    pub recording: Recording,
    /// Held by whoever depends on the core's version.
    pub version_lock: VersionLock,
    /// Views that are hydrated, or wait for it.
    pub hydrations: Hydrations,
    /// What readings report.
    pub readings: Replies<Reported>,
    /// What the app answers.
    pub calls: Replies<Result<Bytes, CallError>>,
    /// What is said of tokens.
    pub verdicts: Replies<Result<Option<Token>, ProtocolError>>,
    /// What the inspector is to be told, which others do.
    pub inspections: Replies<()>,
    /// Answers of the app of the last seconds.
    pub answers: RefCell<Answers>,
    /// Mutations on their way to the app.
    pub pushes: Pushes,
    /// Results that the app may forget.
    pub clean_ups: Queues<CleanUps>,
    /// Looks at connections.
    pub upkeeps: Upkeeps,
    /// Commits kept for the hydrations under way.
    pub recent: RefCell<Recent>,
    /// What tasks wait for.
    pub signals: Signals,
    /// A batch has failed half way: the live snapshot is ahead of the groups, and nobody may use it.
    pub torn: Cell<bool>,
    /// For how many sockets something waited when the slice began.
    collected: Cell<usize>,
    readers: RefCell<Vec<Reader>>,
    syncer: RefCell<Syncer>,
    effects: RefCell<Vec<Effect>>,
    spawned: RefCell<Vec<(&'static str, Work)>>,
    broken: Cell<bool>,
}

impl CoreState {
    /// Of a core that has groups and nothing else.
    pub fn new(parts: Parts) -> CoreState {
        CoreState {
            index: parts.index,
            host: parts.entrance.host.clone(),
            metrics: parts.entrance.metrics.clone(),
            connections: parts.entrance.connections.clone(),
            limits: parts.entrance.limits.clone(),
            entrance: parts.entrance,
            recording: Recording::default(),
            version_lock: VersionLock::default(),
            hydrations: Hydrations::default(),
            readings: Replies::default(),
            calls: Replies::default(),
            verdicts: Replies::default(),
            inspections: Replies::default(),
            answers: RefCell::default(),
            pushes: Pushes::default(),
            clean_ups: Queues::default(),
            upkeeps: Upkeeps::default(),
            recent: RefCell::default(),
            signals: Signals::default(),
            torn: Cell::new(false),
            collected: Cell::new(0),
            readers: RefCell::default(),
            syncer: RefCell::new(parts.syncer),
            effects: RefCell::default(),
            spawned: RefCell::default(),
            broken: Cell::new(false),
        }
    }

    /// Calls into the groups, and starts what that asks for. The call must not come back here.
    pub fn with<T>(&self, f: impl FnOnce(&mut Syncer) -> T) -> T {
        f(&mut self.call())
    }

    /// The groups, for one call; when that is over, what it asks for is started.
    pub fn call(&self) -> Call<'_> {
        Call { state: self, syncer: Some(self.syncer.borrow_mut()), within: std::thread::panicking() }
    }

    /// What is told from now on is recorded first. To be called before anything that may change the groups, and
    /// followed by [`State::record`].
    pub fn hold(&self) {
        if self.recording.is_on() {
            self.connections.send_buffer.hold();
        }
    }

    /// Has recorded what was done since the last call; what was told may go if that is nothing.
    pub fn record(&self) {
        if self.is_broken() {
            return self.connections.send_buffer.drop_held();
        }
        let mut call = self.call();
        let output = call.take_records(self.now());
        if call.is_filling() {
            self.signals.fill.raise();
        }
        call.end();
        if !self.recording.is_on() {
            return;
        }
        match output {
            // The next file says all of it.
            _ if self.recording.has_failed() => self.connections.send_buffer.drop_held(),
            Some(output) => self.recording.push(output, self.now()),
            None => {}
        }
        self.begin_to_record();
    }

    fn begin_to_record(&self) {
        if let Some(outputs) = self.recording.begin() {
            self.effect(Effect::Record(outputs));
            self.connections.send_buffer.mark();
        }
        if !self.recording.is_behind() {
            self.connections.send_buffer.release_marked(true);
        }
        self.go_on_with_drained();
    }

    /// What was to be recorded is: what was told before that may go.
    pub fn recorded(&self) {
        if self.is_broken() {
            return;
        }
        self.recording.written();
        self.connections.send_buffer.release_marked(!self.recording.is_behind());
        self.begin_to_record();
        self.signals.recorded.raise();
        if self.hydrations.can_start(&self.limits.get()) {
            self.signals.hydrate.raise();
        }
    }

    /// The disk does not take records: nobody is told what is not recorded, and clients come back when it does.
    pub fn record_failed(&self, why: &ProtocolError) {
        self.recording.fail();
        self.connections.send_buffer.drop_held();
        self.connections.fail_all(why);
        self.connections.send_buffer.release_marked(true);
    }

    /// How much waits to be recorded.
    pub fn record_queue(&self) -> RecordQueue {
        self.recording.queue(&self.limits.get().records)
    }

    fn follow_up(&self) {
        let mut syncer = self.syncer.borrow_mut();
        let index_requests = syncer.shared.index_requests.drain(..).map(Effect::WantIndex);
        self.effects.borrow_mut().extend(index_requests);
        syncer.shared.views.take_unread().into_iter().for_each(|unread| self.hydrations.cancel(unread));
        syncer.take_hydration_requests().into_iter().for_each(|request| self.hydrations.ask(request));
        if syncer.has_work() || syncer.shared.views.has_deferred_drops() {
            self.signals.work.raise();
        }
        // When all are taken, the one that ends starts the next.
        if self.hydrations.can_start(&self.limits.get()) {
            self.signals.hydrate.raise();
        }
    }

    /// Nobody may be told anything of what the groups are now.
    pub fn abandon(&self) {
        self.broken.set(true);
        // For good: nothing is released any more.
        self.connections.send_buffer.hold();
        self.connections.send_buffer.drop_held();
    }

    /// A call into the groups has panicked. What it changed many share, and it may be left half done.
    pub fn is_broken(&self) -> bool {
        self.broken.get()
    }

    /// The groups, as they are.
    pub fn look(&self) -> Ref<'_, Syncer> {
        self.syncer.borrow()
    }

    /// Version of the core.
    pub fn version(&self) -> StateVersion {
        self.syncer.borrow().shared.version
    }

    /// Milliseconds since the core began.
    pub fn now(&self) -> f64 {
        self.host.now()
    }

    /// The same since 1970.
    pub fn unix_milliseconds(&self) -> u64 {
        (self.look().shared.clock_zero + self.now()) as u64
    }

    /// A slice of work begins.
    pub fn begin_slice(&self) {
        self.host.begin_slice();
        self.collected.set(self.connections.send_buffer.collected());
        self.connections.send_buffer.close();
    }

    /// It is over: what was collected is sent.
    pub fn end_slice(&self) {
        self.connections.send_buffer.open();
        self.go_on_with_drained();
    }

    /// Has those go on who were sent nothing more because they were behind.
    pub fn go_on_with_drained(&self) {
        let drained = self.connections.send_buffer.take_drained();
        if !drained.is_empty() {
            self.with(|s| drained.into_iter().for_each(|id| s.drained(id)));
        }
    }

    /// Whether it has to end. Looks at a clock: not to be asked for every row.
    pub fn is_over(&self) -> bool {
        self.connections.send_buffer.is_full(self.collected.get()) || self.host.is_over()
    }

    /// Has something performed.
    pub fn effect(&self, effect: Effect) {
        self.effects.borrow_mut().push(effect);
    }

    /// What is to be performed.
    pub fn take_effects(&self) -> Vec<Effect> {
        self.effects.take()
    }

    /// Starts a task when the present one rests.
    pub fn spawn(&self, what: &'static str, work: impl Future<Output = ()> + 'static) {
        self.spawned.borrow_mut().push((what, Box::pin(work)));
    }

    /// Tasks to be started.
    pub fn take_spawned(&self) -> Vec<(&'static str, Work)> {
        self.spawned.take()
    }

    /// A reader that is not in use.
    pub fn take_reader(&self) -> Result<Reader, ReadError> {
        let Some(mut reader) = self.readers.borrow_mut().pop() else { return self.host.open_reader() };
        // The flag of its last hydration may be up.
        reader.stop_when(Arc::default())?;
        Ok(reader)
    }

    /// An idle reader holds no snapshot, so it is never in the way of the log's restart. One that cannot end
    /// its own is closed.
    pub fn give_reader_back(&self, reader: Reader) {
        match reader.end() {
            Ok(()) => self.readers.borrow_mut().push(reader),
            Err(error) => crate::warn!(core = self.index; "a snapshot could not be ended: {error}"),
        }
    }
}

/// A call into the groups.
pub struct Call<'s> {
    state: &'s CoreState,
    /// `None`: it is over.
    syncer: Option<RefMut<'s, Syncer>>,
    /// Something else has panicked, and is being put in order by this call.
    within: bool,
}

impl Call<'_> {
    /// Nothing is to be started.
    fn end(mut self) {
        self.syncer = None;
    }
}

impl Deref for Call<'_> {
    type Target = Syncer;

    fn deref(&self) -> &Syncer {
        self.syncer.as_ref().expect("there until the end")
    }
}

impl DerefMut for Call<'_> {
    fn deref_mut(&mut self) -> &mut Syncer {
        self.syncer.as_mut().expect("there until the end")
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if !self.within && std::thread::panicking() {
            self.state.abandon();
        } else if self.syncer.take().is_some() {
            self.state.follow_up();
        }
    }
}
