//! Random migrations between and within random writes: a row lands in the wrong column, a value is lost, or the replica
//! is made anew though nothing asked for it. The oracle is Postgres.

use std::time::{Duration, Instant};

use crate::support::on_executor;
use crate::support::postgres::{Cluster, Database};
use crate::support::random::Random;
use crate::support::replicator::{Replicator, Scratch};
use crate::support::tables;
use kelvin_io::executor;

/// Steps between two comparisons of all rows.
const STEPS: u64 = 12;

/// Longest time for which values may stay what they were.
const STAYS: Duration = Duration::from_secs(30);

/// Comparisons of a run.
const ROUNDS: u64 = 5;

/// What a column of the test is filled with.
#[derive(Clone, Copy)]
enum Kind {
    Int,
    Text,
    Time,
    Bool,
    Json,
}

const KINDS: [Kind; 5] = [Kind::Int, Kind::Text, Kind::Time, Kind::Bool, Kind::Json];

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Int => "int",
            Kind::Text => "text",
            Kind::Time => "timestamptz",
            Kind::Bool => "bool",
            Kind::Json => "jsonb",
        }
    }

    fn literal(self, random: &mut Random) -> String {
        let n = random.below(50);
        match self {
            _ if random.chance(8) => "NULL".to_owned(),
            Kind::Int => n.to_string(),
            // Some are stored apart, so that an update does not carry them.
            Kind::Text if random.chance(4) => {
                format!("(SELECT string_agg(md5((i + {n})::text), '') FROM generate_series(1, 200) i)")
            }
            Kind::Text => format!("'t''{n}'"),
            Kind::Time => format!("'2026-01-{:02} 10:00:00.123456Z'::timestamptz", 1 + n % 28),
            Kind::Bool => n.is_multiple_of(2).to_string(),
            Kind::Json => format!("'{{\"n\": [{n}, \"x\"]}}'::jsonb"),
        }
    }

    /// What may stand behind DEFAULT.
    fn default(self, random: &mut Random) -> String {
        let literal = self.literal(random);
        if literal.starts_with('(') { "'long'".to_owned() } else { literal }
    }
}

/// A table as the test has made it.
#[derive(Clone)]
struct Table {
    name: String,
    columns: Vec<(String, Kind)>,
    /// Names are given once, or the change is one that cannot be followed.
    names: u64,
}

impl Table {
    fn fresh(&mut self, prefix: &str) -> String {
        // Some names come back.
        self.names += 1;
        let number = if self.names.is_multiple_of(3) && self.names > 3 { self.names - 3 } else { self.names };
        let name = format!("{prefix}{number}");
        let is_taken = self.name == name || self.columns.iter().any(|(column, _)| *column == name);
        if is_taken { format!("{prefix}{}", self.names) } else { name }
    }

    fn write(&mut self, random: &mut Random) -> String {
        let (name, id) = (&self.name, random.below(40));
        let set = |(column, kind): &(String, Kind), random: &mut Random| {
            format!("{column} = {}", kind.literal(random))
        };
        match random.below(6) {
            0 => format!("DELETE FROM {name} WHERE id = {id}"),
            1 => format!(
                "UPDATE {name} SET id = id + 100000 WHERE id = {id}; UPDATE {name} SET id = id - 100000 WHERE id >= 100000"
            ),
            2 | 3 if !self.columns.is_empty() => {
                let column = random.one_of(&self.columns).clone();
                format!("UPDATE {name} SET {} WHERE id % 7 = {}", set(&column, random), id % 7)
            }
            _ => {
                let some: Vec<(String, Kind)> =
                    self.columns.iter().filter(|_| random.below(3) > 0).cloned().collect();
                let names: String = some.iter().map(|(column, _)| format!(", {column}")).collect();
                let values: String =
                    some.iter().map(|(_, kind)| format!(", {}", kind.literal(random))).collect();
                format!("INSERT INTO {name} (id{names}) VALUES ({id}{values}) ON CONFLICT DO NOTHING")
            }
        }
    }

    fn migrate(&mut self, random: &mut Random) -> String {
        let table = self.name.clone();
        match random.below(9) {
            0..=2 => {
                let (column, kind) = (self.fresh("c"), *random.one_of(&KINDS));
                let default = match random.below(3) {
                    0 => String::new(),
                    _ => format!(" DEFAULT {}", kind.default(random)),
                };
                self.columns.push((column.clone(), kind));
                format!("ALTER TABLE {table} ADD COLUMN {column} {}{default}", kind.name())
            }
            3 if !self.columns.is_empty() => {
                let at = random.below(self.columns.len() as u64) as usize;
                let (column, _) = self.columns.remove(at);
                format!("ALTER TABLE {table} DROP COLUMN {column}")
            }
            // Stored values become others, or are of another type.
            4 if !self.columns.is_empty() => {
                let at = random.below(self.columns.len() as u64) as usize;
                let (column, kind) = &mut self.columns[at];
                let (to, using) = match *kind {
                    Kind::Int if random.chance(2) => (Kind::Bool, format!("{column} > 20")),
                    Kind::Int => (Kind::Int, format!("{column} % 1000 * 3")),
                    Kind::Text if random.chance(2) => (Kind::Int, format!("length({column})")),
                    Kind::Text => (Kind::Text, format!("left({column}, 3)")),
                    Kind::Time => (Kind::Time, format!("date_trunc('hour', {column})")),
                    Kind::Bool => (Kind::Int, format!("{column}::int")),
                    Kind::Json => (Kind::Text, format!("{column}::text")),
                };
                *kind = to;
                format!(
                    "ALTER TABLE {table} ALTER COLUMN {column} DROP DEFAULT, ALTER COLUMN {column} TYPE {} USING {using}",
                    to.name()
                )
            }
            5 if !self.columns.is_empty() => {
                let (to, at) = (self.fresh("r"), random.below(self.columns.len() as u64) as usize);
                let from = std::mem::replace(&mut self.columns[at].0, to.clone());
                format!("ALTER TABLE {table} RENAME COLUMN {from} TO {to}")
            }
            6 => {
                // Another table may have an earlier name by now.
                self.names += 1;
                self.name = format!("t{}", self.names);
                format!("ALTER TABLE {table} RENAME TO {}", self.name)
            }
            7 if !self.columns.is_empty() => {
                let (column, kind) = random.one_of(&self.columns).clone();
                let value = kind.default(random).replace("NULL", "DEFAULT");
                format!(
                    "ALTER TABLE {table} ALTER COLUMN {column} SET DEFAULT {}",
                    value.replace("DEFAULT", "NULL")
                )
            }
            8 if self.columns.iter().any(|(_, kind)| matches!(kind, Kind::Int | Kind::Time)) => {
                // Long texts have no place in an index.
                let mut short =
                    self.columns.iter().filter(|(_, kind)| matches!(kind, Kind::Int | Kind::Time));
                let column = short.next().map(|(column, _)| column.clone()).unwrap_or_default();
                format!(
                    "CREATE INDEX ON {table} (({column})) WHERE id > 3; CREATE INDEX ON {table} ({column})"
                )
            }
            _ => format!("CREATE INDEX ON {table} (id DESC)"),
        }
    }
}

/// Another table, with rows that no change tells of.
fn create(all: &mut Vec<Table>, random: &mut Random) -> String {
    let name = format!("new{}_{}", all.len(), random.below(1_000_000));
    let columns: Vec<(String, Kind)> = vec![("a".to_owned(), Kind::Text), ("j".to_owned(), Kind::Json)];
    all.push(Table { name: name.clone(), columns, names: 1000 * all.len() as u64 });
    let rows = random.below(3_000);
    format!(
        "BEGIN; CREATE TABLE {name} (id int PRIMARY KEY, a text, j jsonb);
         INSERT INTO {name} SELECT i, 'a' || i, NULL FROM generate_series(1, {rows}) i; COMMIT"
    )
}

/// Tables change their names or are replaced by others, in one transaction.
fn exchange(all: &mut [Table], random: &mut Random) -> String {
    let (a, b) = (random.below(all.len() as u64) as usize, random.below(all.len() as u64) as usize);
    let (name, other) = (all[a].name.clone(), all[b].name.clone());
    match random.below(5) {
        0 | 1 if a != b => {
            (all[a].name, all[b].name) = (other.clone(), name.clone());
            let write = format!("DELETE FROM {name} WHERE id = 5003; UPDATE {name} SET id = 5003 WHERE id = 3");
            format!(
                "BEGIN; ALTER TABLE {name} RENAME TO between; ALTER TABLE {other} RENAME TO {name};
                 ALTER TABLE between RENAME TO {other}; {write}; COMMIT"
            )
        }
        2 | 3 => format!(
            "BEGIN; CREATE TABLE between (LIKE {name} INCLUDING ALL); INSERT INTO between SELECT * FROM {name} WHERE id % 5 > 0;
             DROP TABLE {name}; ALTER TABLE between RENAME TO {name}; DELETE FROM {name} WHERE id = 6; COMMIT"
        ),
        _ => format!("BEGIN; TRUNCATE {name}; INSERT INTO {name} (id) SELECT generate_series(1, 9); COMMIT"),
    }
}

const PARTITIONED: &str = "CREATE TABLE parted (id int PRIMARY KEY, n int) PARTITION BY RANGE (id);
    CREATE TABLE part0 PARTITION OF parted FOR VALUES FROM (0) TO (100);
    CREATE TABLE part1 PARTITION OF parted FOR VALUES FROM (100) TO (200);
    INSERT INTO parted SELECT i, i FROM generate_series(0, 199) i";

const DISABLE: &str = "DO $$ DECLARE t text; BEGIN FOR t IN SELECT evtname FROM pg_event_trigger LOOP
    EXECUTE format('ALTER EVENT TRIGGER %I DISABLE', t); END LOOP; END $$";

/// Partitions of a table, by their numbers: a hundred keys each.
struct Partitions {
    there: Vec<u64>,
    detached: Vec<u64>,
    next: u64,
}

impl Partitions {
    fn step(&mut self, random: &mut Random) -> String {
        let write = format!("UPDATE parted SET n = n + 1 WHERE id % 50 = {}", random.below(50));
        let bounds = |number: u64| format!("FOR VALUES FROM ({}) TO ({})", number * 100, number * 100 + 100);
        let change = match random.below(7) {
            0 if self.there.len() > 1 => {
                let number = self.there.swap_remove(0);
                format!("DROP TABLE part{number}")
            }
            1 if !self.there.is_empty() => {
                let number = self.there.swap_remove(0);
                self.detached.push(number);
                format!("ALTER TABLE parted DETACH PARTITION part{number}; UPDATE part{number} SET n = -n")
            }
            2 if !self.detached.is_empty() => {
                // It stays: as a table of its own it would have the name of one that was gone.
                let number = self.detached.swap_remove(0);
                format!("ALTER TABLE parted ATTACH PARTITION part{number} {}", bounds(number))
            }
            3 if !self.there.is_empty() => format!("TRUNCATE part{}", self.there[0]),
            4 => "ALTER TABLE parted ALTER n TYPE int USING n % 1000 * 2".to_owned(),
            _ => {
                let number = self.next;
                self.next += 1;
                self.there.push(number);
                let rows = format!(
                    "INSERT INTO parted SELECT i, i FROM generate_series({}, {}) i",
                    number * 100,
                    number * 100 + 40
                );
                format!("CREATE TABLE part{number} PARTITION OF parted {}; {rows}", bounds(number))
            }
        };
        match random.below(3) {
            0 => format!("{write}; {change}; {write}"),
            1 => format!("BEGIN; {write}; {change}; {write}; COMMIT"),
            _ => change,
        }
    }
}

/// One or several statements as one transaction, which may be undone.
fn step(table: &mut Table, random: &mut Random) -> String {
    let before = table.clone();
    let statements: Vec<String> = (0..1 + random.below(5))
        .map(|_| if random.chance(3) { table.migrate(random) } else { table.write(random) })
        .collect();
    let names = table.names;
    if random.chance(5) {
        *table = Table { names, ..before };
        return format!("BEGIN; {}; ROLLBACK", statements.join("; "));
    }
    format!("BEGIN; {}; COMMIT", statements.join("; "))
}

async fn run(seed: u64) {
    let seed = std::env::var("KELVIN_TEST_SEED").map_or(seed, |seed| seed.parse().expect("a number"));
    let mut random = Random::new(seed);
    let database = Cluster::shared().database().await;
    let scratch = Scratch::new();
    database.run("CREATE TABLE t (id int PRIMARY KEY, a text, b int); INSERT INTO t SELECT i, 'a' || i, i FROM generate_series(1, 40) i").await;
    let columns = [("a", Kind::Text), ("b", Kind::Int)].map(|(name, kind)| (name.to_owned(), kind)).into();
    let mut all = vec![Table { name: "t".to_owned(), columns, names: 0 }];
    database.run(PARTITIONED).await;
    let mut partitions = Partitions { there: vec![0, 1], detached: Vec::new(), next: 2 };
    let mut replicator = Some(Replicator::follow(&database, &scratch).await);
    if seed.is_multiple_of(2) {
        // As for a role that may not make them.
        database.run(DISABLE).await;
    }
    for _ in 0..ROUNDS {
        for _ in 0..STEPS {
            disturb(&mut replicator, &database, &mut random).await;
            let statements = match random.below(12) {
                0 => create(&mut all, &mut random),
                1 => exchange(&mut all, &mut random),
                2 => partitions.step(&mut random),
                _ => {
                    let at = random.below(all.len() as u64) as usize;
                    step(&mut all[at], &mut random)
                }
            };
            println!("{statements}");
            database.run(&statements).await;
        }
        settle(&mut replicator, &database, &scratch).await;
    }
    if let Some(replicator) = replicator {
        replicator.stop().await;
    }
}

/// Breaks the connection, or ends the process, now and then.
async fn disturb(replicator: &mut Option<Replicator>, database: &Database, random: &mut Random) {
    match random.below(12) {
        0 => {
            let kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_replication WHERE application_name = 'zero-replicator'";
            database.value(kill).await;
        }
        1 => {
            if let Some(running) = replicator.take() {
                running.stop().await;
            }
        }
        _ => {}
    }
}

/// Compares all rows, which must be there without a new sync.
async fn settle(replicator: &mut Option<Replicator>, database: &Database, scratch: &Scratch) {
    let mut running = match replicator.take() {
        Some(running) => running,
        None => Replicator::follow(database, scratch).await,
    };
    let started = Instant::now();
    loop {
        assert!(running.follows(database).await, "{:?}", running.ended().await);
        // Values that were rewritten are seen at the next look, and copied then.
        let catalogue = tables::catalogue(&tables::open(&running.replica));
        match tables::difference(database, &catalogue, &running.replica).await {
            None => break,
            Some(difference) if started.elapsed() > STAYS => panic!("{difference}"),
            Some(_) => executor::sleep(Duration::from_millis(50)).await,
        }
    }
    running.check(database).await;
    *replicator = Some(running);
}

macro_rules! seeds {
    ($($name:ident: $seed:expr;)*) => {
        $(
            #[test]
            fn $name() {
                on_executor(|| run($seed));
            }
        )*
    };
}

seeds! {
    random_migrations_lose_a_row: 1;
    random_migrations_lose_a_value: 2;
    random_migrations_mix_columns_up: 3;
    random_migrations_need_a_new_sync: 4;
}
