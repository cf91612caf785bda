//! SIGTERM, SIGINT and SIGQUIT as messages.

use crate::channel::{Receiver, bounded};

/// What the process was asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Stop, and let clients go in order: SIGTERM, SIGINT.
    Stop,
    /// Stop now: SIGQUIT.
    Quit,
}

/// Starts a thread that waits for signals. Call once, before any other thread starts:
/// the signals are blocked in the calling thread and all that it starts afterwards.
pub fn listen() -> std::io::Result<Receiver<Signal>> {
    let (sender, receiver) = bounded(4);
    let set = block()?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        loop {
            let mut number = 0;
            // SAFETY: both pointers are to locals that outlive the call.
            if unsafe { libc::sigwait(&set, &mut number) } != 0 {
                continue;
            }
            let signal = if number == libc::SIGQUIT { Signal::Quit } else { Signal::Stop };
            // A full queue means that somebody already knows.
            let _ = sender.try_send(signal);
        }
    })?;
    Ok(receiver)
}

fn block() -> std::io::Result<libc::sigset_t> {
    // SAFETY: sigset_t is plain data, made valid by sigemptyset before use; the calls only
    // touch it and this thread's mask.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGQUIT] {
            libc::sigaddset(&mut set, signal);
        }
        let failed = libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
        if failed != 0 {
            return Err(std::io::Error::from_raw_os_error(failed));
        }
        Ok(set)
    }
}
