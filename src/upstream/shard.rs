//! The objects that Kelvin keeps in the upstream database (`docs/spec/replication.md` §3).
//!
//! They are those of zero-cache in the form of its schema version 22, so that an app
//! server, a permissions deployment and a zero-cache of any later version find what they
//! expect. Everything is created only if missing; `clients` and `mutations` are never
//! dropped, because they hold the users' mutation ids (ruling 30).

use tokio_postgres::Client;

use super::error::{Doing, Error};
use crate::model::catalogue::quote;

/// Version of zero-cache's upstream schema whose tables [`setup`] creates; a zero-cache
/// that takes over migrates from there.
const SCHEMA_VERSION: i32 = 22;

/// Longest identifier of Postgres in bytes.
const MAX_IDENTIFIER: usize = 63;

/// Names of one app and shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    app_id: String,
    number: u32,
    requested: Vec<String>,
}

impl Shard {
    /// Checks the names. `publications`: those of the user, or none for the default one.
    pub fn new(app_id: &str, number: u32, publications: &[String]) -> Result<Shard, Error> {
        let app_ok = !app_id.is_empty()
            && app_id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if !app_ok {
            return Err(Error::Setup(format!(
                "the app ID {app_id:?} may hold only lower-case letters, digits and underscores \
                 (ZERO_APP_ID)"
            )));
        }
        for name in publications {
            check_publication(name)?;
        }
        let mut requested = publications.to_vec();
        requested.sort();
        requested.dedup();
        Ok(Shard { app_id: app_id.to_owned(), number, requested })
    }

    /// Schema of `permissions`.
    pub fn app_schema(&self) -> &str {
        &self.app_id
    }

    /// Schema of `clients`, `mutations` and the rest.
    pub fn schema(&self) -> String {
        format!("{}_{}", self.app_id, self.number)
    }

    /// What slot names begin with.
    pub fn slot_prefix(&self) -> String {
        format!("{}_{}_", self.app_id, self.number)
    }

    /// What logical messages of the shard's event triggers begin with.
    pub fn message_prefix(&self) -> String {
        format!("{}/{}", self.app_id, self.number)
    }

    /// Name of an event trigger of the shard.
    pub fn event_trigger(&self, what: &str) -> String {
        format!("{}_{what}_{}", self.app_id, self.number)
    }

    /// Every publication that is subscribed to, sorted.
    pub fn publications(&self) -> Vec<String> {
        let mut all = self.requested.clone();
        if all.is_empty() {
            all.push(self.default_publication());
        }
        all.push(self.metadata_publication());
        all.sort();
        all
    }

    fn default_publication(&self) -> String {
        format!("_{}_public_{}", self.app_id, self.number)
    }

    fn metadata_publication(&self) -> String {
        format!("_{}_metadata_{}", self.app_id, self.number)
    }

    fn sequence(&self) -> String {
        format!("{}.{}", quote(&self.schema()), quote("kelvinEpoch"))
    }
}

fn check_publication(name: &str) -> Result<(), Error> {
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_alphabetic());
    let rest = bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if first && rest && name.len() <= MAX_IDENTIFIER {
        return Ok(());
    }
    Err(Error::Setup(format!(
        "{name:?} cannot be used as a publication (ZERO_APP_PUBLICATIONS): names begin with a letter, hold \
         letters, digits and underscores, and have at most {MAX_IDENTIFIER} characters"
    )))
}

/// Creates whatever is missing, in one transaction.
pub async fn setup(client: &mut Client, shard: &Shard) -> Result<(), Error> {
    let doing = "setting up Kelvin's schemas in the upstream database";
    let transaction = client.transaction().await.doing(doing)?;
    let inner = transaction.client();
    lock_setup(inner, shard).await?;
    check_requested(inner, shard).await?;
    let created = async {
        inner.batch_execute(&app_objects(shard)).await?;
        inner.batch_execute(&shard_objects(shard)).await
    };
    created.await.map_err(|e| explain_setup(e.into(), shard))?;
    default_publication(inner, shard).await?;
    metadata_publication(inner, shard).await?;
    let update = format!(
        "UPDATE {}.\"shardConfig\" SET publications = $1 WHERE publications IS DISTINCT FROM $1",
        quote(&shard.schema())
    );
    inner.execute(&update, &[&shard.publications()]).await.doing(doing)?;
    transaction.commit().await.doing(doing)
}

/// Waits until no other process sets the shard up, to the end of the transaction: zero-cache takes the same lock.
pub async fn lock_setup(client: &Client, shard: &Shard) -> Result<(), Error> {
    let lock = format!("migrate-schema:{}", shard.schema());
    let locked = client.execute("SELECT pg_advisory_xact_lock(hashtext($1))", &[&lock]).await;
    locked.map(|_| ()).doing("waiting for another process that sets up the upstream database")
}

fn explain_setup(error: kelvin_io::postgres::Error, shard: &Shard) -> Error {
    if error.sqlstate() == Some("42501") {
        return Error::Setup(format!(
            "the upstream role may not create the schemas \"{}\" and \"{}\": {error}. Grant it CREATE on the \
             database (GRANT CREATE ON DATABASE … TO …)",
            shard.app_schema(),
            shard.schema()
        ));
    }
    Error::Postgres { doing: "setting up Kelvin's schemas in the upstream database", source: error }
}

async fn check_requested(client: &Client, shard: &Shard) -> Result<(), Error> {
    let rows = client
        .query("SELECT pubname::text FROM pg_publication ORDER BY 1", &[])
        .await
        .doing("reading the publications")?;
    let found: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let missing: Vec<&String> = shard.requested.iter().filter(|name| !found.contains(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::Setup(format!(
        "unknown publications {missing:?} (ZERO_APP_PUBLICATIONS); the database has {found:?}. Create them \
         with CREATE PUBLICATION"
    )))
}

fn app_objects(shard: &Shard) -> String {
    let app = quote(shard.app_schema());
    format!(
        r#"
        CREATE SCHEMA IF NOT EXISTS {app};
        CREATE TABLE IF NOT EXISTS {app}.permissions (
            "permissions" JSONB,
            "hash" TEXT,
            "lock" BOOL PRIMARY KEY DEFAULT true CHECK (lock)
        );
        CREATE OR REPLACE FUNCTION {app}.set_permissions_hash() RETURNS TRIGGER AS $$
        BEGIN
            NEW.hash = md5(NEW.permissions::text);
            RETURN NEW;
        END;
        $$ LANGUAGE plpgsql;
        CREATE OR REPLACE TRIGGER on_set_permissions BEFORE INSERT OR UPDATE ON {app}.permissions
            FOR EACH ROW EXECUTE FUNCTION {app}.set_permissions_hash();
        INSERT INTO {app}.permissions (permissions) VALUES (NULL) ON CONFLICT DO NOTHING;
        "#
    )
}

fn shard_objects(shard: &Shard) -> String {
    let schema = quote(&shard.schema());
    let sequence = shard.sequence();
    format!(
        r#"
        CREATE SCHEMA IF NOT EXISTS {schema};
        CREATE TABLE IF NOT EXISTS {schema}."clients" (
            "clientGroupID" TEXT NOT NULL,
            "clientID" TEXT NOT NULL,
            "lastMutationID" BIGINT NOT NULL,
            "userID" TEXT,
            PRIMARY KEY ("clientGroupID", "clientID")
        );
        CREATE TABLE IF NOT EXISTS {schema}."mutations" (
            "clientGroupID" TEXT NOT NULL,
            "clientID" TEXT NOT NULL,
            "mutationID" BIGINT NOT NULL,
            "result" JSON NOT NULL,
            PRIMARY KEY ("clientGroupID", "clientID", "mutationID")
        );
        CREATE TABLE IF NOT EXISTS {schema}."shardConfig" (
            "publications" TEXT[] NOT NULL,
            "ddlDetection" BOOL NOT NULL,
            "lock" BOOL PRIMARY KEY DEFAULT true CHECK (lock)
        );
        INSERT INTO {schema}."shardConfig" (publications, "ddlDetection") VALUES (ARRAY[]::text[], false)
            ON CONFLICT DO NOTHING;
        CREATE TABLE IF NOT EXISTS {schema}.replicas (
            "id" TEXT PRIMARY KEY DEFAULT replace(gen_random_uuid()::text, '-', ''),
            "rank" BIGSERIAL,
            "slot" TEXT NOT NULL,
            "version" TEXT NOT NULL,
            "initialSchema" JSON,
            "initialSyncContext" JSON,
            "subscriberContext" JSON
        );
        CREATE TABLE IF NOT EXISTS {schema}."versionHistory" (
            "dataVersion" INT NOT NULL,
            "schemaVersion" INT NOT NULL,
            "minSafeVersion" INT NOT NULL,
            "lock" CHAR(1) PRIMARY KEY DEFAULT 'v' CHECK (lock = 'v')
        );
        INSERT INTO {schema}."versionHistory" ("dataVersion", "schemaVersion", "minSafeVersion")
            VALUES ({SCHEMA_VERSION}, {SCHEMA_VERSION}, 1) ON CONFLICT DO NOTHING;
        CREATE SEQUENCE IF NOT EXISTS {sequence};
        "#
    )
}

async fn publication_exists(client: &Client, name: &str) -> Result<bool, Error> {
    let row = client
        .query_opt("SELECT 1 FROM pg_publication WHERE pubname = $1", &[&name])
        .await
        .doing("reading the publications")?;
    Ok(row.is_some())
}

async fn default_publication(client: &Client, shard: &Shard) -> Result<(), Error> {
    let name = shard.default_publication();
    if !shard.requested.is_empty() || publication_exists(client, &name).await? {
        return Ok(());
    }
    let create = format!(
        "CREATE PUBLICATION {} FOR TABLES IN SCHEMA public WITH (publish_via_partition_root = true)",
        quote(&name)
    );
    client.batch_execute(&create).await.map_err(|e| {
        let error = kelvin_io::postgres::Error::from(e);
        if error.sqlstate() == Some("42501") {
            return Error::Setup(format!(
                "the upstream role may not publish a whole schema: {error}. Create a publication of the \
                 tables that the app uses (CREATE PUBLICATION zero_data FOR TABLE …) and set \
                 ZERO_APP_PUBLICATIONS to its name"
            ));
        }
        Error::Postgres { doing: "creating the default publication", source: error }
    })
}

async fn metadata_publication(client: &Client, shard: &Shard) -> Result<(), Error> {
    let doing = "creating the metadata publication";
    let name = shard.metadata_publication();
    let tables = format!(
        "{app}.\"permissions\", {schema}.\"clients\", {schema}.\"mutations\"",
        app = quote(shard.app_schema()),
        schema = quote(&shard.schema()),
    );
    if !publication_exists(client, &name).await? {
        let create = format!("CREATE PUBLICATION {} FOR TABLE {tables}", quote(&name));
        return client.batch_execute(&create).await.doing(doing);
    }
    let row = client
        .query_one("SELECT count(*) FROM pg_publication_tables WHERE pubname = $1", &[&name])
        .await
        .doing(doing)?;
    // An older zero-cache published fewer tables.
    if row.get::<_, i64>(0) < 3 {
        let set = format!("ALTER PUBLICATION {} SET TABLE {tables}", quote(&name));
        client.batch_execute(&set).await.doing(doing)?;
    }
    Ok(())
}

/// A number that grows with every start, wherever the process runs (rule 18).
pub async fn next_epoch(client: &Client, shard: &Shard) -> Result<u64, Error> {
    let row = client
        .query_one("SELECT nextval($1::text::regclass)", &[&shard.sequence()])
        .await
        .doing("drawing an epoch from the sequence")?;
    Ok(row.get::<_, i64>(0).unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_specification() {
        let shard = Shard::new("zero", 0, &[]).unwrap();
        assert_eq!(shard.schema(), "zero_0");
        assert_eq!(shard.publications(), ["_zero_metadata_0", "_zero_public_0"]);
        let shard = Shard::new("my_app", 3, &["tables".into(), "Other".into()]).unwrap();
        assert_eq!(shard.publications(), ["Other", "_my_app_metadata_3", "tables"]);
        assert_eq!(shard.slot_prefix(), "my_app_3_");
    }

    #[test]
    fn names_that_could_be_something_else_are_refused() {
        assert!(Shard::new("Zero", 0, &[]).is_err());
        assert!(Shard::new("", 0, &[]).is_err());
        for name in ["_mine", "a b", "a\"b", "", "é", &"x".repeat(64)] {
            assert!(Shard::new("zero", 0, &[name.to_owned()]).is_err(), "{name}");
        }
    }
}
