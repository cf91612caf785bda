//! The executors of one run: the cores and the replication manager, started and stopped in order.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use kelvin_io::channel::{Sender, bounded};
use kelvin_io::executor::{self, Executor, StartError};

use super::budget::Budget;
use super::core::{Control, Parts};
use super::handover::{Handover, MAX_HANDOVERS};
use super::overload::most_connections;
use super::record_writer::Completed;
use super::replication::{self, CoreLink};
use super::status::Status;
use super::supervise::{Ending, Supervisor};
use super::{core_run, record_files};
use crate::config::{Config, RecordMode};
use crate::cvr::recovered::Recovered;
use crate::observe::registry;
use crate::server::commit_queue::queue;

/// Orders that may wait for a core: it takes them as they come.
const MAX_CONTROL: usize = 64;

/// Requests for indexes that may wait for core 0.
const MAX_INDEX_REQUESTS: usize = 64;

/// The part of the memory that what is recovered may take: until it is restored it is there twice.
const RECOVERED_PART: usize = 3;

/// The executors of one run.
pub struct Node {
    /// What the process is up to.
    pub status: Arc<Status>,
    supervisor: Supervisor,
    cores: Vec<(CoreLink, Executor<()>)>,
    stop: Sender<()>,
    manager: Executor<()>,
}

impl Node {
    /// Starts everything. `endings`: where the end of the run is waited for.
    pub fn start(config: &Arc<Config>, endings: mpsc::Sender<Ending>) -> Result<Node, StartError> {
        let count = config.num_sync_workers;
        let status = Arc::new(Status::of_cores(count));
        let supervisor = Supervisor::new(endings, status.clone());
        status.progress("Postgres");
        let handovers: Vec<_> = (0..count).map(|_| bounded::<Box<Handover>>(MAX_HANDOVERS)).collect();
        let peers: Vec<Sender<Box<Handover>>> = handovers.iter().map(|(sender, _)| sender.clone()).collect();
        let (index_requests, index_requested) = bounded(MAX_INDEX_REQUESTS);
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
            let (index_requests, completed, budget) =
                (index_requests.clone(), completed.clone(), budget.clone());
            let (supervisor, guard) = (supervisor.clone(), supervisor.guard(format!("core {index}")));
            let core =
                executor::start(&format!("syncer-{index}"), cpu(index + 1, count), move || async move {
                    crate::observe::log::set_worker("syncer", index);
                    let metrics = registry::register(index + 1);
                    let parts = Parts {
                        supervisor,
                        index,
                        config,
                        metrics,
                        status,
                        peers,
                        commits: receiver,
                        index_requests,
                        recovered,
                        completed,
                        budget,
                        most_connections,
                    };
                    match core_run::run(parts, orders, sockets).await {
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
            let metrics = registry::register(0);
            let end =
                replication::run(config, links, (watched, heard.clone()), metrics, index_requested, stopped)
                    .await;
            guard.done();
            heard.replication_ended(end);
        })?;
        Ok(Node { status, supervisor, cores, stop, manager })
    }

    /// Ends everything, on a thread of its own. False: it is not over after `limit`.
    pub fn stop(self, limit: Duration) -> bool {
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
