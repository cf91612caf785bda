//! From which side a query with EXISTS is read: `cargo bench --profile ci --bench driving`.
//!
//! The fifty newest of 300,000 issues with a label, and all that have it, for labels that few or
//! many issues have: read from the issues, from the label, and as it is chosen, trials included.
//! Times are CPU time of the thread; the lowest of some rounds is printed.

#[path = "../tests/model/mod.rs"]
mod model;

use std::time::Duration;

use kelvin::replica::reader::{ReadError, Reader};
use kelvin::zql::ast::{Ast, Condition};
use kelvin::zql::evaluate::{Collect, ScopeKey, evaluate, evaluate_from};
use kelvin::zql::plan::{Plan, plan};
use model::build::{Build, exists, from, test};
use model::cell::{Cell, Kind};
use model::database::Write;
use model::replica::Replica;
use model::schema::{Schema, TableSpec};
use rustix::time::{ClockId, clock_gettime};

/// Issues that there are.
const ISSUES: usize = 300_000;
/// One issue in so many has the label of that name.
const ONE_IN: [usize; 4] = [30_000, 1_000, 30, 2];
/// Rounds of which the lowest time is taken.
const ROUNDS: usize = 5;

/// Takes what is found and forgets it.
struct Nobody;

impl Collect for Nobody {
    fn keys(&mut self, _: usize, _: &[ScopeKey]) -> Result<(), ReadError> {
        Ok(())
    }
    fn row(&mut self, _: usize, _: usize, _: &[u8], _: &rusqlite::Row<'_>) -> Result<(), ReadError> {
        Ok(())
    }
    fn witnesses(&self, _: usize, _: &[u8]) -> Vec<Vec<u8>> {
        Vec::new()
    }
}

fn schema() -> Schema {
    let table = |name, columns: &[(&'static str, Kind)], key: &[usize], indexes: &[&[usize]]| {
        let columns = columns.iter().map(|(name, kind)| (*name, *kind, true)).collect();
        TableSpec::new(name, columns, &[key], indexes)
    };
    let text = Kind::Text;
    Schema::new(vec![
        table("issue", &[("id", text), ("created", Kind::Int), ("title", text)], &[0], &[&[1]]),
        table("label", &[("id", text), ("name", text)], &[0], &[]),
        table("issue_label", &[("issue", text), ("label", text)], &[0, 1], &[&[1]]),
    ])
}

fn fill(schema: &Schema) -> Replica {
    let mut replica = Replica::create(schema);
    let text = Cell::Text;
    let insert = |table: &str, row: Vec<Cell>| Write::Insert { table: schema.find(table), row };
    let label = |one_in: usize| format!("l{one_in}");
    let names = ONE_IN.map(|n| insert("label", vec![text(label(n)), text(format!("one in {n}"))]));
    replica.commit(&names);
    let all: Vec<usize> = (0..ISSUES).collect();
    for some in all.chunks(10_000) {
        let mut writes = Vec::new();
        for n in some {
            let id = || text(format!("i{n:07}"));
            // The newest ones are anywhere.
            let created = Cell::Int((n * 7919 % ISSUES) as i64);
            writes.push(insert("issue", vec![id(), created, text("Something is broken".into())]));
            let labels = ONE_IN.iter().filter(|one_in| n % *one_in == 0);
            writes.extend(labels.map(|one_in| insert("issue_label", vec![id(), text(label(*one_in))])));
        }
        replica.commit(&writes);
    }
    replica
}

fn with_label(one_in: usize) -> Condition {
    let label =
        exists("label=id", from("label").filter(test("name", "=", format!("one in {one_in}").as_str())));
    exists("id=issue", from("issue_label").filter(label))
}

fn milliseconds(mut read: impl FnMut()) -> f64 {
    let once = |read: &mut dyn FnMut()| {
        let begun = cpu();
        read();
        cpu() - begun
    };
    let lowest = (0..ROUNDS).map(|_| once(&mut read)).min().unwrap_or_default();
    lowest.as_secs_f64() * 1e3
}

fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn report(reader: &Reader, what: &str, plan: &Plan) {
    let from = |driver| milliseconds(|| evaluate_from(reader, plan, driver, &mut Nobody).expect("an answer"));
    let (table, label) = (from(0), from(1));
    let chosen = milliseconds(|| {
        evaluate(reader, plan, &mut Nobody).expect("an answer");
    });
    println!("| {what} | {table:.2} ms | {label:.2} ms | {chosen:.2} ms |");
}

fn main() {
    let schema = schema();
    let replica = fill(&schema);
    let reader = replica.reader();
    reader.begin().expect("a snapshot");
    println!("| what | from the issues | from the label | as chosen |\n|---|---|---|---|");
    let newest = |ast: Ast| ast.order("created desc").limit(50);
    for one_in in ONE_IN {
        let all = from("issue").filter(with_label(one_in));
        for (what, ast) in [("the newest 50", newest(all.clone())), ("all", all)] {
            let plan = plan(&ast, &schema.catalogue, &schema, &kelvin::zql::limits::Limits::DEFAULT)
                .expect("a plan");
            report(&reader, &format!("{what}, one in {one_in} has the label"), &plan);
        }
    }
}
