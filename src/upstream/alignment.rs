//! Which column of a relation is which of a table, when names do not say it: the relation is of the past, and columns have
//! been renamed, have come, or have gone since.
//!
//! A relation lists its columns in the order of their attribute numbers, which are given once. Columns of the table that
//! are there now were there from some point on, each after the one before it; those that are gone may be among them.

use super::names;
use super::pgoutput::{Relation, RelationColumn};
use super::types::Kind;
use crate::model::catalogue::{ColumnIndex, Table};

/// For each column of the relation the place of the one that it is, if there is one way only to tell that has the most
/// names right; `None` in it: the column is left out of the replica.
pub fn places(table: &Table, relation: &Relation<'_>) -> Option<Vec<Option<ColumnIndex>>> {
    let stored: Vec<&RelationColumn<'_>> =
        relation.columns.iter().filter(|column| names::is_column(column.name)).collect();
    let mut places = align(table, &stored)?.into_iter();
    let place = |column: &RelationColumn<'_>| names::is_column(column.name).then(|| places.next()).flatten();
    Some(relation.columns.iter().map(place).collect())
}

fn align(table: &Table, relation: &[&RelationColumn<'_>]) -> Option<Vec<ColumnIndex>> {
    let mut slots: Vec<ColumnIndex> = (0..table.columns.len() as ColumnIndex).collect();
    slots.retain(|at| !table.columns[usize::from(*at)].is_exact_key());
    slots.sort_by_key(|at| table.columns[usize::from(*at)].attnum);
    let there = table.published_columns().len();
    let mut best: Option<(usize, Vec<ColumnIndex>)> = None;
    let mut is_certain = true;
    for present in 0..=there.min(relation.len()) {
        let problem = Problem { table, relation, slots: usable(table, &slots, present) };
        for skips_early in [false, true] {
            let Some((score, places)) = problem.solve(skips_early) else { continue };
            let stored = |places: &[ColumnIndex]| -> Vec<Option<ColumnIndex>> {
                places.iter().map(|at| (!table.columns[usize::from(*at)].gone).then_some(*at)).collect()
            };
            match &best {
                Some((most, _)) if *most > score => {}
                Some((most, other)) if *most == score => is_certain &= stored(other) == stored(&places),
                _ => (best, is_certain) = (Some((score, places)), true),
            }
        }
    }
    best.filter(|_| is_certain).map(|(_, places)| places)
}

/// Columns that can be in a relation: the first few of those that are there, and all that are gone.
fn usable(table: &Table, slots: &[ColumnIndex], mut present: usize) -> Vec<ColumnIndex> {
    let mut usable = Vec::with_capacity(slots.len());
    for at in slots {
        let is_gone = table.columns[usize::from(*at)].gone;
        if is_gone || present > 0 {
            present -= usize::from(!is_gone);
            usable.push(*at);
        }
    }
    usable
}

struct Problem<'p> {
    table: &'p Table,
    relation: &'p [&'p RelationColumn<'p>],
    /// In the order of their numbers. Those that are there are all in the relation.
    slots: Vec<ColumnIndex>,
}

impl Problem<'_> {
    /// The best way with its number of right names. Where two are equally good, columns that are gone are rather not in
    /// the relation the earlier they are, or the later.
    fn solve(&self, skips_early: bool) -> Option<(usize, Vec<ColumnIndex>)> {
        let (rows, columns) = (self.slots.len(), self.relation.len());
        // Most right names of the slots from here on, for the columns from there on.
        let mut most: Vec<Vec<Option<usize>>> = vec![vec![None; columns + 1]; rows + 1];
        most[rows][columns] = Some(0);
        for slot in (0..rows).rev() {
            for column in (0..=columns).rev() {
                most[slot][column] = self.taken(slot, column, &most).max(self.skipped(slot, column, &most));
            }
        }
        let total = most[0][0]?;
        let mut places = Vec::with_capacity(columns);
        let (mut slot, mut column) = (0, 0);
        while slot < rows {
            let (taken, skipped) = (self.taken(slot, column, &most), self.skipped(slot, column, &most));
            let skips = skipped.is_some() && (skipped > taken || (skipped == taken && skips_early));
            if !skips {
                places.push(self.slots[slot]);
                column += 1;
            }
            slot += 1;
        }
        Some((total, places))
    }

    fn taken(&self, slot: usize, column: usize, most: &[Vec<Option<usize>>]) -> Option<usize> {
        let theirs = self.relation.get(column)?;
        let at = self.slots[slot];
        let ours = &self.table.columns[usize::from(at)];
        let kind = |type_oid| Kind::of(type_oid, &ours.upstream_type);
        if kind(theirs.type_oid) != kind(ours.type_oid) {
            return None;
        }
        let is_named_so = ours.name == theirs.name || self.table.former_names.get(theirs.name) == Some(&at);
        Some(most[slot + 1][column + 1]? + usize::from(is_named_so))
    }

    fn skipped(&self, slot: usize, column: usize, most: &[Vec<Option<usize>>]) -> Option<usize> {
        let is_gone = self.table.columns[usize::from(self.slots[slot])].gone;
        most[slot + 1][column].filter(|_| is_gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::catalogue::Column;

    /// Columns by their names, `-` before those that are gone.
    fn told(table: &[&str], relation: &[&str]) -> Option<Vec<ColumnIndex>> {
        let column = |(at, name): (usize, &&str)| Column {
            name: name.trim_start_matches('-').to_owned(),
            gone: name.starts_with('-'),
            attnum: at as i16 + 1,
            type_oid: 25,
            ..Column::default()
        };
        let table = Table { columns: table.iter().enumerate().map(column).collect(), ..Table::default() };
        let columns = relation.iter().map(|name| RelationColumn { key: false, name, type_oid: 25 }).collect();
        let relation = Relation { oid: 1, schema: "public", name: "t", identity: b'd', columns };
        places(&table, &relation).map(|places| places.into_iter().flatten().collect())
    }

    #[test]
    fn columns_are_told_by_their_order_where_names_are_others() {
        assert_eq!(told(&["id", "a", "b"], &["id", "x", "b"]), Some(vec![0, 1, 2]));
        // The last has not come yet.
        assert_eq!(told(&["id", "a", "b"], &["id", "x"]), Some(vec![0, 1]));
        // One that is gone was there under its name, and one under another.
        assert_eq!(told(&["id", "-old", "a"], &["id", "old", "x"]), Some(vec![0, 1, 2]));
        assert_eq!(told(&["id", "-old", "a"], &["id", "older", "a"]), Some(vec![0, 1, 2]));
        assert_eq!(told(&["id", "-old", "a"], &["id", "a"]), Some(vec![0, 2]));
        assert_eq!(told(&["id", "-old", "a"], &["id", "old"]), Some(vec![0, 1]));
    }

    #[test]
    fn columns_that_may_be_either_are_not_guessed() {
        // Is it the one that is gone, before the other came, or that one under another name?
        assert_eq!(told(&["id", "-old", "a"], &["id", "x"]), None);
        assert_eq!(told(&["id", "a"], &["id", "a", "more"]), None);
        // Which of those that are gone it was is of no interest.
        assert_eq!(told(&["id", "-x", "-y", "a"], &["id", "z", "a"]).map(|places| places[2]), Some(3));
    }
}
