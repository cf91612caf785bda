//! Lets a core go on with what it has to do, and performs what it asks for.

use std::rc::Rc;
use std::time::Duration;

use kelvin_io::channel::{Receiver, bounded};
use kelvin_io::executor::{sleep, spawn, yield_now};

use super::questions;
use super::serving::Serving;
use crate::core::effect::{Effect, Event, ReadingId, Reported};
use crate::core::warning::Warning;
use crate::observe::log::{self, Level};
use crate::replica::reader::{ReadError, Reader};
use crate::views::scan::Job;

/// Wait between attempts when the replica cannot be read: the disk is full or gone.
const RETRY: Duration = Duration::from_secs(1);

/// Runs the core, slice by slice.
pub async fn run(serving: Rc<Serving>) {
    while serving.until_work().await {
        if serving.begin_driving() {
            drive(&serving).await;
        }
    }
}

/// Tells the core of commits for as long as they come. What they bring about is done at once: another task would have
/// to be woken for it.
pub async fn commits(serving: Rc<Serving>) {
    while serving.commits.wait().await {
        let is_first = serving.begin_driving();
        serving.tell(Event::Committed);
        if is_first {
            drive(&serving).await;
        }
    }
}

/// Lets the core go on until there is nothing to do. One task at a time does it.
async fn drive(serving: &Rc<Serving>) {
    while serving.work_for_a_slice() {
        yield_now().await;
    }
    serving.end_driving();
}

/// Performs what the core wants.
pub fn perform(serving: &Rc<Serving>, effect: Effect) {
    match effect {
        Effect::Read { id, reader, job, .. } => read(serving, id, reader, *job),
        Effect::ReadOn(id) => serving.read_on(id),
        Effect::Record(outputs) => serving.records.write(outputs),
        Effect::Call(id, call) => questions::call(serving, id, *call),
        Effect::DropCall(id) => serving.app_calls.drop_call(id),
        Effect::Judge { id, token, user_id } => questions::judge(serving, id, token, user_id),
        Effect::Inspect { id, session, request_id, request } => {
            questions::inspect(serving, id, session, (request_id, request));
        }
        // A core 0 that is busy hears of it from the next view of the kind.
        Effect::WantIndex(index_request) => drop(serving.index_requests.try_send(index_request)),
        Effect::RetryBatch => {
            let serving = serving.clone();
            spawn(async move {
                sleep(RETRY).await;
                serving.tell(Event::Committed);
            })
            .detach();
        }
        Effect::Rebegun(could) => serving.rebegun(could),
        Effect::SlowHydration { rows, milliseconds, view, plan } => {
            let level = if serving.warnings.is_due(Warning::Slow) { Level::Warn } else { Level::Info };
            let fields = [
                ("core", serving.index.into()),
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
fn read(serving: &Rc<Serving>, id: ReadingId, reader: Reader, job: Job) {
    let messages = match serving.reading_threads.read(reader, job) {
        Ok(messages) => messages,
        Err(error) => return serving.tell(Event::Read(id, Reported::End(None, Err(error)))),
    };
    let (on, taken) = bounded(1);
    serving.readings.borrow_mut().insert(id, on);
    let serving = serving.clone();
    spawn(async move {
        hand_over(&serving, id, messages, taken).await;
        serving.readings.borrow_mut().remove(&id);
    })
    .detach();
}

async fn hand_over(serving: &Rc<Serving>, id: ReadingId, messages: Receiver<Reported>, taken: Receiver<()>) {
    while let Ok(report) = messages.recv().await {
        let is_over = matches!(report, Reported::End(..));
        serving.tell(Event::Read(id, report));
        if is_over || taken.recv().await.is_err() {
            return;
        }
    }
    // The thread is gone, and the reader with it.
    serving.tell(Event::Read(id, Reported::End(None, Err(ReadError::Interrupted))));
}
