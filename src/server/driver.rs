//! Lets a core go on with what it has to do, and performs what it asks for.

use std::rc::Rc;
use std::time::Duration;

use kelvin_io::channel::{Receiver, bounded};
use kelvin_io::executor::{sleep, spawn, yield_now};

use super::core::Core;
use super::warnings::Warning;
use crate::core::effect::{Effect, Event, ReadingId, Reported};
use crate::observe::log::{self, Level};
use crate::replica::reader::{ReadError, Reader};
use crate::views::scan::Job;

/// Wait between attempts when the replica cannot be read: the disk is full or gone.
const RETRY: Duration = Duration::from_secs(1);

/// Runs the core, slice by slice.
pub async fn run(core: Rc<Core>) {
    while core.until_work().await {
        if core.begin_driving() {
            drive(&core).await;
        }
    }
}

/// Tells the core of commits for as long as they come. What they bring about is done at once: another task would have
/// to be woken for it.
pub async fn commits(core: Rc<Core>) {
    while core.commits.wait().await {
        let is_first = core.begin_driving();
        core.tell(Event::Committed);
        if is_first {
            drive(&core).await;
        }
    }
}

/// Lets the core go on until there is nothing to do. One task at a time does it.
async fn drive(core: &Rc<Core>) {
    while core.work_for_a_slice() {
        yield_now().await;
    }
    core.end_driving();
}

/// Performs what the core wants.
pub fn perform(core: &Rc<Core>, effect: Effect) {
    match effect {
        Effect::Read { id, reader, job, .. } => read(core, id, reader, *job),
        Effect::ReadOn(id) => core.read_on(id),
        Effect::Record(outputs) => core.records.write(outputs),
        Effect::ForgetAnswers => core.answers.borrow_mut().clear(),
        // A core 0 that is busy hears of it from the next view of the kind.
        Effect::WantIndex(index_request) => drop(core.index_requests.try_send(index_request)),
        Effect::RetryBatch => {
            let core = core.clone();
            spawn(async move {
                sleep(RETRY).await;
                core.tell(Event::Committed);
            })
            .detach();
        }
        Effect::Rebegun(could) => core.rebegun(could),
        Effect::HydrationFailed(why) => {
            core.warnings.warn(Warning::Hydration, format_args!("a query could not be hydrated: {why}"));
        }
        Effect::SlowHydration { rows, milliseconds, view, plan } => {
            let level = if core.warnings.is_due(Warning::Slow) { Level::Warn } else { Level::Info };
            let fields = [
                ("core", core.index.into()),
                ("rows", rows.into()),
                ("ms", (milliseconds as u64).into()),
                ("view", view.into()),
                ("plan", plan.as_str().into()),
            ];
            log::write(level, format_args!("Slow query materialization"), &fields);
        }
    }
}

/// Has a thread read, and hands what it finds to the core.
fn read(core: &Rc<Core>, id: ReadingId, reader: Reader, job: Job) {
    let messages = match core.reading_threads.read(reader, job) {
        Ok(messages) => messages,
        Err(error) => return core.tell(Event::Read(id, Reported::End(None, Err(error)))),
    };
    let (on, taken) = bounded(1);
    core.readings.borrow_mut().insert(id, on);
    let core = core.clone();
    spawn(async move {
        hand_over(&core, id, messages, taken).await;
        core.readings.borrow_mut().remove(&id);
    })
    .detach();
}

async fn hand_over(core: &Rc<Core>, id: ReadingId, messages: Receiver<Reported>, taken: Receiver<()>) {
    while let Ok(report) = messages.recv().await {
        let is_over = matches!(report, Reported::End(..));
        core.tell(Event::Read(id, report));
        if is_over || taken.recv().await.is_err() {
            return;
        }
    }
    // The thread is gone, and the reader with it.
    core.tell(Event::Read(id, Reported::End(None, Err(ReadError::Interrupted))));
}
