//! Variables that are read or tolerated without being options (`docs/spec/config-ops.md` §5).

/// Names that start with `ZERO_`, are no options, and deserve no warning, with what they do here.
pub static KNOWN: &[(&str, &str)] = &[
    ("ZERO_PG_SOCKET_INACTIVITY_TIMEOUT", "accepted and ignored"),
    ("ZERO_IDLE_IN_TRANSACTION_SESSION_TIMEOUT", "accepted and ignored"),
    ("ZERO_TRANSACTION_POOL_KEEPALIVE_MS", "accepted and ignored"),
    ("ZERO_LOG_ALL_REPLICATION_REPORTS_AT_DEBUG", "accepted and ignored"),
    ("ZERO_ENABLE_STARTUP_MESSAGE", "accepted and ignored"),
    ("ZERO_IN_CONTAINER", "accepted and ignored"),
    ("ZERO_ON_CLOUD_ZERO", "accepted and ignored"),
    ("ZERO_IMAGE_URL", "accepted and ignored (a deployment template's own)"),
    ("ZERO_SCHEMA_PATH", "accepted and ignored (a tool's own)"),
];

/// Other names that Kelvin reads, with what they do.
pub static READ: &[(&str, &str)] = &[
    ("NODE_ENV", "`development` opens /statz and the inspector when no admin password is set"),
    ("LOG_LEVEL", "as ZERO_LOG_LEVEL, when that is unset; a bad value is ignored"),
    (
        "ECS_CONTAINER_METADATA_URI_V4",
        "on AWS ECS: a keepalive timeout of 20 s; the task id is not asked for there",
    ),
    (
        "PGCONNECT_TIMEOUT",
        "seconds for one attempt to connect to Postgres, 15 if it is not set; in the connection string: connect_timeout",
    ),
    (
        "PGSSLROOTCERT",
        "file (PEM) with the certificates that are trusted, when a connection string names none",
    ),
    ("PGHOST, PGPORT, PGUSER, PGPASSWORD, PGDATABASE", "what a connection string leaves out"),
];

/// Whether Kubernetes made this variable for a service whose name starts with `zero`.
pub fn is_service_link(name: &str) -> bool {
    let ports =
        || name.split("_PORT_").nth(1).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    name.contains("_SERVICE_HOST") || name.contains("_SERVICE_PORT") || ports()
}
