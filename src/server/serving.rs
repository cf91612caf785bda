//! A core that can read the replica: what it decides, and how the server runs that.

use std::cell::{Cell, RefCell};
use std::ops::Deref;
use std::rc::{Rc, Weak};

use kelvin_io::channel::{Receiver, Sender, bounded};

use super::core::Core;
use super::driver;
use crate::core::admission::Arrived;
use crate::core::effect::{Event, ReadingId};
use crate::core::session::Session;
use crate::core::view_syncer::ViewSyncer;
use crate::groups::syncer::Syncer;
use crate::protocol::connect::ConnectRequest;
use crate::protocol::error::ProtocolError;
use crate::replica::reader::{ReadError, Reader};

/// A core from the moment on that the replica can be read.
pub struct Serving {
    this: Weak<Serving>,
    core: Rc<Core>,
    view_syncer: RefCell<ViewSyncer>,
    /// Who waits to hear whether the read transactions were begun anew.
    rebegins: RefCell<Option<Sender<bool>>>,
    /// Somebody lets the core go on.
    driven: Cell<bool>,
    work: (Sender<()>, Receiver<()>),
    /// The groups are half changed, and the process is about to end.
    lost: Cell<bool>,
}

impl Deref for Serving {
    type Target = Rc<Core>;

    fn deref(&self) -> &Rc<Core> {
        &self.core
    }
}

impl Serving {
    /// A core that serves from now on.
    pub fn new(core: Rc<Core>, view_syncer: ViewSyncer) -> Rc<Serving> {
        Rc::new_cyclic(|this| Serving {
            this: this.clone(),
            core,
            view_syncer: RefCell::new(view_syncer),
            rebegins: RefCell::new(None),
            driven: Cell::new(false),
            work: bounded(1),
            lost: Cell::new(false),
        })
    }

    /// Waits until there may be something to do. False: never again.
    pub async fn until_work(&self) -> bool {
        self.work.1.recv().await.is_ok()
    }

    fn wake(&self) {
        // A full queue means that it knows already.
        let _ = self.work.0.try_send(());
    }

    /// Calls into the groups. The call must not wait, and must not come back here.
    pub fn with<T>(&self, f: impl FnOnce(&mut Syncer) -> T) -> T {
        self.call(|core| core.with(f))
    }

    /// Tells the core of something.
    pub fn tell(&self, event: Event) {
        self.call(|core| core.handle(event));
    }

    /// Whether nobody else lets the core go on at present: then the caller has to, and others need not be woken for it.
    pub fn begin_driving(&self) -> bool {
        !self.driven.replace(true)
    }

    /// There is nothing to do any more.
    pub fn end_driving(&self) {
        self.driven.set(false);
    }

    /// Lets the core go on for a slice. Whether there is more.
    pub fn work_for_a_slice(&self) -> bool {
        let pace = self.pace("the work of a core");
        self.call(ViewSyncer::begin_slice);
        let mut what = "";
        let is_ready = loop {
            what = self.call(ViewSyncer::step).unwrap_or(what);
            let is_ready = self.is_ready();
            if !is_ready || self.is_over() {
                break is_ready;
            }
        };
        self.call(ViewSyncer::end_slice);
        pace.end_of(what);
        is_ready
    }

    fn is_ready(&self) -> bool {
        self.view_syncer.borrow().is_ready()
    }

    fn is_over(&self) -> bool {
        self.view_syncer.borrow().is_over()
    }

    fn call<T>(&self, f: impl FnOnce(&mut ViewSyncer) -> T) -> T {
        let whole = Whole::begin(self);
        let out = f(&mut self.view_syncer.borrow_mut());
        let is_broken = self.view_syncer.borrow().is_broken();
        drop(whole);
        if is_broken {
            self.lose();
        }
        self.perform();
        // Whoever looks first when a write is done tells the core: the next one begins that much earlier.
        if let Some(bytes) = self.records.is_done() {
            self.recorded(bytes);
        } else if !self.driven.get() && self.is_ready() {
            self.wake();
        }
        out
    }

    /// What the core wanted recorded is on the disk.
    pub fn recorded(&self, bytes: usize) {
        self.metrics.records_written(bytes);
        self.tell(Event::Recorded);
    }

    /// Serves those who were let in before the replica could be read.
    pub fn open(&self) {
        self.call(ViewSyncer::open);
    }

    /// Why somebody is not let in, if that can be said before its token is judged.
    pub fn refusal(&self, request: &ConnectRequest) -> Option<ProtocolError> {
        self.view_syncer.borrow().refusal(request)
    }

    /// Lets somebody in, or says why not.
    pub fn admit(&self, arrived: Arrived) -> Option<Rc<Session>> {
        self.call(|core| core.admit(arrived))
    }

    fn perform(&self) {
        let effects = self.view_syncer.borrow_mut().take_effects();
        let Some(serving) = self.this.upgrade() else { return };
        effects.into_iter().for_each(|effect| driver::perform(&serving, effect));
    }

    /// What a reading reported has been taken.
    pub fn read_on(&self, id: ReadingId) {
        if let Some(on) = self.readings.borrow().get(&id) {
            // It waits for one only.
            let _ = on.try_send(());
        }
    }

    /// A reader that is not in use.
    pub fn take_reader(&self) -> Result<Reader, ReadError> {
        self.view_syncer.borrow_mut().take_reader()
    }

    /// Takes it back.
    pub fn give_reader_back(&self, reader: Reader) {
        self.view_syncer.borrow_mut().give_reader_back(reader);
    }

    /// Begins the read transactions anew, and answers whether that was possible.
    pub fn rebegin(&self, answer: Sender<bool>) {
        self.rebegins.replace(Some(answer));
        self.tell(Event::Rebegin);
    }

    /// The answer.
    pub fn rebegun(&self, could: bool) {
        if let Some(answer) = self.rebegins.take() {
            let _ = answer.try_send(could);
        }
    }

    /// Nobody may be told anything of what the groups are now: the process ends. Until it has, calls go on to come.
    fn lose(&self) {
        if self.lost.replace(true) {
            return;
        }
        if let Ok(mut core) = self.view_syncer.try_borrow_mut() {
            core.abandon();
        }
        self.supervisor.lost(&format!("the groups of core {}", self.index));
    }
}

/// Notices a panic in a call into the groups. What such a call changes many share, and it may be left half done:
/// nobody is told anything of it, and the process ends.
struct Whole<'c> {
    serving: &'c Serving,
    /// Something else has panicked, and is being put in order by this call.
    within: bool,
}

impl Whole<'_> {
    fn begin(serving: &Serving) -> Whole<'_> {
        Whole { serving, within: std::thread::panicking() }
    }
}

impl Drop for Whole<'_> {
    fn drop(&mut self) {
        if !self.within && std::thread::panicking() {
            self.serving.lose();
        }
    }
}
