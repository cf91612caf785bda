//! Cores, queries, start-up.

use super::super::option::{Opt, boolean, number, text, whole};
use super::options;

options! {
    NUM_SYNC_WORKERS = whole("num-sync-workers", 0, 1_024).derived("cores - 1, at least 1").doc(
        "Number of cores that serve clients. 0 makes the process a replication manager: it serves no \
         clients, only other nodes.");
    MEMORY_BUDGET_MB = whole("memory-budget-mb", 64, 16_000_000).derived("3/4 of what the process can have").doc(
        "Kelvin's own. Memory that the server may use, in MiB. Near it, views that nobody is connected for are \
         given up, and clients that there is no room for are told to come back later. By default three \
         quarters of the machine's memory, or of what its control group or a limit of the process leaves.");
    YIELD_THRESHOLD_MS = number("yield-threshold-ms").default("10")
        .ignored("a core lets its other tasks run after half a millisecond, always.")
        .doc(
        "Longest time for which a core works on one client group's queries before it looks after the \
         others. At least 2.");
    LAZY_STARTUP = boolean("lazy-startup").default("false")
        .not_yet("replication begins at once; the port is open from the start in any case.")
        .doc(
        "Open the port at once, and begin replicating at the first client. Single node only.");
    ENABLE_QUERY_PLANNER = boolean("enable-query-planner").default("true")
        .doc(
        "Choose by cost from which side a query with an EXISTS is read: from its table, or from the rows of \
         the EXISTS. The answer is the same.");
    QUERY_HYDRATION_STATS = boolean("query-hydration-stats").default("false")
        .not_yet("rows are not counted per query.")
        .doc("Log the number of rows that slow queries looked at.");
    ENABLE_QUERY_COVERING = boolean("enable-query-covering").default("true")
        .ignored("it only logs statistics of the reference's engine.")
        .doc("Statistics of queries that cover each other.");
    STORAGE_DB_TMP_DIR = text("storage-db-tmp-dir").derived("the system's")
        .ignored("Kelvin's views do not spill to disk.")
        .doc("Directory for temporary files of query operators.");
    TARGET_CLIENT_ROW_COUNT = number("target-client-row-count").default("20000").hidden()
        .ignored("the reference does not use it either.")
        .doc("Number of rows that a client should hold.");
}
