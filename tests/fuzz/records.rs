//! The record log.

use kelvin::cvr::frame::{Chain, Frames, MAX_PAYLOAD, head};
use kelvin::cvr::record::{BatchRecord, Header, LeftRecord, Record, RecordedDelta, StartRecord};
use kelvin::cvr::replay::Replay;
use kelvin::model::ids::RecordId;
use kelvin::model::version::StateVersion;
use proptest::prelude::*;
use proptest::sample::Index;

use super::engine::fuzz;
use super::mutate::bytes;

const ID: RecordId = RecordId { epoch: 1, number: 7 };

fn delta(end: u64) -> RecordedDelta {
    let row = |n: u8| (0, vec![n, n].into());
    RecordedDelta {
        end: StateVersion(end),
        entered: vec![row(1), row(3)],
        left: vec![row(2)],
        edited: vec![],
    }
}

fn records() -> Vec<Record> {
    let identities = vec![("item".to_owned(), vec!["id".to_owned()])];
    let group = r#"{"id":"g","schema":1,"user":"u","label":[5,6],"version":5,"floor":[0,0],"clock":1.5,"seals":[],
        "clients":[],"queries":[],"removed":[],"views":[[1,7,[5,0]]],"results":[],"results_gone":[]}"#;
    vec![
        Record::Header(Header { replica: 1, epoch: 1, core: 0, sequence: 1, head: 4 }),
        Record::Schema(1, r#"{"tables":{}}"#.to_owned()),
        Record::Start(StartRecord {
            id: ID,
            key: vec![1, 2, 3],
            floor: StateVersion(3),
            stale: None,
            identities: identities.clone(),
        }),
        Record::Journal(ID, delta(4)),
        Record::Members(ID, vec![(0, vec![1].into()), (0, vec![2].into())]),
        Record::Complete(ID, 2),
        Record::Batch(BatchRecord {
            previous: StateVersion(4),
            end: StateVersion(5),
            deltas: vec![(ID, delta(5))],
        }),
        Record::Group(serde_json::from_str(group).map(Box::new).expect("a group")),
        Record::Stale(ID, StateVersion(5)),
        Record::Rejoin(ID, vec![delta(6)]),
        Record::Left(LeftRecord {
            group: "g".into(),
            since: (1, 2),
            until: (3, 4),
            identities,
            rows: vec![(0, vec![1].into())],
        }),
        Record::Gone(ID),
        Record::GroupGone("g".into()),
        Record::Checkpoint,
    ]
}

fn written(record: &Record) -> Vec<u8> {
    let mut out = Vec::new();
    record.write(&mut out);
    out
}

#[test]
fn records_that_are_read_are_written_alike() {
    let seeds = records().iter().map(written).collect();
    fuzz(bytes(seeds, vec![b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x80", b"\x01\x01a"]), |bytes| {
        let Ok(record) = Record::read(&bytes) else { return Ok(()) };
        let again = Record::read(&written(&record));
        prop_assert_eq!(again, Ok(record));
        Ok(())
    });
}

/// A file with these payloads.
fn file(payloads: &[Vec<u8>]) -> Vec<u8> {
    let (mut out, mut chain) = (head(3), Chain::new(3));
    for payload in payloads {
        let write = |out: &mut Vec<u8>| out.extend(payload);
        chain.frame(&mut out, MAX_PAYLOAD, write).expect("it is small");
    }
    out
}

fn read(file: &[u8]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let Ok(Some(mut frames)) = Frames::of(file) else { return found };
    while let Ok(Some(payload)) = frames.next_payload() {
        found.push(payload.to_vec());
    }
    found
}

#[test]
fn a_file_with_a_damaged_end_gives_what_came_before() {
    let payloads: Vec<Vec<u8>> = records().iter().map(written).collect();
    let whole = file(&payloads);
    let ends =
        vec![vec![], vec![0; 40], vec![0xff; 40], whole.clone(), (MAX_PAYLOAD as u32).to_le_bytes().to_vec()];
    fuzz((any::<Index>(), bytes(ends, vec![b"\0\0\0\0"])), |(cut, end)| {
        let kept = cut.index(whole.len() + 1);
        let found = read(&[&whole[..kept], &end].concat());
        let intact = read(&whole[..kept]).len();
        // The end may happen to be what was cut off.
        prop_assert!(found.len() >= intact && payloads.starts_with(&found));
        Ok(())
    });
}

#[test]
fn records_in_any_order_can_be_replayed() {
    let seeds = records();
    let order = prop::collection::vec((any::<Index>(), 0u64..9), 0..60);
    fuzz((order, 0usize..4_000), |(order, limit)| {
        let mut replay = Replay::up_to(limit);
        for (which, version) in order {
            let mut record = which.get(&seeds).clone();
            match &mut record {
                Record::Batch(batch) => {
                    (batch.previous, batch.end) = (StateVersion(version), StateVersion(version + 1))
                }
                Record::Complete(_, count) => *count = version,
                Record::Stale(_, since) => *since = StateVersion(version),
                Record::Header(header) => (header.epoch, header.sequence) = (1 + version / 3, version % 3),
                _ => {}
            }
            replay.apply(record);
        }
        replay.finish();
        Ok(())
    });
}
