//! What has become of the tables, and whether the replica can follow (`docs/spec/schema-changes.md` S6, S7).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use super::attributes::Added;
use super::partitions::moved_rows;
use super::published::{Published, PublishedTable};
use super::types::Kind;
use crate::model::catalogue::{Catalogue, Column, Table};
use crate::model::ids::TableId;

/// How the published schema differs from the catalogue.
#[derive(Debug, Clone, PartialEq)]
pub enum Difference {
    /// Not at all.
    None,
    /// In what can be followed without looking at rows: this is the catalogue now.
    Schema(Catalogue),
    /// In something that stored rows would have to be read anew for.
    Rows(String),
}

/// Looks at upstream whose markers the stream has not brought yet.
#[derive(Debug, Default)]
pub struct Looks {
    seen: VecDeque<Look>,
    /// Looks so far, for the names of markers.
    count: u64,
    /// Tables that have been filled by this process, and can be shown.
    pub filled: BTreeSet<TableId>,
    /// Tables, by OID, of which the stream has not said what all rows are, with the reason.
    pub unexplained: BTreeMap<u32, String>,
}

#[derive(Debug)]
struct Look {
    /// Text of the marker.
    marker: String,
    /// What was published where it stands; `None`: that is not known yet.
    published: Option<Rc<Published>>,
}

/// What the stream has brought with a marker.
#[derive(Debug)]
pub enum Passed {
    /// What was published there.
    Seen(Rc<Published>),
    /// Whoever has written it is still looking.
    Early,
    /// Nothing: it is another's, of before this process, or a newer look has told more already.
    Old,
}

/// Looks that are remembered. One is made at a time, and each only when the one before did not explain what came.
const MAX_LOOKS: usize = 64;

impl Looks {
    /// A look begins. Returns the text of its marker; `instance`: no other process has the same.
    pub fn begin(&mut self, instance: &str) -> String {
        if self.seen.len() >= MAX_LOOKS {
            self.seen.pop_front();
        }
        self.count += 1;
        let marker = format!("{instance}/{}", self.count);
        self.seen.push_back(Look { marker: marker.clone(), published: None });
        marker
    }

    /// What was published where the marker stands. `None`: something else before it than after it.
    pub fn end(&mut self, marker: &str, published: Option<Published>) {
        let Some(at) = self.seen.iter().position(|look| look.marker == marker) else { return };
        match published {
            Some(published) => self.seen[at].published = Some(Rc::new(published)),
            None => drop(self.seen.remove(at)),
        }
    }

    /// What was published at the newest marker of which that is known, and which has not come.
    pub fn newest(&self) -> Option<&Rc<Published>> {
        self.seen.iter().rev().find_map(|look| look.published.as_ref())
    }

    /// Whether what comes may be of before what was seen last.
    pub fn is_ahead(&self) -> bool {
        self.newest().is_some()
    }

    /// The stream has brought a marker.
    pub fn pass(&mut self, marker: &str) -> Passed {
        let Some(at) = self.seen.iter().position(|look| look.marker == marker) else { return Passed::Old };
        // What a newer look has seen may be followed already: there is no way back from that.
        let is_newer_known = self.seen.range(at + 1..).any(|look| look.published.is_some());
        let passed = match &self.seen[at].published {
            _ if is_newer_known => Passed::Old,
            Some(published) => Passed::Seen(published.clone()),
            None => return Passed::Early,
        };
        self.seen.drain(..=at);
        passed
    }
}

/// Compares the catalogue, and what has become of its tables since the last look, with what is published now.
pub fn compare(catalogue: &Catalogue, published: &Published, looks: &Looks) -> Difference {
    let lost = |old: &Table, now: &Table, published: &PublishedTable| {
        rows_lost(old, now, published).or_else(|| looks.unexplained.get(&now.oid).cloned())
    };
    let Some(mut now) = published.following(catalogue, &lost) else {
        return Difference::Rows("more tables came and went than one replica can have".into());
    };
    for id in looks.filled.iter().filter(|id| catalogue.is_filling(**id)) {
        now = now.with_filled(*id);
    }
    if now.says_the_same_as(catalogue) {
        return Difference::None;
    }
    if !now.fits() {
        return Difference::Rows("a table has the name of one that is gone".into());
    }
    Difference::Schema(now)
}

/// Why the rows of a table cannot be kept when it becomes another.
fn rows_lost(old: &Table, now: &Table, published: &PublishedTable) -> Option<String> {
    let is_another = || Some("a column has the name of one that is gone".to_owned());
    rewritten(old, now, published)
        .or_else(|| moved_rows(old, now, &published.foreign_partitions))
        .or_else(|| is_another().filter(|_| !now.fits()))
}

/// Why the stored rows of a table are not what upstream's are any more, or may not be.
fn rewritten(old: &Table, now: &Table, published: &PublishedTable) -> Option<String> {
    let name = &now.name;
    // A file of before this was kept says nothing of it.
    let is_known = old.attributes != 0;
    if is_known && old.row_filter != now.row_filter {
        return Some(format!("other rows of table {name} are published"));
    }
    let has_exact = old.exact_key().is_some() || now.exact_key().is_some();
    if has_exact && old.row_key != now.row_key {
        return Some(format!("table {name} has another key, of which stored values do not tell all"));
    }
    let same_file = old.file == now.file;
    for (was, is) in old.columns.iter().zip(&now.columns).filter(|(was, is)| !was.gone && !is.gone) {
        let kind = |column: &Column| (Kind::of_column(column), column.zero_type);
        if kind(was) != kind(is) || (was.type_oid != is.type_oid && !same_file) {
            let (before, after) = (&was.upstream_type, &is.upstream_type);
            return Some(format!("column {name}.{} has the type {after} instead of {before}", is.name));
        }
        if is_known && !same_file && was.defined_by != is.defined_by {
            return Some(format!("the values of column {name}.{} were rewritten", is.name));
        }
        if was.labels.iter().any(|(oid, label)| is.labels.get(oid).is_some_and(|now| now != label)) {
            return Some(format!(
                "values of the enum {} of column {name}.{} were renamed",
                is.upstream_type, is.name
            ));
        }
    }
    let added = &now.columns[old.columns.len()..];
    let came = i32::from(now.attributes) - i32::from(old.attributes);
    if !added.is_empty() && came != added.len() as i32 {
        // One was there before and was not published, or others came and went: rows of these and of those look alike.
        return Some(format!("columns of table {name} were published, or came and went"));
    }
    let filled = added.iter().find(|column| {
        let at = published.table.columns.iter().position(|c| c.attnum == column.attnum);
        match at.and_then(|at| published.added.get(at)) {
            Some(Added::With(_)) => !is_known,
            Some(Added::Empty) => !(same_file && is_known),
            // Values of their own take a new file, so this is a default that came later. Of partitions the file is not known.
            Some(Added::Filled) => !(same_file && is_known && now.file != 0),
            None => true,
        }
    });
    filled
        .map(|column| format!("column {name}.{} was added with a value of its own in each row", column.name))
}

/// Most changes that one line of the log names.
const MAX_DESCRIBED: usize = 20;

/// What has changed from one catalogue to the one that follows it, for the log.
pub fn describe(old: &Catalogue, now: &Catalogue) -> String {
    let mut changes = Vec::new();
    let came = now.filling().filter(|table| old.find_any(table.id).is_none());
    changes.extend(came.map(|table| match &table.refill {
        Some(refill) => format!("table {} is copied anew: {}", table.name, refill.because),
        None => format!("table {} has come and is being filled", table.name),
    }));
    let is_filled = |table: &&Table| old.is_filling(table.id) || now.taken_over(old, table).is_some();
    let shown = now.tables().filter(is_filled);
    changes.extend(shown.map(|table| format!("table {} has been filled", table.name)));
    for table in old.tables() {
        match now.find(table.id) {
            None => changes.push(format!("table {} is not published any more", table.name)),
            Some(next) => describe_table(table, next, &mut changes),
        }
    }
    let more = changes.len().saturating_sub(MAX_DESCRIBED);
    changes.truncate(MAX_DESCRIBED);
    match (changes.is_empty(), more) {
        (true, _) => "nothing that rows or clients depend on".to_owned(),
        (false, 0) => changes.join("; "),
        (false, more) => format!("{}; and {more} more", changes.join("; ")),
    }
}

fn describe_table(old: &Table, now: &Table, changes: &mut Vec<String>) {
    let name = &now.name;
    if old.name != *name {
        changes.push(format!("table {} is called {name}", old.name));
    }
    for (was, is) in old.columns.iter().zip(&now.columns).filter(|(was, _)| !was.gone) {
        if is.gone {
            changes.push(format!("column {name}.{} is gone", was.name));
        } else if was.name != is.name {
            changes.push(format!("column {name}.{} is called {}", was.name, is.name));
        } else if was.upstream_type != is.upstream_type {
            changes.push(format!("column {name}.{} has the type {}", is.name, is.upstream_type));
        } else if was.not_null != is.not_null {
            let may = if is.not_null { "may not" } else { "may" };
            changes.push(format!("column {name}.{} {may} be null", is.name));
        }
    }
    let added = now.columns[old.columns.len()..].iter();
    changes.extend(added.map(|column| format!("column {name}.{} was added", column.name)));
    if old.candidate_keys.len() != now.candidate_keys.len() {
        changes.push(format!("table {name} has other keys"));
    }
    if old.partitions.len() != now.partitions.len() {
        let (had, has) = (old.partitions.len(), now.partitions.len());
        changes.push(format!("table {name} has {has} partitions instead of {had}"));
    }
    if old.indexes.len() != now.indexes.len() {
        changes.push(format!(
            "table {name} has {} indexes instead of {}",
            now.indexes.len(),
            old.indexes.len()
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published() -> Published {
        Published { tables: Vec::new(), warnings: Vec::new() }
    }

    #[test]
    fn a_marker_that_comes_after_a_newer_look_takes_nothing_back() {
        let mut looks = Looks::default();
        let (first, second) = (looks.begin("i"), looks.begin("i"));
        assert!(matches!(looks.pass(&first), Passed::Early), "whoever has written it is still looking");
        assert!(!looks.is_ahead());
        looks.end(&first, Some(published()));
        looks.end(&second, Some(published()));
        assert!(matches!(looks.pass(&first), Passed::Old));
        assert!(looks.is_ahead());
        assert!(matches!(looks.pass(&second), Passed::Seen(_)));
        assert!(!looks.is_ahead());
        assert!(matches!(looks.pass(&second), Passed::Old));
        let void = looks.begin("i");
        looks.end(&void, None);
        assert!(
            matches!(looks.pass(&void), Passed::Old),
            "something else was published before it than after it"
        );
    }

    #[test]
    fn looks_that_never_come_back_are_forgotten() {
        let mut looks = Looks::default();
        for _ in 0..3 * MAX_LOOKS {
            let marker = looks.begin("i");
            looks.end(&marker, Some(published()));
        }
        assert_eq!(looks.seen.len(), MAX_LOOKS);
    }
}
