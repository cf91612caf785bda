//! Kelvin as a process of its own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::http;
use super::ports::free_port;

/// Longest time until a server is ready: it copies a small database.
const START: Duration = Duration::from_secs(60);

/// Longest time until a stopped server is gone.
const STOP: Duration = Duration::from_secs(40);

/// Lines of the log that a failed test shows.
const TAIL: usize = 40;

/// A running server. Killed and removed when it is dropped, or when the test's process
/// ends, however it ends: a shell waits for the end of a pipe that we hold.
pub struct Server {
    pub port: u16,
    pub directory: PathBuf,
    settings: Vec<(String, String)>,
    running: Option<(Child, Child)>,
}

/// A directory of its own for a test.
pub fn scratch(what: &str) -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("kelvin-test-{what}-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&path).expect("a directory can be made");
    path
}

/// The program, with these settings and nothing else of our environment.
pub fn kelvin(directory: &Path, settings: &[(String, String)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kelvin"));
    command.env_clear().current_dir(directory).envs(settings.iter().cloned()).stdin(Stdio::null());
    command
}

/// The variable of a setting; the one that Node gives its own name is no setting of Zero's.
fn variable(name: &str) -> String {
    if name == "NODE_ENV" { name.to_owned() } else { format!("ZERO_{name}") }
}

impl Server {
    /// Prepares a server in a directory of its own; `settings` without `ZERO_`.
    pub fn new(settings: &[(&str, String)]) -> Server {
        let directory = scratch("server");
        let port = free_port();
        let mut all: Vec<(String, String)> =
            settings.iter().map(|(name, value)| (variable(name), value.clone())).collect();
        all.push(("ZERO_PORT".into(), port.to_string()));
        all.push(("ZERO_REPLICA_FILE".into(), directory.join("replica.db").display().to_string()));
        Server { port, directory, settings: all, running: None }
    }

    /// Changes settings, named without `ZERO_`, from the next start on.
    pub fn set(&mut self, settings: &[(&str, String)]) {
        for (name, value) in settings {
            let name = variable(name);
            self.settings.retain(|(n, _)| *n != name);
            self.settings.push((name, value.clone()));
        }
    }

    /// Sets variables by their whole names, from the next start on.
    pub fn environment(&mut self, variables: &[(&str, String)]) {
        self.settings.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    }

    /// Starts the process, without waiting for anything.
    pub fn spawn(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.log_path()).expect("a log");
        let mut command = kelvin(&self.directory, &self.settings);
        command.stdout(log.try_clone().expect("a second handle")).stderr(log);
        let child = command.spawn().expect("the server starts");
        let guard = Command::new("sh")
            .args(["-c", &format!("read _; kill -9 {}; rm -rf {}", child.id(), self.directory.display())])
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell starts");
        self.running = Some((child, guard));
    }

    /// Starts the process and waits until it serves.
    pub fn start(&mut self) {
        self.spawn();
        self.until_ready(START);
    }

    /// Waits until the server says that it serves.
    pub fn until_ready(&mut self, limit: Duration) {
        let deadline = Instant::now() + limit;
        while !matches!(http::get(self.port, "/keepalive"), Ok((200, _))) {
            if let Some(status) = self.has_ended() {
                panic!("the server ended while it started: {status}\n{}", self.log());
            }
            assert!(Instant::now() < deadline, "the server is not ready after {limit:?}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The exit status, if it has ended.
    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        self.running.as_mut().and_then(|(child, _)| child.try_wait().expect("it can be asked"))
    }

    /// Waits for the end and returns the exit status.
    pub fn until_ended(&mut self) -> ExitStatus {
        let deadline = Instant::now() + STOP;
        loop {
            if let Some(status) = self.has_ended() {
                self.forget();
                return status;
            }
            assert!(Instant::now() < deadline, "the server does not end\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Kills it as the kernel would.
    pub fn kill(&mut self) {
        if let Some((child, _)) = &mut self.running {
            child.kill().expect("it runs");
            child.wait().expect("it ends");
        }
        self.forget();
    }

    fn forget(&mut self) {
        if let Some((_, mut guard)) = self.running.take() {
            let _ = guard.kill();
            let _ = guard.wait();
        }
    }

    /// Sends a signal.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.pid().to_string()]).status();
        assert!(status.is_ok_and(|s| s.success()), "a signal can be sent");
    }

    pub fn pid(&self) -> u32 {
        self.running.as_ref().map(|(child, _)| child.id()).expect("the server runs")
    }

    /// Resident memory in bytes.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).expect("VmRSS");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
    }

    /// Threads that are there now.
    pub fn threads(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/task", self.pid())).expect("it runs").count()
    }

    /// Open file descriptors.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("it runs").count()
    }

    pub fn replica(&self) -> PathBuf {
        self.directory.join("replica.db")
    }

    fn log_path(&self) -> PathBuf {
        self.directory.join("log")
    }

    /// Waits for a line of the log with both words.
    pub fn until_log(&self, first: &str, second: &str) {
        let deadline = Instant::now() + STOP;
        while !self.log().lines().any(|l| l.contains(first) && l.contains(second)) {
            assert!(Instant::now() < deadline, "the log does not say {second:?} of {first}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Everything that it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("the server's log ends so:\n{}", lines[lines.len().saturating_sub(TAIL)..].join("\n"));
        }
        if let Some((child, _)) = &mut self.running {
            let _ = child.kill();
            let _ = child.wait();
        }
        self.forget();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
