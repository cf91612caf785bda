//! Records that are larger than a frame, in parts.
//!
//! Lists of rows are cut. What takes effect at once still does: the parts of a batch, or of what a view
//! differs in that was read anew, come before the record that makes them count, and a log that ends between
//! them says nothing of it. Other records cannot be cut, nor can a key; whoever writes says what becomes of what
//! they are about.

use super::frame::{MAX_PAYLOAD, TooLarge};
use crate::cvr::record::{BatchRecord, LeftRecord, Record, RecordedDelta, RecordedRow};
use crate::model::ids::RecordId;
use crate::model::version::StateVersion;

/// Bytes of a part beside deltas and rows, at most: its kind, an identity, a count.
const PART: usize = 32;

/// Bytes of a delta beside its rows, at most: whose it is, its version, three counts.
const DELTA: usize = 64;

/// Bytes of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Lists of rows are cut so that a part has no more, if it has more than one row.
    pub part: usize,
    /// Nothing is larger.
    pub most: usize,
}

impl Default for Sizes {
    /// Parts are small, so that reading a log takes little memory beside what it says.
    fn default() -> Sizes {
        Sizes { part: 4 << 20, most: MAX_PAYLOAD }
    }
}

/// Whether a record is one that is cut.
pub fn is_list(record: &Record) -> bool {
    use Record::{Batch, Journal, Left, Members, Rejoin};
    matches!(record, Journal(..) | Members(..) | Rejoin(..) | Left(_) | Batch(_))
}

/// The parts of a record, in the order in which they are to be written.
pub fn split(record: Record, sizes: Sizes) -> Result<Vec<Record>, TooLarge> {
    match record {
        Record::Journal(id, delta) => {
            let parts = cut_deltas(vec![(id, delta)], sizes)?.into_iter().flatten();
            Ok(parts.map(|(id, delta)| Record::Journal(id, delta)).collect())
        }
        Record::Members(id, rows) => {
            let parts = cut_rows(rows, sizes, PART)?.into_iter();
            Ok(parts.map(|rows| Record::Members(id, rows)).collect())
        }
        Record::Rejoin(id, deltas) => {
            let deltas = deltas.into_iter().map(|delta| (id, delta)).collect();
            let parts = cut_deltas(deltas, sizes)?.into_iter().map(Record::Deltas);
            Ok(parts.chain([Record::Rejoin(id, Vec::new())]).collect())
        }
        Record::Left(mut left) => {
            let rows = std::mem::take(&mut left.rows);
            let mut head = Vec::new();
            Record::Left(left.clone()).write(&mut head);
            let parts = cut_rows(rows, sizes, head.len() + PART)?.into_iter();
            Ok(parts.map(|rows| Record::Left(LeftRecord { rows, ..left.clone() })).collect())
        }
        Record::Batch(batch) => {
            let BatchRecord { previous, end, deltas } = batch;
            let parts = cut_deltas(deltas, sizes)?.into_iter().map(Record::Deltas);
            let counts = Record::Batch(BatchRecord { previous, end, deltas: Vec::new() });
            Ok(parts.chain([counts]).collect())
        }
        _ => Err(TooLarge),
    }
}

/// Views of which a batch has a row that is too large for any part.
pub fn too_large(batch: &BatchRecord, most: usize) -> Vec<RecordId> {
    let is_large = |delta: &RecordedDelta| rows_of(delta).any(|row| PART + DELTA + size(row) > most);
    let mut views: Vec<RecordId> =
        batch.deltas.iter().filter(|(_, delta)| is_large(delta)).map(|(id, _)| *id).collect();
    views.dedup();
    views
}

fn rows_of(delta: &RecordedDelta) -> impl Iterator<Item = &RecordedRow> {
    delta.entered.iter().chain(&delta.left).chain(&delta.edited)
}

/// Bytes of a row, at most.
fn size((_, key): &RecordedRow) -> usize {
    /// Of the place of an identity, and of the key's length.
    const NUMBERS: usize = 3 + 10;
    key.len() + NUMBERS
}

type Deltas = Vec<(RecordId, RecordedDelta)>;

fn cut_deltas(deltas: Deltas, sizes: Sizes) -> Result<Vec<Deltas>, TooLarge> {
    let mut cut = Cut { sizes, bytes: PART, parts: vec![Vec::new()] };
    for (id, delta) in deltas {
        for row in delta.entered {
            cut.take(id, delta.end, row, |delta| &mut delta.entered)?;
        }
        for row in delta.left {
            cut.take(id, delta.end, row, |delta| &mut delta.left)?;
        }
        for row in delta.edited {
            cut.take(id, delta.end, row, |delta| &mut delta.edited)?;
        }
    }
    Ok(cut.parts)
}

/// Deltas that are put into parts row by row.
struct Cut {
    sizes: Sizes,
    /// Of the last part.
    bytes: usize,
    parts: Vec<Deltas>,
}

impl Cut {
    fn take(
        &mut self,
        id: RecordId,
        end: StateVersion,
        row: RecordedRow,
        list: impl Fn(&mut RecordedDelta) -> &mut Vec<RecordedRow>,
    ) -> Result<(), TooLarge> {
        let bytes = DELTA + size(&row);
        if PART + bytes > self.sizes.most {
            return Err(TooLarge);
        }
        if self.bytes > PART && self.bytes + bytes > self.sizes.part.min(self.sizes.most) {
            self.parts.push(Vec::new());
            self.bytes = PART;
        }
        let Some(part) = self.parts.last_mut() else { return Err(TooLarge) };
        if part.last().is_none_or(|(last, delta)| (*last, delta.end) != (id, end)) {
            part.push((id, RecordedDelta { end, ..RecordedDelta::default() }));
            self.bytes += DELTA;
        }
        self.bytes += size(&row);
        if let Some((_, delta)) = part.last_mut() {
            list(delta).push(row);
        }
        Ok(())
    }
}

/// `head`: bytes of a part beside its rows.
fn cut_rows(rows: Vec<RecordedRow>, sizes: Sizes, head: usize) -> Result<Vec<Vec<RecordedRow>>, TooLarge> {
    let mut parts = vec![Vec::new()];
    let mut bytes = head;
    for row in rows {
        if head + size(&row) > sizes.most {
            return Err(TooLarge);
        }
        if bytes > head && bytes + size(&row) > sizes.part.min(sizes.most) {
            parts.push(Vec::new());
            bytes = head;
        }
        bytes += size(&row);
        if let Some(part) = parts.last_mut() {
            part.push(row);
        }
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(view: u64) -> RecordId {
        RecordId::of_core(1, 0, view)
    }

    fn rows(most: usize) -> impl Strategy<Value = Vec<RecordedRow>> {
        let key = prop::collection::vec(any::<u8>(), 0..60);
        prop::collection::vec((0..3_u16, key.prop_map(Vec::into_boxed_slice)), 0..most)
    }

    fn delta() -> impl Strategy<Value = RecordedDelta> {
        (10..13_u64, rows(8), rows(8), rows(8)).prop_map(|(end, entered, left, edited)| RecordedDelta {
            end: StateVersion(end),
            entered,
            left,
            edited,
        })
    }

    fn length(record: &Record) -> usize {
        let mut out = Vec::new();
        record.write(&mut out);
        out.len()
    }

    /// By view and version, what entered, left and was edited.
    fn sum(deltas: impl Iterator<Item = (RecordId, RecordedDelta)>) -> Vec<(RecordId, RecordedDelta)> {
        let mut out: Vec<(RecordId, RecordedDelta)> = Vec::new();
        for (id, delta) in deltas.filter(|(_, delta)| rows_of(delta).next().is_some()) {
            match out.last_mut().filter(|(last, sum)| (*last, sum.end) == (id, delta.end)) {
                Some((_, sum)) => {
                    sum.entered.extend(delta.entered);
                    sum.left.extend(delta.left);
                    sum.edited.extend(delta.edited);
                }
                None => out.push((id, delta)),
            }
        }
        out
    }

    proptest! {
        #[test]
        fn the_parts_of_a_batch_are_small_and_say_the_same(
            deltas in prop::collection::vec((1..4_u64, delta()), 0..10),
            part in 0..400_usize,
            most in PART + DELTA..600_usize,
        ) {
            let sizes = Sizes { part, most };
            let deltas: Vec<_> = deltas.into_iter().map(|(view, delta)| (id(view), delta)).collect();
            let batch = BatchRecord { previous: StateVersion(9), end: StateVersion(12), deltas: deltas.clone() };
            let refused = too_large(&batch, most);
            let Ok(parts) = split(Record::Batch(batch), sizes) else {
                prop_assert!(!refused.is_empty());
                return Ok(());
            };
            prop_assert!(refused.is_empty());
            prop_assert!(parts.iter().all(|part| length(part) <= most));
            let rows = |part: &Record| match part {
                Record::Deltas(deltas) => deltas.iter().map(|(_, delta)| rows_of(delta).count()).sum(),
                _ => 0,
            };
            prop_assert!(parts.iter().all(|one| length(one) <= part.max(PART) || rows(one) <= 1));
            let (last, before) = parts.split_last().unwrap();
            prop_assert!(matches!(last, Record::Batch(batch) if batch.deltas.is_empty()));
            let said = before.iter().flat_map(|part| match part {
                Record::Deltas(deltas) => deltas.clone(),
                _ => panic!("something else"),
            });
            prop_assert_eq!(sum(said), sum(deltas.into_iter()));
        }

        #[test]
        fn the_parts_of_rows_are_small_and_say_the_same(
            all in rows(60),
            part in 0..400_usize,
            most in 100..600_usize,
        ) {
            let sizes = Sizes { part, most };
            let left = LeftRecord {
                group: "g".into(),
                since: (1, 2),
                until: (3, 4),
                identities: vec![("issue".into(), vec!["id".into()])],
                rows: all.clone(),
            };
            for record in [Record::Members(id(1), all.clone()), Record::Left(left)] {
                let Ok(parts) = split(record, sizes) else {
                    // The largest key with everything beside it.
                    prop_assert!(most < 200);
                    continue;
                };
                prop_assert!(parts.iter().all(|part| length(part) <= most));
                let said = parts.into_iter().flat_map(|part| match part {
                    Record::Members(_, rows) | Record::Left(LeftRecord { rows, .. }) => rows,
                    _ => panic!("something else"),
                });
                prop_assert_eq!(said.collect::<Vec<_>>(), all.clone());
            }
        }
    }

    #[test]
    fn what_has_no_rows_is_not_cut() {
        let group = Record::Group(Box::default());
        assert_eq!((is_list(&group), split(group, Sizes::default())), (false, Err(TooLarge)));
    }
}
