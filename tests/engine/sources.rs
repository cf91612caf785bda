//! A source of changes breaks off, repeats itself, yields what cannot be, or cannot go on: and the replica differs
//! from it, or the process goes on with it. No Postgres is asked (decision 014).

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::{Future, pending};
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use kelvin::model::catalogue::{Catalogue, Column, Table, ZeroType};
use kelvin::model::commit::Commit;
use kelvin::model::ids::TableId;
use kelvin::model::logging::Level;
use kelvin::model::value::Value;
use kelvin::model::version::StateVersion;
use kelvin::replica::engine::{Engine, Settings};
use kelvin::replica::events::{Events, ReplicaReady};
use kelvin::replica::feed::{Feed, FillFeed};
use kelvin::replica::file::{FoundFile, inspect};
use kelvin::replica::gauges::Gauges;
use kelvin::replica::live_indexes::IndexRequest;
use kelvin::replica::load;
use kelvin::replica::metadata::Metadata;
use kelvin::replica::oversize::MAX_ROW;
use kelvin::replica::source::{ChangeSource, Ended};
use kelvin::replica::verdict::{EXIT_CONFIGURATION, EXIT_REPLICA, End, Verdict};
use kelvin::replica::wal::Limits;
use kelvin::replica::work::{Absent, Before, Op, Operations, Reached};
use kelvin::replica::writer::Commits;
use kelvin_io::channel::{Receiver, Sender, bounded};

use crate::support::on_executor;
use crate::support::replicator::Scratch;

/// Version of the replica before the source says anything.
const FIRST: StateVersion = StateVersion(10);

const TABLE: TableId = TableId(0);

fn catalogue() -> Catalogue {
    let column = |(attnum, name): (i16, &str)| Column {
        name: name.to_owned(),
        upstream_type: "text".to_owned(),
        type_oid: 25,
        attnum,
        zero_type: Some(ZeroType::String),
        not_null: attnum == 1,
        ..Column::default()
    };
    let table = Table {
        id: TABLE,
        name: "t".to_owned(),
        schema: "public".to_owned(),
        upstream_name: "t".to_owned(),
        oid: 7,
        columns: [(1, "id"), (2, "body")].map(column).into(),
        row_key: vec![0],
        candidate_keys: vec![vec![0]],
        indexes: Vec::new(),
        ..Table::default()
    };
    Catalogue::new(1, vec![table])
}

/// A replica without rows.
fn replica(path: &Path) -> Metadata {
    let metadata = Metadata {
        catalogue: catalogue(),
        system_identifier: "test".to_owned(),
        database_oid: 1,
        slot: "test".to_owned(),
        publications: Vec::new(),
        shard: "test_0".to_owned(),
        replica_version: FIRST,
        state_version: FIRST,
        position: FIRST,
        resync: None,
    };
    let connection = load::open(path, &metadata.catalogue).expect("a file");
    load::finish(connection, path, &metadata, |_, _, _| {}).expect("a replica");
    metadata
}

/// What the engine said.
struct Heard {
    log: RefCell<Vec<String>>,
    commits: Arc<Mutex<Vec<Arc<Commit>>>>,
    index_requests: (Sender<IndexRequest>, Receiver<IndexRequest>),
}

impl Events for Heard {
    fn progress(&self, _: &str) {}

    fn log(&self, _: Level, message: &str, fields: &[(&str, String)]) {
        self.log.borrow_mut().push(format!("{message} {fields:?}"));
    }

    fn gauges(&self, _: Arc<Gauges>) {}

    fn ready(&self, start: ReplicaReady) {
        assert_eq!((start.version, start.epoch), (FIRST, 5));
    }

    fn commits(&self) -> Commits {
        let commits = self.commits.clone();
        Box::new(move |commit, _| commits.lock().expect("no panic").push(commit))
    }

    fn indexed(&self, _: Arc<Catalogue>) {}

    fn index_requests(&self) -> Receiver<IndexRequest> {
        self.index_requests.1.clone()
    }

    fn readers_rebegin(&self) -> Pin<Box<dyn Future<Output = bool>>> {
        Box::pin(async { true })
    }
}

/// What the source does in one connection: batches, and then the end once so much is durable.
struct Turn {
    batches: Vec<Vec<Op>>,
    durable: StateVersion,
    end: Ended,
}

/// A source that is written out.
struct Script {
    turns: RefCell<VecDeque<Turn>>,
    asked: Rc<RefCell<Vec<Reached>>>,
}

impl ChangeSource for Script {
    async fn stream(&self, from: Reached, feed: &Feed) -> Ended {
        self.asked.borrow_mut().push(from);
        let Some(turn) = self.turns.borrow_mut().pop_front() else { return pending().await };
        feed.connected();
        for ops in turn.batches {
            if feed.hand_on(Operations { ops, arrived: None }).await.is_err() {
                return Ended::Lost("the writer has stopped".to_owned());
            }
        }
        while feed.durable() < turn.durable {
            feed.durable_grew().await;
        }
        assert!(feed.written() >= feed.durable(), "what is durable is there");
        turn.end
    }

    async fn watch(&self, _: FillFeed) -> Verdict {
        pending().await
    }
}

struct Outcome {
    end: End,
    asked: Vec<Reached>,
    commits: Vec<Arc<Commit>>,
    log: Vec<String>,
    reconnects: u64,
}

/// Follows a source to its end.
async fn follow(path: &Path, auto_reset: bool, turns: Vec<Turn>) -> Outcome {
    let metadata = replica(path);
    let heard = Heard { log: RefCell::default(), commits: Arc::default(), index_requests: bounded(1) };
    let (heard, gauges) = (Rc::new(heard), Arc::new(Gauges::default()));
    let (log_limits, row_limit) = (Limits::default(), MAX_ROW);
    let settings = Settings { file: path.to_owned(), auto_reset, log_limits, row_limit };
    let engine = Engine::start(settings, heard.clone(), gauges.clone(), &metadata, 5).await;
    let asked = Rc::new(RefCell::default());
    let source = Script { turns: RefCell::new(turns.into()), asked: Rc::clone(&asked) };
    let (_stop, stopped) = bounded(1);
    let end = engine.expect("it starts").follow(source, stopped).await;
    let commits = heard.commits.lock().expect("no panic").clone();
    let (asked, log) = (asked.take(), heard.log.take());
    Outcome { end, asked, commits, log, reconnects: gauges.reconnects() }
}

fn text(text: &str) -> Value {
    Value::Text(text.into())
}

fn insert(id: &str) -> Op {
    Op::Insert { table: TABLE, row: Box::new([text(id), Value::Null]) }
}

fn begin(version: u64, whole: bool) -> Op {
    Op::Begin { version: StateVersion(version), whole }
}

/// Ids of the rows, in order.
fn ids(path: &Path) -> String {
    let connection = rusqlite::Connection::open(path).expect("a replica");
    let sql = "SELECT coalesce(group_concat(id, ''), '') FROM (SELECT id FROM t ORDER BY id)";
    connection.query_row(sql, [], |row| row.get(0)).expect("the rows")
}

fn reached(version: u64) -> Reached {
    let catalogue = Arc::new(catalogue());
    Reached { version: StateVersion(version), position: StateVersion(version), catalogue }
}

#[test]
fn what_a_lost_connection_left_incomplete_comes_again_and_counts_once() {
    on_executor(|| async {
        let scratch = Scratch::new();
        let first = vec![begin(20, true), insert("a"), Op::Commit];
        let broken_off = vec![begin(30, false), insert("b")];
        let whole = vec![begin(30, true), insert("b"), insert("c"), Op::Commit];
        let turns = vec![
            Turn {
                batches: vec![first.clone(), broken_off],
                durable: FIRST,
                end: Ended::Lost("the wire was cut".to_owned()),
            },
            // It begins with a transaction that the replica has.
            Turn {
                batches: vec![first, whole],
                durable: StateVersion(30),
                end: Ended::ForGood(Verdict::CannotFollow("it has seen enough".to_owned())),
            },
        ];
        let outcome = follow(&scratch.replica(), true, turns).await;
        assert_eq!(outcome.end, End::Resync("it has seen enough".to_owned()));
        assert_eq!(outcome.asked, [reached(10), reached(20)]);
        assert_eq!(outcome.reconnects, 1);
        let versions: Vec<(u64, u64)> =
            outcome.commits.iter().map(|commit| (commit.previous.0, commit.version.0)).collect();
        assert_eq!(versions, [(10, 20), (20, 30)]);
        assert_eq!(ids(&scratch.replica()), "abc");
        assert!(outcome.log[0].contains("connecting again") && outcome.log[0].contains("the wire was cut"));
        let found = inspect(&scratch.replica()).expect("a file");
        assert!(matches!(&found, FoundFile::Unusable(why) if why == "it has seen enough"), "{found:?}");
    });
}

#[test]
fn without_leave_to_sync_anew_the_replica_stays_and_the_process_ends() {
    on_executor(|| async {
        let scratch = Scratch::new();
        let verdict = Verdict::CannotFollow("the log does not reach back".to_owned());
        let turn = Turn { batches: vec![], durable: FIRST, end: Ended::ForGood(verdict) };
        let outcome = follow(&scratch.replica(), false, vec![turn]).await;
        let End::Failed { message, exit_code } = outcome.end else { panic!("{:?}", outcome.end) };
        assert_eq!(exit_code, EXIT_CONFIGURATION);
        assert!(message.contains("the log does not reach back") && message.contains("ZERO_AUTO_RESET"));
        let found = inspect(&scratch.replica()).expect("a file");
        assert!(matches!(found, FoundFile::Replica(_)), "{found:?}");
    });
}

#[test]
fn an_operation_that_cannot_be_ends_the_process_and_changes_nothing() {
    let key = |values: &[&str]| Before::Key(values.iter().map(|value| text(value)).collect());
    let row = |width: usize| vec![Value::Null; width].into_boxed_slice();
    let elsewhere = TableId(1);
    let all = |before| Op::Update { table: TABLE, before, row: row(2), absent: Absent::new() };
    let within: Vec<(Op, &str)> = vec![
        (begin(30, true), "a transaction within a transaction"),
        (Op::Insert { table: elsewhere, row: row(2) }, "a table that is not there"),
        (Op::Delete { table: elsewhere, before: key(&["a"]) }, "a table that is not there"),
        (Op::Truncate { tables: vec![TABLE, elsewhere] }, "a table that is not there"),
        (Op::Insert { table: TABLE, row: row(3) }, "other columns"),
        (Op::Insert { table: TABLE, row: row(0) }, "other columns"),
        (all(key(&[])), "another key"),
        (all(Before::Whole(row(2))), "another key"),
        (Op::Delete { table: TABLE, before: key(&["a", "b"]) }, "another key"),
        (
            Op::Update {
                table: TABLE,
                before: Before::SameKey,
                row: row(2),
                absent: Absent::from_slice(&[2]),
            },
            "a column that its table does not have",
        ),
    ];
    let mut cases: Vec<(Vec<Op>, &str)> = within
        .into_iter()
        .map(|(op, what)| (vec![begin(20, true), insert("z"), op, Op::Commit], what))
        .collect();
    cases.push((vec![insert("z"), begin(20, true), Op::Commit], "outside of a transaction"));
    on_executor(move || async move {
        for (ops, what) in cases {
            let scratch = Scratch::new();
            let named = format!("{ops:?}");
            let end = Ended::Lost("nothing more comes".to_owned());
            let turn = Turn { batches: vec![ops], durable: StateVersion(20), end };
            let outcome = follow(&scratch.replica(), true, vec![turn]).await;
            let End::Failed { message, exit_code } = outcome.end else {
                panic!("{named}: {:?}", outcome.end)
            };
            assert_eq!(exit_code, EXIT_REPLICA, "{named}");
            assert!(message.contains(what), "{named}: {message}");
            assert_eq!((outcome.commits.len(), ids(&scratch.replica()).as_str()), (0, ""), "{named}");
        }
    });
}
