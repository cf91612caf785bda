//! Wakes executors that sleep although they have work.
//!
//! The runtime goes to sleep with tasks that could run, if its preemption timer rings between
//! its look at the rings and its look at the queue: it then runs none of them, and takes that
//! for an empty queue. That needs the kernel to take the processor away at this very moment, so
//! it happens on a machine that is busy, some times a minute (`docs/decisions/002`).
//! The next event ends it. So each executor has a pulse, a timer that is such an event; and one
//! that has not even begun, and so has no timer, is sent a signal by a thread that looks after
//! all of them.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError, Weak};
use std::time::Duration;

use futures_lite::FutureExt;

use crate::executor::sleep;

/// Time between two beats of an executor: the longest sleep with work to do. Each beat takes
/// some 20 microseconds, so this is a thousandth of a core.
const BEAT: Duration = Duration::from_millis(20);

/// Time between two looks at all executors.
const LOOK: Duration = Duration::from_millis(200);

/// Looks without a beat after which an executor is woken. One that works for so long without a
/// pause is woken as well, which it does not notice.
const STILL: u32 = 2;

/// The signal; by default it is ignored, and nothing else here uses it.
const SIGNAL: libc::c_int = libc::SIGURG;

static PULSES: Mutex<Vec<Weak<Pulse>>> = Mutex::new(Vec::new());
static NUDGES: AtomicU64 = AtomicU64::new(0);

/// Shows that an executor lives.
pub(crate) struct Pulse {
    thread: libc::pid_t,
    beats: AtomicU64,
}

/// How often an executor was woken.
pub fn nudges() -> u64 {
    NUDGES.load(Ordering::Relaxed)
}

impl Pulse {
    /// The calling thread is looked after for as long as its pulse is there.
    pub(crate) fn of_this_thread() -> Arc<Pulse> {
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
        pulse
    }

    /// Runs an executor's main future while the pulse beats: until there is nothing left to do, so
    /// it is no task of its own.
    pub(crate) async fn beside<T>(self: Arc<Self>, main: impl Future<Output = T>) -> T {
        let beating = async {
            loop {
                sleep(BEAT).await;
                self.beats.fetch_add(1, Ordering::Relaxed);
            }
        };
        main.or(beating).await
    }
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
        std::thread::sleep(LOOK);
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
    use crate::executor::{spawn, start};

    /// What a thread returns that is to end within seconds; `None`: it did not.
    fn in_time<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let (done, result) = std::sync::mpsc::channel();
        std::thread::spawn(move || done.send(run()));
        result.recv_timeout(Duration::from_secs(20)).ok()
    }

    /// Waits for any signal that has a handler, as the runtime's sleep does.
    fn pause() {
        // SAFETY: the call takes nothing and touches no memory of ours.
        unsafe { libc::pause() };
    }

    #[test]
    fn an_executor_that_stands_still_is_woken() {
        let before = nudges();
        let executor = || {
            let executor = start("test", None, || async {
                // A core that does not come to its tasks.
                pause();
                spawn(async { 7 }).await
            });
            executor.expect("it starts").join().expect("it ends")
        };
        assert_eq!(in_time(executor), Some(Some(7)));
        assert!(nudges() > before);
    }

    #[test]
    fn one_that_sleeps_before_it_has_begun_is_woken() {
        let sleeper = || {
            let _pulse = Pulse::of_this_thread();
            pause();
        };
        assert_eq!(in_time(sleeper), Some(()));
    }

    #[test]
    fn a_thread_that_nobody_watches_sleeps_on() {
        let (began, begun) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            // SAFETY: it returns a number.
            let _ = began.send(unsafe { libc::pthread_self() });
            pause();
        });
        let sleeper = begun.recv().expect("it begins");
        let _watched = Pulse::of_this_thread();
        std::thread::sleep(LOOK * (STILL + 2));
        assert!(!thread.is_finished(), "the others are woken by what is watched");
        // SAFETY: the thread is there until it is woken by this signal, which does nothing else.
        unsafe { libc::pthread_kill(sleeper, SIGNAL) };
        thread.join().expect("it ends");
    }
}
