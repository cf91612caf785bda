//! Every series, what is done, and what it must show then: a series that is not here fails the test.
//!
//! To add one: a row with what drives it, an act of `acts.rs` or a new one at its place in `ACTS`; or, if nothing that
//! a test can do to a server from outside drives it, the test that does so within.

use super::acts::{ACTS, ROWS};
use super::shows::Shows::{self, Elsewhere, Grows, GrowsWithin, Is, Within};
use super::world::World;

const ASKS: &str = ACTS[1].0;
const CHANGES: &str = ACTS[3].0;
const FAILS: &str = ACTS[10].0;
const CUT: &str = ACTS[11].0;
const CLOSED: &str = ACTS[12].0;
const OPEN_AGAIN: &str = ACTS[13].0;
const ANEW: &str = ACTS[14].0;

/// Name of the series, name of the act, and what it must show after it.
pub const TABLE: &[(&str, &str, Shows)] = &[
    ("kelvin_initial_sync_rows", "the server starts", Is(|_| ROWS as f64 + 1.0)),
    ("kelvin_initial_sync_rows_expected", "the server starts", Is(|_| ROWS as f64 + 1.0)),
    ("kelvin_tables_filling", CHANGES, Is(|_| 0.0)),
    (
        "kelvin_tables_filling_rows",
        ANEW,
        Elsewhere("tests/server/metrics.rs", "tables_that_are_filled_are_counted"),
    ),
    ("kelvin_memory_budget_bytes", "the server starts", Is(|_| (2_048u64 << 20) as f64)),
    ("kelvin_memory_in_use_bytes", "the server starts", Within(|_| (1e6, 1e9))),
    (
        "kelvin_memory_held_bytes",
        "the server starts",
        Within(|w| (1e6, 1.5 * w.stage.server.memory() as f64)),
    ),
    ("kelvin_connections_accepted_total", ASKS, Grows(|_| 1.0)),
    ("kelvin_connections_open", ASKS, Is(|_| 1.0)),
    ("kelvin_client_groups", ASKS, Is(|_| 1.0)),
    ("kelvin_clients", ASKS, Is(|_| 1.0)),
    ("kelvin_queries", ASKS, Is(|_| 1.0)),
    ("kelvin_views", ASKS, Is(|_| 1.0)),
    ("kelvin_hydration_seconds", ASKS, Grows(|_| 1.0)),
    ("kelvin_hydration_seconds_sum", ASKS, Within(|_| (1e-5, 30.0))),
    ("kelvin_transform_requests_total", ASKS, Grows(|w| (w.stage.app.queries().len() - w.calls) as f64)),
    ("kelvin_transform_seconds", ASKS, Grows(|w| (w.stage.app.queries().len() - w.calls) as f64)),
    ("kelvin_transform_seconds_sum", ASKS, Within(|_| (0.3, 30.0))),
    ("kelvin_pokes_out_total", ASKS, Grows(|w| w.tab.pokes.len() as f64)),
    ("kelvin_slice_seconds", ASKS, GrowsWithin(|_| (3.0, 1e5))),
    ("kelvin_slice_cpu_seconds", ASKS, GrowsWithin(|_| (3.0, 1e5))),
    ("kelvin_slice_longest_seconds", ASKS, Within(|w| longest(w, "kelvin_slice_seconds"))),
    ("kelvin_slice_cpu_longest_seconds", ASKS, Within(|w| longest(w, "kelvin_slice_cpu_seconds"))),
    ("kelvin_record_writes_total", ASKS, GrowsWithin(|_| (1.0, 100.0))),
    ("kelvin_record_bytes_total", ASKS, Within(|w| (1.0, w.bytes_of("replica.db-records")))),
    ("kelvin_messages_in_total", "the tab sends three pings", Grows(|w| (w.tab.sent.0 - w.sent.0) as f64)),
    ("kelvin_bytes_in_total", "the tab sends three pings", Grows(|w| (w.tab.sent.1 - w.sent.1) as f64)),
    ("kelvin_bytes_out_total", "the tab sends three pings", Grows(|w| (w.tab.received - w.received) as f64)),
    ("kelvin_commits_applied_total", CHANGES, Grows(|_| 3.0)),
    ("kelvin_rows_applied_total", CHANGES, Grows(|_| 5.0)),
    ("kelvin_commit_apply_seconds", CHANGES, Grows(|_| 3.0)),
    ("kelvin_commit_apply_seconds_sum", CHANGES, Within(|_| (3e-6, 30.0))),
    ("kelvin_commit_to_broadcast_seconds", CHANGES, Grows(|_| 3.0)),
    ("kelvin_commit_to_broadcast_seconds_sum", CHANGES, Within(|_| (3e-6, 30.0))),
    ("kelvin_batched_commits_total", CHANGES, Grows(|_| 3.0)),
    ("kelvin_batch_seconds", CHANGES, Grows(|_| 3.0)),
    ("kelvin_batch_seconds_sum", CHANGES, GrowsWithin(|_| (3e-6, 30.0))),
    ("kelvin_view_advances_total", CHANGES, Grows(|_| 3.0)),
    ("kelvin_pokes_out_total", CHANGES, Grows(|_| 3.0)),
    ("kelvin_replica_watermark_lsn", CHANGES, Within(|w| (w.lsn, w.lsn()))),
    ("kelvin_replica_synced_watermark_lsn", CHANGES, Within(|w| (w.lsn, w.lsn()))),
    // The file may have pages beyond the last commit.
    ("kelvin_replica_wal_bytes", CHANGES, Within(|w| (0.9 * w.log_bytes(), w.log_bytes()))),
    ("kelvin_replica_wal_synced_bytes_total", CHANGES, Within(|w| (1.0, w.log_bytes()))),
    ("kelvin_commits_applied_total", "fifty transactions come at once", Grows(|_| 50.0)),
    ("kelvin_rows_applied_total", "fifty transactions come at once", Grows(|_| 50.0)),
    ("kelvin_commit_apply_seconds", "fifty transactions come at once", GrowsWithin(|_| (1.0, 50.0))),
    ("kelvin_view_evaluations_bulk_total", "a table is truncated", Grows(|_| 1.0)),
    ("kelvin_view_evaluations_candidates_total", ACTS[6].0, Grows(|_| 1.0)),
    ("kelvin_view_evaluations_condition_total", ACTS[7].0, Grows(|_| 1.0)),
    ("kelvin_view_evaluations_budget_total", ACTS[8].0, Grows(|_| 1.0)),
    ("kelvin_slow_socket_catch_ups_total", "a socket is slow", GrowsWithin(|_| (1.0, 400.0))),
    ("kelvin_push_requests_total", FAILS, Grows(|_| 3.0)),
    ("kelvin_push_failures_total", FAILS, Grows(|_| 2.0)),
    ("kelvin_push_seconds", FAILS, Grows(|_| 3.0)),
    ("kelvin_push_seconds_sum", FAILS, GrowsWithin(|_| (0.3, 30.0))),
    ("kelvin_transform_failures_total", FAILS, Grows(|_| 2.0)),
    ("kelvin_errors_sent_total{kind=\"TransformFailed\"}", FAILS, Grows(|_| 2.0)),
    ("kelvin_errors_sent_total{kind=\"PushFailed\"}", FAILS, Grows(|_| 2.0)),
    ("kelvin_connections_closed_total", FAILS, GrowsWithin(|_| (4.0, 5.0))),
    ("kelvin_upstream_reconnects_total", CUT, Grows(|_| 1.0)),
    ("kelvin_slot_lag_bytes", CUT, Within(|_| (8e6, 1e9))),
    ("kelvin_upstream_connected", "the server starts", Is(|_| 1.0)),
    ("kelvin_replication_lag_seconds", "the server starts", Within(|_| (1e-5, 10.0))),
    ("kelvin_replication_lag_bytes", "the server starts", Within(|_| (0.0, 1e6))),
    ("kelvin_upstream_connected", CLOSED, Is(|_| 0.0)),
    // Heartbeats are written over a connection that was there before.
    ("kelvin_replication_lag_seconds", CLOSED, Within(|_| (3.0, 60.0))),
    ("kelvin_replication_lag_bytes", CLOSED, Within(|_| (1.0, 1e9))),
    ("kelvin_upstream_silence_seconds", CLOSED, Within(|_| (3.0, 60.0))),
    ("kelvin_upstream_connected", OPEN_AGAIN, Is(|_| 1.0)),
    ("kelvin_upstream_reconnects_total", OPEN_AGAIN, Grows(|_| 1.0)),
    ("kelvin_replication_lag_seconds", OPEN_AGAIN, Within(|_| (1e-5, 60.0))),
    ("kelvin_upstream_silence_seconds", OPEN_AGAIN, Within(|_| (0.0, 3.0))),
    ("kelvin_initial_sync_rows", ANEW, Is(|_| 2_004.0)),
    ("kelvin_initial_sync_rows_expected", ANEW, Is(|_| 2_004.0)),
    ("kelvin_connections_open", ANEW, Is(|_| 0.0)),
    ("kelvin_clients", ANEW, Is(|_| 0.0)),
    ("kelvin_connections_accepted_total", ANEW, Grows(|_| 0.0)),
    ("kelvin_commits_applied_total", ANEW, GrowsWithin(|_| (0.0, 10.0))),
    // Cores of this stage are one; see `sockets_go_to_the_core_of_their_group`.
    ("kelvin_sockets_handed_over_total", ANEW, Is(|_| 0.0)),
    ("kelvin_sockets_received_total", ANEW, Is(|_| 0.0)),
    (
        "kelvin_overload_refusals_total",
        ANEW,
        Elsewhere("tests/server/metrics.rs", "those_without_room_are_counted"),
    ),
    (
        "kelvin_overload_groups_shed_total",
        ANEW,
        Elsewhere("tests/server/metrics.rs", "those_without_room_are_counted"),
    ),
    ("kelvin_queue_overflows_total", ANEW, Elsewhere("src/core/batch.rs", "a_gap_is_counted")),
    ("kelvin_executor_nudges_total", ANEW, Elsewhere("src/server/replication.rs", "nudges_are_counted")),
    (
        "kelvin_log_lines_dropped_total",
        ANEW,
        Elsewhere(
            "src/observe/log/sink.rs",
            "a_blocked_output_drops_lines_beyond_the_limit_and_says_how_many",
        ),
    ),
];

/// The longest of some times is no more than their sum, and no less than the mean.
fn longest(world: &World, times: &str) -> (f64, f64) {
    let page = world.page();
    let sum = page.value(&format!("{times}_sum"));
    // More may have come since the other look.
    (sum / page.value(times) / 2.0, sum)
}
