//! What shared views cost, on the library's own interface: `cargo bench --profile ci --bench views`.
//!
//! One process, no Postgres. Arguments choose among `routing`, `candidates`, `memory`; none
//! means all. Times are CPU time of the thread; the lowest of some rounds is printed, since all
//! that others do on the machine only adds to it.

#[path = "../tests/model/mod.rs"]
mod model;

use std::sync::Arc;
use std::time::Duration;

use futures_lite::future::block_on;
use kelvin::model::batch::Batch;
use kelvin::model::commit::{Commit, RowChange, TableChange};
use kelvin::model::ids::TableId;
use kelvin::model::key;
use kelvin::model::value::Value;
use kelvin::model::version::StateVersion;
use kelvin::views::changed::Changed;
use kelvin::views::pace::NoPace;
use kelvin::views::routing::Routing;
use kelvin::views::state::ViewState;
use kelvin::views::view::ViewId;
use kelvin::zql::ast::{Ast, Literal};
use model::build::{Build, Constant, and, exists, from, test};
use model::cell::{Cell, Kind};
use model::database::{Row, Write};
use model::keeper::{Keeper, route};
use model::replica::Replica;
use model::schema::{Schema, TableSpec};
use rustix::time::{ClockId, clock_gettime};

/// As the server has it: memory depends on it.
#[global_allocator]
static ALLOCATOR: kelvin_io::allocator::Counting = kelvin_io::allocator::Counting::new();

/// Rounds of which the lowest time is taken.
const ROUNDS: usize = 10;
/// Rows of a batch of `routing`: what they find is not in the cache from the round before.
const ROUTED: usize = 50_000;
/// Rows of a batch of `candidates`: not so many that the views are read anew instead.
const BATCH: usize = 1_000;
/// Issues of `candidates`; each has one comment and two labels on average.
const ISSUES: usize = 100_000;
/// Labels that there are.
const LABELS: usize = 20;
/// Columns of a filter's constants in `routing`: a table has subscription_index in each.
const COLUMNS: [&str; 6] = ["assignee", "creator", "id", "project", "status", "title"];
/// Constants of one view in `routing`.
const CONSTANTS: usize = 50;
/// Rows of the views of `memory`: soon after their tables have doubled, and before they do again.
const MEMBERS: [usize; 2] = [600_000, 900_000];
/// Further views with the same rows. What the tables of one leave behind when they double, the
/// next may use: many are needed.
const FURTHER: usize = 10;

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let has = |name: &str| wanted.is_empty() || wanted.iter().any(|w| w == name);
    println!("{:<64} {:>10} {:>10}", "", "measured", "goal");
    // First, while nothing that was freed hides what is taken.
    if has("memory") {
        memory();
    }
    if has("routing") {
        routing(10_000, 1.0);
        routing(1_000_000, 2.0);
    }
    if has("candidates") {
        candidates();
    }
}

fn print(what: &str, measured: f64, unit: &str, goal: Option<f64>) {
    let verdict = match goal {
        Some(goal) => format!("{goal:>7} {unit}{}", if measured <= goal { "" } else { "  MISSED" }),
        None => String::new(),
    };
    println!("{what:<64} {measured:>7.2} {unit:<3}{verdict}");
}

fn microseconds(time: Duration, among: usize) -> f64 {
    time.as_secs_f64() * 1e6 / among.max(1) as f64
}

/// CPU time of this thread so far.
fn cpu() -> Duration {
    let t = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(t.tv_sec as u64, t.tv_nsec as u32)
}

fn text(text: impl Into<String>) -> Cell {
    Cell::Text(text.into())
}

/// The tables of an issue tracker; all columns are texts.
fn schema() -> Schema {
    let table = |name, columns: &[&'static str], keys: usize, indexes: &[usize]| {
        let columns = columns.iter().map(|c| (*c, Kind::Text, true)).collect();
        let key: Vec<usize> = (0..keys).collect();
        let indexes: Vec<&[usize]> = indexes.iter().map(std::slice::from_ref).collect();
        TableSpec::new(name, columns, &[&key], &indexes)
    };
    let issue =
        ["id", "assignee", "creator", "project", "status", "title", "body", "rev", "created", "updated"];
    Schema::new(vec![
        table("comments", &["id", "issue", "author", "body"], 1, &[1]),
        table("issues", &issue, 1, &[3]),
        table("issue_labels", &["issue", "label"], 2, &[1]),
        table("labels", &["id", "name"], 1, &[]),
    ])
}

fn issue(i: usize, revision: usize) -> Row {
    vec![
        text(format!("i{i:07}")),
        text(format!("u{}", i * 7 % 1000)),
        text(format!("u{}", i * 11 % 1000)),
        text(format!("p{}", i % 1000)),
        text(if i.is_multiple_of(3) { "open" } else { "done" }),
        text(format!("Export crashes after reconnecting {i}")),
        text("Seen on staging and in production. A hard reload makes it go away until the next edit."),
        text(format!("{revision}")),
        text(format!("2024-01-01T00:00:{i:07}")),
        text(format!("2025-01-01T00:00:{i:07}")),
    ]
}

/// Rows of a table, inserted in commits of a size that the applier is made for.
fn fill(replica: &mut Replica, table: usize, rows: impl Iterator<Item = Row>) {
    let writes: Vec<Write> = rows.map(|row| Write::Insert { table, row }).collect();
    writes.chunks(10_000).for_each(|part| drop(replica.commit(part)));
}

/// Time per changed row to find who wants to hear of it, past so many constants of views.
fn routing(subscription_index: usize, goal: f64) {
    let schema = schema();
    let (replica, table) = (Replica::create(&schema), schema.find("issues"));
    let mut keeper = Keeper::new(&replica, &schema);
    for view in 0..subscription_index / CONSTANTS {
        let constants = (0..CONSTANTS).map(|c| Literal::String(format!("{view}-{c}"))).collect();
        let column = COLUMNS[view % COLUMNS.len()];
        keeper.open(&from("issues").filter(test(column, "IN", Constant(Literal::Array(constants)))));
    }
    assert_eq!(keeper.views.subscription_index().len(), subscription_index, "a filter that fixes nothing");
    let rows = |watched: bool| -> Vec<Row> {
        let views = subscription_index / CONSTANTS;
        let of_view = |i: usize| {
            let view = i * 7919 % views;
            let mut row = issue(i, 0);
            let column = schema.column(table, COLUMNS[view % COLUMNS.len()]);
            row[column] = text(format!("{view}-{}", i / views % CONSTANTS));
            row
        };
        (0..ROUTED).map(|i| if watched { of_view(i) } else { issue(i, 0) }).collect()
    };
    let name =
        |what: &str| format!("changed row past {subscription_index} subscription_index in 6 columns, {what}");
    let nobody = route_rows(&mut keeper, &replica, table, &rows(false));
    print(&name("nobody's"), nobody, "us", Some(goal));
    let one = route_rows(&mut keeper, &replica, table, &rows(true));
    print(&name("one view's"), one, "us", Some(goal));
}

/// Microseconds per row to route rows whose last column changes.
fn route_rows(keeper: &mut Keeper, replica: &Replica, table: usize, rows: &[Row]) -> f64 {
    let reader = replica.reader();
    let end = reader.begin().expect("a snapshot");
    let stored = |row: &Row| -> Box<[Value]> { row.iter().map(Cell::stored).collect() };
    let change = |row: &Row| {
        let mut new = row.clone();
        *new.last_mut().expect("columns") = text("changed");
        let key = stored(&row[..1].to_vec());
        RowChange { key, old: Some(stored(row)), new: Some(stored(&new)) }
    };
    let commit = Commit {
        version: end,
        previous: StateVersion::ZERO,
        tables: [(TableId(table as u16), TableChange::Rows(rows.iter().map(change).collect()))].into(),
        size: 0,
    };
    let commits = [Arc::new(commit)];
    let batch = Batch::fold(&commits, end);
    let changed = Changed::new(&batch, &keeper.rows.borrow());
    let once = || {
        let begun = cpu();
        let mut routing = Routing::new(&batch, &changed, &keeper.views, None);
        while routing.step(&keeper.views, &reader).expect("no reads") {}
        let found = routing.finish();
        let time = cpu() - begun;
        drop(found);
        time
    };
    microseconds((0..ROUNDS).map(|_| once()).min().unwrap_or_default(), rows.len())
}

/// Issues with a comment and a label: two conditions, one through a junction.
fn watched() -> Ast {
    let label = from("labels").filter(test("name", "=", "label 3"));
    let junction = from("issue_labels").filter(exists("label=id", label));
    from("issues").filter(and([exists("id=issue", from("comments")), exists("id=issue", junction)]))
}

/// Time per changed row of a view with two conditions, to look at it again.
fn candidates() {
    let schema = schema();
    let mut replica = Replica::create(&schema);
    let find = |name: &str| schema.find(name);
    let id = |i: usize| text(format!("i{i:07}"));
    fill(
        &mut replica,
        find("labels"),
        (0..LABELS).map(|l| vec![text(format!("l{l}")), text(format!("label {l}"))]),
    );
    fill(&mut replica, find("issues"), (0..ISSUES).map(|i| issue(i, 0)));
    let comment =
        |c: usize| vec![text(format!("c{c}")), id(c * 7919 % ISSUES), text("u1"), text("I see this too.")];
    fill(&mut replica, find("comments"), (0..ISSUES).map(comment));
    let labelled = |n: usize| vec![id(n / 2), text(format!("l{}", (n / 2 * 3 + n % 2 * 7) % LABELS))];
    fill(&mut replica, find("issue_labels"), (0..2 * ISSUES).map(labelled));
    let mut keeper = Keeper::new(&replica, &schema);
    let id = keeper.open(&watched());
    println!("(a view of {} rows: issues and witnesses)", keeper.view(id).size);
    let mut best = (Duration::MAX, Duration::MAX, 1);
    for round in 0..ROUNDS {
        let update = |n: usize| {
            let i = (round * BATCH + n) * 6151 % ISSUES;
            Write::Update { table: schema.find("issues"), old: issue(i, 0), new: issue(i, 1) }
        };
        let writes: Vec<Write> = (0..BATCH).map(update).collect();
        let commit = replica.commit(&writes);
        let (routed, advanced, looked_at) = look_again(&mut keeper, &replica, commit);
        if advanced < best.1 {
            best = (routed, advanced, looked_at);
        }
    }
    let name = |what: &str| format!("candidate with two EXISTS, one through a junction, {what}");
    print(&name("routed"), microseconds(best.0, best.2), "us", None);
    print(&name("looked at"), microseconds(best.1, best.2), "us", Some(15.0));
}

/// Takes a commit; how long routing took, how long looking at the rows, and how many these were.
fn look_again(keeper: &mut Keeper, replica: &Replica, commit: Arc<Commit>) -> (Duration, Duration, usize) {
    let reader = replica.reader();
    let since = std::mem::replace(&mut keeper.version, reader.begin().expect("a snapshot"));
    let commits = [commit];
    let batch = Batch::fold(&commits, keeper.version);
    let begun = cpu();
    let tasks = route(&mut keeper.views, &reader, &batch, None);
    let routed = cpu() - begun;
    assert!(tasks.stale.is_empty() && tasks.advance.len() == 1, "the view is read anew");
    let changed = Changed::new(&batch, &keeper.rows.borrow());
    let begun = cpu();
    let mut looked_at = 0;
    for task in tasks.advance {
        let id = task.view;
        let before = keeper.view(id).cost.looked_at;
        let done = block_on(task.perform(&changed, &reader, &mut NoPace));
        done.settle(&mut keeper.views, since);
        looked_at += (keeper.view(id).cost.looked_at - before) as usize;
    }
    (routed, cpu() - begun, looked_at)
}

/// Memory of a row of a view, and of the same row in one more view.
fn memory() {
    let schema = schema();
    let replica = Replica::create(&schema);
    let mut keeper = Keeper::new(&replica, &schema);
    let status = |n: usize| format!("status {n}");
    let mut open = |n: usize| keeper.open(&from("issues").filter(test("status", "=", status(n).as_str())));
    let (first, further) = (open(0), (1..=FURTHER).map(&mut open).collect::<Vec<_>>());
    let before = resident();
    for members in MEMBERS {
        hold(&mut keeper, first, members);
        let bytes = (resident() - before) / members as f64;
        print(&format!("one of {members} members of a view, key of 20 bytes"), bytes, "B", Some(100.0));
    }
    let before = resident();
    for members in MEMBERS {
        further.iter().for_each(|view| hold(&mut keeper, *view, members));
        let bytes = (resident() - before) / (members * FURTHER) as f64;
        print(&format!("the same row in a further view, {members} members"), bytes, "B", Some(16.0));
    }
}

/// Has a view hold so many rows, as reading them would.
fn hold(keeper: &mut Keeper, id: ViewId, members: usize) {
    let layout = keeper.view(id).layout.clone();
    let view = keeper.views.get_mut(id).expect("the view");
    let mut state = match view.state.is_empty() {
        true => ViewState::new(1, layout.flat()),
        false => std::mem::take(&mut view.state),
    };
    let mut bytes = Vec::new();
    for i in state.len()..members {
        bytes.clear();
        key::push((&Value::Text(format!("issue-{i:014}").as_str().into())).into(), &mut bytes);
        state.enter(keeper.rows.borrow_mut().intern(layout.identities[0], &bytes));
        state.flat_rows += 1;
    }
    keeper.views.get_mut(id).expect("the view").state = state;
}

/// Bytes of memory that are this process' own, when what was freed has been given back.
fn resident() -> f64 {
    std::thread::sleep(Duration::from_millis(200));
    drop(vec![0u8; 1 << 20]);
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss_Anon:"));
    let kib = line.and_then(|l| l.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or(0.0) * 1024.0
}
