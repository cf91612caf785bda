//! Replication slots and the rows of `replicas` that claim them
//! (`docs/spec/replication.md` §2, §8).

use std::time::Duration;

use kelvin_io::executor;
use kelvin_io::postgres::Walsender;
use tokio_postgres::Client;

use super::error::{Doing, Error};
use super::shard::Shard;
use crate::model::catalogue::quote;
use crate::model::version::StateVersion;

/// How long the server may take to build the snapshot of a new slot. It waits for every
/// transaction that is running then.
const CREATE_LIMIT: Duration = Duration::from_secs(30);

/// How often and how long to wait for a slot whose user was just told to go.
const RELEASE_TRIES: u32 = 40;
const RELEASE_PAUSE: Duration = Duration::from_millis(50);

/// A slot as the server describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotState {
    /// Backend that streams from it, if any.
    pub active_pid: Option<i32>,
    /// Everything below this was acknowledged; the server sends nothing below it again.
    pub confirmed: StateVersion,
    /// Why it cannot be used any more.
    pub lost: Option<String>,
    /// Bytes of WAL that the server keeps because of it.
    pub retained: i64,
    /// Where the server's log ends.
    pub current: StateVersion,
}

/// Reads a slot; `None` if there is none of this name in this database.
pub async fn state(client: &Client, name: &str) -> Result<Option<SlotState>, Error> {
    let row = client
        .query_opt(
            "SELECT active_pid, confirmed_flush_lsn::text, restart_lsn::text, wal_status,
                    coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)::int8,
                    pg_current_wal_lsn()::text, to_jsonb(s)->>'invalidation_reason'
               FROM pg_replication_slots s WHERE slot_name = $1 AND database = current_database()",
            &[&name],
        )
        .await
        .doing("reading the replication slot")?;
    let Some(row) = row else { return Ok(None) };
    let confirmed: Option<String> = row.get(1);
    let restart: Option<String> = row.get(2);
    let status: Option<String> = row.get(3);
    let lost = match (&restart, status.as_deref()) {
        (None, _) | (_, Some("lost")) => Some(format!(
            "replication slot {name} was invalidated by the server (wal_status {}); {}",
            status.as_deref().unwrap_or("unknown"),
            explain_invalidation(row.get(6))
        )),
        _ => None,
    };
    Ok(Some(SlotState {
        active_pid: row.get(0),
        confirmed: confirmed.as_deref().and_then(StateVersion::from_lsn).unwrap_or_default(),
        lost,
        retained: row.get(4),
        current: row.get::<_, Option<&str>>(5).and_then(StateVersion::from_lsn).unwrap_or_default(),
    }))
}

/// In words what a server says of a slot that it has invalidated; nothing before version 17.
fn explain_invalidation(reason: Option<&str>) -> String {
    match reason {
        None | Some("wal_removed") => "it fell further behind than max_slot_wal_keep_size allows".into(),
        Some("idle_timeout") => "nobody used it for as long as idle_replication_slot_timeout".into(),
        Some(other) => format!("the reason is {other}"),
    }
}

/// The n-th name: a..z, aa, ab … Providers let operators register the first ones for
/// failover, so the lowest free name is always used.
fn suffix(mut n: usize) -> String {
    let mut out = Vec::new();
    loop {
        out.push(b'a' + (n % 26) as u8);
        if n < 26 {
            break;
        }
        n = n / 26 - 1;
    }
    out.reverse();
    String::from_utf8(out).unwrap_or_default()
}

fn lowest_free(prefix: &str, taken: &[String]) -> String {
    let mut n = 0;
    loop {
        let name = format!("{prefix}{}", suffix(n));
        if !taken.contains(&name) {
            return name;
        }
        n += 1;
    }
}

/// Serialises slot management among processes of the shard; held by the session until
/// [`unlock`] or its end.
pub async fn lock(client: &Client, shard: &Shard) -> Result<(), Error> {
    client
        .execute("SELECT pg_advisory_lock(hashtext($1))", &[&lock_key(shard)])
        .await
        .doing("waiting for the lock of slot management")?;
    Ok(())
}

/// Gives the lock back.
pub async fn unlock(client: &Client, shard: &Shard) -> Result<(), Error> {
    client
        .execute("SELECT pg_advisory_unlock(hashtext($1))", &[&lock_key(shard)])
        .await
        .doing("releasing the lock of slot management")?;
    Ok(())
}

fn lock_key(shard: &Shard) -> String {
    format!("replication-slot-management:{}", shard.schema())
}

/// A slot named like those of the shard.
struct Named {
    name: String,
    active: bool,
    /// Of this database. Slot names are common to all databases of a cluster, and another
    /// one may hold the same app.
    here: bool,
}

/// Slots named like those of the shard: its prefix followed by letters only.
async fn named(client: &Client, shard: &Shard) -> Result<Vec<Named>, Error> {
    // A slot of app `zero_0` must not look like one of app `zero`, shard 0.
    let pattern = format!("^{}[a-z]+$", shard.slot_prefix());
    let rows = client
        .query(
            "SELECT slot_name::text, active, coalesce(database = current_database(), false)
               FROM pg_replication_slots WHERE slot_name ~ $1",
            &[&pattern],
        )
        .await
        .doing("listing the shard's replication slots")?;
    Ok(rows.iter().map(|row| Named { name: row.get(0), active: row.get(1), here: row.get(2) }).collect())
}

/// Drops the shard's slots that nobody uses and no row of `replicas` claims. Returns
/// names that were dropped, and whether some unclaimed slot is still in use.
pub async fn drop_unclaimed(client: &Client, shard: &Shard) -> Result<(Vec<String>, bool), Error> {
    let doing = "dropping unused replication slots";
    let claimed = format!("SELECT slot FROM {}.replicas", quote(&shard.schema()));
    let rows = client.query(&claimed, &[]).await.doing(doing)?;
    let claimed: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let mut dropped = Vec::new();
    let mut in_use = false;
    for Named { name, active, here } in named(client, shard).await? {
        if !here || claimed.contains(&name) {
            continue;
        }
        if active {
            in_use = true;
            continue;
        }
        client.execute("SELECT pg_drop_replication_slot($1)", &[&name]).await.doing(doing)?;
        dropped.push(name);
    }
    Ok((dropped, in_use))
}

/// Marks a slot as being filled by this session, until it ends.
pub async fn mark_alive(client: &Client, name: &str) -> Result<(), Error> {
    client
        .execute("SELECT pg_advisory_lock(hashtext($1))", &[&alive_key(name)])
        .await
        .doing("marking the replication slot as in use")?;
    Ok(())
}

fn alive_key(name: &str) -> String {
    format!("kelvin-initial-sync:{name}")
}

/// Removes the claims of initial syncs that ended without finishing: their slot is not in
/// use, and no session marks it as alive. Call with the lock held.
pub async fn release_dead(client: &Client, shard: &Shard) -> Result<(), Error> {
    let doing = "looking for abandoned initial syncs";
    let select = format!(
        "SELECT r.slot FROM {}.replicas r LEFT JOIN pg_replication_slots s ON s.slot_name = r.slot
          WHERE r.\"initialSyncContext\" IS NULL AND s.active IS NOT TRUE",
        quote(&shard.schema())
    );
    for row in client.query(&select, &[]).await.doing(doing)? {
        let name: String = row.get(0);
        let key = alive_key(&name);
        let lock = "SELECT pg_try_advisory_lock(hashtext($1))";
        let free: bool = client.query_one(lock, &[&key]).await.doing(doing)?.get(0);
        if free {
            super::replicas::release(client, shard, &name).await?;
            client.execute("SELECT pg_advisory_unlock(hashtext($1))", &[&key]).await.doing(doing)?;
        }
    }
    Ok(())
}

/// A new slot and the snapshot that it begins with.
#[derive(Debug, Clone)]
pub struct NewSlot {
    /// Its name.
    pub name: String,
    /// Position that the snapshot shows; changes after it come through the slot.
    pub version: StateVersion,
    /// Valid until the next command of the session that created it.
    pub snapshot: String,
}

/// Creates a permanent slot with the lowest free name. Call with the lock held.
pub async fn create(
    client: &Client,
    walsender: &mut Walsender,
    shard: &Shard,
    failover: bool,
) -> Result<NewSlot, Error> {
    let doing = "creating the replication slot";
    // Without it an abandoned attempt would wait on, and keep the name.
    walsender.query("SET lock_timeout = '29s'").await.doing(doing)?;
    let mut tries = 0;
    loop {
        let taken: Vec<String> = named(client, shard).await?.into_iter().map(|slot| slot.name).collect();
        let name = lowest_free(&shard.slot_prefix(), &taken);
        tries += 1;
        match create_named(walsender, &name, failover).await {
            // The lock is one of this database; another one may have taken the name.
            Err(e) if e.sqlstate() == Some(DUPLICATE) && tries < NAME_TRIES => {}
            created => return created,
        }
    }
}

/// Oldest server whose slots can go over to a standby.
const FAILOVER_SINCE: i32 = 170_000;

/// Whether a server of this version knows `failover`; older ones refuse the whole command.
pub fn can_fail_over(server: i32) -> bool {
    server >= FAILOVER_SINCE
}

/// SQLSTATE of a name that is taken.
const DUPLICATE: &str = "42710";

/// Names to try when others take them at the same time.
const NAME_TRIES: u32 = 10;

/// Creates a slot that goes with its session, beside the one of a replica.
pub async fn create_temporary(walsender: &mut Walsender, of: &str) -> Result<NewSlot, Error> {
    let doing = "creating a temporary replication slot";
    walsender.query("SET lock_timeout = '29s'").await.doing(doing)?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    create_with(
        walsender,
        &format!("{of}_bf_{}", now.as_millis()),
        "TEMPORARY LOGICAL",
        "(SNAPSHOT 'export')",
    )
    .await
}

async fn create_named(walsender: &mut Walsender, name: &str, failover: bool) -> Result<NewSlot, Error> {
    let options = if failover { "(SNAPSHOT 'export', FAILOVER)" } else { "(SNAPSHOT 'export')" };
    create_with(walsender, name, "LOGICAL", options).await
}

async fn create_with(
    walsender: &mut Walsender,
    name: &str,
    kind: &str,
    options: &str,
) -> Result<NewSlot, Error> {
    let doing = "creating the replication slot";
    let command = format!("CREATE_REPLICATION_SLOT {} {kind} pgoutput {options}", quote(name));
    let rows = executor::timeout(CREATE_LIMIT, walsender.query(&command)).await.unwrap_or_else(|| {
        Err(kelvin_io::postgres::Error::Server(Box::new(kelvin_io::postgres::ServerError {
            code: "55P03".into(),
            message: format!("the slot was not ready within {CREATE_LIMIT:?}"),
            hint: "a transaction that is open for long holds it up; see pg_stat_activity".into(),
            ..Default::default()
        })))
    });
    let rows = rows.doing(doing)?;
    let field = |at: usize| rows.first().and_then(|row| row.get(at).cloned().flatten());
    match (field(1).as_deref().and_then(StateVersion::from_lsn), field(2)) {
        (Some(version), Some(snapshot)) => Ok(NewSlot { name: name.to_owned(), version, snapshot }),
        _ => Err(Error::Postgres {
            doing,
            source: kelvin_io::postgres::Error::Protocol("no position or snapshot for the new slot".into()),
        }),
    }
}

/// Drops a slot that an initial sync could not use. Best effort.
pub async fn drop_slot(client: &Client, name: &str) -> Result<(), Error> {
    client
        .execute("SELECT pg_drop_replication_slot($1)", &[&name])
        .await
        .doing("dropping a replication slot")?;
    Ok(())
}

/// Ends whoever streams from the slot, and waits until it is free. That is our own last
/// connection after a crash, or another process that we replace.
pub async fn take_over(client: &Client, name: &str) -> Result<(), Error> {
    for _ in 0..RELEASE_TRIES {
        match state(client, name).await? {
            Some(SlotState { active_pid: Some(pid), .. }) => {
                client
                    .execute("SELECT pg_terminate_backend($1)", &[&pid])
                    .await
                    .doing("ending the previous user of the replication slot")?;
                executor::sleep(RELEASE_PAUSE).await;
            }
            _ => return Ok(()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_used_lowest_first() {
        assert_eq!(suffix(0), "a");
        assert_eq!(suffix(25), "z");
        assert_eq!(suffix(26), "aa");
        assert_eq!(suffix(27), "ab");
        assert_eq!(suffix(701), "zz");
        assert_eq!(suffix(702), "aaa");
        let taken = ["zero_0_a".to_owned(), "zero_0_c".to_owned()];
        assert_eq!(lowest_free("zero_0_", &taken), "zero_0_b");
    }
}
