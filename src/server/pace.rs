//! The slices that long work has on a core.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kelvin_io::executor::{now, thread_cpu, yield_now};

use crate::observe::metrics::Metrics;
use crate::views::pace::Pace;

/// How long a core works before it lets its other tasks run.
const SLICE: Duration = Duration::from_micros(500);

/// Time of the processor from which on a slice is noted: others had to wait for it.
const LONG_SLICE: Duration = Duration::from_millis(2);

/// The processor's time is not known more exactly than this. To ask for it is a system call, and a commit
/// is a handful of slices of some ten microseconds.
const CPU_WITHIN: Duration = Duration::from_micros(100);

/// Rows between looks at the clock.
const ROWS_PER_LOOK: u32 = 16;

/// What the processor's clock of this thread said last, and when.
#[derive(Clone)]
pub struct CpuClock(Rc<Cell<(Instant, Duration)>>);

impl CpuClock {
    /// Of the calling thread.
    pub fn of_this_thread() -> CpuClock {
        CpuClock(Rc::new(Cell::new((now(), thread_cpu()))))
    }

    /// Time of the processor that the thread has had by `time`, which is now; at most [`CPU_WITHIN`] too little.
    fn at(&self, time: Instant) -> Duration {
        let (asked, cpu) = self.0.get();
        if time.saturating_duration_since(asked) < CPU_WITHIN {
            return cpu;
        }
        let cpu = thread_cpu();
        self.0.set((time, cpu));
        cpu
    }
}

/// Lets other tasks run whenever a slice is used up.
pub struct CorePace {
    metrics: Arc<Metrics>,
    core: usize,
    what: &'static str,
    clock: CpuClock,
    began: Instant,
    cpu_began: Duration,
    asked: u32,
}

impl Pace for CorePace {
    fn due(&mut self) -> bool {
        self.asked += 1;
        self.asked.is_multiple_of(ROWS_PER_LOOK) && self.is_over()
    }

    async fn rest(&mut self) {
        self.end();
        yield_now().await;
        self.begin();
    }
}

impl CorePace {
    /// A slice that begins now. `what`: its name, for the log.
    pub fn new(metrics: Arc<Metrics>, core: usize, what: &'static str, clock: CpuClock) -> CorePace {
        let began = now();
        let cpu_began = clock.at(began);
        CorePace { metrics, core, what, clock, began, cpu_began, asked: 0 }
    }

    /// Whether the slice is over, looking at the clock each time.
    pub fn is_over(&self) -> bool {
        now().saturating_duration_since(self.began) >= SLICE
    }

    /// A slice begins.
    pub fn begin(&mut self) {
        self.began = now();
        self.cpu_began = self.clock.at(self.began);
    }

    /// RecordWriter the slice.
    pub fn end(&self) {
        self.end_of(self.what);
    }

    /// RecordWriter the slice, now that it is known what it was.
    pub fn end_of(&self, what: &str) {
        let ended = now();
        let ran = ended.saturating_duration_since(self.began);
        let worked = worked(ran, || self.clock.at(ended).saturating_sub(self.cpu_began));
        self.metrics.slice_done(ran.as_nanos() as u64, worked.as_nanos() as u64);
        if worked > LONG_SLICE {
            crate::debug!(
                core = self.core, ms = worked.as_secs_f64() * 1e3;
                "a slice was long: {what}"
            );
        }
    }
}

/// Time of the processor within a slice. No slice has had more of it than it took, so of a short one
/// nothing has to be asked.
fn worked(ran: Duration, cpu: impl FnOnce() -> Duration) -> Duration {
    if ran <= CPU_WITHIN { ran } else { cpu().min(ran) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_that_slept_did_not_work() {
        let clock = CpuClock::of_this_thread();
        let pace = CorePace::new(Arc::new(Metrics::new(0)), 0, "test", clock);
        std::thread::sleep(Duration::from_millis(20));
        pace.end();
        assert!(pace.metrics.longest_slice_cpu_ns() < 10_000_000);
    }

    #[test]
    fn a_slice_that_worked_has_worked_about_as_long() {
        let clock = CpuClock::of_this_thread();
        let mut pace = CorePace::new(Arc::new(Metrics::new(0)), 0, "test", clock);
        // What came before does not count.
        let began = thread_cpu();
        while thread_cpu() - began < Duration::from_millis(30) {}
        pace.begin();
        let began = thread_cpu();
        while thread_cpu() - began < Duration::from_millis(10) {}
        pace.end();
        let worked = pace.metrics.longest_slice_cpu_ns();
        assert!((9_900_000..20_000_000).contains(&worked), "{worked}");
    }
}
