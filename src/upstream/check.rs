//! Whether upstream can be replicated at all (`docs/spec/replication.md` §1).
//!
//! Every failure says what to change, because the reader is somebody who is setting up.

use tokio_postgres::Client;

use super::error::{Doing, Error};

/// Oldest server whose publications can be read (`pg_publication_tables.attnames`).
const MIN_SERVER_VERSION: i32 = 150_000;

/// What the rest of the replication needs to know of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Server {
    /// `server_version_num`.
    pub version: i32,
    /// OID of the database that we are connected to.
    pub database_oid: u32,
}

/// Facts that decide; read by [`check`], judged by [`judge`].
#[derive(Debug, Clone, Default)]
struct Facts {
    version: i32,
    wal_level: String,
    in_recovery: bool,
    max_slots: i64,
    used_slots: i64,
    max_senders: i64,
    used_senders: i64,
    encoding: String,
}

/// Reads the settings and refuses what cannot work. `slots_needed`: replication slots
/// that are about to be created.
pub async fn check(client: &Client, slots_needed: i64) -> Result<Server, Error> {
    let doing = "checking the settings of the upstream database";
    let row = client
        .query_one(
            "SELECT current_setting('server_version_num')::int4,
                    current_setting('wal_level'),
                    pg_is_in_recovery(),
                    current_setting('max_replication_slots')::int8,
                    (SELECT count(*) FROM pg_replication_slots),
                    current_setting('max_wal_senders')::int8,
                    (SELECT count(*) FROM pg_stat_replication),
                    pg_encoding_to_char(d.encoding)::text,
                    d.oid
               FROM pg_database d WHERE d.datname = current_database()",
            &[],
        )
        .await
        .doing(doing)?;
    let facts = Facts {
        version: row.get(0),
        wal_level: row.get(1),
        in_recovery: row.get(2),
        max_slots: row.get(3),
        used_slots: row.get(4),
        max_senders: row.get(5),
        used_senders: row.get(6),
        encoding: row.get(7),
    };
    judge(&facts, slots_needed)?;
    Ok(Server { version: facts.version, database_oid: row.get(8) })
}

fn judge(facts: &Facts, slots_needed: i64) -> Result<(), Error> {
    let refuse = |text: String| Err(Error::Setup(text));
    if facts.version < MIN_SERVER_VERSION {
        return refuse(format!(
            "the upstream database is Postgres {}; version 15 or newer is needed. Upgrade it",
            facts.version / 10_000
        ));
    }
    if facts.in_recovery {
        return refuse(
            "the upstream database is a standby (in recovery). Set ZERO_UPSTREAM_DB to the primary".into(),
        );
    }
    if facts.wal_level != "logical" {
        return refuse(format!(
            "wal_level is '{}' on the upstream database; logical replication needs 'logical'. Run \
             ALTER SYSTEM SET wal_level = 'logical' (or change the provider's setting for logical \
             replication) and restart Postgres",
            facts.wal_level
        ));
    }
    if facts.encoding != "UTF8" {
        return refuse(format!(
            "the upstream database has the encoding {}; only UTF8 can be replicated. Create it anew with \
             ENCODING 'UTF8'",
            facts.encoding
        ));
    }
    if facts.max_slots - facts.used_slots < slots_needed {
        return refuse(format!(
            "no replication slot is free: {} of max_replication_slots = {} are used. Drop unused ones \
             (SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active) or \
             raise max_replication_slots and restart Postgres",
            facts.used_slots, facts.max_slots
        ));
    }
    // One for the stream; the initial sync's session ends before the stream begins.
    if facts.max_senders - facts.used_senders < 1 && slots_needed > 0 {
        return refuse(format!(
            "no WAL sender is free: {} of max_wal_senders = {} are used. Raise max_wal_senders and restart \
             Postgres",
            facts.used_senders, facts.max_senders
        ));
    }
    Ok(())
}

/// Turns a refused replication session into advice.
pub fn explain_walsender(error: kelvin_io::postgres::Error, user: &str) -> Error {
    match error.sqlstate() {
        Some("42501") => Error::Setup(format!(
            "role {user} may not replicate. Run ALTER ROLE \"{user}\" WITH REPLICATION (on RDS: GRANT \
             rds_replication TO \"{user}\")"
        )),
        Some("28000") => Error::Setup(format!(
            "the server refuses replication connections of role {user}: {error}. Allow the role in \
             pg_hba.conf, and connect to Postgres directly, not through a pooler"
        )),
        Some("08P01") => Error::Setup(format!(
            "the server does not know replication connections: {error}. ZERO_UPSTREAM_DB must be a direct \
             connection to Postgres, not a pooler"
        )),
        _ => Error::Postgres { doing: "opening a replication connection", source: error },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Facts {
        Facts {
            version: 150_018,
            wal_level: "logical".into(),
            in_recovery: false,
            max_slots: 10,
            used_slots: 9,
            max_senders: 10,
            used_senders: 0,
            encoding: "UTF8".into(),
        }
    }

    #[test]
    fn each_refusal_names_its_remedy() {
        assert!(judge(&good(), 1).is_ok());
        for (facts, remedy) in [
            (Facts { version: 140_010, ..good() }, "Upgrade"),
            (Facts { wal_level: "replica".into(), ..good() }, "ALTER SYSTEM SET wal_level"),
            (Facts { in_recovery: true, ..good() }, "primary"),
            (Facts { used_slots: 10, ..good() }, "max_replication_slots"),
            (Facts { used_senders: 10, ..good() }, "max_wal_senders"),
            (Facts { encoding: "LATIN1".into(), ..good() }, "UTF8"),
        ] {
            let text = judge(&facts, 1).unwrap_err().to_string();
            assert!(text.contains(remedy), "{text}");
        }
    }
}
