//! The tasks of a running replication. Each runs until it has a verdict, which ends all of them.

use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures_lite::FutureExt;
use kelvin_io::channel::{Receiver, Sender, bounded};
use kelvin_io::executor::{self, Task};

use super::verdict::{Failure, Verdict};
use crate::testing::panics;

/// The tasks, and the first verdict.
pub struct Tasks {
    tasks: Vec<Task<()>>,
    verdicts: (Sender<Verdict>, Receiver<Verdict>),
}

impl Tasks {
    /// None yet.
    pub fn new() -> Tasks {
        Tasks { tasks: Vec::new(), verdicts: bounded(1) }
    }

    /// Begins a task. A panic in it is a verdict, too: without it nothing would move any more, and nobody
    /// would hear of that.
    pub fn begin(&mut self, what: &'static str, work: impl Future<Output = Verdict> + 'static) {
        let verdicts = self.verdicts.0.clone();
        self.tasks.push(executor::spawn(async move {
            let ordered = async {
                panics::when_ordered(what).await;
                Verdict::Stopped
            };
            let verdict = AssertUnwindSafe(work.or(ordered)).catch_unwind().await;
            let verdict = verdict.unwrap_or(Verdict::Failed(Failure::TaskGone(what)));
            // Full: only the first verdict counts.
            let _ = verdicts.try_send(verdict);
        }));
    }

    /// Waits for the first verdict.
    pub async fn verdict(&self) -> Verdict {
        self.verdicts.1.recv().await.unwrap_or(Verdict::Stopped)
    }

    /// Ends all tasks.
    pub async fn end(self) {
        for task in self.tasks {
            task.cancel().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use kelvin_io::executor::start;

    use super::*;

    #[test]
    fn a_task_that_panics_gives_a_verdict_and_names_itself() {
        let executor = start("test", None, || async {
            let mut tasks = Tasks::new();
            tasks.begin("one that waits", std::future::pending());
            tasks.begin("one that panics", async { panic!("on purpose") });
            let verdict = tasks.verdict().await;
            tasks.end().await;
            matches!(verdict, Verdict::Failed(Failure::TaskGone("one that panics")))
        });
        assert!(executor.unwrap().join().unwrap());
    }
}
