//! Who wants to hear of a row: one lookup for all views of a core (rule 4, finding 17).
//!
//! What asks for rows registers the values that they must have in some columns: the equality
//! constants of its filter, or the keys of its parents. What has neither is listed by a bound
//! that its rows keep, a range or a cursor; what has no bound either is in a short list by
//! table. A lookup finds too much rather than too little: values are compared by hash, and
//! whoever is found looks for himself.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use hashbrown::HashMap;
use smallvec::SmallVec;

use super::sharded::ShardedMap;
use super::view::{ShapeId, ViewId};
use crate::model::catalogue::ColumnIndex;
use crate::model::ids::TableId;
use crate::model::key;
use crate::model::value::Value;
use crate::zql::order::{Cursor, Order};
use crate::zql::predicate::{Bound, Predicate, Wanted};
use crate::zql::test;

/// Who is interested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// A node of a view.
    Node(ViewId, u16),
    /// The child rows of a condition.
    Shape(ShapeId),
}

type Bucket = SmallVec<[Target; 1]>;

/// SubscriptionIndex in certain columns of one table.
struct ByColumns {
    columns: Box<[ColumnIndex]>,
    by_values: ShardedMap<u64, Bucket>,
}

/// What is asked for, as far as one row alone tells.
#[derive(Debug, Clone)]
pub enum Listening {
    /// Rows with one of these combinations of values.
    Values(Vec<Wanted>),
    /// Rows within a bound.
    Within(Bound),
    /// Any row.
    Any,
}

impl Listening {
    /// To the rows that a filter and a cursor may admit.
    pub fn of(filter: &Predicate, cursor: Option<(&Cursor, &Order)>) -> Listening {
        if let Some(wanted) = filter.wanted() {
            return Listening::Values(wanted);
        }
        let bound = filter.bound().or_else(|| cursor.and_then(|(cursor, order)| cursor.bound(order)));
        bound.map_or(Listening::Any, Listening::Within)
    }
}

/// A value as it stands in the order of its column.
#[derive(PartialEq)]
struct Placed(Value);

impl Eq for Placed {}

impl Ord for Placed {
    fn cmp(&self, other: &Placed) -> Ordering {
        test::compare(&self.0, &other.0)
    }
}

impl PartialOrd for Placed {
    fn partial_cmp(&self, other: &Placed) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// SubscriptionIndex in rows within a bound in one column.
struct Range {
    column: ColumnIndex,
    /// By the smallest value.
    lower: BTreeMap<Placed, Bucket>,
    /// By the largest.
    upper: BTreeMap<Placed, Bucket>,
}

impl Range {
    fn side(&mut self, lower: bool) -> &mut BTreeMap<Placed, Bucket> {
        if lower { &mut self.lower } else { &mut self.upper }
    }

    fn find(&self, value: &Value, out: &mut Vec<Target>) {
        let value = Placed(value.clone());
        if value.0 != Value::Null {
            out.extend(self.lower.range(..=&value).flat_map(|(_, bucket)| bucket));
        }
        // NULL is lowest: after a cursor in descending order it comes last.
        out.extend(self.upper.range(&value..).flat_map(|(_, bucket)| bucket));
    }
}

#[derive(Default)]
struct OfTable {
    groups: Vec<ByColumns>,
    ranges: Vec<Range>,
    /// Without any value that could be looked up.
    short: Vec<Target>,
}

impl OfTable {
    /// Appends who asks by values of a row, in columns that are to be looked at.
    fn find(&self, row: &[Value], is_wanted: impl Fn(&[ColumnIndex]) -> bool, out: &mut Vec<Target>) {
        for range in self.ranges.iter().filter(|range| is_wanted(std::slice::from_ref(&range.column))) {
            range.find(&row[range.column as usize], out);
        }
        let mut bytes = Vec::with_capacity(64);
        for group in self.groups.iter().filter(|group| is_wanted(&group.columns)) {
            let values = group.columns.iter().map(|c| &row[*c as usize]);
            if let Some(bucket) = group.by_values.get(&hash_of(values, &mut bytes)) {
                out.extend(bucket);
            }
        }
    }
}

/// What all views of a core hear of.
#[derive(Default)]
pub struct SubscriptionIndex {
    tables: HashMap<TableId, OfTable>,
    count: usize,
}

/// Hash of the values of a row in some columns. NULL is a value here: a filter may ask for it.
fn hash_of<'v>(values: impl Iterator<Item = &'v Value>, bytes: &mut Vec<u8>) -> u64 {
    bytes.clear();
    for value in values {
        if !key::push(value.into(), bytes) {
            bytes.push(0);
        }
    }
    key::hash(bytes)
}

impl SubscriptionIndex {
    fn add(&mut self, table: TableId, wanted: &Wanted, target: Target) {
        let hash = hash_of(wanted.values.iter(), &mut Vec::new());
        self.bucket(table, &wanted.columns, hash).push(target);
        self.count += 1;
    }

    fn remove(&mut self, table: TableId, wanted: &Wanted, target: Target) {
        let hash = hash_of(wanted.values.iter(), &mut Vec::new());
        self.remove_hash(table, &wanted.columns, hash, target);
    }

    /// Registers an interest in rows with a correlation key.
    pub fn add_key(&mut self, table: TableId, columns: &[ColumnIndex], key: &[u8], target: Target) {
        self.bucket(table, columns, key::hash(key)).push(target);
        self.count += 1;
    }

    /// Ends an interest in a correlation key.
    pub fn remove_key(&mut self, table: TableId, columns: &[ColumnIndex], key: &[u8], target: Target) {
        self.remove_hash(table, columns, key::hash(key), target);
    }

    /// Registers an interest, or ends one that was registered.
    pub fn listen(&mut self, table: TableId, to: &Listening, target: Target, on: bool) {
        match (to, on) {
            (Listening::Any, true) => self.add_short(table, target),
            (Listening::Any, false) => self.remove_short(table, target),
            (Listening::Within(bound), true) => self.add_bound(table, bound, target),
            (Listening::Within(bound), false) => self.remove_bound(table, bound, target),
            (Listening::Values(all), true) => all.iter().for_each(|wanted| self.add(table, wanted, target)),
            (Listening::Values(all), false) => {
                all.iter().for_each(|wanted| self.remove(table, wanted, target));
            }
        }
    }

    fn add_bound(&mut self, table: TableId, bound: &Bound, target: Target) {
        let ranges = &mut self.tables.entry(table).or_default().ranges;
        let at = ranges.iter().position(|range| range.column == bound.column).unwrap_or_else(|| {
            ranges.push(Range { column: bound.column, lower: BTreeMap::new(), upper: BTreeMap::new() });
            ranges.len() - 1
        });
        ranges[at].side(bound.lower).entry(Placed(bound.value.clone())).or_default().push(target);
        self.count += 1;
    }

    fn remove_bound(&mut self, table: TableId, bound: &Bound, target: Target) {
        let Some(of_table) = self.tables.get_mut(&table) else { return };
        let Some(at) = of_table.ranges.iter().position(|range| range.column == bound.column) else { return };
        let range = &mut of_table.ranges[at];
        let (side, place) = (range.side(bound.lower), Placed(bound.value.clone()));
        let Some(bucket) = side.get_mut(&place) else { return };
        if let Some(at) = bucket.iter().position(|t| *t == target) {
            bucket.swap_remove(at);
            self.count -= 1;
        }
        if bucket.is_empty() {
            side.remove(&place);
        }
        if range.lower.is_empty() && range.upper.is_empty() {
            of_table.ranges.swap_remove(at);
        }
    }

    /// Registers an interest in any row of a table.
    fn add_short(&mut self, table: TableId, target: Target) {
        self.tables.entry(table).or_default().short.push(target);
        self.count += 1;
    }

    fn remove_short(&mut self, table: TableId, target: Target) {
        let Some(of_table) = self.tables.get_mut(&table) else { return };
        if let Some(at) = of_table.short.iter().position(|t| *t == target) {
            of_table.short.swap_remove(at);
            self.count -= 1;
        }
    }

    fn bucket(&mut self, table: TableId, columns: &[ColumnIndex], hash: u64) -> &mut Bucket {
        let groups = &mut self.tables.entry(table).or_default().groups;
        let at = match groups.iter().position(|g| *g.columns == *columns) {
            Some(at) => at,
            None => {
                groups.push(ByColumns { columns: columns.into(), by_values: ShardedMap::default() });
                groups.len() - 1
            }
        };
        groups[at].by_values.or_default(hash)
    }

    fn remove_hash(&mut self, table: TableId, columns: &[ColumnIndex], hash: u64, target: Target) {
        let Some(of_table) = self.tables.get_mut(&table) else { return };
        let Some(at) = of_table.groups.iter().position(|g| *g.columns == *columns) else { return };
        let group = &mut of_table.groups[at];
        let Some(bucket) = group.by_values.get_mut(&hash) else { return };
        if let Some(at) = bucket.iter().position(|t| *t == target) {
            bucket.swap_remove(at);
            self.count -= 1;
        }
        if bucket.is_empty() {
            group.by_values.remove(&hash);
        }
        if group.by_values.is_empty() {
            of_table.groups.swap_remove(at);
        }
    }

    /// Appends everybody who may want to hear of a row; somebody may be in twice.
    pub fn find(&self, table: TableId, row: &[Value], out: &mut Vec<Target>) {
        let Some(of_table) = self.tables.get(&table) else { return };
        out.extend(&of_table.short);
        of_table.find(row, |_| true, out);
    }

    /// The same for a row that has become another: by what it was, and by what it is. Most columns of
    /// most rows are the same, and who asks by these is looked up once.
    pub fn find_either(&self, table: TableId, old: &[Value], new: &[Value], out: &mut Vec<Target>) {
        let Some(of_table) = self.tables.get(&table) else { return };
        out.extend(&of_table.short);
        of_table.find(old, |_| true, out);
        let differs = |column: &ColumnIndex| old[*column as usize] != new[*column as usize];
        of_table.find(new, |columns| columns.iter().any(differs), out);
    }

    /// SubscriptionIndex registered.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(n: u32) -> Target {
        Target::Node(ViewId(n), 0)
    }

    #[test]
    fn a_row_finds_those_who_asked_for_its_values_and_nobody_else() {
        let mut subscription_index = SubscriptionIndex::default();
        let table = TableId(3);
        let wanted = |values: &[Value]| Wanted { columns: [0, 2].into(), values: values.into() };
        let one = wanted(&[Value::Integer(1), Value::Text("x".into())]);
        let null = wanted(&[Value::Integer(1), Value::Null]);
        subscription_index.add(table, &one, target(1));
        subscription_index.add(table, &one, target(2));
        subscription_index.add(table, &null, target(3));
        let mut bytes = Vec::new();
        key::push((&Value::Real(1.0)).into(), &mut bytes);
        subscription_index.add_key(table, &[0], &bytes, target(4));
        subscription_index.listen(table, &Listening::Any, target(5), true);
        let find = |subscription_index: &SubscriptionIndex, third: Value| {
            let mut out = Vec::new();
            subscription_index.find(table, &[Value::Integer(1), Value::Null, third], &mut out);
            out.sort_unstable();
            out
        };
        let x = Value::Text("x".into());
        assert_eq!(find(&subscription_index, x.clone()), [target(1), target(2), target(4), target(5)]);
        assert_eq!(find(&subscription_index, Value::Null), [target(3), target(4), target(5)]);
        assert_eq!(subscription_index.len(), 5);
        subscription_index.remove(table, &one, target(1));
        subscription_index.remove(table, &null, target(3));
        subscription_index.remove_key(table, &[0], &bytes, target(4));
        subscription_index.listen(table, &Listening::Any, target(5), false);
        assert_eq!(find(&subscription_index, x), [target(2)]);
        subscription_index.remove(table, &one, target(2));
        assert!(subscription_index.is_empty() && subscription_index.tables[&table].groups.is_empty());
    }

    #[test]
    fn a_row_that_has_become_another_finds_who_asked_for_either() {
        let mut subscription_index = SubscriptionIndex::default();
        let table = TableId(3);
        let row = |a: i64, b: i64| [Value::Integer(a), Value::Integer(b)];
        for (n, columns) in [(0, [0].as_slice()), (100, [1].as_slice()), (200, [0, 1].as_slice())] {
            for a in 0..3 {
                for b in 0..3 {
                    let values = columns.iter().map(|c| row(a, b)[*c as usize].clone()).collect();
                    let wanted = Wanted { columns: columns.into(), values };
                    subscription_index.add(table, &wanted, target(n + (3 * a + b) as u32));
                }
            }
        }
        let within = |n| Listening::Within(Bound { column: 1, value: Value::Integer(n), lower: true });
        (0..3).for_each(|n| subscription_index.listen(table, &within(n), target(300 + n as u32), true));
        subscription_index.listen(table, &Listening::Any, target(400), true);
        for (from, to) in (0..9).flat_map(|from| (0..9).map(move |to| (from, to))) {
            let (old, new) = (row(from / 3, from % 3), row(to / 3, to % 3));
            let (mut found, mut expected) = (Vec::new(), Vec::new());
            subscription_index.find_either(table, &old, &new, &mut found);
            subscription_index.find(table, &old, &mut expected);
            subscription_index.find(table, &new, &mut expected);
            for list in [&mut found, &mut expected] {
                list.sort_unstable();
                list.dedup();
            }
            assert_eq!(found, expected, "{old:?} has become {new:?}");
        }
    }

    #[test]
    fn a_row_finds_the_bounds_that_it_keeps() {
        let mut subscription_index = SubscriptionIndex::default();
        let table = TableId(3);
        let bound = |n: i64, lower| Listening::Within(Bound { column: 1, value: Value::Integer(n), lower });
        for n in 0..10 {
            subscription_index.listen(table, &bound(n as i64, true), target(n), true);
            subscription_index.listen(table, &bound(n as i64, false), target(100 + n), true);
        }
        let find = |subscription_index: &SubscriptionIndex, value: Value| {
            let mut out = Vec::new();
            subscription_index.find(table, &[Value::Null, value], &mut out);
            out.sort_unstable();
            out
        };
        assert_eq!(find(&subscription_index, Value::Integer(1)).len(), 2 + 9);
        assert_eq!(find(&subscription_index, Value::Real(8.5)), [0, 1, 2, 3, 4, 5, 6, 7, 8, 109].map(target));
        assert_eq!(
            find(&subscription_index, Value::Null),
            [100, 101, 102, 103, 104, 105, 106, 107, 108, 109].map(target)
        );
        for n in 0..10 {
            subscription_index.listen(table, &bound(n as i64, true), target(n), false);
            subscription_index.listen(table, &bound(n as i64, false), target(100 + n), false);
        }
        assert!(subscription_index.is_empty() && subscription_index.tables[&table].ranges.is_empty());
    }
}
