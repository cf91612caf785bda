//! The replica's own tables.
//!
//! `_zero.*` are those of `docs/spec/replication.md` §9 that other software reads; the
//! rest is in `_kelvin.*`. Each table has one row.

use rusqlite::{Connection, OptionalExtension, params};

use super::error::{Doing, Error};
use crate::model::catalogue::Catalogue;
use crate::model::version::StateVersion;

/// SQLite's `application_id`: "KLVN".
pub const APPLICATION_ID: i32 = 0x4b4c_564e;

/// SQLite's `user_version`: the layout of the tables below and of the stored values. A
/// file with another one is synced anew.
pub const LAYOUT_VERSION: i32 = 1;

/// What a replica is a replica of, and how far it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Metadata {
    /// Schema of the tables.
    pub catalogue: Catalogue,
    /// `system_identifier` of the upstream cluster.
    pub system_identifier: String,
    /// OID of the upstream database.
    pub database_oid: u32,
    /// Replication slot that continues this replica.
    pub slot: String,
    /// Publications, sorted.
    pub publications: Vec<String>,
    /// `{app}_{shard}`.
    pub shard: String,
    /// Position of the initial sync: identity of the lineage.
    pub replica_version: StateVersion,
    /// Last applied transaction.
    pub state_version: StateVersion,
    /// Position up to which upstream has nothing more for us; never below `state_version`.
    pub position: StateVersion,
    /// Why the file must not be continued, if so.
    pub resync: Option<String>,
}

const CREATE: &str = r#"
    CREATE TABLE "_zero.replicationConfig" (
        replicaVersion TEXT NOT NULL,
        publications TEXT NOT NULL,
        initialSyncContext TEXT DEFAULT '{}',
        lock INTEGER PRIMARY KEY DEFAULT 1 CHECK (lock = 1)
    );
    CREATE TABLE "_zero.replicationState" (
        stateVersion TEXT NOT NULL,
        writeTimeMs INTEGER NOT NULL,
        lock INTEGER PRIMARY KEY DEFAULT 1 CHECK (lock = 1)
    );
    CREATE TABLE "_kelvin.lineage" (
        catalogue TEXT NOT NULL,
        systemIdentifier TEXT NOT NULL,
        databaseOid INTEGER NOT NULL,
        slot TEXT NOT NULL,
        shard TEXT NOT NULL,
        resync TEXT,
        lock INTEGER PRIMARY KEY DEFAULT 1 CHECK (lock = 1)
    );
    CREATE TABLE "_kelvin.position" (
        seen TEXT NOT NULL,
        lock INTEGER PRIMARY KEY DEFAULT 1 CHECK (lock = 1)
    );
"#;

/// Sets the state after a transaction: version, milliseconds since 1970.
pub(super) const SET_STATE: &str =
    r#"UPDATE "_zero.replicationState" SET stateVersion = ?1, writeTimeMs = ?2"#;

/// Sets the position that upstream has been seen up to.
pub(super) const SET_SEEN: &str = r#"UPDATE "_kelvin.position" SET seen = ?1"#;

/// Creates the tables in a new file and fills them.
pub fn create(connection: &Connection, metadata: &Metadata) -> Result<(), Error> {
    let doing = "writing the replica's metadata";
    connection.execute_batch(CREATE).doing(doing)?;
    let publications = serde_json::to_string(&metadata.publications).unwrap_or_default();
    connection
        .execute(
            r#"INSERT INTO "_zero.replicationConfig" (replicaVersion, publications) VALUES (?1, ?2)"#,
            params![metadata.replica_version.to_lexi(), publications],
        )
        .doing(doing)?;
    connection
        .execute(
            r#"INSERT INTO "_zero.replicationState" (stateVersion, writeTimeMs) VALUES (?1, ?2)"#,
            params![metadata.state_version.to_lexi(), now_millis()],
        )
        .doing(doing)?;
    connection
        .execute(
            r#"INSERT INTO "_kelvin.lineage" (catalogue, systemIdentifier, databaseOid, slot, shard, resync)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6)"#,
            params![
                metadata.catalogue.to_json(),
                metadata.system_identifier,
                metadata.database_oid,
                metadata.slot,
                metadata.shard,
                metadata.resync
            ],
        )
        .doing(doing)?;
    upgrade(connection)?;
    connection
        .execute(r#"INSERT INTO "_kelvin.position" (seen) VALUES (?1)"#, [metadata.position.to_lexi()])
        .doing(doing)?;
    connection
        .execute_batch(&format!(
            "PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {LAYOUT_VERSION}"
        ))
        .doing(doing)
}

/// Milliseconds since 1970.
pub(super) fn now_millis() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    now.as_millis() as i64
}

/// Reads the metadata of a file whose application id is ours. `None`: it is not complete,
/// or of another layout, and of no use.
pub fn read(connection: &Connection) -> Result<Option<Metadata>, Error> {
    let doing = "reading the replica's metadata";
    let layout: i32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).doing(doing)?;
    if layout != LAYOUT_VERSION {
        return Ok(None);
    }
    let row = connection
        .query_row(
            r#"SELECT l.catalogue, l.systemIdentifier, l.databaseOid, l.slot, l.shard, l.resync,
                      c.replicaVersion, c.publications, s.stateVersion, p.seen
                 FROM "_kelvin.lineage" l, "_zero.replicationConfig" c, "_zero.replicationState" s,
                      "_kelvin.position" p"#,
            [],
            |row| {
                let text = |at: usize| row.get::<_, String>(at);
                Ok((
                    [text(0)?, text(1)?, text(3)?, text(4)?, text(6)?, text(7)?, text(8)?, text(9)?],
                    row.get::<_, u32>(2)?,
                    row.get::<_, Option<String>>(5)?,
                ))
            },
        )
        .optional()
        .doing(doing)?;
    let Some((texts, database_oid, resync)) = row else { return Ok(None) };
    let [catalogue, system_identifier, slot, shard, replica_version, publications, state_version, seen] =
        texts;
    let parsed = (
        Catalogue::from_json(&catalogue).ok(),
        serde_json::from_str(&publications).ok(),
        StateVersion::from_lexi(&replica_version),
        StateVersion::from_lexi(&state_version),
        StateVersion::from_lexi(&seen),
    );
    let (Some(catalogue), Some(publications), Some(replica_version), Some(state_version), Some(seen)) =
        parsed
    else {
        return Ok(None);
    };
    Ok(Some(Metadata {
        catalogue,
        system_identifier,
        database_oid,
        slot,
        publications,
        shard,
        replica_version,
        state_version,
        position: state_version.max(seen),
        resync,
    }))
}

/// Marks the file so that the next start syncs anew instead of continuing it.
pub fn mark_for_resync(connection: &Connection, reason: &str) -> Result<(), Error> {
    connection
        .execute(r#"UPDATE "_kelvin.lineage" SET resync = ?1"#, [reason])
        .doing("marking the replica for a resync")?;
    Ok(())
}

/// Notes that the tables are these now.
pub fn set_catalogue(connection: &Connection, catalogue: &Catalogue) -> Result<(), Error> {
    let doing = "writing the replica's catalogue";
    connection
        .execute(r#"UPDATE "_kelvin.lineage" SET catalogue = ?1"#, [catalogue.to_json()])
        .doing(doing)?;
    connection.execute(r#"UPDATE "_kelvin.schema" SET epoch = ?1"#, [catalogue.epoch as i64]).doing(doing)?;
    Ok(())
}

/// Reads the catalogue alone. `None`: there is none.
pub fn catalogue(connection: &Connection) -> rusqlite::Result<Option<Catalogue>> {
    let json: String =
        connection.query_row(r#"SELECT catalogue FROM "_kelvin.lineage""#, [], |row| row.get(0))?;
    Ok(Catalogue::from_json(&json).ok())
}

/// What files of before schema changes were followed do not have. The epoch of the catalogue has a row of its own, because
/// whoever begins a snapshot reads it, and the catalogue is long.
const CREATE_LATER: &str = r#"
    CREATE TABLE IF NOT EXISTS "_kelvin.schema" (
        epoch INTEGER NOT NULL,
        lock INTEGER PRIMARY KEY DEFAULT 1 CHECK (lock = 1)
    );
    CREATE TABLE IF NOT EXISTS "_kelvin.spool" (
        "table" INTEGER NOT NULL,
        seq INTEGER NOT NULL,
        version INTEGER NOT NULL,
        op BLOB NOT NULL,
        PRIMARY KEY ("table", seq)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS "_kelvin.refilled" (
        "table" INTEGER PRIMARY KEY,
        version TEXT NOT NULL,
        after INTEGER
    );
"#;

/// Gives a file of before what it lacks, within a transaction.
pub(super) fn upgrade(connection: &Connection) -> Result<(), Error> {
    let doing = "bringing the replica's metadata up to date";
    connection.execute_batch(CREATE_LATER).doing(doing)?;
    let has_epoch: i64 = connection
        .query_row(r#"SELECT count(*) FROM "_kelvin.schema""#, [], |row| row.get(0))
        .doing(doing)?;
    if has_epoch == 0
        && let Some(catalogue) = catalogue(connection).doing(doing)?
    {
        let insert = r#"INSERT INTO "_kelvin.schema" (epoch) VALUES (?1)"#;
        connection.execute(insert, [catalogue.epoch as i64]).doing(doing)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::catalogue::Table;
    use crate::model::ids::TableId;

    fn table(oid: u32, name: &str) -> Table {
        Table {
            id: TableId(0),
            name: name.to_owned(),
            schema: "public".to_owned(),
            upstream_name: name.to_owned(),
            oid,
            columns: Vec::new(),
            row_key: Vec::new(),
            candidate_keys: Vec::new(),
            indexes: Vec::new(),
            ..Table::default()
        }
    }

    /// A file with the metadata of a replica that has these tables.
    fn file(catalogue: Catalogue) -> (Connection, Metadata) {
        let metadata = Metadata {
            catalogue,
            system_identifier: "7".to_owned(),
            database_oid: 5,
            slot: "zero_0_a".to_owned(),
            publications: vec!["p".to_owned()],
            shard: "zero_0".to_owned(),
            replica_version: StateVersion(3),
            state_version: StateVersion(4),
            position: StateVersion(9),
            resync: None,
        };
        let connection = Connection::open_in_memory().unwrap();
        create(&connection, &metadata).unwrap();
        (connection, metadata)
    }

    #[test]
    fn ids_of_tables_and_of_those_that_are_gone_are_read_back() {
        let before = Catalogue::new(1, vec![table(10, "a"), table(20, "b"), table(30, "c")]);
        let (connection, metadata) = file(before.followed_by(1, vec![table(20, "b")], &|_, _| None).unwrap());
        let read = read(&connection).unwrap().unwrap();
        assert_eq!(read, metadata);
        let next = read.catalogue.followed_by(1, vec![table(20, "b"), table(40, "a")], &|_, _| None).unwrap();
        let next = next.with_filled(TableId(3));
        let ids = ["a", "b"].map(|name| next.table(name).unwrap().id);
        assert_eq!(ids, [TableId(3), TableId(1)]);
    }

    #[test]
    fn a_replica_that_was_written_before_ids_were_kept_is_read() {
        let (connection, metadata) = file(Catalogue::new(1, vec![table(20, "a"), table(10, "b")]));
        let old = r#"{"epoch":1,"tables":[
            {"id":0,"name":"a","schema":"public","upstream_name":"a","oid":20,"columns":[],"row_key":[],
             "candidate_keys":[],"indexes":[]},
            {"id":1,"name":"b","schema":"public","upstream_name":"b","oid":10,"columns":[],"row_key":[],
             "candidate_keys":[],"indexes":[]}]}"#;
        connection.execute(r#"UPDATE "_kelvin.lineage" SET catalogue = ?1"#, [old]).unwrap();
        assert_eq!(read(&connection).unwrap(), Some(metadata));
    }

    #[test]
    fn a_replica_that_was_written_before_schema_changes_were_followed_is_brought_up_to_date() {
        let (connection, _) = file(Catalogue::new(7, vec![table(20, "a")]));
        connection.execute_batch(r#"DROP TABLE "_kelvin.schema"; DROP TABLE "_kelvin.spool""#).unwrap();
        for _ in 0..2 {
            upgrade(&connection).unwrap();
            let epoch =
                connection.query_row(r#"SELECT epoch FROM "_kelvin.schema""#, [], |row| row.get::<_, i64>(0));
            assert_eq!(epoch.unwrap(), 7);
        }
        assert_eq!(connection.execute(r#"DELETE FROM "_kelvin.spool""#, []).unwrap(), 0);
    }
}
