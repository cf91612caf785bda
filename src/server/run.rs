//! The process: executors, the order of start and stop.

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use kelvin_io::channel::{Receiver, Sender, bounded};
use kelvin_io::executor::{self, Executor, StartError, sleep, yield_now};
use kelvin_io::signals::{self, Signal};
use kelvin_io::socket::{Listener, check_port_free};

use super::budget::Budget;
use super::core::{Control, Core, Parts};
use super::handover::{Handover, MAX_HANDOVERS};
use super::overload::most_connections;
use super::record_files;
use super::records::Completed;
use super::replication::{self, CoreLink};
use super::status::Status;
use super::supervise::{Ending, Supervisor};
use super::{accept, batch};
use crate::changes::queue::queue;
use crate::config::{Config, Parsed, RecordMode, Role};
use crate::cvr::recovered::Recovered;
use crate::groups::sink::Sink;
use crate::observe::metrics;
use crate::upstream::manager::End;

/// Orders that may wait for a core: it takes them as they come.
const MAX_CONTROL: usize = 64;

/// Wishes for indexes that may wait for core 0.
const MAX_WISHES: usize = 64;

/// How long a port may be in use that a process had that was killed.
const PORT_WAIT: Duration = Duration::from_secs(1);

/// How long closing frames may take to leave when the process stops.
const DRAIN: Duration = Duration::from_millis(500);

/// How long all that runs may take to end. The longest of it is what the writer of the replica has in its queue.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// The same when a part has ended that should not have: what waits for it will not end at all.
const LOST_LIMIT: Duration = Duration::from_secs(3);

/// The part of the memory that what is recovered may take: until it is restored it is there twice.
const RECOVERED_PART: usize = 3;

/// Time between two signs of life of a core.
const BEAT: Duration = Duration::from_millis(200);

/// Turns of a core in which every task of it has run at least once.
const DRAIN_TURNS: usize = 100;

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
                crate::changes::panics::order(place.trim());
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

/// The executors of one run.
struct Node {
    status: Arc<Status>,
    supervisor: Supervisor,
    cores: Vec<(CoreLink, Executor<()>)>,
    stop: Sender<()>,
    manager: Executor<()>,
}

impl Node {
    fn start(config: &Arc<Config>, endings: mpsc::Sender<Ending>) -> Result<Node, StartError> {
        let count = config.num_sync_workers;
        let status = Arc::new(Status::of_cores(count));
        let supervisor = Supervisor::new(endings, status.clone());
        status.progress("Postgres");
        let handovers: Vec<_> = (0..count).map(|_| bounded::<Box<Handover>>(MAX_HANDOVERS)).collect();
        let peers: Vec<Sender<Box<Handover>>> = handovers.iter().map(|(sender, _)| sender.clone()).collect();
        let (wishes, wished) = bounded(MAX_WISHES);
        let mut cores = Vec::with_capacity(count);
        let completed = Completed::default();
        let budget = Arc::new(Budget::new(config.memory_budget));
        let mut recovered = recover(config, budget.bytes() / RECOVERED_PART).into_iter();
        if let Err(error) = budget.watch(supervisor.guard("the thread that watches memory")) {
            crate::warn!("memory is not watched, no thread could be started: {error}");
        }
        let most_connections = most_connections(kelvin_io::memory::raise_open_files(), count);
        for (index, (_, sockets)) in handovers.into_iter().enumerate() {
            let recovered = recovered.next().unwrap_or_default();
            let (control, orders) = bounded(MAX_CONTROL);
            let (commits, receiver) = queue();
            let (config, status, peers) = (config.clone(), status.clone(), peers.clone());
            let (wishes, completed, budget) = (wishes.clone(), completed.clone(), budget.clone());
            let (supervisor, guard) = (supervisor.clone(), supervisor.guard(format!("core {index}")));
            let core =
                executor::start(&format!("syncer-{index}"), cpu(index + 1, count), move || async move {
                    crate::observe::log::set_worker("syncer", index);
                    let metrics = metrics::register(index + 1);
                    let parts = Parts {
                        supervisor,
                        index,
                        config,
                        metrics,
                        status,
                        peers,
                        commits: receiver,
                        wishes,
                        recovered,
                        completed,
                        budget,
                        most_connections,
                    };
                    match run_core(parts, orders, sockets).await {
                        Ok(()) => guard.done(),
                        Err(why) => guard.failed(&why),
                    }
                })?;
            cores.push((CoreLink { control, commits }, core));
        }
        let (stop, stopped) = bounded(1);
        let links: Vec<CoreLink> = cores.iter().map(|(link, _)| link.clone()).collect();
        let (config, watched, heard) = (config.clone(), status.clone(), supervisor.clone());
        let guard = supervisor.guard("the replication manager");
        let manager = executor::start("replication", cpu(0, count), move || async move {
            crate::observe::log::set_worker("replicator", 0);
            let metrics = metrics::register(0);
            let end =
                replication::run(config, links, (watched, heard.clone()), metrics, wished, stopped).await;
            guard.done();
            heard.replication_ended(end);
        })?;
        Ok(Node { status, supervisor, cores, stop, manager })
    }

    /// Ends everything, on a thread of its own. False: it is not over after `limit`.
    fn stop(self, limit: Duration) -> bool {
        self.supervisor.stop();
        self.status.set_stopping();
        let (over, all) = mpsc::channel();
        let stopping = std::thread::Builder::new().name("stop".to_owned()).spawn(move || {
            self.stop_all();
            let _ = over.send(());
        });
        let stopped = stopping.is_ok() && all.recv_timeout(limit).is_ok();
        if !stopped {
            crate::warn!("not all that runs has ended within {limit:?}; it is not waited for any longer");
        }
        stopped
    }

    /// Ends everything in order: clients first, so that they go elsewhere.
    fn stop_all(self) {
        for (link, _) in &self.cores {
            let _ = link.control.send_blocking(Control::Stop);
        }
        for (link, core) in self.cores {
            drop(link);
            if let Err(error) = core.join() {
                crate::error!("a core did not end well: {error}");
            }
        }
        let _ = self.stop.try_send(());
        if let Err(error) = self.manager.join() {
            crate::error!("the replication manager did not end well: {error}");
        }
    }
}

/// The CPU for an executor, if there are enough of them; else the kernel's choice.
fn cpu(position: usize, cores: usize) -> Option<usize> {
    let available = std::thread::available_parallelism().map_or(1, usize::from);
    // With fewer CPUs than executors, binding would only put two of them on one.
    (available > cores + 1).then_some(position)
}

/// What was recorded before; nothing, if it cannot be read: clients then start anew.
fn recover(config: &Config, limit: usize) -> Vec<Recovered> {
    if config.record_mode == RecordMode::Off {
        return Vec::new();
    }
    let directory = record_files::directory(&config.replica_file);
    record_files::read(&directory, config.num_sync_workers, limit).unwrap_or_else(|error| {
        crate::error!(
            "the records of client views in {} cannot be read: {error}. Clients start anew",
            directory.display()
        );
        Vec::new()
    })
}

/// Runs a core until it is told to stop. An error says why it cannot.
async fn run_core(
    parts: Parts,
    orders: Receiver<Control>,
    sockets: Receiver<Box<Handover>>,
) -> Result<(), String> {
    let port = parts.config.port;
    let listener =
        Listener::bind(port).map_err(|error| format!("port {port} cannot be listened on: {error}"))?;
    let cores = parts.peers.len();
    let core = Core::new(parts);
    let listener = Rc::new(listener);
    let (accepted, accepting) = bounded::<()>(1);
    let (accepts, listens) = (core.clone(), listener.clone());
    core.supervisor.spawn("accepting connections", async move {
        accept::run(accepts.clone(), listens).await;
        // Whoever waits for the end hears of it by that.
        drop(accepted);
        std::future::pending().await
    });
    core.supervisor.spawn("sockets of other cores", accept::receive(core.clone(), sockets));
    core.supervisor.spawn("a core's heart", beat(core.clone()));
    while let Ok(order) = orders.recv().await {
        match order {
            Control::Start(start) => {
                core.start(start).await.map_err(|error| format!("the replica cannot be read: {error}"))?;
                if core.status.core_started() == cores {
                    core.status.set_ready(true);
                    crate::info!("zero-cache ready; listening at http://[::]:{}", core.config.port);
                }
            }
            Control::Indexed(catalogue) => {
                let _turn = core.turn.lock().await;
                core.with(|s| s.take_catalogue(&catalogue));
            }
            Control::Rebegin(answer) => {
                let _ = answer.try_send(rebegin(&core).await);
            }
            Control::Stop => {
                core.stop();
                if listener.stop().is_ok() {
                    let _ = accepting.recv().await;
                }
                drain(&core).await;
                return Ok(());
            }
        }
    }
    Err("nobody tells it what to do any more".to_owned())
}

/// Shows that the core lives, whatever else it waits for.
async fn beat(core: Rc<Core>) {
    loop {
        core.status.beat(core.index);
        sleep(BEAT).await;
    }
}

/// Moves all read transactions of the core to the newest snapshot, if none is in use.
async fn rebegin(core: &Rc<Core>) -> bool {
    if core.lanes.running() > 0 {
        return false;
    }
    let Some(_turn) = core.turn.try_lock() else { return false };
    if batch::advance(core).await.is_err() {
        return false;
    }
    // Begins anew even if there was nothing to take: it is what releases the log.
    let began = core.with(|s| s.shared.reader.begin().is_ok_and(|version| version == s.shared.version));
    began.unwrap_or(true)
}

/// Closes every connection in the way that makes clients come back.
async fn drain(core: &Rc<Core>) {
    let sessions: Vec<_> = core.sessions.borrow().values().cloned().collect();
    sessions.iter().for_each(|outbox| outbox.close());
    if !sessions.is_empty() {
        sleep(DRAIN).await;
    }
    // Those whose requests were being read close as soon as they see that the core is to end.
    for _ in 0..DRAIN_TURNS {
        if core.handshakes.is_empty() {
            return;
        }
        yield_now().await;
    }
}
