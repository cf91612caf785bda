//! Upstream databases that are not set up as they must be: what the operator is told. And
//! the ways to connect that operators use.

use crate::support::on_executor;
use crate::support::postgres::{Cluster, Database};
use crate::support::replicator::{Record, Replicator, Scratch, settings};
use kelvin::replica::verdict::End;
use kelvin::upstream::settings::Settings;
use kelvin_io::postgres::TlsMode;

/// Starts with changed settings; it must fail with a message that holds all these texts.
async fn refused(database: &Database, change: impl Fn(&mut Settings), texts: &[&str]) {
    let scratch = Scratch::new();
    let mut settings = settings(&database.target, &scratch.replica());
    change(&mut settings);
    let message = Replicator::start(settings).failure().await;
    for text in texts {
        assert!(message.contains(text), "no {text:?} in: {message}");
    }
}

#[test]
fn wal_level_must_be_logical() {
    on_executor(|| async {
        let cluster = Cluster::start("wal_level = replica");
        let database = cluster.database().await;
        refused(
            &database,
            |_| {},
            &["wal_level is 'replica'", "ALTER SYSTEM SET wal_level = 'logical'", "restart"],
        )
        .await;
    });
}

#[test]
fn a_slot_and_a_walsender_must_be_free() {
    on_executor(|| async {
        let cluster = Cluster::start("max_replication_slots = 1");
        let database = cluster.database().await;
        database.run("SELECT pg_create_physical_replication_slot('other')").await;
        refused(&database, |_| {}, &["max_replication_slots = 1 are used", "pg_drop_replication_slot"]).await;
        // Nothing is left behind, so the remedy is enough.
        database.run("SELECT pg_drop_replication_slot('other'); CREATE TABLE t (id int PRIMARY KEY)").await;
        let scratch = Scratch::new();
        let mut replicator = Replicator::follow(&database, &scratch).await;
        replicator.check(&database).await;
        replicator.stop().await;
    });
}

#[test]
fn the_role_must_be_allowed_to_replicate_and_to_set_up() {
    on_executor(|| async {
        let database = Cluster::shared().database().await;
        database
            .run(&format!(
                "CREATE ROLE plain LOGIN; GRANT CREATE ON DATABASE {} TO plain; CREATE TABLE t (id int PRIMARY KEY);
                 GRANT SELECT ON t TO plain; CREATE PUBLICATION pub FOR TABLE t",
                database.target.database
            ))
            .await;
        let plain = |settings: &mut Settings| settings.target.user = "plain".into();
        // `FOR TABLES IN SCHEMA` is for superusers.
        refused(&database, plain, &["ZERO_APP_PUBLICATIONS"]).await;
        let with_publication = |settings: &mut Settings| {
            plain(settings);
            settings.publications = vec!["pub".into()];
        };
        refused(&database, with_publication, &["ALTER ROLE \"plain\" WITH REPLICATION"]).await;
        database.run("ALTER ROLE plain REPLICATION").await;
        let scratch = Scratch::new();
        let mut settings = settings(&database.target, &scratch.replica());
        with_publication(&mut settings);
        let mut replicator = Replicator::start(settings);
        replicator.ready().await;
        database.run("INSERT INTO t VALUES (1)").await;
        replicator.check(&database).await;
        replicator.stop().await;
    });
}

#[test]
fn publications_and_names_must_be_usable() {
    on_executor(|| async {
        let database = Cluster::shared().database().await;
        let publication = |name: &'static str| move |s: &mut Settings| s.publications = vec![name.into()];
        database.run("CREATE TABLE t (id int PRIMARY KEY); CREATE PUBLICATION other FOR TABLE t").await;
        refused(&database, publication("nope"), &["nope", "other"]).await;
        refused(&database, publication("_hidden"), &["_hidden"]).await;
        refused(&database, publication("a b"), &["a b"]).await;
        refused(&database, |s| s.app_id = "Bad-App".into(), &["Bad-App"]).await;
        database.run("CREATE PUBLICATION part FOR TABLE t WITH (publish = 'insert')").await;
        refused(&database, publication("part"), &["part", "insert, update, delete, truncate"]).await;
    });
}

#[test]
fn what_clients_cannot_name_is_left_out_and_the_rest_is_there() {
    on_executor(|| async {
        let database = Cluster::shared().database().await;
        database
            .run(
                "CREATE TABLE \"1bad\" (id int PRIMARY KEY); CREATE TABLE \"b\u{e4}d\" (id int PRIMARY KEY);
                 CREATE TABLE \"order details\" (id int PRIMARY KEY); CREATE TABLE fixed (id int PRIMARY KEY);
                 ALTER TABLE fixed REPLICA IDENTITY NOTHING; CREATE TABLE keyed (\"the id\" int PRIMARY KEY);
                 CREATE TABLE good (id int PRIMARY KEY, \"a b\" int, _0_version int, \"userId\" int, userid int, n int);
                 CREATE TABLE \"GOOD\" (id int PRIMARY KEY, rowid int, oid int, _rowid_ int);
                 INSERT INTO good VALUES (1, 2, 3, 4, 5, 6); INSERT INTO \"GOOD\" VALUES (1, 2, 3, 4)",
            )
            .await;
        let scratch = Scratch::new();
        let mut replicator = Replicator::follow(&database, &scratch).await;
        assert!(replicator.said("fixed is left out"));
        for what in ["1bad", "b\u{e4}d", "order details", "keyed", "\"a b\"", "_0_version"] {
            assert!(replicator.said(&what.replace('"', "\\\"")) || replicator.said(what), "{what}");
        }
        database
            .run(
                "INSERT INTO \"1bad\" VALUES (1); INSERT INTO keyed VALUES (1); DELETE FROM keyed;
                 INSERT INTO good VALUES (7, 8, 9, 10, 11, 12); UPDATE good SET \"userId\" = 13, \"a b\" = 14 WHERE id = 1;
                 UPDATE \"GOOD\" SET oid = 5, id = 2; INSERT INTO \"GOOD\" VALUES (9)",
            )
            .await;
        replicator.catch_up(&database).await;
        assert_eq!(replicator.rows("good").len(), 2);
        assert!(
            replicator.rows("good").iter().any(|row| row.contains("13")),
            "{:?}",
            replicator.rows("good")
        );
        assert_eq!(replicator.rows("GOOD").len(), 2);
        replicator.check_tables(&database, &["good", "GOOD"]).await;
        // The same of what comes later; nobody has to start anew for it.
        database.run("CREATE TABLE \"2bad\" (id int); CREATE TABLE later (id int PRIMARY KEY); INSERT INTO later VALUES (5)").await;
        let warned = |record: &Record| record.log.iter().any(|line| line.contains("2bad is left out"));
        replicator.until("it is warned of", warned).await;
        replicator
            .until("the other is there", |record| {
                record.log.iter().any(|line| line.contains("later has been filled"))
            })
            .await;
        replicator.check_tables(&database, &["good", "GOOD", "later"]).await;
        replicator.stop().await;
    });
}

#[test]
fn passwords_are_checked_on_both_paths() {
    on_executor(|| async {
        let cluster = Cluster::start("password_encryption = 'scram-sha-256'");
        let database = cluster.database().await;
        let mut target = database.target.clone();
        database
            .run("CREATE ROLE app SUPERUSER LOGIN PASSWORD 'p\u{e4}ss'' word'; CREATE TABLE t (id int PRIMARY KEY)")
            .await;
        cluster.write(
            "pg_hba.conf",
            "host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n",
        );
        cluster.reload();
        target.user = "app".into();
        refused(&database, |s| s.target = target.clone(), &["password"]).await;
        target.password = Some("wrong".into());
        refused(&database, |s| s.target = target.clone(), &["password"]).await;
        target.password = Some("p\u{e4}ss' word".into());
        assert!(!format!("{target:?}").contains("word"), "it is not printed");
        let scratch = Scratch::new();
        let mut replicator = Replicator::start(settings(&target, &scratch.replica()));
        replicator.ready().await;
        database.run("INSERT INTO t VALUES (1)").await;
        replicator.check(&database).await;
        replicator.stop().await;
    });
}

#[test]
fn connections_are_encrypted_on_both_paths() {
    on_executor(|| async {
        if std::process::Command::new("openssl").arg("version").output().is_err() {
            eprintln!("skipped: there is no openssl");
            return;
        }
        let cluster = Cluster::start("");
        let database = cluster.database().await;
        database.run("CREATE TABLE t (id int PRIMARY KEY)").await;
        let mut target = database.target.clone();
        target.tls = TlsMode::Require;
        refused(&database, |s| s.target = target.clone(), &["does not offer TLS", "sslmode=disable"]).await;
        let request = [
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=test authority",
            "-keyout",
            "ca.key",
            "-out",
            "ca.crt",
        ];
        // Without an extension the certificate would be one of version 1.
        cluster.write("server.ext", "subjectAltName=DNS:localhost");
        cluster.run_there("openssl", &request);
        cluster.run_there(
            "openssl",
            &[
                "req",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-subj",
                "/CN=localhost",
                "-keyout",
                "server.key",
                "-out",
                "server.csr",
            ],
        );
        cluster.run_there(
            "openssl",
            &[
                "x509",
                "-req",
                "-in",
                "server.csr",
                "-CA",
                "ca.crt",
                "-CAkey",
                "ca.key",
                "-extfile",
                "server.ext",
                "-CAcreateserial",
                "-days",
                "2",
                "-out",
                "server.crt",
            ],
        );
        cluster.run_there("chmod", &["600", "server.key"]);
        database.run("ALTER SYSTEM SET ssl = on").await;
        database.run("CREATE ROLE app SUPERUSER LOGIN PASSWORD 'secret'").await;
        cluster.write(
            "pg_hba.conf",
            "host all postgres 127.0.0.1/32 trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n",
        );
        cluster.reload();
        target.user = "app".into();
        target.password = Some("secret".into());
        // The certificate is of an authority that nobody knows.
        let verify = |s: &mut Settings| {
            s.target = target.clone();
            s.target.tls = TlsMode::Verify;
        };
        refused(&database, verify, &["TLS to Postgres failed", "handshake"]).await;
        // Whom to trust, as `sslrootcert` says. The certificate is that of `localhost`.
        let trusting = |tls: TlsMode, host: &str, file: &str| {
            let mut target = target.clone();
            (target.tls, target.host, target.root_certificates) =
                (tls, host.into(), Some(cluster.path(file)));
            target
        };
        let untrusted = [
            (trusting(TlsMode::Verify, "127.0.0.1", "ca.crt"), "handshake"),
            (trusting(TlsMode::Verify, "localhost", "other.crt"), "handshake"),
            (trusting(TlsMode::VerifyCa, "127.0.0.1", "other.crt"), "handshake"),
            (trusting(TlsMode::Verify, "localhost", "nonesuch.crt"), "cannot be read"),
            (trusting(TlsMode::Verify, "localhost", "server.ext"), "no certificate"),
        ];
        let mut other = request;
        (other[request.len() - 3], other[request.len() - 1]) = ("other.key", "other.crt");
        cluster.run_there("openssl", &other);
        for (target, why) in &untrusted {
            refused(&database, |s| s.target = target.clone(), &["TLS to Postgres failed", why]).await;
        }
        for target in [
            trusting(TlsMode::Verify, "localhost", "ca.crt"),
            trusting(TlsMode::VerifyCa, "127.0.0.1", "ca.crt"),
            trusting(TlsMode::Verify, "localhost", "server.crt"),
        ] {
            let scratch = Scratch::new();
            let mut replicator = Replicator::start(settings(&target, &scratch.replica()));
            replicator.ready().await;
            replicator.check(&database).await;
            replicator.stop().await;
        }
        for tls in [TlsMode::Require, TlsMode::Prefer] {
            target.tls = tls;
            let scratch = Scratch::new();
            let mut replicator = Replicator::start(settings(&target, &scratch.replica()));
            replicator.ready().await;
            // More than one TLS record.
            database.run("INSERT INTO t SELECT coalesce(max(id), 0) + i FROM t, generate_series(1, 20000) i GROUP BY i").await;
            replicator.check(&database).await;
            let plain = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = 'app' AND NOT ssl";
            assert_eq!(database.value(plain).await, "0");
            let streams = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_replication USING (pid) WHERE ssl";
            assert_eq!(database.value(streams).await, "1");
            replicator.stop().await;
        }
    });
}

#[test]
fn a_second_process_takes_the_slot_over() {
    on_executor(|| async {
        let database = Cluster::shared().database().await;
        let scratch = Scratch::new();
        database.run("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)").await;
        let mut first = Replicator::follow(&database, &scratch).await;
        first.check(&database).await;
        // On the same file, as when the first is slow to stop.
        let mut second = Replicator::follow(&database, &scratch).await;
        assert_eq!(first.end().await, End::Stopped);
        assert!(!second.said("starting an initial sync"));
        database.run("INSERT INTO t VALUES (2)").await;
        second.check(&database).await;
        second.stop().await;
    });
}

#[test]
fn a_second_process_with_a_replica_of_its_own_replaces_the_first() {
    on_executor(|| async {
        let database = Cluster::shared().database().await;
        let (scratch, other) = (Scratch::new(), Scratch::new());
        database.run("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)").await;
        let mut first = Replicator::follow(&database, &scratch).await;
        first.check(&database).await;
        let mut second = Replicator::follow(&database, &other).await;
        // The first serves until the second can, and then goes by itself.
        assert_eq!(first.end().await, End::Stopped);
        database.run("INSERT INTO t VALUES (2)").await;
        second.check(&database).await;
        second.stop().await;
    });
}
