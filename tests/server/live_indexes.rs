//! A query scans a table because upstream has no index for it.

use std::time::Duration;

use crate::support::on_executor;
use crate::support::postgres::Cluster;
use crate::support::replicator::{Replicator, Scratch};
use kelvin::replica::live_indexes::IndexRequest;
use kelvin_io::executor::sleep;

const SCHEMA: &str = "CREATE TABLE parent (id text PRIMARY KEY, name text);
     CREATE TABLE child (id text PRIMARY KEY, parent_id text, n int);
     INSERT INTO parent SELECT 'p' || i, 'x' FROM generate_series(1, 50) i;
     INSERT INTO child SELECT 'c' || i, 'p' || i % 50, i FROM generate_series(1, 500) i";

#[test]
fn an_index_that_is_wished_for_is_there_while_commits_go_on_and_after_a_restart() {
    on_executor(|| async {
        let database = Cluster::shared().database().await;
        database.run(SCHEMA).await;
        let scratch = Scratch::new();
        let mut replicator = Replicator::follow(&database, &scratch).await;
        let catalogue = replicator.ready().await.catalogue;
        let table = catalogue.table("child").expect("the table");
        let parent_id = table.column("parent_id").expect("the column");
        assert!(!table.has_index_on(&[parent_id]));
        let index_requests = replicator.record.borrow().index_requests.0.clone();
        for _ in 0..3 {
            index_requests
                .send(IndexRequest { table: table.id, columns: vec![parent_id] })
                .await
                .expect("it is taken");
        }
        for n in 0..20 {
            database.run(&format!("UPDATE child SET n = n + 1 WHERE id = 'c{n}'")).await;
        }
        replicator.until("the index is there", |record| !record.indexed.is_empty()).await;
        replicator.check(&database).await;
        sleep(Duration::from_millis(50)).await;
        {
            let record = replicator.record.borrow();
            assert_eq!(record.indexed.len(), 1, "it is made once");
            assert!(record.indexed[0].table("child").expect("the table").has_index_on(&[parent_id]));
        }
        replicator.stop().await;
        let mut again = Replicator::follow(&database, &scratch).await;
        let catalogue = again.ready().await.catalogue;
        assert!(catalogue.table("child").expect("the table").has_index_on(&[parent_id]));
        assert!(!again.said("starting an initial sync"), "an index of our own is no change of the schema");
        again.check(&database).await;
        again.stop().await;
    });
}
