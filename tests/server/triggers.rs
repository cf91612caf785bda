//! Event triggers upstream: changes of tables that nobody announces, and apps that cannot change their tables because of
//! what announces it.

use std::time::{Duration, Instant};

use crate::support::lateness::Lateness;
use crate::support::on_executor;
use crate::support::postgres::{Cluster, Database};
use crate::support::replicator::{Record, Replicator, Scratch, settings};
use kelvin::upstream::settings::Settings;
use kelvin_io::executor;
use kelvin_io::postgres::Error;

const TABLES: &str = "
    CREATE SCHEMA s; CREATE TABLE s.z (id int PRIMARY KEY);
    CREATE TYPE mood AS ENUM ('a', 'b');
    CREATE TABLE t (id int PRIMARY KEY, a text, b int, m mood);
    CREATE TABLE u (id int PRIMARY KEY, n int);
    INSERT INTO t SELECT i, 'a' || i, i FROM generate_series(1, 50) i;
    INSERT INTO u SELECT i, i FROM generate_series(1, 50) i;
";

/// Changes of every kind that a replica shows.
const CHANGES: [&str; 15] = [
    "ALTER TABLE t ADD d int DEFAULT 7",
    "ALTER TABLE t RENAME d TO e",
    "ALTER TABLE t ALTER a SET NOT NULL",
    "ALTER TABLE t DROP e",
    "CREATE INDEX ON t (b)",
    "ALTER INDEX t_b_idx RENAME TO t_by_b",
    "DROP INDEX t_by_b",
    "ALTER TABLE u RENAME TO v",
    "CREATE TABLE w (id int PRIMARY KEY)",
    "CREATE TABLE x AS SELECT 1 AS id",
    "DROP TABLE x",
    "ALTER PUBLICATION app ADD TABLE s.z",
    "ALTER SCHEMA s RENAME TO s2",
    "ALTER PUBLICATION app DROP TABLE s2.z",
    "ALTER TABLE v SET SCHEMA s2",
];

fn followed(record: &Record) -> usize {
    record.log.iter().filter(|line| line.contains("the replica follows a change of the schema")).count()
}

/// Follows a database whose publication `app` is of the schema `public`.
async fn prepared(user: &str) -> (Database, Scratch, Settings) {
    let database = Cluster::shared().database().await;
    database.run(TABLES).await;
    database.run("CREATE PUBLICATION app FOR TABLES IN SCHEMA public").await;
    let scratch = Scratch::new();
    let mut settings = settings(&database.target, &scratch.replica());
    settings.publications = vec!["app".into()];
    settings.target.user = user.into();
    (database, scratch, settings)
}

async fn started(settings: &Settings) -> Replicator {
    let mut replicator = Replicator::start(settings.clone());
    replicator.ready().await;
    replicator
}

/// Expects that each change is followed sooner than a look each second would find it.
async fn are_noticed_soon(replicator: &mut Replicator, database: &Database, changes: &[&str], limit_ms: u64) {
    let lateness = Lateness::measured();
    let mut times = Vec::new();
    for change in changes {
        assert!(replicator.follows(database).await, "before {change}: {:?}", replicator.ended().await);
        // What fills a table is over then, and the looks that it has asked for.
        executor::sleep(Duration::from_millis(150)).await;
        let before = followed(&replicator.record.borrow());
        database.run(change).await;
        let began = Instant::now();
        replicator.until(change, |record| followed(record) > before).await;
        times.push((began.elapsed(), *change));
    }
    times.sort();
    println!("{times:#?}");
    let (median, _) = times[times.len() / 2];
    assert!(median < lateness.allow(Duration::from_millis(limit_ms)), "{times:#?}");
}

#[test]
fn announced_changes_wait_for_a_look() {
    on_executor(|| async {
        let (database, _scratch, settings) = prepared("postgres").await;
        let mut replicator = started(&settings).await;
        assert!(
            !replicator.said("not all event triggers are in place"),
            "{:#?}",
            replicator.record.borrow().log
        );
        are_noticed_soon(&mut replicator, &database, &CHANGES, 150).await;
        replicator.check(&database).await;
        replicator.stop().await;
    });
}

/// A role that may nothing but replicate, and set up its own schemas.
async fn plain_role(database: &Database, name: &str) {
    database
        .run(&format!(
            "DROP ROLE IF EXISTS {name}; CREATE ROLE {name} LOGIN REPLICATION; GRANT CREATE ON DATABASE {} TO {name};
             GRANT SELECT ON ALL TABLES IN SCHEMA public TO {name}; GRANT USAGE ON SCHEMA s TO {name}; GRANT SELECT ON s.z TO {name};
             ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {name}; ALTER TABLE t OWNER TO {name}; ALTER TABLE u OWNER TO {name}",
            database.target.database
        ))
        .await;
}

#[test]
fn without_event_triggers_changes_wait_for_a_look() {
    on_executor(|| async {
        let (database, _scratch, settings) = prepared("unprivileged").await;
        plain_role(&database, "unprivileged").await;
        let mut replicator = started(&settings).await;
        assert!(
            replicator.said("not all event triggers are in place"),
            "{:#?}",
            replicator.record.borrow().log
        );
        assert_eq!(database.value("SELECT count(*) FROM pg_event_trigger").await, "0");
        assert_eq!(database.value("SELECT \"ddlDetection\" FROM zero_0.\"shardConfig\"").await, "f");
        are_noticed_soon(&mut replicator, &database, &CHANGES, 300).await;
        // What a migration says itself works with the same functions.
        let before = followed(&replicator.record.borrow());
        database.run("BEGIN; ALTER TABLE t ADD later int; SELECT zero_0.update_schemas(); COMMIT").await;
        replicator.until("it is followed", |record| followed(record) > before).await;
        replicator.check(&database).await;
        replicator.stop().await;
        // Where it is allowed to once, it is done.
        database.run("ALTER ROLE unprivileged SUPERUSER").await;
        let replicator = started(&settings).await;
        assert!(!replicator.said("not all event triggers are in place"));
        replicator.stop().await;
        database.run("ALTER ROLE unprivileged NOSUPERUSER").await;
        let mut replicator = started(&settings).await;
        assert!(!replicator.said("not all event triggers are in place"));
        assert_eq!(database.value("SELECT \"ddlDetection\" FROM zero_0.\"shardConfig\"").await, "t");
        replicator.check(&database).await;
        replicator.stop().await;
    });
}

/// Reads what is announced, by a slot of its own.
struct Ear<'a> {
    database: &'a Database,
    slot: String,
}

impl<'a> Ear<'a> {
    async fn new(database: &'a Database) -> Ear<'a> {
        let slot = format!("ear_{}", database.target.database);
        database.run(&format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')")).await;
        Ear { database, slot }
    }

    fn heard(&self, prefix: &str) -> String {
        format!(
            "FROM pg_logical_slot_get_binary_changes('{}', NULL, NULL, 'proto_version', '1', 'publication_names',
                '_zero_metadata_0', 'messages', 'true') WHERE position('{prefix}\\000'::bytea IN data) = 11",
            self.slot
        )
    }

    /// Runs statements; whether they ask for a look.
    async fn asks(&self, sql: &str) -> bool {
        self.database.run(sql).await;
        let count = format!("SELECT count(*) {}", self.heard("zero/0/kelvin-look"));
        self.database.value(&count).await != "0"
    }
}

impl Drop for Ear<'_> {
    fn drop(&mut self) {
        let (target, slot) = (self.database.target.clone(), self.slot.clone());
        let dropped = executor::spawn(async move {
            Database::open(target).await.run(&format!("SELECT pg_drop_replication_slot('{slot}')")).await;
        });
        drop(dropped);
    }
}

#[test]
fn changes_are_announced_that_change_nothing_or_not_announced_that_do() {
    on_executor(|| async {
        let (database, _scratch, settings) = prepared("postgres").await;
        started(&settings).await.stop().await;
        let ear = Ear::new(&database).await;
        for change in CHANGES.iter().chain(&[
            "ALTER TYPE mood ADD VALUE 'c'",
            "ALTER TYPE mood RENAME VALUE 'a' TO 'z'",
            "ALTER TABLE t ALTER b TYPE int USING b * 2",
            "ALTER TABLE t REPLICA IDENTITY FULL",
            "SELECT 1 AS id INTO y",
            "DROP TYPE mood CASCADE",
            "CREATE PUBLICATION other FOR TABLE t",
            "DROP PUBLICATION other",
            "CREATE SCHEMA made CREATE TABLE inside (id int)",
            "DROP SCHEMA made CASCADE",
            "CREATE INDEX CONCURRENTLY soon ON t (b)",
            // Refused if anything was written before it.
            "DROP INDEX CONCURRENTLY soon",
            "CREATE TABLE parts (id int) PARTITION BY RANGE (id); CREATE TABLE part PARTITION OF parts FOR VALUES FROM (1) TO (2)",
            "ALTER TABLE parts DETACH PARTITION part CONCURRENTLY",
            "DO 'BEGIN EXECUTE ''ALTER TABLE t ADD nested int''; END'",
        ]) {
            assert!(ear.asks(change).await, "nobody asks for a look after {change}");
        }
        for change in [
            "CREATE TEMP TABLE own (id serial PRIMARY KEY, a text); ALTER TABLE own ADD b int; CREATE INDEX ON own (a); DROP TABLE own",
            "BEGIN; CREATE TEMP TABLE own (id int) ON COMMIT DROP; COMMIT",
            "VACUUM FULL t",
            "CLUSTER t USING t_pkey",
            "REINDEX TABLE t",
            "ANALYZE",
            "COMMENT ON TABLE t IS 'a table'",
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "GRANT SELECT ON t TO PUBLIC",
            "CREATE VIEW view AS SELECT 1",
            "BEGIN; ALTER TABLE t ADD undone int; ROLLBACK",
        ] {
            assert!(!ear.asks(change).await, "somebody asks for a look after {change}");
        }
    });
}

#[test]
fn zero_cache_is_told_something_else_than_by_its_own_triggers() {
    on_executor(|| async {
        let (database, _scratch, settings) = prepared("postgres").await;
        started(&settings).await.stop().await;
        assert_eq!(database.value("SELECT \"schemaVersion\" FROM zero_0.\"versionHistory\"").await, "23");
        let ear = Ear::new(&database).await;
        database.run("ALTER TABLE t ADD d varchar(9)[] DEFAULT '{}'").await;
        database.run("ALTER TABLE t ALTER b SET DEFAULT 5; COMMENT ON PUBLICATION app IS 'x'; COMMENT ON TABLE t IS 'x'").await;
        // The prefix is from the eleventh byte on; a zero and the length follow.
        let read = format!(
            "SELECT json_agg(json_build_array(e->'type', e->'version', e#>'{{event,tag}}', length(e#>>'{{context,query}}') > 9,
                    e#>'{{previousSchema,tables,0,columns,d}}', e#>'{{schema,tables,0,columns,d}}') ORDER BY n)
               FROM (SELECT row_number() OVER () AS n, convert_from(substr(data, 26), 'UTF8')::json AS e {}) m",
            ear.heard("zero/0/ddl")
        );
        let read: serde_json::Value = serde_json::from_str(&database.value(&read).await).unwrap();
        let column = serde_json::json!({
            "pos": 5, "dataType": "varchar[]", "pgTypeClass": "b", "elemPgTypeClass": "b", "typeOID": 1015,
            "characterMaximumLength": 13, "notNull": false, "dflt": "'{}'::character varying[]",
        });
        let expected = serde_json::json!([
            ["ddlStart", 2, "ALTER TABLE", true, null, null],
            ["ddlUpdate", 1, "ALTER TABLE", true, null, column],
            ["ddlStart", 2, "ALTER TABLE", true, null, null],
            ["ddlUpdate", 1, "ALTER TABLE", true, column, column],
            ["schemaSnapshot", 1, "COMMENT", true, column, column],
        ]);
        assert_eq!(read, expected, "{read:#}");
    });
}

#[test]
fn ordinary_roles_cannot_change_their_tables() {
    on_executor(|| async {
        let (database, _scratch, settings) = prepared("postgres").await;
        let mut replicator = started(&settings).await;
        database
            .run("DROP ROLE IF EXISTS ordinary; CREATE ROLE ordinary; GRANT ALL ON SCHEMA public TO ordinary")
            .await;
        database
            .run(
                "SET ROLE ordinary;
                 CREATE TABLE own (id int PRIMARY KEY, a text); ALTER TABLE own ADD b int DEFAULT 4; CREATE INDEX ON own (a);
                 INSERT INTO own VALUES (1, 'x'); COMMENT ON TABLE own IS 'mine'; ALTER TABLE own RENAME TO mine;
                 CREATE TEMP TABLE temporary (id int); CREATE TABLE another AS SELECT 1 AS id; DROP TABLE another;
                 SET search_path = pg_temp, public; CREATE TABLE text (id int); RESET search_path; RESET ROLE",
            )
            .await;
        assert!(replicator.follows(&database).await, "{:?}", replicator.ended().await);
        replicator
            .until("it is filled", |r| r.log.iter().any(|line| line.contains("mine has been filled")))
            .await;
        replicator.check(&database).await;
        assert_eq!(replicator.rows("mine").len(), 1);
        replicator.stop().await;
    });
}

#[test]
fn what_somebody_dropped_or_changed_stays_so() {
    on_executor(|| async {
        let (database, _scratch, settings) = prepared("postgres").await;
        started(&settings).await.stop().await;
        let all = "SELECT string_agg(evtname || ' ' || evtenabled::text, ', ' ORDER BY evtname) FROM pg_event_trigger";
        let complete = "zero_ddl_end_0 O, zero_ddl_start_0 O, zero_kelvin_ddl_0 O, zero_kelvin_drop_0 O";
        assert_eq!(database.value(all).await, complete);
        database
            .run(
                "DROP EVENT TRIGGER zero_kelvin_ddl_0; DROP EVENT TRIGGER zero_ddl_start_0; DROP EVENT TRIGGER zero_ddl_end_0;
                 CREATE EVENT TRIGGER zero_ddl_end_0 ON ddl_command_end WHEN TAG IN ('CREATE TABLE')
                    EXECUTE FUNCTION zero_0.emit_ddl_end();
                 DROP FUNCTION zero_0.schema_specs(); ALTER FUNCTION zero_0.emit_ddl_end() SECURITY INVOKER RESET ALL",
            )
            .await;
        started(&settings).await.stop().await;
        assert_eq!(database.value(all).await, complete);
        let right = "SELECT count(*) FROM pg_proc WHERE pronamespace = 'zero_0'::regnamespace AND prosecdef
                        AND proconfig = '{\"search_path=pg_catalog, pg_temp\"}'";
        assert_eq!(database.value(right).await, "8");
        // Nothing is made anew that is as it should be.
        let made =
            "SELECT string_agg(xmin::text, ',') FROM pg_proc WHERE pronamespace = 'zero_0'::regnamespace";
        let before = database.value(made).await;
        started(&settings).await.stop().await;
        assert_eq!(database.value(made).await, before);
        // An operator may not want them.
        database.run("ALTER EVENT TRIGGER zero_kelvin_drop_0 DISABLE").await;
        let replicator = started(&settings).await;
        assert!(
            replicator.said("event trigger zero_kelvin_drop_0 is disabled"),
            "{:#?}",
            replicator.record.borrow().log
        );
        replicator.stop().await;
        assert_eq!(database.value(all).await, complete.replace("drop_0 O", "drop_0 D"));
        // The publications are part of them.
        database
            .run("ALTER EVENT TRIGGER zero_kelvin_drop_0 ENABLE; CREATE PUBLICATION more FOR TABLE t")
            .await;
        started(&Settings { publications: vec!["more".into()], ..settings }).await.stop().await;
        let specs = "SELECT json_array_length(zero_0.schema_specs()->'tables'), (SELECT current::text = zero_0.schema_specs()::text
                        FROM zero_0.\"publishedSchema\")";
        assert_eq!(database.value(specs).await, "4");
    });
}

#[test]
fn what_fails_in_a_trigger_makes_migrations_fail_or_wait() {
    on_executor(|| async {
        let (database, _scratch, settings) = prepared("postgres").await;
        let mut replicator = started(&settings).await;
        let open = Database::open(database.target.clone()).await;
        open.run("BEGIN; ALTER TABLE t ADD one int").await;
        let began = Instant::now();
        // The other transaction has the schema that was announced; each wants the other's table then.
        database.run("ALTER TABLE u ADD two int").await;
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "it waits for a transaction that it has nothing to do with"
        );
        open.run("ALTER TABLE u ADD three int; COMMIT").await;
        assert!(replicator.follows(&database).await, "{:?}", replicator.ended().await);
        open.run("BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT count(*) FROM u").await;
        database.run("ALTER TABLE t ADD four int").await;
        // What was announced last is newer than its snapshot.
        open.run("ALTER TABLE t ADD five int; COMMIT").await;
        database.run("DROP TABLE zero_0.\"publishedSchema\"; ALTER TABLE t ADD six int; SELECT zero_0.update_schemas()").await;
        assert!(replicator.follows(&database).await, "{:?}", replicator.ended().await);
        // Whoever may not do it is told so by Postgres, as ever.
        let refused = database.connection.client.batch_execute("ALTER TABLE nothing ADD a int").await;
        assert_eq!(refused.map_err(Error::from).unwrap_err().sqlstate(), Some("42P01"));
        replicator.check(&database).await;
        replicator.stop().await;
    });
}

#[test]
fn a_dump_cannot_be_restored_or_announces_changes_of_another_database() {
    on_executor(|| async {
        let (database, _scratch, settings) = prepared("postgres").await;
        let mut replicator = started(&settings).await;
        let copy = Cluster::shared().database().await;
        if !Cluster::shared().copy(&database.target.database, &copy.target.database) {
            println!("SKIPPED: this Postgres has no pg_dump");
            return;
        }
        assert_eq!(copy.value("SELECT count(*) FROM pg_event_trigger").await, "4");
        let before = followed(&replicator.record.borrow());
        copy.run("ALTER TABLE t ADD of_the_copy int; UPDATE t SET of_the_copy = 1").await;
        database.run("UPDATE t SET b = b + 1").await;
        replicator.check(&database).await;
        assert_eq!(followed(&replicator.record.borrow()), before);
        replicator.stop().await;
        // The copy is a database as any other.
        let scratch = Scratch::new();
        let mut of_copy = Settings { target: copy.target.clone(), ..settings };
        of_copy.replica_file = scratch.replica();
        let mut replicator = started(&of_copy).await;
        copy.run("ALTER TABLE t ADD more int DEFAULT 1").await;
        assert!(replicator.follows(&copy).await, "{:?}", replicator.ended().await);
        replicator.check(&copy).await;
        replicator.stop().await;
    });
}
