//! How long a server lets somebody wait, apart from how long the machine lets the server wait.
//!
//! On a busy machine a thread that could run is left aside for as long as others run, and a bound on plain time
//! would be a bound on how busy the machine is. The kernel counts, for each thread, the time for which it could run and
//! was not: that is taken off. What the thread works, and what it sleeps with somebody waiting, stays.

use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Begins when something is asked.
pub struct Waiting {
    began: Instant,
    /// Files of the kernel about the threads that take part.
    threads: Vec<PathBuf>,
    queued: Duration,
}

/// The thread of a process that has this name.
pub fn thread_of(process: u32, name: &str) -> PathBuf {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).expect("it runs");
    let mut paths = tasks.flatten().map(|entry| entry.path());
    let has_name =
        |path: &PathBuf| std::fs::read_to_string(path.join("comm")).is_ok_and(|n| n.trim() == name);
    paths.find(has_name).unwrap_or_else(|| panic!("no thread {name}")).join("schedstat")
}

/// The calling thread.
pub fn this_thread() -> PathBuf {
    PathBuf::from("/proc/thread-self/schedstat")
}

/// How long these threads could run and were not; nothing where the kernel does not count it.
fn queued(threads: &[PathBuf]) -> Duration {
    let of = |path: &PathBuf| -> Option<u64> {
        std::fs::read_to_string(path).ok()?.split_ascii_whitespace().nth(1)?.parse().ok()
    };
    Duration::from_nanos(threads.iter().filter_map(of).sum())
}

impl Waiting {
    /// From now on.
    pub fn begin(threads: Vec<PathBuf>) -> Waiting {
        Waiting { queued: queued(&threads), began: Instant::now(), threads }
    }

    /// How long it took, without the time for which the machine did other things.
    pub fn end(&self) -> Duration {
        let took = self.began.elapsed();
        took.saturating_sub(queued(&self.threads) - self.queued)
    }
}
