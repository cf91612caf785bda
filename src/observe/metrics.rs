//! What is counted, and how: every metric has one method here, with its unit.
//!
//! Each core has its own [`Metrics`], so that counting never waits for another core; they are merged when
//! somebody looks (`exposition`).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::histogram::Histogram;
use crate::model::reason::Reason;

/// The kinds of errors that clients are sent (`docs/spec/sync-protocol.md` §17). Any other kind counts as
/// the last.
const ERROR_KINDS: [&str; 20] = [
    "AuthInvalidated",
    "ClientNotFound",
    "Internal",
    "InvalidConnectionRequest",
    "InvalidConnectionRequestBaseCookie",
    "InvalidConnectionRequestClientDeleted",
    "InvalidConnectionRequestLastMutationID",
    "InvalidMessage",
    "InvalidPush",
    "MutationFailed",
    "MutationRateLimited",
    "PushFailed",
    "Rebalance",
    "Rehome",
    "SchemaVersionNotSupported",
    "ServerOverloaded",
    "TransformFailed",
    "Unauthorized",
    "VersionNotSupported",
    "other",
];

/// How the values of several cores become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Only grows; summed.
    Counter,
    /// A level; summed.
    Gauge,
    /// A level that is shown for each core.
    CoreGauge,
    /// A level that is a time: kept in nanoseconds, summed, shown in seconds.
    Time,
}

/// A number of each core, and its name to the outside.
pub(super) struct Series {
    pub(super) kind: Kind,
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) get: fn(&Metrics) -> u64,
}

/// A histogram of each core. Times are counted in nanoseconds and shown in seconds.
pub(super) struct Times {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) get: fn(&Metrics) -> &Histogram,
}

macro_rules! metrics {
    (
        numbers { $($field:ident: $kind:ident, $name:literal, $help:literal;)+ }
        times { $($time:ident: $time_name:literal, $time_help:literal;)+ }
    ) => {
        /// The counts of one core. Every method may be called from any thread and costs a few
        /// nanoseconds.
        #[derive(Default)]
        pub struct Metrics {
            core: usize,
            $($field: AtomicU64,)+
            $($time: Histogram,)+
            errors_sent: [AtomicU64; ERROR_KINDS.len()],
        }

        impl Metrics {
            /// Sets all levels to zero. What only grows stays.
            pub(super) fn reset_levels(&self) {
                $(if Kind::$kind != Kind::Counter {
                    set(&self.$field, 0);
                })+
            }
        }

        pub(super) static NUMBERS: &[Series] = &[$(Series {
            kind: Kind::$kind,
            name: concat!("kelvin_", $name),
            help: $help,
            get: |metrics| metrics.$field.load(Ordering::Relaxed),
        }),+];

        pub(super) static TIMES: &[Times] = &[$(Times {
            name: concat!("kelvin_", $time_name, "_seconds"),
            help: $time_help,
            get: |metrics| &metrics.$time,
        }),+];
    };
}

metrics! {
    numbers {
        accepted: Counter, "connections_accepted_total", "WebSockets of clients accepted.";
        closed: Counter, "connections_closed_total", "WebSockets of clients closed.";
        handed_over: Counter, "sockets_handed_over_total", "Sockets given to the core of their client group.";
        received: Counter, "sockets_received_total", "Sockets taken from the core that accepted them.";
        messages_in: Counter, "messages_in_total", "Messages from clients, pings included.";
        bytes_in: Counter, "bytes_in_total", "Bytes of messages from clients.";
        pokes: Counter, "pokes_out_total", "Pokes sent to clients.";
        bytes_out: Counter, "bytes_out_total", "Bytes of frames that the sockets of clients took.";
        catch_ups: Counter, "slow_socket_catch_ups_total", "Times a socket drained for which so much had waited that it was given no more: it is sent the sum of what it missed.";
        groups: CoreGauge, "client_groups", "Client groups in memory.";
        clients: CoreGauge, "clients", "Connected clients.";
        queries: CoreGauge, "queries", "Queries that client groups desire, each once per group.";
        views: CoreGauge, "views", "Views in memory.";
        commits: Counter, "commits_applied_total", "Upstream transactions applied to the replica.";
        rows: Counter, "rows_applied_total", "Rows that they changed; truncated tables count nothing.";
        batched_commits: Counter, "batched_commits_total", "Commits of the replica that cores took, each once per core.";
        advances: Counter, "view_advances_total", "Times a view was brought forward row by row.";
        again_bulk: Counter, "view_evaluations_bulk_total", "Views read anew: changes not listed.";
        again_condition: Counter, "view_evaluations_condition_total", "Views read anew: a condition of too many rows.";
        again_candidates: Counter, "view_evaluations_candidates_total", "Views read anew: too many rows to look at.";
        again_budget: Counter, "view_evaluations_budget_total", "Views read anew: a read that takes too much.";
        overflows: Counter, "queue_overflows_total", "Times a core fell too far behind (gaps).";
        watermark: Gauge, "replica_watermark_lsn", "Position of the replica in the upstream log.";
        synced_watermark: Gauge, "replica_synced_watermark_lsn", "Position up to which it is durable.";
        wal_bytes: Gauge, "replica_wal_bytes", "Bytes of the replica's write-ahead log since it last began anew.";
        wal_synced_bytes: Counter, "replica_wal_synced_bytes_total", "Bytes of that log made durable.";
        slot_lag_bytes: Gauge, "slot_lag_bytes", "Log that Postgres keeps for the replication slot; looked at every ten seconds.";
        upstream_connected: Gauge, "upstream_connected", "Whether there is a replication stream (1) or not (0).";
        upstream_silence: Time, "upstream_silence_seconds", "Time since upstream last said something on the stream.";
        lag_bytes: Gauge, "replication_lag_bytes", "Upstream's log that the replica does not have, as far as known.";
        lag: Time, "replication_lag_seconds", "How long the last heartbeat took, or the age of one that is missing.";
        sync_rows: Gauge, "initial_sync_rows", "Rows copied by the initial sync of this run; 0 if the replica was there.";
        sync_total: Gauge, "initial_sync_rows_expected", "Rows that it will copy: Postgres' estimate, corrected as it is found wrong.";
        filling: Gauge, "tables_filling", "Tables whose rows are being copied beside the stream: new ones, and copies of such as could not be kept.";
        filled_rows: Gauge, "tables_filling_rows", "Rows copied of the one of them that is being copied, or was copied last.";
        record_writes: Counter, "record_writes_total", "Writes to the logs of client view records.";
        record_bytes: Counter, "record_bytes_total", "Bytes written to them.";
        memory_in_use: Gauge, "memory_in_use_bytes", "Memory that is allocated.";
        memory_held: Gauge, "memory_held_bytes", "Memory that the system has given, beside pages of files.";
        memory_budget: Gauge, "memory_budget_bytes", "Memory that the server may use.";
        load_refusals: Counter, "overload_refusals_total", "Connections not let in for want of room or memory.";
        load_shed: Counter, "overload_groups_shed_total", "Client groups given up, or not given a view, for want of memory.";
        nudges: Counter, "executor_nudges_total", "Times an executor that stood still was interrupted.";
        reconnects: Counter, "upstream_reconnects_total", "Times that the replication stream began again after it was lost.";
        transforms: Counter, "transform_requests_total", "Calls of the query endpoint, each with its repetitions.";
        transform_failures: Counter, "transform_failures_total", "Those without an answer that can be used.";
        pushes: Counter, "push_requests_total", "Calls of the mutate endpoint with mutations, each with its repetitions.";
        push_failures: Counter, "push_failures_total", "Those without an answer that can be used, or refused as a whole.";
    }
    times {
        slice: "slice", "How long a core ran without yielding.";
        slice_cpu: "slice_cpu", "The same, of the processor's time: without what others took of it.";
        hydration: "hydration", "Reading a whole view by a hydration, from its start until the view is in use.";
        batch: "batch", "Advancing the views of a core by one batch of commits.";
        apply: "commit_apply", "One transaction of the replica: one upstream transaction, or several when it is behind.";
        broadcast: "commit_to_broadcast", "From the arrival of an upstream transaction's end until all cores were told of it.";
        transform: "transform", "One call of the query endpoint, with its repetitions.";
        push: "push", "One call of the mutate endpoint with mutations, with its repetitions.";
    }
}

fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

fn set(gauge: &AtomicU64, value: u64) {
    gauge.store(value, Ordering::Relaxed);
}

impl Metrics {
    /// Metrics that no list knows: for tests and simulated cores.
    pub fn new(core: usize) -> Metrics {
        Metrics { core, ..Metrics::default() }
    }

    /// Number of the core.
    pub fn core(&self) -> usize {
        self.core
    }

    /// This core accepted a WebSocket of a client, which may belong to another core.
    pub fn connection_accepted(&self) {
        add(&self.accepted, 1);
    }

    /// A connection of this core is closed.
    pub fn connection_closed(&self) {
        add(&self.closed, 1);
    }

    /// A connection left this core for the one that owns its client group.
    pub fn socket_handed_over(&self) {
        add(&self.handed_over, 1);
    }

    /// A connection came from the core that accepted it.
    pub fn socket_received(&self) {
        add(&self.received, 1);
    }

    /// Connections that this core has now.
    pub fn connections_open(&self) -> u64 {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (get(&self.accepted) + get(&self.received)).saturating_sub(get(&self.closed) + get(&self.handed_over))
    }

    /// A message of `bytes` came from a client.
    pub fn message_in(&self, bytes: usize) {
        add(&self.messages_in, 1);
        add(&self.bytes_in, bytes as u64);
    }

    /// The last frames of so many whole pokes were given to a socket.
    pub fn pokes_sent(&self, pokes: usize) {
        add(&self.pokes, pokes as u64);
    }

    /// A socket took `bytes` of frames.
    pub fn bytes_sent(&self, bytes: usize) {
        add(&self.bytes_out, bytes as u64);
    }

    /// A socket drained for which too much had waited; what it missed meanwhile is summed up for it.
    pub fn slow_socket_caught_up(&self) {
        add(&self.catch_ups, 1);
    }

    /// An error of the protocol's `kind` was sent to a client.
    pub fn error_sent(&self, kind: &str) {
        let index = ERROR_KINDS.iter().position(|known| *known == kind).unwrap_or(ERROR_KINDS.len() - 1);
        add(&self.errors_sent[index], 1);
    }

    /// Errors sent, by kind; only kinds that occurred.
    pub fn errors_sent(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.errors_sent.iter().map(|count| count.load(Ordering::Relaxed));
        ERROR_KINDS.into_iter().zip(counts).filter(|(_, count)| *count > 0)
    }

    /// This core holds `n` client groups.
    pub fn set_groups(&self, n: usize) {
        set(&self.groups, n as u64);
    }

    /// This core serves `n` connected clients.
    pub fn set_clients(&self, n: usize) {
        set(&self.clients, n as u64);
    }

    /// The groups of this core desire `n` queries, each counted once per group.
    pub fn set_queries(&self, n: usize) {
        set(&self.queries, n as u64);
    }

    /// This core holds `n` views.
    pub fn set_views(&self, n: usize) {
        set(&self.views, n as u64);
    }

    /// A hydration has read a view, in `took_ns` from its start until the view is in use.
    pub fn hydration_done(&self, took_ns: u64) {
        self.hydration.record(took_ns);
    }

    /// The views were advanced by a batch of `commits`, in `took_ns`.
    pub fn batch_done(&self, commits: usize, took_ns: u64) {
        add(&self.batched_commits, commits as u64);
        self.batch.record(took_ns);
    }

    /// The core ran for `ran_ns` without yielding, and had the processor for `cpu_ns` of it.
    pub fn slice_done(&self, ran_ns: u64, cpu_ns: u64) {
        self.slice.record(ran_ns);
        self.slice_cpu.record(cpu_ns);
    }

    /// Client view records were written.
    pub fn records_written(&self, bytes: usize) {
        add(&self.record_writes, 1);
        add(&self.record_bytes, bytes as u64);
    }

    /// The longest slice so far by the processor's time, in nanoseconds.
    pub fn longest_slice_cpu_ns(&self) -> u64 {
        self.slice_cpu.max()
    }

    /// The longest slice so far, in nanoseconds.
    pub fn longest_slice_ns(&self) -> u64 {
        self.slice.max()
    }

    /// So many upstream transactions, which changed `rows`, were applied in one of the replica that took
    /// `took_ns`.
    pub fn commit_applied(&self, transactions: u64, rows: u64, took_ns: u64) {
        add(&self.commits, transactions);
        add(&self.rows, rows);
        self.apply.record(took_ns);
    }

    /// All cores were told of a commit `took_ns` after the end of its first upstream transaction arrived.
    pub fn commit_broadcast(&self, took_ns: u64) {
        self.broadcast.record(took_ns);
    }

    /// A view was brought forward by a batch.
    pub fn view_advanced(&self) {
        add(&self.advances, 1);
    }

    /// A view may have to be read anew.
    pub fn view_fell_back(&self, reason: Reason) {
        let counter = match reason {
            Reason::Bulk => &self.again_bulk,
            Reason::Condition => &self.again_condition,
            Reason::Candidates => &self.again_candidates,
            Reason::Budget => &self.again_budget,
        };
        add(counter, 1);
    }

    /// This core's queue of commits overflowed: its views are evaluated anew.
    pub fn queue_overflowed(&self) {
        add(&self.overflows, 1);
    }

    /// The replica is at this position of the upstream log.
    pub fn set_replica_watermark(&self, lsn: u64) {
        set(&self.watermark, lsn);
    }

    /// The replica is durable up to this position of the upstream log.
    pub fn set_replica_synced_watermark(&self, lsn: u64) {
        set(&self.synced_watermark, lsn);
    }

    /// The replica's write-ahead log has this size.
    pub fn set_replica_wal_bytes(&self, bytes: u64) {
        set(&self.wal_bytes, bytes);
    }

    /// Memory of the process in bytes.
    pub fn set_memory(&self, in_use: usize, held: usize, budget: usize) {
        set(&self.memory_in_use, in_use as u64);
        set(&self.memory_held, held as u64);
        set(&self.memory_budget, budget as u64);
    }

    /// A connection was not let in for want of room.
    pub fn refused_for_load(&self) {
        add(&self.load_refusals, 1);
    }

    /// Views of so many groups were given up for want of memory.
    pub fn shed_for_load(&self, groups: usize) {
        add(&self.load_shed, groups as u64);
    }

    /// `bytes` more of it were made durable.
    pub fn replica_wal_synced(&self, bytes: u64) {
        add(&self.wal_synced_bytes, bytes);
    }

    /// Postgres keeps this much log for the replication slot.
    pub fn set_slot_lag_bytes(&self, bytes: u64) {
        set(&self.slot_lag_bytes, bytes);
    }

    /// There is a stream of upstream, or not, and this long ago upstream last said something on it.
    pub fn set_upstream(&self, connected: bool, silence: Duration) {
        set(&self.upstream_connected, u64::from(connected));
        set(&self.upstream_silence, silence.as_nanos() as u64);
    }

    /// How far the replica is behind upstream, in bytes of its log and in time.
    pub fn set_lag(&self, bytes: u64, time: Duration) {
        set(&self.lag_bytes, bytes);
        set(&self.lag, time.as_nanos() as u64);
    }

    /// The initial sync has copied `rows` of about `total`.
    pub fn set_initial_sync(&self, rows: u64, total: u64) {
        set(&self.sync_rows, rows);
        set(&self.sync_total, total);
    }

    /// So many tables are being copied beside the stream, and so many rows of one of them have been.
    pub fn set_filling(&self, tables: u64, rows: u64) {
        set(&self.filling, tables);
        set(&self.filled_rows, rows);
    }

    /// Executors of this process that stood still have been interrupted so many times since it began.
    pub fn set_executors_nudged(&self, times: u64) {
        set(&self.nudges, times);
    }

    /// The replication stream began again so many times more.
    pub fn upstream_reconnected(&self, times: u64) {
        add(&self.reconnects, times);
    }

    /// A call of the query endpoint ended, after `took_ns` with all its attempts.
    pub fn transform_done(&self, ok: bool, took_ns: u64) {
        add(&self.transforms, 1);
        add(&self.transform_failures, u64::from(!ok));
        self.transform.record(took_ns);
    }

    /// A call of the mutate endpoint ended, after `took_ns` with all its attempts.
    pub fn push_done(&self, ok: bool, took_ns: u64) {
        add(&self.pushes, 1);
        add(&self.push_failures, u64::from(!ok));
        self.push.record(took_ns);
    }
}
