//! Wakes executors that sleep through what happens.
//!
//! Seen on Linux 6.18, about once in some hundred starts under load: an executor sleeps in
//! `io_uring_enter` and does not notice any more that a socket, a timer or another thread wants
//! it, for ever, although the kernel has all of it queued. Any signal that interrupts the call
//! ends that, and nothing is lost. So each executor has a pulse, and a thread looks after all of
//! them: one that stands still is sent a signal that does nothing.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError, Weak};
use std::time::Duration;

use crate::executor::{sleep, spawn};

/// Time between two beats of an executor, and between two looks at all of them. Each beat
/// wakes its executor, which takes about a ten-thousandth of a core at this rate.
const BEAT: Duration = Duration::from_millis(200);

/// Looks without a beat after which an executor is woken. One that works for so long without a
/// pause is woken as well, which it does not notice.
const STILL: u32 = 2;

/// The signal; by default it is ignored, and nothing else here uses it.
const SIGNAL: libc::c_int = libc::SIGURG;

static PULSES: Mutex<Vec<Weak<Pulse>>> = Mutex::new(Vec::new());
static NUDGES: AtomicU64 = AtomicU64::new(0);

struct Pulse {
    thread: libc::pid_t,
    beats: AtomicU64,
}

/// How often an executor was woken.
pub fn nudges() -> u64 {
    NUDGES.load(Ordering::Relaxed)
}

/// Runs an executor's main future under the watch of the thread.
pub(crate) async fn watched<T>(main: impl Future<Output = T>) -> T {
    static WATCH: Once = Once::new();
    WATCH.call_once(|| {
        if install() {
            // Without the thread all is as it would be without this module.
            let _ = std::thread::Builder::new().name("watchdog".into()).spawn(watch);
        }
    });
    // SAFETY: it only returns the caller's id.
    let thread = unsafe { libc::gettid() };
    let pulse = Arc::new(Pulse { thread, beats: AtomicU64::new(0) });
    PULSES.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&pulse));
    let beating = spawn(async move {
        loop {
            sleep(BEAT).await;
            pulse.beats.fetch_add(1, Ordering::Relaxed);
        }
    });
    let out = main.await;
    // The pulse goes with its task.
    beating.cancel().await;
    out
}

extern "C" fn nothing(_: libc::c_int) {}

fn install() -> bool {
    // SAFETY: a zeroed sigaction is valid, and the handler touches nothing. Interrupted calls
    // are restarted, except for those that never are, like the one this is for.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as *const () as usize;
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(SIGNAL, &action, std::ptr::null_mut()) == 0
    }
}

fn watch() {
    let mut seen: Vec<(libc::pid_t, u64, u32)> = Vec::new();
    loop {
        std::thread::sleep(BEAT);
        let mut pulses = PULSES.lock().unwrap_or_else(PoisonError::into_inner);
        pulses.retain(|pulse| pulse.strong_count() > 0);
        let alive: Vec<Arc<Pulse>> = pulses.iter().filter_map(Weak::upgrade).collect();
        drop(pulses);
        seen.retain(|(thread, ..)| alive.iter().any(|pulse| pulse.thread == *thread));
        for pulse in alive {
            let beats = pulse.beats.load(Ordering::Relaxed);
            let Some(known) = seen.iter_mut().find(|(thread, ..)| *thread == pulse.thread) else {
                seen.push((pulse.thread, beats, 0));
                continue;
            };
            let still = if known.1 == beats { known.2 + 1 } else { 0 };
            *known = (pulse.thread, beats, still);
            if still >= STILL {
                nudge(pulse.thread);
            }
        }
    }
}

fn nudge(thread: libc::pid_t) {
    NUDGES.fetch_add(1, Ordering::Relaxed);
    // SAFETY: the call takes numbers. A thread that has ended meanwhile is an error that says so.
    unsafe {
        libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, SIGNAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::start;

    #[test]
    fn an_executor_that_stands_still_is_woken() {
        let before = nudges();
        let executor = start("test", None, || async {
            // A core that does not come to its tasks, as one that sleeps does not.
            let began = std::time::Instant::now();
            while began.elapsed() < BEAT * (STILL + 4) {
                std::thread::sleep(Duration::from_millis(5));
            }
            spawn(async { 7 }).await
        });
        assert_eq!(executor.unwrap().join().unwrap(), Some(7));
        assert!(nudges() > before);
    }
}
