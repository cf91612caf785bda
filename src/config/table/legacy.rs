//! Names that older releases of the reference knew (`docs/spec/config-ops.md` §4). All are accepted,
//! except the shard id, which would silently choose the wrong schema.

use super::super::option::{Opt, boolean, list, number, text};
use super::options;

const GONE: &str = "no release since has used it.";
const TENANTS: &str = "one server serves one app; run one per tenant.";
const PULL: &str = "set ZERO_QUERY_* instead; the values mean the same.";
const SCHEMA: &str = "old permissions are not applied; deploy them to the database.";
const COLLECTOR: &str = "set OTEL_EXPORTER_OTLP_ENDPOINT instead.";

options! {
    SHARD_ID = text("shard.id").hidden().doc(
        "Gone since 0.17, and refused: set ZERO_APP_ID instead.");
    SHARD_PUBLICATIONS = list("shard.publications").deprecated("set ZERO_APP_PUBLICATIONS instead.").doc(
        "As --app-publications, when that is unset.");
    JWT_SECRET = text("jwt.secret").secret().deprecated("set ZERO_AUTH_SECRET instead.").doc(
        "As --auth-secret, when that is unset.");
    SCHEMA_JSON = text("schema.json").secret().hidden().missing(SCHEMA).doc(
        "Schema and permissions as JSON, of releases before 0.15.");
    SCHEMA_FILE = text("schema.file").hidden().missing(SCHEMA).doc(
        "File with the same.");
    PULL_URL = list("pull.url").deprecated(PULL)
        .doc("As --query-url, when neither that nor --get-queries-url is set.");
    PULL_API_KEY = text("pull.api-key").secret().deprecated(PULL)
        .doc("As --query-api-key, together with --pull-url.");
    PULL_FORWARD_COOKIES = boolean("pull.forward-cookies").deprecated(PULL).doc(
        "As --query-forward-cookies, together with --pull-url.");
    TENANTS_JSON = text("tenants.json").secret().hidden().missing(TENANTS).doc(
        "Several sets of options for one process; gone since 0.20.");
    TENANT_ID = text("tenant.id").hidden().ignored(TENANTS).doc("Name of a tenant.");
    LITESTREAM = boolean("litestream").hidden().ignored(GONE).doc("Whether to back up.");
    HEARTBEAT_MONITOR_PORT = number("heartbeat-monitor.port").hidden()
        .ignored("/keepalive is on the ordinary ports.")
        .doc("Port of the heartbeat monitor.");
    LOG_TRACE_COLLECTOR = text("log.trace-collector").hidden().not_yet(COLLECTOR)
        .doc("URL that traces go to.");
    LOG_METRIC_COLLECTOR = text("log.metric-collector").hidden().not_yet(COLLECTOR)
        .doc("URL that metrics go to.");
    LOG_LOG_COLLECTOR = text("log.log-collector").hidden().not_yet(COLLECTOR).doc("URL that logs go to.");
    INITIAL_SYNC_ROW_BATCH_SIZE = number("initial-sync.row-batch-size").hidden().ignored(GONE).doc(
        "Rows per read of the initial sync.");
    LITESTREAM_RESTORE_DURATION_MS_ESTIMATE = number("litestream.restore-duration-ms-estimate").hidden()
        .ignored(GONE).doc("How long a restore takes.");
    REPLICA_PAGE_CACHE_SIZE_KIB = number("replica.page-cache-size-kib").hidden()
        .ignored("the page cache is sized by Kelvin.")
        .doc("Page cache of the replica.");
    WARM_WEBSOCKET = number("warm-websocket").hidden().ignored(GONE).doc("Sockets opened in advance.");
}
