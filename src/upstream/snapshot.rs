//! Sessions that see an exported snapshot, and tables that are copied in them.

use kelvin_io::postgres::{Connection, connect};

use super::error::{Doing, Error};
use super::settings::Settings;
use crate::model::catalogue::{Table, quote};

/// A session that sees what the slot's snapshot shows.
pub async fn session(settings: &Settings, snapshot: &str, name: &str) -> Result<Connection, Error> {
    let doing = "importing the snapshot of the replication slot";
    let connection = connect(&settings.target, name).await.doing(doing)?;
    begin(&connection, snapshot).await?;
    Ok(connection)
}

/// Begins a transaction that sees the snapshot. Each table that is copied has one of its own: no lock is kept
/// on a table that is copied already, which a migration would wait for.
pub async fn begin(session: &Connection, snapshot: &str) -> Result<(), Error> {
    // The server made the name: hexadecimal digits and dashes.
    let begin = format!(
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT '{}'",
        snapshot.replace('\'', "")
    );
    session.client.batch_execute(&begin).await.doing("importing the snapshot of the replication slot")
}

/// Takes the lock that a copy takes, and sees whether the snapshot's rows are still there: a table that was rewritten
/// or truncated since looks empty to older snapshots.
pub async fn lock(session: &Connection, table: &Table) -> Result<(), Error> {
    let doing = "copying a table";
    let name = format!("{}.{}", quote(&table.schema), quote(&table.upstream_name));
    let lock = format!("LOCK TABLE {name} IN ACCESS SHARE MODE");
    session.client.batch_execute(&lock).await.doing(doing)?;
    let same_files = "SELECT coalesce(bool_and(c.relfilenode = pg_relation_filenode(c.oid)), true) FROM pg_class c
                       WHERE c.relkind = 'r' AND (c.oid = $1 OR c.oid IN (SELECT relid FROM pg_partition_tree($1)))";
    let row = session.client.query_one(same_files, &[&table.oid]).await.doing(doing)?;
    if row.get(0) { Ok(()) } else { Err(Error::Rewritten(table.name.clone())) }
}

/// What to do when row security would hide rows from the copy.
pub fn explain_policy(error: Error, table: &str) -> Error {
    if error.sqlstate() != Some("42501") || !error.to_string().contains("row-level security") {
        return error;
    }
    Error::Setup(format!(
        "table {table} has row security, which would hide rows from the copy, while all changes are streamed. Give the role \
         of ZERO_UPSTREAM_DB the attribute BYPASSRLS (ALTER ROLE … BYPASSRLS), or leave the table out of the publication"
    ))
}
