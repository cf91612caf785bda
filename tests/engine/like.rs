//! LIKE matches something else than in Postgres, or takes longer than the text is long.

use std::time::{Duration, Instant};

use crate::model::choices::Choices;
use crate::model::random;
use crate::model::replica::Replica;
use crate::support::postgres::Cluster;
use crate::support::sql::Sql;
use kelvin::replica::like::{Pattern, fold};
use kelvin::replica::reader::{ReadError, Reader};

/// Texts and patterns.
fn pairs(choices: &mut Choices, count: usize, alphabet: &[char]) -> Vec<(String, String)> {
    let text = |choices: &mut Choices, most: usize, wild: bool| {
        let length = choices.below(most);
        let any = |choices: &mut Choices| match wild && choices.percent(40) {
            true => *choices.pick(&['%', '_', '\\', '%']),
            false => *choices.pick(alphabet),
        };
        (0..length).map(|_| any(choices)).collect::<String>()
    };
    let mut out = Vec::new();
    while out.len() < count {
        let pair = (text(choices, 14, false), text(choices, 9, true));
        // Postgres looks at the end of a pattern only when it comes to it.
        if Pattern::new(&pair.1).is_ok() {
            out.push(pair);
        }
    }
    out
}

fn of_postgres(sql: &mut Sql, pairs: &[(String, String)], op: &str) -> Vec<bool> {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
    let rows: Vec<String> =
        pairs.iter().enumerate().map(|(n, (t, p))| format!("({n},{},{})", quoted(t), quoted(p))).collect();
    let statement = format!(
        "SELECT string_agg((t {op} p)::int::text, '' ORDER BY n) FROM (VALUES {}) v(n, t, p)",
        rows.join(",")
    );
    sql.value(&statement).chars().map(|c| c == '1').collect()
}

fn of_sqlite(reader: &Reader, pairs: &[(String, String)], function: &str) -> Vec<bool> {
    let mut statement = reader.prepare_once(&format!("SELECT {function}(?, ?)")).expect("a statement");
    let one = |(text, pattern): &(String, String)| {
        statement.query_row((text, pattern), |row| row.get(0)).expect("an answer")
    };
    pairs.iter().map(one).collect()
}

fn differing(pairs: &[(String, String)], a: &[bool], b: &[bool]) -> Vec<(String, String)> {
    assert_eq!((a.len(), b.len()), (pairs.len(), pairs.len()));
    pairs.iter().zip(a.iter().zip(b)).filter(|(_, (a, b))| a != b).map(|(pair, _)| pair.clone()).collect()
}

#[test]
fn random_patterns_match_what_they_match_in_postgres() {
    let cluster = Cluster::shared();
    let mut sql = Sql::connect(cluster.port, "postgres");
    let replica = Replica::create(&random::schema());
    let reader = replica.reader();
    for seed in 0..8 {
        let mut choices = Choices::new((seed, 100_000));
        let given = pairs(&mut choices, 1_500, &['a', 'b', '%', '_', '\\', 'é', '😀', '\n']);
        let ours: Vec<bool> = given.iter().map(|(t, p)| Pattern::new(p).expect("one").matches(t)).collect();
        assert!(ours.iter().filter(|matches| **matches).count() > 100);
        assert_eq!(differing(&given, &ours, &of_postgres(&mut sql, &given, "LIKE")), []);
        assert_eq!(differing(&given, &ours, &of_sqlite(&reader, &given, "zero_like")), []);
        // How others fold depends on the locale of the database.
        let given = pairs(&mut choices, 1_500, &['a', 'A', 'b', 'B', '%', '_']);
        let folded: Vec<(String, String)> = given.iter().map(|(t, p)| (t.clone(), fold(p))).collect();
        let ours: Vec<bool> =
            folded.iter().map(|(t, p)| Pattern::new(p).expect("one").matches(&fold(t))).collect();
        assert_eq!(differing(&given, &ours, &of_postgres(&mut sql, &given, "ILIKE")), []);
        assert_eq!(differing(&given, &ours, &of_sqlite(&reader, &folded, "zero_ilike")), []);
    }
}

#[test]
fn a_nul_in_a_pattern_does_not_end_it() {
    let replica = Replica::create(&random::schema());
    let reader = replica.reader();
    let pair = |text: &str, pattern: &str| vec![(text.to_owned(), pattern.to_owned())];
    assert_eq!(of_sqlite(&reader, &pair("abc", "%\0zzz"), "zero_like"), [false]);
    assert_eq!(of_sqlite(&reader, &pair("abc", "%\0zzz"), "zero_ilike"), [false]);
    assert_eq!(of_sqlite(&reader, &pair("a\0zzz", "%\0zzz"), "zero_like"), [true]);
}

/// SQLite took four seconds for one text.
#[test]
fn a_long_text_takes_sqlite_milliseconds_for_a_long_pattern() {
    let replica = Replica::create(&random::schema());
    let reader = replica.reader();
    let text = "a".repeat(100_000);
    let pair = vec![(text, format!("%{}b%", "a".repeat(40_000)))];
    let began = Instant::now();
    assert_eq!(of_sqlite(&reader, &pair, "zero_like"), [false]);
    assert_eq!(of_sqlite(&reader, &pair, "zero_ilike"), [false]);
    // The bound is for a machine that has much else to do.
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

/// SQLite looks whether it should stop every some thousand steps; each of these may be a megabyte.
#[test]
fn what_is_compared_counts_for_the_budget_of_a_statement() {
    let replica = Replica::create(&random::schema());
    let mut reader = replica.hydration_reader();
    let text = "a".repeat(1 << 20);
    const ROWS: &str = "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 400)
        SELECT count(*) FROM n WHERE zero_like(? || i, '%b%')";
    let run = |reader: &Reader| -> Result<i64, ReadError> {
        Ok(reader.prepare(ROWS)?.query_row([&text], |row| row.get(0))?)
    };
    assert_eq!(run(&reader).expect("an answer"), 0);
    // Few steps: without the texts it would not reach this.
    reader.limit(1 << 20).expect("a limit");
    assert!(matches!(run(&reader), Err(ReadError::Interrupted)));
    let within = reader.within(1 << 19, || run(&reader));
    assert!(matches!(within, Ok(None)), "{within:?}");
    let raised = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let mut reader = replica.hydration_reader();
    reader.stop_when(raised).expect("a flag");
    assert!(matches!(run(&reader), Err(ReadError::Interrupted)));
}
