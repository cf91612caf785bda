//! Event triggers upstream: whoever changes a table makes Postgres say so in the stream (`docs/spec/schema-changes.md` S16).
//!
//! Two of them are zero-cache's, with its messages, for a zero-cache that goes on with its own replica later. Two are
//! Kelvin's: they say that it is time for a look, of more kinds of changes and with nothing to compute.

mod functions;

use std::collections::HashMap;

use tokio_postgres::Client;

use self::functions::{Function, SEARCH_PATH};
use super::error::{Doing, Error};
use super::shard::{self, Shard};
use crate::model::catalogue::quote;

/// Version of zero-cache's upstream schema that has these triggers.
const VERSION_WITH_TRIGGERS: i32 = 23;

/// What zero-cache watches.
const ANNOUNCED: [&str; 7] = [
    "CREATE TABLE",
    "ALTER TABLE",
    "CREATE INDEX",
    "DROP TABLE",
    "DROP INDEX",
    "ALTER PUBLICATION",
    "ALTER SCHEMA",
];

/// What else can change what is published, or how it is to be read. What goes is seen by `sql_drop`, whatever took it along.
const LOOKED_AT: [&str; 14] = [
    "CREATE TABLE",
    "CREATE TABLE AS",
    "SELECT INTO",
    "CREATE SCHEMA",
    "CREATE INDEX",
    "CREATE PUBLICATION",
    "CREATE EXTENSION",
    "ALTER TABLE",
    "ALTER INDEX",
    "ALTER TYPE",
    "ALTER DOMAIN",
    "ALTER SCHEMA",
    "ALTER PUBLICATION",
    "ALTER EXTENSION",
];

/// Whether changes of the schema are announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Announced {
    /// By Kelvin's triggers.
    Yes,
    /// Not all of them, for this reason.
    No(String),
}

struct Trigger {
    name: String,
    event: &'static str,
    /// Empty: all.
    tags: Vec<&'static str>,
    function: &'static str,
}

impl Trigger {
    fn create(&self, schema: &str) -> String {
        let (name, event, function) = (quote(&self.name), self.event, self.function);
        let tags: Vec<String> = self.tags.iter().map(|tag| format!("'{tag}'")).collect();
        let when = if tags.is_empty() { String::new() } else { format!("WHEN TAG IN ({})", tags.join(", ")) };
        format!(
            "DROP EVENT TRIGGER IF EXISTS {name};
             CREATE EVENT TRIGGER {name} ON {event} {when} EXECUTE FUNCTION {schema}.{function}();\n"
        )
    }
}

fn triggers(shard: &Shard) -> Vec<Trigger> {
    let trigger = |what: &str, event, tags, function| Trigger {
        name: shard.event_trigger(what),
        event,
        tags,
        function,
    };
    let commented = ANNOUNCED.into_iter().chain(["COMMENT"]).collect();
    vec![
        trigger("ddl_start", "ddl_command_start", ANNOUNCED.to_vec(), "emit_ddl_start"),
        trigger("ddl_end", "ddl_command_end", commented, "emit_ddl_end"),
        trigger("kelvin_ddl", "ddl_command_end", LOOKED_AT.to_vec(), "kelvin_ddl"),
        trigger("kelvin_drop", "sql_drop", vec![], "kelvin_ddl"),
    ]
}

/// Whether Kelvin's own triggers are there and enabled.
///
/// # Errors
/// If Postgres does not answer.
pub async fn are_in_place(client: &Client, shard: &Shard) -> Result<bool, Error> {
    let own: Vec<String> = ["kelvin_ddl", "kelvin_drop"].map(|what| shard.event_trigger(what)).to_vec();
    let row = client
        .query_one(
            "SELECT count(*) FROM pg_event_trigger WHERE evtname = ANY($1::text[]::name[]) AND evtenabled IN ('O', 'A')",
            &[&own],
        )
        .await
        .doing("looking for the event triggers")?;
    Ok(row.get::<_, i64>(0) == 2)
}

/// Makes what is missing or different. What this role may not make is left as it is.
///
/// # Errors
/// If Postgres does not answer.
pub async fn install(client: &mut Client, shard: &Shard) -> Result<Announced, Error> {
    let doing = "installing the event triggers";
    let transaction = client.transaction().await.doing(doing)?;
    shard::lock_setup(transaction.client(), shard).await?;
    let wanted = functions::all(shard);
    let functions = match are_functions_right(transaction.client(), shard, &wanted).await? {
        true => Ok(()),
        false => attempt(transaction.client(), &functions::create_all(shard, &wanted)).await?,
    };
    let triggers = install_triggers(transaction.client(), shard).await?;
    transaction.commit().await.doing(doing)?;
    Ok(match functions.and(triggers) {
        Ok(()) => Announced::Yes,
        Err(why) => Announced::No(why),
    })
}

async fn are_functions_right(client: &Client, shard: &Shard, wanted: &[Function]) -> Result<bool, Error> {
    let rows = client
        .query(
            "SELECT p.proname::text, pg_get_function_identity_arguments(p.oid), p.prosrc,
                    p.prosecdef AND p.proconfig = ARRAY[$2::text]
               FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
              WHERE n.nspname = $1",
            &[&shard.schema(), &SEARCH_PATH],
        )
        .await
        .doing("looking for the functions of the event triggers")?;
    let found: HashMap<(String, String), String> = rows
        .iter()
        .filter(|row| row.get::<_, Option<bool>>(3) == Some(true))
        .map(|row| ((row.get(0), row.get(1)), row.get(2)))
        .collect();
    let is_right = |f: &Function| {
        found.get(&(f.name.to_owned(), f.arguments.to_owned())).is_some_and(|body| *body == f.body)
    };
    Ok(wanted.iter().all(is_right))
}

async fn install_triggers(client: &Client, shard: &Shard) -> Result<Result<(), String>, Error> {
    let schema = quote(&shard.schema());
    let wanted = triggers(shard);
    let rows = client
        .query(
            "SELECT w.name, e.evtenabled::text, e.evtevent::text = w.event AND e.evtfoid = f.oid
                    AND coalesce(e.evttags, '{}') @> string_to_array(w.tags, '|')
                    AND coalesce(e.evttags, '{}') <@ string_to_array(w.tags, '|')
               FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) w (name, event, function, tags)
               JOIN pg_event_trigger e ON e.evtname = w.name::name
               LEFT JOIN pg_proc f ON f.proname = w.function::name AND f.pronargs = 0
                AND f.pronamespace = (SELECT oid FROM pg_namespace WHERE nspname = $5)",
            &[
                &wanted.iter().map(|trigger| trigger.name.clone()).collect::<Vec<_>>(),
                &wanted.iter().map(|trigger| trigger.event).collect::<Vec<_>>(),
                &wanted.iter().map(|trigger| trigger.function).collect::<Vec<_>>(),
                &wanted.iter().map(|trigger| trigger.tags.join("|")).collect::<Vec<_>>(),
                &shard.schema(),
            ],
        )
        .await
        .doing("looking for the event triggers")?;
    // Somebody has decided that.
    if let Some(disabled) = rows.iter().find(|row| row.get::<_, &str>(1) == "D") {
        return Ok(Err(format!("event trigger {} is disabled", disabled.get::<_, &str>(0))));
    }
    let is_right = |trigger: &&Trigger| {
        rows.iter()
            .any(|row| row.get::<_, &str>(0) == trigger.name && row.get::<_, Option<bool>>(2) == Some(true))
    };
    let mut sql: String =
        wanted.iter().filter(|t| !is_right(t)).map(|trigger| trigger.create(&schema)).collect();
    // A zero-cache of this version has nothing to make anew then. One of before would refuse to start without them.
    sql.push_str(&format!(
        r#"UPDATE {schema}."shardConfig" SET "ddlDetection" = true WHERE NOT "ddlDetection";
           UPDATE {schema}."versionHistory"
              SET "dataVersion" = {VERSION_WITH_TRIGGERS}, "schemaVersion" = {VERSION_WITH_TRIGGERS}
            WHERE "dataVersion" = {before} AND "schemaVersion" = {before};"#,
        before = VERSION_WITH_TRIGGERS - 1,
    ));
    attempt(client, &sql).await
}

/// Runs statements so that the transaction can go on if they fail.
async fn attempt(client: &Client, sql: &str) -> Result<Result<(), String>, Error> {
    let doing = "installing the event triggers";
    client.batch_execute("SAVEPOINT kelvin_triggers").await.doing(doing)?;
    let done = client.batch_execute(sql).await.map_err(kelvin_io::postgres::Error::from);
    match done {
        Ok(()) => {
            client.batch_execute("RELEASE SAVEPOINT kelvin_triggers").await.doing(doing)?;
            Ok(Ok(()))
        }
        Err(error) if error.sqlstate().is_some() => {
            client.batch_execute("ROLLBACK TO SAVEPOINT kelvin_triggers").await.doing(doing)?;
            Ok(Err(error.to_string()))
        }
        Err(source) => Err(Error::Postgres { doing, source }),
    }
}
