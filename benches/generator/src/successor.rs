//! A server that is killed, and the one that is started in its place.

use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::error::BenchError;
use super::handshake::Target;
use super::procfs;

/// How often somebody looks whether a process has gone, or a port has closed.
const POLL: Duration = Duration::from_millis(10);
/// How long a process may take to end when it is asked to; then it is killed.
const END_WITHIN: Duration = Duration::from_secs(5);

fn signal(pids: &[u32], signal: Signal) {
    for pid in pids.iter().filter_map(|pid| Pid::from_raw(i32::try_from(*pid).ok()?)) {
        // It may have ended by itself.
        let _ = kill_process(pid, signal);
    }
}

/// Kills a server with everything below it, and waits until nobody listens in its place: with the
/// last of its threads the kernel closes what it had open.
pub fn kill(pid: u32, target: &Target, deadline: Instant) -> Result<(), BenchError> {
    let pids = procfs::processes(pid);
    if pids.is_empty() {
        return Err(BenchError::NotFinished("the server is gone".to_owned()));
    }
    signal(&pids, Signal::KILL);
    while TcpStream::connect(target.address).is_ok() {
        if Instant::now() >= deadline {
            return Err(BenchError::Failed(format!("somebody still listens on {}", target.address)));
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}

/// A server that was started here. It ends when this is dropped, and is waited for.
pub struct Successor {
    child: Child,
    /// Just before the process was made.
    pub begun: Instant,
}

impl Successor {
    /// Starts `sh -c command`. It stays in the process group of the generator, so that what
    /// interrupts one interrupts both.
    pub fn start(command: &str) -> Result<Successor, BenchError> {
        let begun = Instant::now();
        let child = Command::new("sh").arg("-c").arg(command).stdin(Stdio::null()).spawn();
        Ok(Successor { child: child.map_err(|e| BenchError::at("--restart-command", e))?, begun })
    }

    /// Root of its processes.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended by itself.
    pub fn ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        if self.ended() {
            return;
        }
        // What the shell has started has to be known before the shell is gone.
        let pids = procfs::processes(self.pid());
        signal(&pids, Signal::TERM);
        let until = Instant::now() + END_WITHIN;
        let left = |pid: &&u32| procfs::is_running(**pid);
        while pids.iter().any(|pid| left(&pid)) && Instant::now() < until {
            std::thread::sleep(POLL);
        }
        let left: Vec<u32> = pids.iter().filter(left).copied().collect();
        signal(&left, Signal::KILL);
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running(pids: &[u32]) -> bool {
        pids.iter().any(|pid| procfs::is_running(*pid))
    }

    #[test]
    fn nothing_of_it_is_left_when_it_is_dropped() {
        let mut successor = Successor::start("sleep 600 & sleep 600; true").unwrap();
        let until = Instant::now() + END_WITHIN;
        while procfs::processes(successor.pid()).len() < 3 && Instant::now() < until {
            std::thread::sleep(POLL);
        }
        let pids = procfs::processes(successor.pid());
        assert!(pids.len() == 3 && running(&pids) && !successor.ended());
        drop(successor);
        assert!(!running(&pids));
        // Not as a zombie either: it was waited for.
        assert!(procfs::usage(pids[0]).is_none());
    }

    #[test]
    fn one_that_ends_at_once_is_noticed() {
        let mut successor = Successor::start("exit 3").unwrap();
        let until = Instant::now() + END_WITHIN;
        while !successor.ended() && Instant::now() < until {
            std::thread::sleep(POLL);
        }
        assert!(successor.ended());
    }
}
