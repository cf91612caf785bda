//! The change stream between nodes.

use super::super::option::{Opt, choice, list, number, text, whole};
use super::options;

const SINGLE: &str = "nodes do not follow each other yet; this one replicates from ZERO_UPSTREAM_DB itself.";
const LOG: &str = "the reference's experiment with its change log; Kelvin has its own.";
const PACING: &str = "there are no other nodes to pace.";
const ADVERTISE: &str = "set ZERO_CHANGE_STREAMER_URI on the other nodes instead.";

options! {
    CHANGE_STREAMER_URI = text("change-streamer.uri").missing(SINGLE).doc(
        "Address of the replication manager (http, https, ws or wss). Set it on nodes that serve clients \
         and do not replicate from Postgres themselves.");
    CHANGE_STREAMER_MODE = choice("change-streamer.mode", &["dedicated", "discover"]).default("dedicated")
        .missing(SINGLE)
        .doc("discover reads the address of the replication manager from the change database. Not used \
         together with --change-streamer-uri.");
    CHANGE_STREAMER_STARTUP_DELAY_MS = number("change-streamer.startup-delay-ms").default("15000")
        .not_yet("a node takes replication over at once.")
        .doc("How long a new replication manager waits before it takes over, so that load balancers find it.");
    CHANGE_STREAMER_ADDRESS = text("change-streamer.address").derived("this host's address and port")
        .deprecated(ADVERTISE).not_yet(SINGLE)
        .doc("Address that the replication manager advertises.");
    CHANGE_STREAMER_PROTOCOL = choice("change-streamer.protocol", &["ws", "wss"]).default("ws")
        .deprecated(ADVERTISE).not_yet(SINGLE)
        .doc("Scheme of the advertised address.");
    CHANGE_STREAMER_DISCOVERY_INTERFACE_PREFERENCES =
        list("change-streamer.discovery-interface-preferences").default("eth,en").hidden().not_yet(SINGLE)
        .doc("Prefixes of the network interfaces that are preferred for the advertised address.");
    CHANGE_STREAMER_BACK_PRESSURE_LIMIT_HEAP_PROPORTION =
        number("change-streamer.back-pressure-limit-heap-proportion").default("0.04")
        .ignored("there is no JavaScript heap; the queues have fixed limits.")
        .doc("Share of the free heap that queued changes may take.");
    CHANGE_STREAMER_FLOW_CONTROL_CONSENSUS_PADDING_SECONDS =
        number("change-streamer.flow-control-consensus-padding-seconds").default("1").not_yet(PACING).doc(
        "How long to wait for slow subscribers once most have acknowledged.");
    CHANGE_STREAMER_FLOW_CONTROL_CONSENSUS_TIMEOUT_PROPORTION =
        number("change-streamer.flow-control-consensus-timeout-proportion").default("2.0").hidden()
        .not_yet(PACING)
        .doc("The same wait, in proportion to the time that the majority took.");
    CHANGE_STREAMER_FLOW_CONTROL_SLOW_SUBSCRIBER_GRACE_PERIOD_SECONDS =
        number("change-streamer.flow-control-slow-subscriber-grace-period-seconds").default("30").hidden()
        .not_yet(PACING)
        .doc("Disconnect a subscriber that lags for this long. 0 or less turns it off.");
    CHANGE_STREAMER_SQLITE_CHANGE_LOG_MODE =
        choice("change-streamer.sqlite-change-log-mode", &["off", "write", "compare", "serve"]).default("off")
        .hidden().ignored(LOG).doc("Mode of the experiment.");
    CHANGE_STREAMER_SQLITE_CHANGE_LOG_READ_PERCENT =
        whole("change-streamer.sqlite-change-log-read-percent", 0, 100).default("0").hidden().ignored(LOG)
        .doc("Share of reads.");
    CHANGE_STREAMER_SQLITE_CHANGE_LOG_COLD_READ_PERCENT =
        whole("change-streamer.sqlite-change-log-cold-read-percent", 0, 100).default("0").hidden()
        .ignored(LOG)
        .doc("Share of cold reads.");
    CHANGE_STREAMER_SQLITE_CHANGE_LOG_COMPARE_PERCENT =
        whole("change-streamer.sqlite-change-log-compare-percent", 0, 100).default("1").hidden().ignored(LOG)
        .doc("Share of comparisons.");
    CHANGE_STREAMER_SQLITE_CHANGE_LOG_RETENTION_MS =
        whole("change-streamer.sqlite-change-log-retention-ms", 1, i64::MAX).default("60000").hidden()
        .ignored(LOG).doc("Retention.");
    CHANGE_STREAMER_SQLITE_CHANGE_LOG_READ_BATCH_ROWS =
        whole("change-streamer.sqlite-change-log-read-batch-rows", 1, i64::MAX).default("1000").hidden()
        .ignored(LOG).doc("Rows per read.");
    CHANGE_STREAMER_SQLITE_CHANGE_LOG_PURGE_BATCH_ROWS =
        whole("change-streamer.sqlite-change-log-purge-batch-rows", 1, i64::MAX).default("1000").hidden()
        .ignored(LOG).doc("Rows per purge.");
    CHANGE_STREAMER_SQLITE_CHANGE_LOG_BARRIER_TIMEOUT_MS =
        whole("change-streamer.sqlite-change-log-barrier-timeout-ms", 1, i64::MAX).default("300000").hidden()
        .ignored(LOG).doc("Timeout of its barrier.");
}
