//! Backup of the replica. The names are those of litestream, which the reference runs.

use super::super::option::{Opt, boolean, choice, number, text};
use super::options;

const NO_BACKUP: &str = "the replica is not backed up; a lost one is copied again from Postgres.";
const NO_PROCESS: &str = "Kelvin runs no litestream process.";

options! {
    LITESTREAM_BACKUP_URL = text("litestream.backup-url").missing(NO_BACKUP).doc(
        "Where backups go: s3://bucket/prefix, or a path.");
    LITESTREAM_ENDPOINT = text("litestream.endpoint").not_yet(NO_BACKUP).doc(
        "URL of an S3-compatible service (R2, MinIO).");
    LITESTREAM_REGION = text("litestream.region").not_yet(NO_BACKUP).doc("Region of the bucket.");
    LITESTREAM_INCREMENTAL_BACKUP_INTERVAL_MINUTES =
        number("litestream.incremental-backup-interval-minutes").default("15").not_yet(NO_BACKUP).doc(
        "Time between uploads of what changed.");
    LITESTREAM_SNAPSHOT_BACKUP_INTERVAL_HOURS =
        number("litestream.snapshot-backup-interval-hours").default("12").not_yet(NO_BACKUP).doc(
        "Time between full uploads.");
    LITESTREAM_RESTORE_PARALLELISM = number("litestream.restore-parallelism").default("48").not_yet(NO_BACKUP)
        .doc("Parallel downloads of a restore.");
    LITESTREAM_MULTIPART_CONCURRENCY = number("litestream.multipart-concurrency").default("48")
        .not_yet(NO_BACKUP)
        .doc("Parallel parts of a full upload or download.");
    LITESTREAM_MULTIPART_SIZE = number("litestream.multipart-size").default("16777216").not_yet(NO_BACKUP)
        .doc("Size of such a part in bytes.");
    LITESTREAM_CHECKPOINT_THRESHOLD_MB = number("litestream.checkpoint-threshold-mb").default("40")
        .not_yet(NO_BACKUP)
        .doc("Size of the write-ahead log that starts a new segment, in megabytes.");
    LITESTREAM_MIN_CHECKPOINT_PAGE_COUNT = number("litestream.min-checkpoint-page-count")
        .derived("the threshold × 250").not_yet(NO_BACKUP)
        .doc("Pages before a passive checkpoint.");
    LITESTREAM_MAX_CHECKPOINT_PAGE_COUNT = number("litestream.max-checkpoint-page-count")
        .derived("the minimum × 10").not_yet(NO_BACKUP)
        .doc("Pages before a checkpoint that restarts the log.");
    LITESTREAM_INCREMENTAL_BACKUP_INTERVAL_SECONDS =
        number("litestream.incremental-backup-interval-seconds").default("15").hidden().not_yet(NO_BACKUP)
        .doc("As the interval in minutes, for the newer format.");
    LITESTREAM_LOG_LEVEL = choice("litestream.log-level", &["debug", "info", "warn", "error"]).default("warn")
        .not_yet(NO_BACKUP)
        .doc("Log level of the backup.");
    LITESTREAM_RESTORE_USING_V5 = boolean("litestream.restore-using-v5").default("true")
        .ignored(NO_PROCESS).doc("Restore with litestream 0.5.");
    LITESTREAM_BACKUP_USING_V5 = boolean("litestream.backup-using-v5").default("false")
        .ignored(NO_PROCESS).doc("Back up with litestream 0.5.");
    LITESTREAM_EXECUTABLE = text("litestream.executable").ignored(NO_PROCESS).doc(
        "Path of the litestream program.");
    LITESTREAM_EXECUTABLE_V5 = text("litestream.executable-v5").ignored(NO_PROCESS).doc(
        "Path of the litestream 0.5 program.");
    LITESTREAM_CONFIG_PATH = text("litestream.config-path").ignored(NO_PROCESS).doc(
        "Path of litestream's configuration.");
    LITESTREAM_CONFIG_PATH_V5 = text("litestream.config-path-v5").hidden().ignored(NO_PROCESS).doc(
        "Path of litestream 0.5's configuration.");
    LITESTREAM_VFS_QUERY_EXECUTABLE = text("litestream.vfs-query-executable").hidden().ignored(NO_PROCESS)
        .doc("Path of litestream's query program.");
    LITESTREAM_VFS_POLL_INTERVAL_MS = number("litestream.vfs-poll-interval-ms").default("15000").hidden()
        .ignored(NO_PROCESS).doc("How often that program is asked.");
    LITESTREAM_VFS_POLL_TIMEOUT_MS = number("litestream.vfs-poll-timeout-ms").default("10000").hidden()
        .ignored(NO_PROCESS).doc("How long it may take.");
    LITESTREAM_VFS_EXTENSION_PATH = text("litestream.vfs-extension-path").ignored(NO_PROCESS).doc(
        "Path of litestream's SQLite extension.");
    LITESTREAM_VFS_PROBE_INTERVAL_MS = number("litestream.vfs-probe-interval-ms").default("30000")
        .ignored(NO_PROCESS).doc("How often the extension is asked.");
    LITESTREAM_VFS_PROBE_TIMEOUT_MS = number("litestream.vfs-probe-timeout-ms").default("30000")
        .ignored(NO_PROCESS).doc("How long it may take.");
    LITESTREAM_VFS_LOG_FILE = text("litestream.vfs-log-file").ignored(NO_PROCESS).doc(
        "Log file of the extension.");
}
