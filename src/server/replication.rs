//! Core 0: the replication manager, and what it tells the other cores.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use kelvin_io::channel::{Receiver, Sender, bounded};
use kelvin_io::executor::{now, sleep};
use kelvin_io::postgres::{Target, TlsMode};

use super::core::Control;
use super::status::Status;
use super::supervise::Supervisor;
use crate::config::{Config, SslMode};
use crate::model::catalogue::Catalogue;
use crate::model::commit::Commit;
use crate::observe::log::{self, Level};
use crate::observe::metrics::Metrics;
use crate::replica::applied::Applied;
use crate::replica::events::{Events, ReplicaReady};
use crate::replica::gauges::Gauges;
use crate::replica::live_indexes::IndexRequest;
use crate::replica::oversize::MAX_ROW;
use crate::replica::verdict::End;
use crate::replica::wal::Limits;
use crate::replica::writer::Commits;
use crate::server::commit_queue::CommitSender;
use crate::upstream::copy::Format;
use crate::upstream::manager;
use crate::upstream::settings::Settings;

/// How a core is reached from core 0.
#[derive(Clone)]
pub struct CoreLink {
    /// Orders.
    pub control: Sender<Control>,
    /// Commits.
    pub commits: CommitSender,
}

/// Replicates until told to stop.
pub async fn run(
    config: Arc<Config>,
    cores: Vec<CoreLink>,
    (status, supervisor): (Arc<Status>, Supervisor),
    metrics: Arc<Metrics>,
    index_requests: Receiver<IndexRequest>,
    stop: Receiver<()>,
) -> End {
    let settings = settings(&config);
    let sampler =
        Rc::new(Sampler { status: status.clone(), metrics: metrics.clone(), counted: Cell::default() });
    supervisor.spawn("numbers of the replica", sampler.clone().run());
    let broadcaster = Broadcaster { cores, status, metrics, index_requests };
    let end = manager::run(settings, Rc::new(broadcaster), stop).await;
    // Its parts go with this executor.
    supervisor.stop();
    // What happened since the last look counts, too: the process may go on with another run.
    sampler.sample();
    end
}

/// How often the replica's numbers are brought into the metrics. Nobody scrapes more often.
const SAMPLE: Duration = Duration::from_secs(1);

/// Brings numbers that others keep into the metrics.
struct Sampler {
    status: Arc<Status>,
    metrics: Arc<Metrics>,
    /// Synced bytes and reconnects of this run that the metrics have counted.
    counted: Cell<(u64, u64)>,
}

impl Sampler {
    /// Samples until it is dropped.
    async fn run(self: Rc<Self>) {
        loop {
            sleep(SAMPLE).await;
            self.sample();
        }
    }

    fn sample(&self) {
        let metrics = &self.metrics;
        metrics.set_executors_nudged(kelvin_io::watchdog::nudges());
        let Some(gauges) = self.status.gauges() else { return };
        metrics.set_replica_watermark(gauges.written().0);
        metrics.set_replica_synced_watermark(gauges.durable().0);
        metrics.set_replica_wal_bytes(gauges.wal_bytes());
        metrics.set_slot_lag_bytes(gauges.retained_bytes());
        let upstream = gauges.lag.known(now());
        metrics.set_upstream(upstream.connected, upstream.silence);
        metrics.set_lag(upstream.bytes, upstream.time);
        // In this order: more may be copied meanwhile, and is never more than is expected then.
        let copied = gauges.copied_rows();
        metrics.set_initial_sync(copied, gauges.expected_rows());
        metrics.set_filling(gauges.filling_tables(), gauges.filled_rows());
        let (synced, reconnects) = (gauges.synced_bytes(), gauges.reconnects());
        let (synced_before, reconnects_before) = self.counted.replace((synced, reconnects));
        metrics.replica_wal_synced(synced - synced_before);
        metrics.upstream_reconnected(reconnects - reconnects_before);
    }
}

fn settings(config: &Config) -> Settings {
    let db = &config.upstream.db;
    Settings {
        target: Target {
            host: db.host.clone(),
            port: db.port,
            user: db.user.clone(),
            password: db.password.as_ref().map(|p| p.expose().to_owned()),
            database: db.database.clone(),
            tls: match db.ssl {
                SslMode::Disable => TlsMode::Disable,
                SslMode::Prefer => TlsMode::Prefer,
                SslMode::Require | SslMode::NoVerify => TlsMode::Require,
                SslMode::VerifyCa => TlsMode::VerifyCa,
                SslMode::VerifyFull => TlsMode::Verify,
            },
            connect_timeout: db.connect_timeout,
            root_certificates: db.root_certificates.clone(),
        },
        app_id: config.app.id.clone(),
        shard: config.app.shard_num,
        publications: config.app.publications.clone(),
        replica_file: config.replica_file.clone(),
        copy_workers: config.initial_sync.table_copy_workers,
        copy_format: match config.initial_sync.text_copy {
            true => Format::Text,
            false => Format::Binary,
        },
        auto_reset: config.auto_reset,
        connect_timeout: config.upstream.connect_timeout,
        failover: config.upstream.slot_failover,
        inbound_timeout: config.upstream.stream_inbound_timeout,
        heartbeat_interval: config.lag_report_interval,
        log_limits: Limits::default(),
        row_limit: MAX_ROW,
        task_id: config.task_id.clone(),
    }
}

struct Broadcaster {
    cores: Vec<CoreLink>,
    status: Arc<Status>,
    metrics: Arc<Metrics>,
    index_requests: Receiver<IndexRequest>,
}

fn broadcast(commit: &Arc<Commit>, applied: Applied, cores: &[CommitSender], metrics: &Metrics) {
    for commits in cores {
        commits.send(commit);
    }
    metrics.commit_applied(applied.transactions, applied.rows, applied.took.as_nanos() as u64);
    if let Some(arrived) = applied.arrived {
        metrics.commit_broadcast(now().saturating_duration_since(arrived).as_nanos() as u64);
    }
}

impl Events for Broadcaster {
    fn progress(&self, text: &str) {
        crate::debug!("{text}");
        self.status.progress(text);
    }

    fn log(&self, level: Level, message: &str, fields: &[(&str, String)]) {
        if log::enabled(level) {
            let fields: Vec<(&str, log::Value)> =
                fields.iter().map(|(k, v)| (*k, log::Value::from(v))).collect();
            log::write(level, format_args!("{message}"), &fields);
        }
    }

    fn gauges(&self, gauges: Arc<Gauges>) {
        self.status.set_gauges(gauges);
    }

    fn ready(&self, start: ReplicaReady) {
        crate::info!(
            tables = start.catalogue.tables().len(), watermark = start.version.to_lexi(), epoch = start.epoch;
            "the replica is ready"
        );
        // The first copy of the data had a large cache.
        kelvin_io::memory::give_back();
        for core in &self.cores {
            // The queue of orders is empty before the first one.
            let _ = core.control.try_send(Control::Start(start.clone()));
        }
    }

    fn commits(&self) -> Commits {
        let cores: Vec<CommitSender> = self.cores.iter().map(|core| core.commits.clone()).collect();
        let metrics = self.metrics.clone();
        Box::new(move |commit, applied| broadcast(&commit, applied, &cores, &metrics))
    }

    fn indexed(&self, catalogue: Arc<Catalogue>) {
        crate::info!("the replica has a further index that queries need");
        for core in &self.cores {
            // A core whose orders are piled up goes on without; the index is found at its restart.
            let _ = core.control.try_send(Control::Indexed(catalogue.clone()));
        }
    }

    fn index_requests(&self) -> Receiver<IndexRequest> {
        self.index_requests.clone()
    }

    fn readers_rebegin(&self) -> Pin<Box<dyn Future<Output = bool>>> {
        let (sender, answers) = bounded(self.cores.len().max(1));
        let asked = self
            .cores
            .iter()
            .filter(|core| core.control.try_send(Control::Rebegin(sender.clone())).is_ok())
            .count();
        let all = asked == self.cores.len();
        drop(sender);
        Box::pin(async move {
            let mut agreed = 0;
            while agreed < asked {
                match answers.recv().await {
                    Ok(true) => agreed += 1,
                    Ok(false) | Err(_) => return false,
                }
            }
            all
        })
    }
}

#[cfg(test)]
mod tests {
    use kelvin_io::{executor, watchdog};

    use super::*;
    use crate::observe::exposition::prometheus;

    #[test]
    fn nudges_are_counted() {
        let before = watchdog::nudges();
        let stands_still = executor::start("test", None, move || async move {
            while watchdog::nudges() == before {
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        stands_still.unwrap().join().unwrap();
        let metrics = Arc::new(Metrics::new(0));
        let sampler = Sampler { status: Arc::default(), metrics: metrics.clone(), counted: Cell::default() };
        sampler.sample();
        let line = format!("\nkelvin_executor_nudges_total {}\n", watchdog::nudges());
        assert!(prometheus(&[metrics], 0).contains(&line), "{line}");
    }
}
