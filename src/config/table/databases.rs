//! The databases: upstream, client view records, change log.

use super::super::option::{Opt, boolean, choice, number, text, whole};
use super::options;

const LOCAL_RECORDS: &str = "client view records live on this node's own disk and memory.";
const LOCAL_LOG: &str = "the change log lives on this node's own disk.";
const ONE_PROCESS: &str = "the reference passes it between its processes; Kelvin is one process.";

options! {
    UPSTREAM_DB = text("upstream.db").required().secret().doc(
        "Connection string of the Postgres that holds your data: postgres://user:password@host:5432/dbname. \
         It must be a direct connection (no pooler), Postgres 15 or newer with wal_level=logical. TLS: add \
         ?sslmode=disable, no-verify, prefer, require, verify-ca or verify-full, and for a private authority \
         &sslrootcert=/path/to/ca.pem (with it, require means verify-ca).");
    UPSTREAM_CONNECT_TIMEOUT_SECONDS = number("upstream.connect-timeout-seconds").default("30").doc(
        "How long to keep trying, at start only, to reach Postgres before giving up with exit status 14. 0 \
         tries once. A Postgres that goes away later is reconnected to for ever. Kelvin only: zero-cache has \
         no such option.");
    UPSTREAM_MAX_CONNS = whole("upstream.max-conns", 0, 1_000_000).default("20")
        .not_yet("CRUD mutations are not executed, so there is no pool.")
        .doc(
        "Largest number of connections to the upstream database for CRUD mutations, over all cores. The \
         replication stream takes one more. Fewer than cores is fine: cores then share.");
    UPSTREAM_PG_REPLICATION_SLOT_FAILOVER = boolean("upstream.pg-replication-slot-failover").default("false")
        .doc(
        "Create the replication slot with failover = true, so that it survives the promotion of a standby. \
         Postgres 17 or newer; ignored below, with a warning.");
    UPSTREAM_PG_STREAM_INBOUND_TIMEOUT_MS = whole("upstream.pg-stream-inbound-timeout-ms", 0, i64::MAX)
        .derived("twice the server's wal_sender_timeout")
        .doc(
        "Reconnect the replication stream when Postgres has been silent for this many milliseconds. No \
         effect when the server's wal_sender_timeout is 0.");
    UPSTREAM_TYPE = choice("upstream.type", &["pg", "custom"]).default("pg").hidden().doc(
        "Kind of upstream. Only pg is supported: custom change sources are refused at start.");
    UPSTREAM_MAX_CONNS_PER_WORKER = number("upstream.max-conns-per-worker").hidden().ignored(ONE_PROCESS).doc(
        "Connections of one worker process.");

    CVR_DB = text("cvr.db").derived("--upstream-db").secret().not_yet(LOCAL_RECORDS).doc(
        "Connection string of the Postgres that keeps client view records, so that several nodes share \
         them. May be behind a session pooler.");
    CVR_LOG = choice("cvr.log", &["written", "synced", "off"]).default("written").doc(
        "Kelvin's own. Client view records are kept in files beside the replica, so that clients are sent only \
         what changed when the server was restarted. written: what clients hear of survives a crash of the \
         process, and nearly always one of the machine. synced: it is on the disk before they hear of it. \
         off: clients start anew after a restart.");
    CVR_MAX_CONNS = whole("cvr.max-conns", 0, 1_000_000).default("30").not_yet(LOCAL_RECORDS).doc(
        "Largest number of connections to the CVR database, over all cores.");
    CVR_GARBAGE_COLLECTION_INACTIVITY_THRESHOLD_HOURS =
        number("cvr.garbage-collection-inactivity-threshold-hours").default("48").doc(
        "Hours without a connection after which a client group may be forgotten. Whoever comes back to it later \
         starts over, without the mutations that had not been sent.");
    CVR_GARBAGE_COLLECTION_INITIAL_INTERVAL_SECONDS =
        number("cvr.garbage-collection-initial-interval-seconds").default("60").doc(
        "Time between purges of such groups; doubles up to 16 minutes while there is nothing to purge. The \
         first comes so long after the start.");
    CVR_GARBAGE_COLLECTION_INITIAL_BATCH_SIZE =
        number("cvr.garbage-collection-initial-batch-size").default("25").doc(
        "Groups that each core forgets in one purge; grows while more are due. 0 turns purging off.");
    CVR_MAX_CONNS_PER_WORKER = number("cvr.max-conns-per-worker").hidden().ignored(ONE_PROCESS).doc(
        "Connections of one worker process.");

    CHANGE_DB = text("change.db").derived("--upstream-db").secret().not_yet(LOCAL_LOG).doc(
        "Connection string of the Postgres that keeps the change log, so that a node with a fresh disk can \
         catch up.");
    CHANGE_MAX_CONNS = whole("change.max-conns", 0, 1_000_000).default("5").not_yet(LOCAL_LOG).doc(
        "Largest number of connections to the change database.");
    CHANGE_STATEMENT_TIMEOUT_MS = number("change.statement-timeout-ms").default("20000").hidden()
        .not_yet(LOCAL_LOG)
        .doc("Give up on a change-log transaction when Postgres has not answered for this many milliseconds.");
    CHANGE_LOG_BATCH_SIZE = whole("change.log-batch-size", 1, i64::MAX).default("2000").hidden()
        .not_yet(LOCAL_LOG)
        .doc("Rows per multi-row INSERT into the change log.");
}
