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

/// What a run took.
#[derive(Clone, Debug)]
pub struct Usage {
    /// Wall time.
    pub wall: Duration,
    /// CPU seconds of the server's processes.
    pub server_cpu_s: Option<f64>,
    /// CPU seconds of Postgres.
    pub postgres_cpu_s: Option<f64>,
    /// CPU seconds of the backend.
    pub backend_cpu_s: Option<f64>,
    /// CPU seconds of this process.
    pub generator_cpu_s: f64,
    /// The server's memory at the end.
    pub server: Option<TreeUsage>,
    /// How busy each core was, from 0 to 1.
    pub cores: Vec<f64>,
}

impl Usage {
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

    /// Ends it.
    pub fn stop(self) -> Usage {
        let wall = self.begun.elapsed();
        let cores = Cores::now().busy_since(&self.cores);
        let generator_cpu_s = process_cpu_s() - self.generator_s;
        let now =
            [self.pids.server, self.pids.postgres, self.pids.backend].map(|pid| pid.and_then(procfs::usage));
        let cpu = |i: usize| Some(now[i]?.cpu_s - self.before[i]?.cpu_s);
        Usage {
            wall,
            server_cpu_s: cpu(0),
            postgres_cpu_s: cpu(1),
            backend_cpu_s: cpu(2),
            generator_cpu_s,
            server: now[0],
            cores,
        }
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
