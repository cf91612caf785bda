//! The process: what is checked first, and what ends it.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use kelvin_io::channel::Receiver;
use kelvin_io::executor;
use kelvin_io::signals::{self, Signal};
use kelvin_io::socket::check_port_free;

use super::node::Node;
use super::status::Status;
use super::supervise::Ending;
use crate::config::{Config, Parsed, Role};
use crate::replica::verdict::End;

/// How long a port may be in use that a process had that was killed.
const PORT_WAIT: Duration = Duration::from_secs(1);

/// How long all that runs may take to end. The longest of it is what the writer of the replica has in its queue.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// The same when a part has ended that should not have: what waits for it will not end at all.
const LOST_LIMIT: Duration = Duration::from_secs(3);

/// Exit status of an immediate stop, and of failures that an operator has to look at
/// (`docs/spec/config-ops.md` §7.5).
const EXIT_QUIT: i32 = 14;
const EXIT_FAILURE: i32 = 255;

/// Runs the server. Returns the process's exit status.
pub fn run(parsed: Parsed) -> i32 {
    kelvin_io::memory::only_small_pages();
    let signals = match signals::listen() {
        Ok(signals) => signals,
        Err(error) => return refuse(&format!("signals cannot be waited for: {error}")),
    };
    let config = Arc::new(parsed.config);
    if let Err(error) = crate::observe::log::start(config.log.level, config.log.format, &[]) {
        return refuse(&format!("the log's thread could not be started: {error}"));
    }
    std::panic::set_hook(Box::new(|info| crate::error!("a task panicked: {info}")));
    if !kelvin_io::memory::collect_seldom() || !kelvin_io::memory::purge_elsewhere() {
        crate::debug!(
            "the allocator collects and purges when it likes: now and then that takes milliseconds"
        );
    }
    announce(&config, &parsed.warnings, &parsed.notes, &parsed.debug);
    let status = serve(config, signals);
    crate::info!("exiting with code {status}");
    crate::observe::log::flush(Duration::from_secs(1));
    status
}

fn refuse(message: &str) -> i32 {
    eprintln!("kelvin: {message}");
    EXIT_FAILURE
}

fn announce(config: &Config, warnings: &[String], notes: &[String], debug: &[String]) {
    crate::info!(
        port = config.port, app = &config.app.id, shard = config.app.shard_num, task = &config.task_id,
        cores = config.num_sync_workers, replica = config.replica_file.display().to_string();
        "starting server@{} (kelvin {}, protocol versions {} to {})",
        config.server_version,
        env!("CARGO_PKG_VERSION"),
        crate::protocol::connect::MIN_PROTOCOL_VERSION,
        crate::protocol::connect::PROTOCOL_VERSION
    );
    warnings.iter().for_each(|w| crate::warn!("{w}"));
    notes.iter().for_each(|n| crate::info!("{n}"));
    debug.iter().for_each(|d| crate::debug!("{d}"));
}

fn serve(config: Arc<Config>, signals: Receiver<Signal>) -> i32 {
    if let Err(message) = check(&config) {
        crate::error!("{message}");
        return EXIT_FAILURE;
    }
    let (endings, ended) = mpsc::channel();
    let signalled = endings.clone();
    std::thread::spawn(move || {
        while let Ok(signal) = signals.recv_blocking() {
            if signalled.send(Ending::Signal(signal)).is_err() {
                return;
            }
        }
        let _ = signalled.send(Ending::Lost("the thread that waits for signals".to_owned()));
    });
    #[cfg(debug_assertions)]
    panic_on_order(config.replica_file.with_extension("panic"));
    loop {
        let node = match Node::start(&config, endings.clone()) {
            Ok(node) => node,
            Err(error) => {
                crate::error!("{error}");
                return EXIT_FAILURE;
            }
        };
        match wait(&ended, &node.status, config.keepalive_timeout) {
            Some(Ending::Signal(Signal::Stop)) => {
                crate::info!("stopping: clients are sent elsewhere");
                return if node.stop(STOP_LIMIT) { 0 } else { EXIT_FAILURE };
            }
            Some(Ending::Signal(Signal::Quit)) => return EXIT_QUIT,
            None => {
                crate::warn!("no /keepalive for {:?}: stopping", config.keepalive_timeout);
                return if node.stop(STOP_LIMIT) { 0 } else { EXIT_FAILURE };
            }
            Some(Ending::Lost(what)) => {
                crate::error!(
                    "a part has ended that the server cannot do without: {what}. The process exits so that it is \
                     started anew; if the log says that a task panicked, please report that line"
                );
                node.stop(LOST_LIMIT);
                return EXIT_FAILURE;
            }
            Some(Ending::Replication(End::Stopped)) => {
                crate::info!("another process has taken over replication");
                node.stop(STOP_LIMIT);
                return EXIT_QUIT;
            }
            Some(Ending::Replication(End::Resync(why))) => {
                crate::warn!("the replica is made anew: {why}");
                if !node.stop(STOP_LIMIT) {
                    return EXIT_FAILURE;
                }
            }
            Some(Ending::Replication(End::Failed { message, exit_code })) => {
                crate::error!("{message}");
                node.stop(STOP_LIMIT);
                return exit_code;
            }
        }
    }
}

/// Has places panic that a test names in a file.
#[cfg(debug_assertions)]
fn panic_on_order(file: std::path::PathBuf) {
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(Duration::from_millis(20));
            if let Ok(place) = std::fs::read_to_string(&file)
                && std::fs::remove_file(&file).is_ok()
            {
                crate::testing::panics::order(place.trim());
            }
        }
    });
}

/// Waits for the end of a run; `None`: `/keepalive` has been silent for too long after its
/// first call (`docs/spec/config-ops.md` §7.4).
fn wait(ended: &mpsc::Receiver<Ending>, status: &Status, silence: Option<Duration>) -> Option<Ending> {
    let Some(silence) = silence else { return ended.recv().ok() };
    let mut last = (status.keepalives(), std::time::Instant::now());
    loop {
        match ended.recv_timeout(silence / 4) {
            Ok(ending) => return Some(ending),
            Err(mpsc::RecvTimeoutError::Disconnected) => return None,
            Err(mpsc::RecvTimeoutError::Timeout) => {}
        }
        let seen = status.keepalives();
        if seen != last.0 || seen == 0 {
            last = (seen, std::time::Instant::now());
        } else if last.1.elapsed() >= silence {
            return None;
        }
    }
}

/// Everything that can be known to be wrong before anything is started.
fn check(config: &Config) -> Result<(), String> {
    match config.role() {
        Role::SingleNode => {}
        role => {
            return Err(format!(
                "this version runs as a single node only, and the settings ask for a {role}: unset \
                 ZERO_CHANGE_STREAMER_URI and ZERO_CHANGE_STREAMER_MODE, and set ZERO_NUM_SYNC_WORKERS to 1 or more"
            ));
        }
    }
    executor::probe().map_err(|e| e.to_string())?;
    free_port(config.port).map_err(|e| match e.kind() {
        std::io::ErrorKind::AddrInUse => format!(
            "port {} is in use by another process: stop it, or choose another port with ZERO_PORT",
            config.port
        ),
        std::io::ErrorKind::PermissionDenied => {
            format!("port {} may not be used by this user: choose one above 1023 with ZERO_PORT", config.port)
        }
        _ => format!("port {} cannot be used: {e}", config.port),
    })?;
    check_directory(&config.replica_file)
}

/// Checks that a port can be used. One that was in use a moment ago is waited for: the kernel
/// closes the sockets of a process that was killed a little after it has gone.
fn free_port(port: u16) -> std::io::Result<()> {
    let until = std::time::Instant::now() + PORT_WAIT;
    loop {
        match check_port_free(port) {
            Err(e) if e.kind() == std::io::ErrorKind::AddrInUse && std::time::Instant::now() < until => {
                std::thread::sleep(PORT_WAIT / 20);
            }
            result => return result,
        }
    }
}

fn check_directory(replica: &Path) -> Result<(), String> {
    let directory = match replica.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if directory.is_dir() {
        return Ok(());
    }
    Err(format!(
        "Cannot open ZERO_REPLICA_FILE at \"{}\": the directory \"{}\" does not exist. Create it, or choose \
         another path",
        replica.display(),
        directory.display()
    ))
}
