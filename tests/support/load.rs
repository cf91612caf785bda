//! A write load on the app's tables, and the comparison of a replica with Postgres.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::sql::{Row, Sql};

/// Tables that are compared: name here, name in the replica, columns, key.
const COMPARED: [(&str, &str, &str, &str); 4] = [
    ("item", "item", "id, owner, n, payload", "id"),
    ("pair", "pair", "a, b, c", "a, b"),
    ("tick", "tick", "id", "id"),
    (
        "zero_0.clients",
        "\"zero_0.clients\"",
        r#""clientGroupID", "clientID", "lastMutationID""#,
        r#""clientGroupID", "clientID""#,
    ),
];

/// Numbers that are the same in every run.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Writers, as many apps at work.
pub struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts one writer per connection, each as fast as it can.
    pub fn start(connections: Vec<Sql>) -> Load {
        Load::paced(connections, Duration::ZERO)
    }

    /// Starts one writer per connection, which pause between transactions.
    pub fn paced(connections: Vec<Sql>, pause: Duration) -> Load {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let writer = |(number, mut sql): (usize, Sql)| {
            let (stop, done) = (stop.clone(), done.clone());
            std::thread::spawn(move || {
                let mut dice = Dice::new(number as u64 + 1);
                while !stop.load(Ordering::Relaxed) {
                    sql.run(&transaction(&mut dice, number));
                    done.fetch_add(1, Ordering::Relaxed);
                    if !pause.is_zero() {
                        std::thread::sleep(pause);
                    }
                }
            })
        };
        let threads = connections.into_iter().enumerate().map(writer).collect();
        Load { stop, done, threads }
    }

    /// Waits until this many more transactions have been made.
    pub fn until_more(&self, count: u64) {
        let until = self.done.load(Ordering::Relaxed) + count;
        while self.done.load(Ordering::Relaxed) < until {
            assert!(self.threads.iter().all(|t| !t.is_finished()), "a writer failed");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Ends it after the transactions under way; returns how many there were.
    pub fn finish(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for thread in std::mem::take(&mut self.threads) {
            thread.join().expect("a writer works");
        }
        self.done.load(Ordering::Relaxed)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in std::mem::take(&mut self.threads) {
            let _ = thread.join();
        }
    }
}

/// One transaction; each writer has keys of its own, so that none waits for another. What a row holds
/// it never held before: a row that comes again as it was is one that nobody wrote.
fn transaction(dice: &mut Dice, writer: usize) -> String {
    let key = dice.below(2_000);
    let id = format!("w{writer}-{key}");
    match dice.below(10) {
        0..3 => format!(
            "INSERT INTO item VALUES ('{id}', 'o{}', {key}, repeat('p', {}) || clock_timestamp())
             ON CONFLICT (id) DO UPDATE SET n = item.n + 1",
            dice.below(50),
            dice.below(3_000)
        ),
        3..6 => format!("UPDATE item SET n = n + 1 WHERE id = '{id}'"),
        6 => format!("DELETE FROM item WHERE id = '{id}'"),
        7 => format!(
            "BEGIN; DELETE FROM pair WHERE a = 'moved-{id}';
             UPDATE pair SET a = 'moved-' || a WHERE a = '{id}';
             INSERT INTO pair VALUES ('{id}', {key}, clock_timestamp())
             ON CONFLICT (a, b) DO UPDATE SET c = clock_timestamp();
             COMMIT"
        ),
        8 => format!(
            "INSERT INTO item SELECT 'w{writer}-b' || i, 'bulk', i, NULL FROM generate_series(1, {}) i
             ON CONFLICT (id) DO UPDATE SET n = item.n + 1",
            dice.below(100) + 1
        ),
        _ => format!(
            "BEGIN; DELETE FROM item WHERE id = '{id}'; INSERT INTO item VALUES ('{id}', 'x', 1, 'y'); ROLLBACK"
        ),
    }
}

/// The first difference between a replica that nobody writes and Postgres.
pub fn difference(replica: &Path, sql: &mut Sql) -> Option<String> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(replica, flags).expect("the replica opens");
    COMPARED.iter().find_map(|(upstream, table, columns, key)| {
        let text: Vec<String> = columns.split(", ").map(|c| format!("CAST({c} AS text)")).collect();
        let text = text.join(", ");
        let there = sql.rows(&format!("SELECT {text} FROM {upstream} ORDER BY {key}"));
        let here = rows(&connection, &format!("SELECT {text} FROM {table} ORDER BY {key}"));
        let first = there.iter().zip(&here).find(|(a, b)| a != b);
        match first {
            Some((there, here)) => Some(format!("{upstream}: {there:?} upstream, {here:?} in the replica")),
            None if there.len() != here.len() => {
                Some(format!("{upstream}: {} rows upstream, {} in the replica", there.len(), here.len()))
            }
            None => None,
        }
    })
}

fn rows(connection: &Connection, sql: &str) -> Vec<Row> {
    let mut statement = connection.prepare(sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
    let columns = statement.column_count();
    let row = |row: &rusqlite::Row| (0..columns).map(|c| row.get(c)).collect();
    let rows = statement.query_map([], row).expect("the replica can be read");
    rows.collect::<Result<_, _>>().expect("the replica can be read")
}

/// One value of the replica's own tables.
pub fn replica_value(replica: &Path, sql: &str) -> String {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(replica, flags).expect("the replica opens");
    connection.query_row(sql, [], |row| row.get(0)).unwrap_or_else(|e| panic!("{sql}: {e}"))
}
