//! Numbers about the replica that other threads may read at any time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::lag::Lag;
use crate::model::version::StateVersion;

/// Written by the replica's threads, read by metrics and health endpoints.
#[derive(Debug, Default)]
pub struct Gauges {
    /// How far the replica is behind upstream.
    pub lag: Lag,
    wal_bytes: AtomicU64,
    synced_wal_bytes: AtomicU64,
    written: AtomicU64,
    durable: AtomicU64,
    acknowledged: AtomicU64,
    rows_applied: AtomicU64,
    transactions_applied: AtomicU64,
    wal_restarts: AtomicU64,
    longest_hold: AtomicU64,
    synced_bytes: AtomicU64,
    retained: AtomicU64,
    copied_rows: AtomicU64,
    expected_rows: AtomicU64,
    filling_tables: AtomicU64,
    filled_rows: AtomicU64,
    reconnects: AtomicU64,
    surprises: AtomicU64,
}

macro_rules! gauge {
    ($(#[$doc:meta])* $get:ident, $set:ident, $field:ident) => {
        $(#[$doc])*
        pub fn $get(&self) -> u64 {
            self.$field.load(Ordering::Acquire)
        }

        pub(crate) fn $set(&self, value: u64) {
            self.$field.store(value, Ordering::Release);
        }
    };
}

impl Gauges {
    gauge! {
        /// Bytes of the log that have not been overwritten since it was last restarted.
        wal_bytes, set_wal_bytes, wal_bytes
    }
    gauge! {
        /// Bytes of the log that survive a power cut.
        synced_wal_bytes, set_synced_wal_bytes, synced_wal_bytes
    }

    gauge! {
        /// Bytes of log that upstream keeps for the replication slot.
        retained_bytes, set_retained_bytes, retained
    }
    gauge! {
        /// Rows that the initial sync has copied.
        copied_rows, set_copied_rows, copied_rows
    }
    gauge! {
        /// Rows that the initial sync will copy, as upstream's planner believes; never fewer than it has
        /// copied, and as many when it is done.
        expected_rows, set_expected_rows, expected_rows
    }

    gauge! {
        /// Tables whose rows are being copied beside the stream (`docs/spec/schema-changes.md` S9, S21).
        filling_tables, set_filling_tables, filling_tables
    }
    gauge! {
        /// Rows that have been copied of the one of them that is being copied, or was copied last.
        filled_rows, set_filled_rows, filled_rows
    }

    /// Bytes of the log that were made durable, over all its restarts.
    pub fn synced_bytes(&self) -> u64 {
        self.synced_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn synced(&self, bytes: u64) {
        self.synced_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Times that the stream began again after it was lost.
    pub fn reconnects(&self) -> u64 {
        self.reconnects.load(Ordering::Relaxed)
    }

    pub(crate) fn reconnected(&self) {
        self.reconnects.fetch_add(1, Ordering::Relaxed);
    }

    /// Position that the replica has committed.
    pub fn written(&self) -> StateVersion {
        StateVersion(self.written.load(Ordering::Acquire))
    }

    pub(crate) fn set_written(&self, position: StateVersion) {
        self.written.store(position.0, Ordering::Release);
        self.lag.reached(position, Instant::now());
    }

    /// Position that survives a power cut.
    pub fn durable(&self) -> StateVersion {
        StateVersion(self.durable.load(Ordering::Acquire))
    }

    pub(crate) fn set_durable(&self, position: StateVersion) {
        self.durable.store(position.0, Ordering::Release);
    }

    /// Position that upstream may forget.
    pub fn acknowledged(&self) -> StateVersion {
        StateVersion(self.acknowledged.load(Ordering::Acquire))
    }

    pub(crate) fn set_acknowledged(&self, position: StateVersion) {
        self.acknowledged.store(position.0, Ordering::Release);
    }

    /// Changed rows since the start.
    pub fn rows_applied(&self) -> u64 {
        self.rows_applied.load(Ordering::Relaxed)
    }

    /// Upstream transactions since the start.
    pub fn transactions_applied(&self) -> u64 {
        self.transactions_applied.load(Ordering::Relaxed)
    }

    pub(crate) fn applied(&self, rows: u64, transactions: u64) {
        self.rows_applied.fetch_add(rows, Ordering::Relaxed);
        self.transactions_applied.fetch_add(transactions, Ordering::Relaxed);
    }

    /// Times that the log began again from its start.
    pub fn wal_restarts(&self) -> u64 {
        self.wal_restarts.load(Ordering::Relaxed)
    }

    pub(crate) fn wal_restarted(&self) {
        self.wal_restarts.fetch_add(1, Ordering::Relaxed);
    }

    /// Longest time that commits were held so that the log could be restarted.
    pub fn longest_hold(&self) -> Duration {
        Duration::from_micros(self.longest_hold.load(Ordering::Relaxed))
    }

    pub(crate) fn held(&self, time: Duration) {
        self.longest_hold.fetch_max(time.as_micros() as u64, Ordering::Relaxed);
    }

    /// Changes that did not find the row they were for, or found one where none should
    /// be. Zero unless a table was published in a way that hides rows.
    pub fn surprises(&self) -> u64 {
        self.surprises.load(Ordering::Relaxed)
    }

    pub(crate) fn surprised(&self, count: u64) {
        self.surprises.fetch_add(count, Ordering::Relaxed);
    }
}
