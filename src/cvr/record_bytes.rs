//! Records as bytes, and back.

use serde::{Deserialize, Serialize};

use crate::cvr::record::{
    BatchRecord, LeftRecord, NamedIdentity, Record, RecordedDelta, RecordedRow, StartRecord,
};
use crate::model::codec::{Input, Malformed, bytes, number};
use crate::model::ids::RecordId;
use crate::model::version::StateVersion;

/// First bytes of the records.
mod kind {
    pub const HEADER: u8 = 1;
    pub const SCHEMA: u8 = 2;
    pub const START: u8 = 3;
    pub const JOURNAL: u8 = 4;
    pub const MEMBERS: u8 = 5;
    pub const COMPLETE: u8 = 6;
    pub const BATCH: u8 = 7;
    pub const STALE: u8 = 8;
    pub const REJOIN: u8 = 9;
    pub const GONE: u8 = 10;
    pub const GROUP: u8 = 11;
    pub const LEFT: u8 = 12;
    pub const GROUP_GONE: u8 = 13;
    pub const CHECKPOINT: u8 = 14;
    pub const IDENTITIES: u8 = 15;
    pub const DELTAS: u8 = 16;
}

impl Record {
    /// Appends the record.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Record::Header(header) => json(kind::HEADER, header, out),
            Record::Schema(id, text) => {
                out.push(kind::SCHEMA);
                number(*id, out);
                bytes(text.as_bytes(), out);
            }
            Record::Start(start) => {
                of(kind::START, start.id, out);
                bytes(&start.key, out);
                number(start.floor.0, out);
                // Versions are never zero once there is a replica.
                number(start.stale.map_or(0, |since| since.0), out);
                identities(&start.identities, out);
            }
            Record::Identities(id, list) => {
                of(kind::IDENTITIES, *id, out);
                identities(list, out);
            }
            Record::Journal(id, recorded) => {
                of(kind::JOURNAL, *id, out);
                delta(recorded, out);
            }
            Record::Members(id, members) => {
                of(kind::MEMBERS, *id, out);
                rows(members, out);
            }
            Record::Complete(id, count) => {
                of(kind::COMPLETE, *id, out);
                number(*count, out);
            }
            Record::Deltas(list) => {
                out.push(kind::DELTAS);
                deltas(list, out);
            }
            Record::Batch(batch) => {
                out.push(kind::BATCH);
                number(batch.previous.0, out);
                number(batch.end.0, out);
                deltas(&batch.deltas, out);
            }
            Record::Stale(id, since) => {
                of(kind::STALE, *id, out);
                number(since.0, out);
            }
            Record::Rejoin(id, deltas) => {
                of(kind::REJOIN, *id, out);
                number(deltas.len() as u64, out);
                deltas.iter().for_each(|recorded| delta(recorded, out));
            }
            Record::Gone(id) => of(kind::GONE, *id, out),
            Record::Group(group) => json(kind::GROUP, group, out),
            Record::Left(left) => {
                out.push(kind::LEFT);
                bytes(left.group.as_bytes(), out);
                [left.since.0, left.since.1, left.until.0, left.until.1]
                    .into_iter()
                    .for_each(|n| number(n, out));
                identities(&left.identities, out);
                rows(&left.rows, out);
            }
            Record::GroupGone(id) => {
                out.push(kind::GROUP_GONE);
                bytes(id.as_bytes(), out);
            }
            Record::Checkpoint => out.push(kind::CHECKPOINT),
        }
    }

    /// Reads a record.
    pub fn read(payload: &[u8]) -> Result<Record, Malformed> {
        let mut input = Input(payload);
        let input = &mut input;
        let record = match input.byte()? {
            kind::HEADER => Record::Header(read_json(input)?),
            kind::SCHEMA => Record::Schema(input.number()?, input.text()?.to_owned()),
            kind::START => Record::Start(StartRecord {
                id: read_id(input)?,
                key: input.bytes()?.to_vec(),
                floor: StateVersion(input.number()?),
                stale: Some(StateVersion(input.number()?)).filter(|since| since.0 > 0),
                identities: read_identities(input)?,
            }),
            kind::IDENTITIES => Record::Identities(read_id(input)?, read_identities(input)?),
            kind::JOURNAL => Record::Journal(read_id(input)?, read_delta(input)?),
            kind::MEMBERS => Record::Members(read_id(input)?, read_rows(input)?),
            kind::COMPLETE => Record::Complete(read_id(input)?, input.number()?),
            kind::DELTAS => Record::Deltas(read_deltas(input)?),
            kind::BATCH => {
                let (previous, end) = (StateVersion(input.number()?), StateVersion(input.number()?));
                Record::Batch(BatchRecord { previous, end, deltas: read_deltas(input)? })
            }
            kind::STALE => Record::Stale(read_id(input)?, StateVersion(input.number()?)),
            kind::REJOIN => Record::Rejoin(read_id(input)?, read_list(input, read_delta)?),
            kind::GONE => Record::Gone(read_id(input)?),
            kind::GROUP => Record::Group(read_json(input)?),
            kind::LEFT => Record::Left(LeftRecord {
                group: input.text()?.to_owned(),
                since: (input.number()?, input.number()?),
                until: (input.number()?, input.number()?),
                identities: read_identities(input)?,
                rows: read_rows(input)?,
            }),
            kind::GROUP_GONE => Record::GroupGone(input.text()?.to_owned()),
            kind::CHECKPOINT => Record::Checkpoint,
            _ => return Err(Malformed),
        };
        input.end()?;
        Ok(record)
    }
}

fn of(kind: u8, id: RecordId, out: &mut Vec<u8>) {
    out.push(kind);
    record_id(id, out);
}

fn record_id(id: RecordId, out: &mut Vec<u8>) {
    number(id.epoch, out);
    number(id.number, out);
}

fn read_id(input: &mut Input) -> Result<RecordId, Malformed> {
    Ok(RecordId { epoch: input.number()?, number: input.number()? })
}

fn json<T: Serialize>(kind: u8, value: &T, out: &mut Vec<u8>) {
    out.push(kind);
    // Maps with keys that are no texts are what can fail, and there are none.
    out.extend(serde_json::to_vec(value).unwrap_or_default());
}

fn read_json<'r, T: Deserialize<'r>>(input: &mut Input<'r>) -> Result<T, Malformed> {
    serde_json::from_slice(std::mem::take(&mut input.0)).map_err(|_| Malformed)
}

fn read_list<'r, T>(
    input: &mut Input<'r>,
    one: impl Fn(&mut Input<'r>) -> Result<T, Malformed>,
) -> Result<Vec<T>, Malformed> {
    (0..input.count()?).map(|_| one(input)).collect()
}

fn identities(list: &[NamedIdentity], out: &mut Vec<u8>) {
    number(list.len() as u64, out);
    for (table, columns) in list {
        bytes(table.as_bytes(), out);
        number(columns.len() as u64, out);
        columns.iter().for_each(|column| bytes(column.as_bytes(), out));
    }
}

fn read_identities(input: &mut Input) -> Result<Vec<NamedIdentity>, Malformed> {
    read_list(input, |input| {
        Ok((input.text()?.to_owned(), read_list(input, |input| input.text().map(str::to_owned))?))
    })
}

fn rows(list: &[RecordedRow], out: &mut Vec<u8>) {
    number(list.len() as u64, out);
    for (identity, key) in list {
        number(u64::from(*identity), out);
        bytes(key, out);
    }
}

fn read_rows(input: &mut Input) -> Result<Vec<RecordedRow>, Malformed> {
    read_list(input, |input| {
        let identity = u16::try_from(input.number()?).map_err(|_| Malformed)?;
        Ok((identity, input.bytes()?.into()))
    })
}

fn delta(recorded: &RecordedDelta, out: &mut Vec<u8>) {
    number(recorded.end.0, out);
    [&recorded.entered, &recorded.left, &recorded.edited].into_iter().for_each(|list| rows(list, out));
}

fn read_delta(input: &mut Input) -> Result<RecordedDelta, Malformed> {
    Ok(RecordedDelta {
        end: StateVersion(input.number()?),
        entered: read_rows(input)?,
        left: read_rows(input)?,
        edited: read_rows(input)?,
    })
}

fn deltas(list: &[(RecordId, RecordedDelta)], out: &mut Vec<u8>) {
    number(list.len() as u64, out);
    for (id, recorded) in list {
        record_id(*id, out);
        delta(recorded, out);
    }
}

fn read_deltas(input: &mut Input) -> Result<Vec<(RecordId, RecordedDelta)>, Malformed> {
    read_list(input, |input| Ok((read_id(input)?, read_delta(input)?)))
}
