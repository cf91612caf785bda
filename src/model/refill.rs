//! Copying the rows of a table anew that clients see, because what is stored of them cannot be brought to what upstream has
//! (`docs/spec/schema-changes.md` S21).
//!
//! There are two tables then: the one that is shown, with what is still true of it, and the copy, with everything. A column has
//! the same position in both, so what names it by its position goes on when the copy takes the other's place.

use super::ids::TableId;
use super::table::{Column, ColumnIndex, Refill, Table};

/// Why a table is copied anew whose name meant another one.
const OTHER_TABLE: &str = "another table has its name now";

impl Table {
    /// What is still true of this table, which is shown, while what upstream says that it is `now` is copied. Columns that are
    /// not what they were are gone; none come. `epoch`: of the catalogue that it is for.
    pub(super) fn shown_while_copied(&self, now: &Table, epoch: u64) -> Table {
        let mut next = self.clone();
        if now.oid != self.oid {
            // It is nobody's any more: nothing changes it.
            next.oid = 0;
            return next;
        }
        let is_kept = |old: &Column, now: &Column| {
            !old.gone && old.attnum == now.attnum && old.zero_type == now.zero_type
        };
        for column in &mut next.columns {
            match now.columns.iter().find(|now| is_kept(column, now)) {
                Some(now) => {
                    let (stored_name, missing) = (column.stored_name.clone(), column.missing.clone());
                    *column = Column { stored_name, missing, ..now.clone() };
                }
                None => (column.gone, column.zero_type) = (true, None),
            }
        }
        next.remember_names_of(self);
        // Clients would take it for the one that had its name.
        let names = &next.former_names;
        for column in next.columns.iter_mut().filter(|column| names.contains_key(&column.name)) {
            (column.gone, column.zero_type) = (true, None);
        }
        let place = |at: &ColumnIndex| {
            let attnum = now.columns[usize::from(*at)].attnum;
            let at = next.columns.iter().position(|column| !column.gone && column.attnum == attnum);
            at.map(|at| at as ColumnIndex)
        };
        next.candidate_keys =
            now.candidate_keys.iter().filter_map(|key| key.iter().map(place).collect()).collect();
        (next.name, next.schema) = (now.name.clone(), now.schema.clone());
        next.upstream_name.clone_from(&now.upstream_name);
        if self.looks_different(&next) {
            next.epoch = epoch;
        }
        next
    }

    /// The copy of what upstream says that this table is `now`, which takes its place when it is filled. A column has the
    /// place of the one that it was; if it was none, of the one that clients know by its name.
    pub(super) fn copied(&self, mut now: Table, id: TableId, because: String, epoch: u64) -> Table {
        let mut columns = self.columns.clone();
        for column in &mut columns {
            (column.gone, column.zero_type) = (true, None);
        }
        let came = std::mem::take(&mut now.columns);
        let places = self.places_of(&came, now.oid == self.oid, columns.len());
        for (column, at) in came.into_iter().zip(&places) {
            match columns.get_mut(usize::from(*at)) {
                Some(slot) => *slot = Column { stored_name: slot.stored_name.clone(), ..column },
                None => columns.push(column),
            }
        }
        let key = |key: &Vec<ColumnIndex>| key.iter().map(|c| places[usize::from(*c)]).collect();
        let (row_key, candidate_keys) = (key(&now.row_key), now.candidate_keys.iter().map(key).collect());
        for index in &mut now.indexes {
            index.columns.iter_mut().for_each(|(column, _)| *column = places[usize::from(*column)]);
        }
        let former_names = self.former_names.clone();
        let mut copy = Table { id, epoch, columns, former_names, row_key, candidate_keys, ..now };
        copy.remember_names_of(self);
        let columns = &copy.columns;
        let is_there = |name: &String| columns.iter().any(|column| !column.gone && column.name == *name);
        // What clients were sent of the column that had the name is not known any more.
        let all_new = copy.former_names.extract_if(.., |name, _| is_there(name)).count() > 0;
        let because = if copy.oid == self.oid { because } else { OTHER_TABLE.to_owned() };
        copy.refill = Some(Refill { table: self.id, because, all_new });
        copy
    }

    /// Where the columns of a copy belong; those that are none of this table's come after its `width`.
    fn places_of(&self, came: &[Column], same_table: bool, width: usize) -> Vec<ColumnIndex> {
        let there = || self.columns.iter().enumerate().filter(|(_, old)| !old.gone);
        let same = |now: &Column| {
            let is_it = |old: &Column| old.attnum == now.attnum && old.zero_type == now.zero_type;
            there().find(|(_, old)| same_table && is_it(old)).map(|(at, _)| at)
        };
        let by_number: Vec<Option<usize>> = came.iter().map(same).collect();
        let mut next = width;
        let place = |(now, known): (&Column, &Option<usize>)| {
            let is_it = |at: &usize, old: &Column| {
                old.name == now.name && old.zero_type == now.zero_type && !by_number.contains(&Some(*at))
            };
            let at = known.or_else(|| there().find(|(at, old)| is_it(at, old)).map(|(at, _)| at));
            at.unwrap_or_else(|| {
                next += 1;
                next - 1
            }) as ColumnIndex
        };
        came.iter().zip(&by_number).map(place).collect()
    }

    /// What is shown when a copy of this table has been filled.
    pub(super) fn replaced_by(&self, copy: Table, epoch: u64) -> Table {
        let shown = Table {
            id: self.id,
            stored_name: self.stored_name.clone(),
            epoch: self.epoch,
            refill: None,
            filled_as: Some(copy.id),
            ..copy
        };
        match self.looks_different(&shown) {
            true => Table { epoch, ..shown },
            false => shown,
        }
    }

    /// Whether changes of `copy` are changes of this table as well, which it takes the place of: it is found by the same key.
    pub fn changes_like(&self, copy: &Table) -> bool {
        let is_there = |at: &ColumnIndex| {
            let (old, now) = (&self.columns[usize::from(*at)], &copy.columns[usize::from(*at)]);
            !old.gone && old.attnum == now.attnum
        };
        self.oid == copy.oid && self.row_key == copy.row_key && self.row_key.iter().all(is_there)
    }
}
