//! The SQLite replica, initial sync and replication.

use super::super::option::{Opt, boolean, number, text, whole};
use super::options;

const CANARY: &str = "a canary of the reference's own copy code.";

options! {
    REPLICA_FILE = text("replica.file").default("zero.db").doc(
        "The SQLite file that holds the copy of the published tables. May be lost at any time: the next \
         start then copies the data again. A file at this place that is not Kelvin's is renamed aside. It \
         and the records beside it are made so that nobody but Kelvin's user can read them.");
    REPLICA_VACUUM_INTERVAL_HOURS = number("replica.vacuum-interval-hours").derived("never")
        .not_yet("the replica is not vacuumed.")
        .doc("Compact the replica at start when the last time was this long ago. Needs twice its size \
         on disk.");
    INITIAL_SYNC_TABLE_COPY_WORKERS = whole("initial-sync.table-copy-workers", 1, 1_000).default("5").doc(
        "Number of connections that copy tables in parallel during the initial sync.");
    INITIAL_SYNC_TEXT_COPY = boolean("initial-sync.text-copy").default("false").doc(
        "Copy in Postgres's text format instead of the binary one. Slower; a way out when a type is not \
         understood.");
    INITIAL_SYNC_PROFILE_COPY = boolean("initial-sync.profile-copy").hidden()
        .ignored("it profiles the reference's JavaScript engine.")
        .doc("Profile the copy.");
    AUTO_RESET = boolean("auto-reset").default("true").doc(
        "When replication cannot go on with the present replica, stop, and copy the data again at the next \
         start. With false replication halts and waits for you.");
    REPLICATION_LAG_REPORT_INTERVAL_MS = number("replication-lag-report-interval-ms").default("30000").doc(
        "How often a small message is written to the upstream log, which comes back by replication. It measures \
         the lag (`kelvin_replication_lag_seconds`), lets an idle slot advance, and shows when replication stands \
         still: `/keepalive` then answers 503. 0 or less turns all of that off.");
    SHADOW_SYNC_ENABLED = boolean("shadow-sync.enabled").default("false").ignored(CANARY).doc(
        "Regularly copy a sample of the data to a throw-away database.");
    SHADOW_SYNC_INTERVAL_HOURS = number("shadow-sync.interval-hours").default("12").ignored(CANARY).doc(
        "Time between such copies.");
    SHADOW_SYNC_SAMPLE_RATE = number("shadow-sync.sample-rate").default("0.1").ignored(CANARY).doc(
        "Share of the rows in such a copy.");
    SHADOW_SYNC_MAX_ROWS_PER_TABLE = number("shadow-sync.max-rows-per-table").default("10000")
        .ignored(CANARY)
        .doc("Largest number of rows of a table in such a copy.");
    SQLITE_CORRUPTION_CHECKS = boolean("sqlite-corruption-checks").default("false").hidden()
        .not_yet("there is no extended check.")
        .doc("Examine the whole replica when it seems damaged.");
}
