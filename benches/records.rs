//! What reading records back costs: `cargo bench --profile ci --bench records`.
//!
//! One process, no Postgres; the log is made up and written to a scratch directory. Arguments choose
//! among `small` and `large`; none means both. Memory is best looked at one by one: what is freed
//! by the first is used by the second.

#[path = "../tests/model/mod.rs"]
mod model;

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use kelvin::cvr::frame::{Chain, MAX_PAYLOAD, head};
use kelvin::cvr::record::{GroupRecord, Header, NamedIdentity, Record, StartRecord};
use kelvin::groups::restore::Restoration;
use kelvin::model::ids::RecordId;
use kelvin::model::key;
use kelvin::model::value::Value;
use kelvin::server::record_files;
use model::cell::Kind;
use model::core::{Core, roomy};
use model::replica::{FIRST, Replica};
use model::schema::{Schema, TableSpec};

/// As the server has it: memory depends on it.
#[global_allocator]
static ALLOCATOR: kelvin_io::allocator::Counting = kelvin_io::allocator::Counting::new();

/// Rows of one record of members, as the server writes them.
const CHUNK: usize = 1_000;
/// Rows that there are for `small`: each is in 20 views.
const KEYS: usize = 100_000;
/// Epoch of the process that wrote the log.
const EPOCH: u64 = 1;

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let has = |name: &str| wanted.is_empty() || wanted.iter().any(|w| w == name);
    if has("small") {
        measure(2_000, 1_000, KEYS);
    }
    if has("large") {
        measure(40, 500_000, 500_000);
    }
}

fn schema() -> Schema {
    Schema::new(vec![TableSpec::new("issues", vec![("id", Kind::Text, true)], &[&[0]], &[])])
}

/// A file with one group that has so many views of so many rows, out of so many.
fn write(path: &Path, schema: &Schema, views: usize, members: usize, keys: usize) {
    let mut file = File::create(path).expect("a scratch file");
    let (mut chain, mut out) = (Chain::new(EPOCH), head(EPOCH));
    let mut append = |record: Record| {
        chain.frame(&mut out, MAX_PAYLOAD, |out| record.write(out)).expect("a small record");
        file.write_all(&out).expect("room on the disk");
        out.clear();
    };
    append(Record::Header(Header { replica: FIRST.0, epoch: EPOCH, core: 0, sequence: 1, head: FIRST.0 }));
    append(Record::Schema(1, serde_json::to_string(&schema.of_clients()).expect("plain data")));
    let identity: NamedIdentity = ("issues".into(), vec!["id".into()]);
    let id = |view: usize| RecordId::of_core(EPOCH, 0, view as u64);
    let row = |i: usize| {
        let mut bytes = Vec::new();
        key::push((&Value::Text(format!("issue-{i:013}").as_str().into())).into(), &mut bytes);
        (0, bytes.into())
    };
    for view in 0..views {
        let identities = vec![identity.clone()];
        let key = view.to_le_bytes().to_vec();
        append(Record::Start(StartRecord { id: id(view), key, floor: FIRST, stale: None, identities }));
        for first in (0..members).step_by(CHUNK) {
            let rows = (first..members.min(first + CHUNK)).map(|i| row((view * members + i * 7919) % keys));
            append(Record::Members(id(view), rows.collect()));
        }
        append(Record::Complete(id(view), members as u64));
    }
    let views = (0..views).map(|view| (id(view).epoch, id(view).number, (FIRST.0, 0)));
    append(Record::Group(Box::new(GroupRecord {
        id: "group".into(),
        schema: 1,
        cookie: (FIRST.0, 1),
        version: FIRST.0,
        views: views.collect(),
        ..GroupRecord::default()
    })));
}

/// Bytes per member and seconds to read a log and to restore what it says.
fn measure(views: usize, members: usize, keys: usize) {
    println!("{views} views of {members} rows, {keys} keys of 20 bytes");
    let schema = schema();
    let replica = Replica::create(&schema);
    let core = Core::new(&replica, &schema, EPOCH + 1, roomy());
    let directory = record_files::directory(&replica.path());
    std::fs::create_dir_all(&directory).expect("a scratch directory");
    write(&directory.join(record_files::name(EPOCH, 0, 1)), &schema, views, members, keys);
    let per_member = |bytes: f64| bytes / (views * members) as f64;
    let before = resident();
    forget_peak();
    let begun = Instant::now();
    let recovered = record_files::read(&directory, 1, usize::MAX).expect("a log").remove(0);
    print("read back", begun.elapsed(), per_member(resident() - before), per_member(peak() - before));
    forget_peak();
    let begun = Instant::now();
    let mut syncer = core.syncer();
    let mut restoration = Restoration::new(recovered, FIRST, &mut syncer.shared).expect("fits");
    while restoration.step(&mut syncer, 0.0) {}
    let time = begun.elapsed();
    assert_eq!((restoration.misfits, syncer.shared.recovered.ids().len()), (0, views));
    drop(restoration);
    print("restored", time, per_member(resident() - before), per_member(peak() - before));
}

fn print(what: &str, time: Duration, held: f64, most: f64) {
    let seconds = time.as_secs_f64();
    println!("  {what:<12} {seconds:>7.2} s {held:>8.1} B per member, {most:>8.1} B at most");
}

/// Bytes of memory in use, when what was freed has been given back.
fn resident() -> f64 {
    std::thread::sleep(Duration::from_millis(200));
    drop(vec![0u8; 1 << 20]);
    status("VmRSS:")
}

/// Most bytes of memory since [`forget_peak`], or since the start.
fn peak() -> f64 {
    status("VmHWM:")
}

fn forget_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

fn status(name: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|l| l.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or(0.0) * 1024.0
}
