//! The table `replicas`: who claims which slot (`docs/spec/replication.md` §3.2).

use tokio_postgres::Client;

use super::error::{Doing, Error};
use super::shard::Shard;
use crate::model::catalogue::quote;
use crate::model::version::StateVersion;

/// Claims a slot for a replica that is about to be synced.
///
/// Only columns that exist are written: the table may be one of an older zero-cache,
/// without `id`, or of a newer one with more.
pub async fn claim(
    client: &Client,
    shard: &Shard,
    id: &str,
    slot: &str,
    version: StateVersion,
) -> Result<(), Error> {
    let doing = "claiming the replication slot";
    let rows = client
        .query(
            "SELECT a.attname::text FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
               JOIN pg_namespace n ON n.oid = c.relnamespace
              WHERE n.nspname = $1 AND c.relname = 'replicas' AND a.attnum > 0 AND NOT a.attisdropped",
            &[&shard.schema()],
        )
        .await
        .doing(doing)?;
    let exists = |name: &str| rows.iter().any(|row| row.get::<_, &str>(0) == name);
    let version = version.to_lexi();
    let values = [
        ("id", id),
        ("slot", slot),
        ("version", &version),
        ("generation", &version),
        ("initialSchema", r#"{"tables":[],"indexes":[]}"#),
    ];
    let present: Vec<_> = values.into_iter().filter(|(name, _)| exists(name)).collect();
    let columns: Vec<String> = present.iter().map(|(name, _)| quote(name)).collect();
    // The values are made here and hold no quotes.
    let literals: Vec<String> = present.iter().map(|(_, value)| format!("'{value}'")).collect();
    // The slot was just created: a claim on this name is one on a slot that was dropped.
    let schema = quote(&shard.schema());
    let insert = format!(
        "BEGIN; DELETE FROM {schema}.replicas WHERE slot = '{slot}';
         INSERT INTO {schema}.replicas ({}) VALUES ({}); COMMIT",
        columns.join(", "),
        literals.join(", ")
    );
    client.batch_execute(&insert).await.doing(doing)
}

/// Marks the replica on this slot as synced and this process as the one that streams.
pub async fn occupy(client: &Client, shard: &Shard, slot: &str, instance: &str) -> Result<bool, Error> {
    let update = format!(
        "UPDATE {}.replicas SET \"initialSyncContext\" = coalesce(\"initialSyncContext\", $2),
                \"subscriberContext\" = $2 WHERE slot = $1",
        quote(&shard.schema())
    );
    let context = serde_json::json!({ "appID": shard.app_schema(), "taskID": instance, "server": "kelvin" });
    let rows = client.execute(&update, &[&slot, &context]).await.doing("claiming the replication slot")?;
    Ok(rows > 0)
}

/// Who streams from the slot, as [`occupy`] wrote it. `None`: nobody claims it.
pub async fn occupant(client: &Client, shard: &Shard, slot: &str) -> Result<Option<String>, Error> {
    let select = format!(
        "SELECT \"subscriberContext\"->>'taskID' FROM {}.replicas WHERE slot = $1
          ORDER BY rank DESC LIMIT 1",
        quote(&shard.schema())
    );
    let row = client.query_opt(&select, &[&slot]).await.doing("reading who owns the replication slot")?;
    Ok(row.and_then(|row| row.get(0)))
}

/// Removes the claims of replicas that this one replaces: those of a lower rank.
pub async fn remove_older(client: &Client, shard: &Shard, slot: &str) -> Result<(), Error> {
    let schema = quote(&shard.schema());
    let delete = format!(
        "DELETE FROM {schema}.replicas WHERE slot <> $1 AND rank < (SELECT max(rank) FROM {schema}.replicas
          WHERE slot = $1)"
    );
    client.execute(&delete, &[&slot]).await.doing("removing claims of older replicas")?;
    Ok(())
}

/// Removes one claim.
pub async fn release(client: &Client, shard: &Shard, slot: &str) -> Result<(), Error> {
    let delete = format!("DELETE FROM {}.replicas WHERE slot = $1", quote(&shard.schema()));
    client.execute(&delete, &[&slot]).await.doing("removing the claim of a replica")?;
    Ok(())
}
