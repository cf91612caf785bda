//! CPU and memory of everybody who takes part in a run, from one moment to another.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use super::procfs::{self, Cores, TreeUsage};

/// A core that was busier than this had no room for latency to be anything but waiting.
pub const FULL: f64 = 0.95;

/// Who else takes part, by process id of the root of its tree.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pids {
    /// The server under test.
    pub server: Option<u32>,
    /// Postgres.
    pub postgres: Option<u32>,
    /// The app's backend.
    pub backend: Option<u32>,
}

/// One of those who take part, over a run.
#[derive(Clone, Copy, Debug)]
pub struct Side {
    /// Its name in the figures: server, postgres, backend or generator.
    pub name: &'static str,
    /// CPU seconds; `None` when its process is not known.
    pub cpu_s: Option<f64>,
    /// Its processes at the end.
    pub tree: Option<TreeUsage>,
}

/// What a run took.
#[derive(Clone, Debug)]
pub struct Usage {
    /// Wall time.
    pub wall: Duration,
    /// The server first, then Postgres, the backend and the generator.
    pub sides: [Side; 4],
    /// How busy each core was, from 0 to 1.
    pub cores: Vec<f64>,
}

impl Usage {
    /// The server.
    pub fn server(&self) -> &Side {
        &self.sides[0]
    }

    /// The first core that was full, and how busy it was.
    pub fn full_core(&self) -> Option<(usize, f64)> {
        self.cores.iter().copied().enumerate().find(|(_, busy)| *busy > FULL)
    }
}

/// A measurement that is under way.
pub struct Meter {
    pids: Pids,
    begun: Instant,
    before: [Option<TreeUsage>; 3],
    generator_s: f64,
    cores: Cores,
}

impl Meter {
    /// Starts measuring.
    pub fn start(pids: Pids) -> Meter {
        let before = [pids.server, pids.postgres, pids.backend].map(|pid| pid.and_then(procfs::usage));
        Meter { pids, before, generator_s: process_cpu_s(), cores: Cores::now(), begun: Instant::now() }
    }

    /// Counts this process as the server: it has only begun, so all of its CPU counts.
    pub fn server_began(&mut self, pid: u32) {
        self.pids.server = Some(pid);
        self.before[0] = Some(TreeUsage::default());
    }

    /// Ends it.
    pub fn stop(self) -> Usage {
        let wall = self.begun.elapsed();
        let cores = Cores::now().busy_since(&self.cores);
        let generator_cpu_s = process_cpu_s() - self.generator_s;
        let side = |i: usize, name, pid: Option<u32>| {
            let tree = pid.and_then(procfs::usage);
            let before: Option<TreeUsage> = self.before[i];
            Side { name, cpu_s: tree.zip(before).map(|(now, then)| now.cpu_s - then.cpu_s), tree }
        };
        let sides = [
            side(0, "server", self.pids.server),
            side(1, "postgres", self.pids.postgres),
            side(2, "backend", self.pids.backend),
            Side { name: "generator", cpu_s: Some(generator_cpu_s), tree: procfs::usage(std::process::id()) },
        ];
        Usage { wall, sides, cores }
    }
}

/// CPU seconds that this process has used.
pub fn process_cpu_s() -> f64 {
    seconds(ClockId::ProcessCPUTime)
}

/// CPU seconds that this thread has used.
pub fn thread_cpu_s() -> f64 {
    seconds(ClockId::ThreadCPUTime)
}

fn seconds(clock: ClockId) -> f64 {
    let t = clock_gettime(clock);
    t.tv_sec as f64 + t.tv_nsec as f64 / 1e9
}
