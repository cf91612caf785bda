//! What a catalogue becomes when upstream's tables have changed, and when what came has been filled
//! (`docs/spec/schema-changes.md` S1, S6, S9, S21).

use std::collections::{HashMap, HashSet};

use super::catalogue::Catalogue;
use super::ids::TableId;
use super::table::Table;
use super::table_map::TableMap;

/// Why a copy is begun anew.
const CHANGED_AGAIN: &str = "it has changed again while it was copied";

/// Says why the rows of a table, the first, cannot be kept when it becomes the second, if they cannot.
pub type RowsLost<'f> = &'f dyn Fn(&Table, &Table) -> Option<String>;

impl Catalogue {
    /// What this catalogue becomes, in the same lineage, when these are the tables. Each one that it knows by its
    /// OID keeps its id, and one that has another's name takes over that one's: clients know names. Any other gets an id that
    /// was never given, and is to be filled. So is a copy of one whose rows are lost. What is being filled and has become
    /// another is begun anew under another id. `None`: there are no more ids.
    pub fn followed_by(
        &self,
        epoch: u64,
        mut tables: Vec<Table>,
        rows_lost: RowsLost<'_>,
    ) -> Option<Catalogue> {
        tables.sort_by(|a, b| a.name.cmp(&b.name));
        let mut following = Following::new(self, epoch, &tables);
        for now in tables {
            following.follow(now, rows_lost)?;
        }
        Some(following.end())
    }

    /// The same when a table has been filled: from now on everybody is shown it.
    pub fn with_filled(&self, id: TableId) -> Catalogue {
        let mut next = self.clone();
        let Some(filled) = next.filling.slot(id).take() else { return next };
        let old = filled.refill.as_ref().and_then(|refill| next.slots.slot(refill.table).take());
        let shown = match old {
            Some(old) => {
                next.by_name.remove(&old.name);
                // In the file it is under the copy's name by then.
                next.dropped.push(filled.stored_name.clone());
                old.replaced_by(filled, next.epoch)
            }
            None => Table { epoch: next.epoch, refill: None, ..filled },
        };
        next.by_name.insert(shown.name.clone(), shown.id);
        next.slots.insert(shown.id, shown);
        next
    }

    /// The copy whose rows a table of this catalogue has taken over since another one.
    pub fn taken_over<'c>(&self, before: &'c Catalogue, table: &Table) -> Option<&'c Table> {
        let was = before.find(table.id)?;
        let copy = table.filled_as.filter(|_| was.filled_as != table.filled_as)?;
        before.filling.get(copy)
    }

    /// The table that is shown and changes as its copy does, which is being filled.
    pub fn changing_like(&self, copy: &Table) -> Option<&Table> {
        let shown = self.find(copy.refill.as_ref()?.table)?;
        shown.changes_like(copy).then_some(shown)
    }

    /// Whether a copy of a table is being filled.
    pub fn is_copied(&self, id: TableId) -> bool {
        self.filling.iter().any(|copy| copy.refill.as_ref().is_some_and(|refill| refill.table == id))
    }

    fn remember_names_of(&mut self, before: &Catalogue) {
        for old in before.tables() {
            if self.by_name.get(&old.name) != Some(&old.id) {
                self.former_names.insert(old.name.clone(), old.id);
            }
        }
        let by_name = &self.by_name;
        self.former_names.retain(|name, id| by_name.get(name) != Some(id));
    }
}

struct Following<'c> {
    before: &'c Catalogue,
    epoch: u64,
    /// Tables that are shown, by what they are upstream.
    listed: HashMap<u32, &'c Table>,
    filling: HashMap<u32, &'c Table>,
    /// Those whose names others have now.
    taken: HashSet<TableId>,
    given: usize,
    next_listed: Vec<Table>,
    next_filling: TableMap<Table>,
}

impl<'c> Following<'c> {
    fn new(before: &'c Catalogue, epoch: u64, tables: &[Table]) -> Self {
        let by_oid = |table: &'c Table| (table.oid, table);
        let mut following = Following {
            before,
            epoch,
            listed: before.tables().map(by_oid).collect(),
            filling: before.filling().map(by_oid).collect(),
            taken: HashSet::new(),
            given: before.given,
            next_listed: Vec::with_capacity(tables.len()),
            next_filling: TableMap::default(),
        };
        following.taken =
            tables.iter().filter_map(|now| following.of_name(now)).map(|table| table.id).collect();
        following
    }

    /// The table whose name another one has now.
    fn of_name(&self, now: &Table) -> Option<&'c Table> {
        self.before.table(&now.name).filter(|old| old.oid != now.oid)
    }

    fn follow(&mut self, now: Table, rows_lost: RowsLost<'_>) -> Option<()> {
        let of_oid = self.listed.get(&now.oid).copied().filter(|old| !self.taken.contains(&old.id));
        let Some(old) = self.of_name(&now).or(of_oid) else { return self.come(now, rows_lost) };
        let copy = self.filling.get(&now.oid).copied();
        let copy = copy.filter(|copy| copy.refill.as_ref().is_some_and(|refill| refill.table == old.id));
        let lost = match copy {
            Some(copy) => {
                let next = copy.followed_by(now.clone(), self.epoch);
                if copy.is_filled_alike(&next) && rows_lost(copy, &next).is_none() {
                    self.next_filling.insert(next.id, next);
                    self.next_listed.push(old.shown_while_copied(&now, self.epoch));
                    return Some(());
                }
                Some(CHANGED_AGAIN.to_owned())
            }
            None if old.oid != now.oid => Some(String::new()),
            None => {
                let next = old.followed_by(now.clone(), self.epoch);
                match rows_lost(old, &next) {
                    None => {
                        self.next_listed.push(next);
                        return Some(());
                    }
                    lost => lost,
                }
            }
        };
        let id = self.give()?;
        self.next_listed.push(old.shown_while_copied(&now, self.epoch));
        self.next_filling.insert(id, old.copied(now, id, lost.unwrap_or_default(), self.epoch));
        Some(())
    }

    /// A table that nobody is shown.
    fn come(&mut self, now: Table, rows_lost: RowsLost<'_>) -> Option<()> {
        let before = self.filling.get(&now.oid).copied().filter(|table| table.refill.is_none());
        let same = before.map(|before| before.followed_by(now.clone(), self.epoch));
        let same = before
            .zip(same)
            .filter(|(before, next)| before.is_filled_alike(next) && rows_lost(before, next).is_none());
        let next = match same {
            Some((_, next)) => next,
            None => Table { id: self.give()?, epoch: self.epoch, ..now },
        };
        self.next_filling.insert(next.id, next);
        Some(())
    }

    fn give(&mut self) -> Option<TableId> {
        self.given += 1;
        Some(TableId(u16::try_from(self.given - 1).ok()?))
    }

    fn end(self) -> Catalogue {
        let (listed, filling) = (self.next_listed, self.next_filling);
        let is_there = |id: TableId| filling.get(id).is_some() || listed.iter().any(|table| table.id == id);
        let gone = self.before.all().filter(|old| !is_there(old.id)).map(|old| old.stored_name.clone());
        let dropped = self.before.dropped.iter().cloned().chain(gone).collect();
        let former_names = self.before.former_names.clone();
        let empty = Catalogue { former_names, dropped, filling, ..Catalogue::default() };
        let mut next = empty.with(self.epoch, self.given, listed);
        next.remember_names_of(self.before);
        next
    }
}
