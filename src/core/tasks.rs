//! The tasks of one core: what it does in several slices is written as it is told, one step after another.
//!
//! They are polled one at a time, by whoever runs the core, and in the order in which they were woken unless it
//! decides otherwise. Nothing here depends on a clock or on chance.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// Number of a task.
pub type TaskId = u64;

/// Work of several slices.
pub type Work = Pin<Box<dyn Future<Output = ()>>>;

/// Tasks that can go on, in the order in which that became so. Shared, since a waker may be used from anywhere.
type Ready = Arc<Mutex<VecDeque<TaskId>>>;

fn lock(ready: &Ready) -> MutexGuard<'_, VecDeque<TaskId>> {
    // Nothing in a critical section can panic half way through a change.
    ready.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Woken {
    id: TaskId,
    /// It is in the queue already.
    queued: AtomicBool,
    ready: Ready,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            lock(&self.ready).push_back(self.id);
        }
    }
}

struct Task {
    what: &'static str,
    work: Work,
    woken: Arc<Woken>,
    waker: Waker,
}

/// All tasks.
#[derive(Default)]
pub struct Tasks {
    tasks: BTreeMap<TaskId, Task>,
    ready: Ready,
    next: TaskId,
}

impl Tasks {
    /// Adds a task, which can go on at once. `what`: its name, for the log.
    pub fn spawn(&mut self, what: &'static str, work: Work) {
        let id = self.next;
        self.next += 1;
        let woken = Arc::new(Woken { id, queued: AtomicBool::new(false), ready: self.ready.clone() });
        let waker = Waker::from(woken.clone());
        waker.wake_by_ref();
        self.tasks.insert(id, Task { what, work, woken, waker });
    }

    /// Whether a task can go on.
    pub fn is_ready(&self) -> bool {
        !lock(&self.ready).is_empty()
    }

    /// Tasks that can go on, in order.
    pub fn ready(&self) -> Vec<(TaskId, &'static str)> {
        let ready = lock(&self.ready);
        ready.iter().filter_map(|id| Some((*id, self.tasks.get(id)?.what))).collect()
    }

    /// The task that has waited longest.
    pub fn first(&self) -> Option<TaskId> {
        lock(&self.ready).front().copied()
    }

    /// Lets a task go on that is ready, for a slice. Returns its name.
    pub fn run(&mut self, id: TaskId) -> Option<&'static str> {
        {
            let mut ready = lock(&self.ready);
            let place = ready.iter().position(|waits| *waits == id)?;
            ready.remove(place);
        }
        let task = self.tasks.get_mut(&id)?;
        // Before it runs: it may wake itself.
        task.woken.queued.store(false, Ordering::Release);
        let what = task.what;
        if let Poll::Ready(()) = task.work.as_mut().poll(&mut Context::from_waker(&task.waker)) {
            self.tasks.remove(&id);
        }
        Some(what)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use futures_lite::future::yield_now;

    use super::*;

    #[test]
    fn tasks_go_on_in_turn_and_any_of_them_can_be_chosen() {
        let said: Rc<RefCell<Vec<(usize, usize)>>> = Rc::default();
        let mut tasks = Tasks::default();
        for task in 0..2 {
            let said = said.clone();
            let work = async move {
                for slice in 0..2 {
                    said.borrow_mut().push((task, slice));
                    yield_now().await;
                }
            };
            tasks.spawn("test", Box::pin(work));
        }
        while let Some(id) = tasks.first() {
            tasks.run(id);
        }
        assert_eq!(said.take(), [(0, 0), (1, 0), (0, 1), (1, 1)]);
        assert!(tasks.tasks.is_empty() && !tasks.is_ready());
        tasks.spawn("first", Box::pin(async {}));
        tasks.spawn("second", Box::pin(async {}));
        let last = tasks.ready()[1].0;
        assert_eq!((tasks.run(last), tasks.run(last)), (Some("second"), None));
        assert_eq!(tasks.ready().len(), 1);
    }
}
