//! How late a machine that is busy lets a thread run.
//!
//! What must happen promptly passes through some threads of several processes, and each of them is as late as any
//! other thread of the machine. So a limit on a quiet machine is that limit and a few such delays on a busy one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Time that the measuring thread sleeps.
const SLEEP: Duration = Duration::from_millis(5);

/// Threads that a change passes through from Postgres to a client, one after the other, and as many again for
/// what they wait for.
const PASSED: u32 = 16;

/// Measures from its making on.
pub struct Lateness {
    longest: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Lateness {
    pub fn measured() -> Lateness {
        let (longest, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (seen, ended) = (longest.clone(), stop.clone());
        std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                let began = Instant::now();
                std::thread::sleep(SLEEP);
                seen.fetch_max(began.elapsed().saturating_sub(SLEEP).as_micros() as u64, Ordering::Relaxed);
            }
        });
        Lateness { longest, stop }
    }

    /// What may take `limit` on a quiet machine may take this long on this one.
    pub fn allow(&self, limit: Duration) -> Duration {
        limit + Duration::from_micros(self.longest.load(Ordering::Relaxed)) * PASSED
    }
}

impl Drop for Lateness {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
