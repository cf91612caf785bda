//! From the rows that a batch changed to the rows that each view has to look at again:
//! rules 4 to 6 of `docs/spec/rules.md`.
//!
//! All views are served together. A changed row is looked up once; a condition that several
//! views have looks for the parents of its changed rows once. The work is done in small steps,
//! so that others can run in between; nothing takes effect here.

use crate::model::reason::Reason;
use std::collections::BTreeMap;
use std::rc::Rc;

use hashbrown::{HashMap, HashSet};

use super::candidates::{Candidate, Candidates};
use super::changed::Changed;
use super::registry::Views;
use super::shapes::Shape;
use super::subscription_index::Target;
use super::view::{ShapeId, View, ViewId, identity_bytes};
use crate::model::batch::{Batch, TableBatch};
use crate::model::catalogue::ColumnIndex;
use crate::model::commit::Row;
use crate::model::ids::TableId;
use crate::model::key::Scalar;
use crate::model::value::Value;
use crate::replica::reader::{ReadError, Reader};
use crate::testing::faults::{self, Fault};
use crate::testing::met::{Limit, met};
use crate::zql::builder::Constant;
use crate::zql::evaluate::parameters;

/// Changed rows per step.
const CHANGES_PER_STEP: usize = 64;

/// What a condition has to look at.
#[derive(Default)]
struct Work<'c> {
    changes: Vec<(Option<&'c Row>, Option<&'c Row>)>,
    touched: Vec<Rc<Row>>,
}

/// Keys of a condition whose parents are still to be read.
struct Following {
    shape: ShapeId,
    keys: Vec<(Box<[u8]>, Vec<Value>)>,
}

type ParentKey = (TableId, Vec<ColumnIndex>, Box<[u8]>);

/// A batch on its way to the views.
pub struct Routing<'b, 'c> {
    batch: &'b Batch<'c>,
    changed: &'b Changed<'c>,
    /// Serve this view alone.
    only: Option<ViewId>,
    tables: Vec<(TableId, usize)>,
    /// Innermost conditions first.
    work: BTreeMap<(u32, ShapeId), Work<'c>>,
    following: Option<Following>,
    /// Parents read already; `None`: too many.
    parents: HashMap<ParentKey, Option<Rc<[Rc<Row>]>>>,
    found: BTreeMap<ViewId, Candidates>,
    /// Rows that may always be looked at again.
    candidates: usize,
}

impl<'b, 'c> Routing<'b, 'c> {
    /// Of a batch; `only`: to one view, which need not be live yet.
    pub fn new(batch: &'b Batch<'c>, changed: &'b Changed<'c>, views: &Views, only: Option<ViewId>) -> Self {
        let bulk = batch.tables.iter().filter(|(_, t)| matches!(t, TableBatch::Bulk)).map(|(id, _)| id);
        let mut found: BTreeMap<ViewId, Candidates> = BTreeMap::new();
        let reading = if faults::is_on(Fault::Bulk) { Vec::new() } else { views.reading(bulk) };
        for view in reading.into_iter().filter(|v| only.is_none_or(|only| only == *v)) {
            found.entry(view).or_default().evaluate = Some(Reason::Bulk);
        }
        let mut tables: Vec<(TableId, usize)> = batch.tables.keys().map(|table| (*table, 0)).collect();
        tables.sort_unstable();
        let (work, following, parents) = (BTreeMap::new(), None, HashMap::new());
        let candidates = views.limits().candidates;
        Routing { batch, changed, only, tables, work, following, parents, found, candidates }
    }

    /// What was found, by view.
    pub fn finish(self) -> BTreeMap<ViewId, Candidates> {
        self.found
    }

    /// Does a small part of the work. False: all is done. `reader`: on the snapshot that the
    /// batch ends with.
    pub fn step(&mut self, views: &Views, reader: &Reader) -> Result<bool, ReadError> {
        if let Some((table, from)) = self.tables.pop() {
            if let Some(next) = self.changes(table, from, views) {
                self.tables.push((table, next));
            }
            return Ok(true);
        }
        match self.following.take() {
            Some(mut following) => {
                if let Some((key, values)) = following.keys.pop() {
                    self.follow(following.shape, key, &values, views, reader)?;
                    self.following = Some(following);
                }
                Ok(true)
            }
            None => match self.work.pop_first() {
                Some(((_, shape), work)) => {
                    self.begin(shape, &work, views);
                    Ok(true)
                }
                None => Ok(false),
            },
        }
    }

    /// Hands some changed rows on. Returns where to go on.
    fn changes(&mut self, table: TableId, from: usize, views: &Views) -> Option<usize> {
        let batch = self.batch;
        let Some(TableBatch::Rows(changes)) = batch.tables.get(&table) else { return None };
        let to = changes.len().min(from + CHANGES_PER_STEP);
        let mut targets = Vec::new();
        for (at, change) in changes.iter().enumerate().take(to).skip(from) {
            targets.clear();
            match (change.old, change.new) {
                (Some(old), Some(new)) => {
                    views.subscription_index().find_either(table, old, new, &mut targets)
                }
                (Some(row), None) | (None, Some(row)) => {
                    views.subscription_index().find(table, row, &mut targets)
                }
                (None, None) => {}
            }
            targets.sort_unstable();
            targets.dedup();
            for target in &targets {
                match target {
                    Target::Shape(shape) => {
                        let Some(found) = views.shapes().get(*shape) else { continue };
                        let work = self.work.entry((found.depth, *shape)).or_default();
                        work.changes.push((change.old, change.new));
                    }
                    Target::Node(view, node) => self.changed(views, table, *view, *node as usize, at),
                }
            }
        }
        (to < changes.len()).then_some(to)
    }

    fn view<'v>(&self, views: &'v Views, id: ViewId) -> Option<&'v View> {
        if self.only.is_some_and(|only| only != id)
            || self.found.get(&id).is_some_and(|found| found.evaluate.is_some())
        {
            return None;
        }
        views.get(id).filter(|view| view.is_live())
    }

    fn changed(&mut self, views: &Views, table: TableId, id: ViewId, node: usize, change: usize) {
        let Some(view) = self.view(views, id) else { return };
        // Keys of a view that is gone may still be registered while its number is another's.
        let Some(plan) = view.plan.nodes.get(node).filter(|plan| plan.table == table) else { return };
        let changed = self.changed.of(view.layout.identities[node]);
        for at in changed.of_change(change) {
            let row = changed.get(at);
            if row.old.into_iter().chain(row.new).any(|row| plan.may_hold(row)) {
                self.add(view, id, node, Candidate::Changed(at));
            }
        }
    }

    fn add(&mut self, view: &View, id: ViewId, node: usize, candidate: Candidate) {
        let found = self.found.entry(id).or_default();
        found.count += 1;
        found.nodes.entry(node).or_default().push(candidate);
        if found.count > self.candidates + view.state.len() {
            met(Limit::Candidates);
            *found = Candidates { evaluate: Some(Reason::Candidates), ..Candidates::default() };
        }
    }

    /// Finds the dirty keys of a condition (rule 5).
    fn begin(&mut self, id: ShapeId, work: &Work<'c>, views: &Views) {
        let Some(shape) = views.shapes().get(id) else { return };
        let exists = shape.exists();
        let mut seen: HashSet<Box<[u8]>> = HashSet::new();
        let mut keys = Vec::new();
        let mut dirty = |row: &Row| {
            if let Some(bytes) = identity_bytes(&exists.child_columns, row)
                && seen.insert(bytes.as_slice().into())
            {
                let values = exists.child_columns.iter().map(|c| row[*c as usize].clone()).collect();
                keys.push((bytes.into(), values));
            }
        };
        for (old, new) in &work.changes {
            if let (Some(old), Some(new)) = (old, new)
                && exists.structural.iter().all(|c| old[*c as usize] == new[*c as usize])
            {
                continue;
            }
            let old = old.filter(|_| !faults::is_on(Fault::OldKey));
            old.iter().chain(new).filter(|row| exists.may_hold(row)).for_each(|row| dirty(row));
        }
        work.touched.iter().for_each(|row| dirty(row));
        let is_too_many = keys.len() > views.limits().dirty_keys;
        if is_too_many {
            met(Limit::DirtyKeys);
        }
        if is_too_many || (exists.parents.is_none() && !keys.is_empty()) {
            return self.give_up(shape);
        }
        // Taken from the end: in the order found.
        keys.reverse();
        self.following = Some(Following { shape: id, keys });
    }

    fn give_up(&mut self, shape: &Shape) {
        if faults::is_on(Fault::GiveUp) {
            return;
        }
        for view in shape.users().filter(|v| self.only.is_none_or(|only| only == *v)) {
            *self.found.entry(view).or_default() =
                Candidates { evaluate: Some(Reason::Condition), ..Candidates::default() };
        }
    }

    /// Hands the parents of a dirty key to whoever has the condition.
    fn follow(
        &mut self,
        id: ShapeId,
        key: Box<[u8]>,
        values: &[Value],
        views: &Views,
        reader: &Reader,
    ) -> Result<(), ReadError> {
        let Some(shape) = views.shapes().get(id) else { return Ok(()) };
        let exists = shape.exists();
        let place = (exists.parent_table, exists.parent_columns.clone(), key);
        let parents = match self.parents.get(&place) {
            Some(found) => found.clone(),
            None => {
                let sql = exists.parents.as_deref().unwrap_or_default();
                let found = match read_parents(sql, (values, views.limits().parents), reader) {
                    Err(ReadError::Interrupted) => None,
                    found => found?,
                };
                self.parents.insert(place.clone(), found.clone());
                found
            }
        };
        let Some(parents) = parents else {
            self.give_up(shape);
            return Ok(());
        };
        let mut targets = Vec::new();
        for row in parents.iter() {
            targets.clear();
            views.subscription_index().find(exists.parent_table, row, &mut targets);
            targets.sort_unstable();
            targets.dedup();
            for target in &targets {
                match target {
                    Target::Node(view, node) => self.touched(views, *view, *node as usize, id, &place.2, row),
                    Target::Shape(above) => self.touched_above(shape, *above, row, views),
                }
            }
        }
        Ok(())
    }

    /// A row of a condition around this one may count, or not, where it did not, or did.
    fn touched_above(&mut self, shape: &Shape, above: ShapeId, row: &Rc<Row>, views: &Views) {
        if !shape.above.contains(&above) {
            return;
        }
        if let Some(found) = views.shapes().get(above).filter(|s| s.exists().may_hold(row)) {
            self.work.entry((found.depth, above)).or_default().touched.push(row.clone());
        }
    }

    fn touched(&mut self, views: &Views, id: ViewId, node: usize, shape: ShapeId, key: &[u8], row: &Rc<Row>) {
        let Some(view) = self.view(views, id) else { return };
        let Some(plan) = view.plan.nodes.get(node) else { return };
        let mut conditions = plan.conditions.iter().filter(|c| view.shapes[**c] == shape).peekable();
        if conditions.peek().is_none() || !plan.may_hold(row) {
            return;
        }
        let settled = |condition: &usize| {
            let witness = view.plan.conditions[*condition].witness;
            witness.is_some_and(|witness| self.survives(views, id, witness, key))
        };
        if !conditions.all(settled) && !faults::is_on(Fault::Touched) {
            self.add(view, id, node, Candidate::Touched(row.clone()));
        }
    }

    /// Whether some witness of a key neither changed nor was touched: the condition is as it was.
    fn survives(&self, views: &Views, id: ViewId, node: usize, key: &[u8]) -> bool {
        let Some(view) = views.get(id) else { return false };
        let Some(slot) = view.state.nodes[node].get(key) else { return false };
        let candidates = self.found.get(&id).and_then(|found| found.nodes.get(&node));
        let changed = self.changed.of(view.layout.identities[node]);
        let identity = &view.plan.nodes[node].key;
        let rows = views.rows().borrow();
        slot.rows.iter().any(|witness| {
            let bytes = rows.key_of(witness);
            let is = |candidate: &Candidate| match candidate {
                Candidate::Changed(at) => *changed.get(*at).identity == *bytes,
                Candidate::Touched(row) => identity_bytes(identity, row).is_some_and(|b| b == bytes),
            };
            !candidates.is_some_and(|all| all.iter().any(is))
        })
    }
}

/// Parents with a key, as they are on the snapshot; `None`: too many.
fn read_parents(
    sql: &str,
    (key, most): (&[Value], usize),
    reader: &Reader,
) -> Result<Option<Rc<[Rc<Row>]>>, ReadError> {
    let mut statement = reader.prepare(sql)?;
    let enough = [Constant::Value(Value::Integer(most as i64 + 1))];
    let mut rows = statement.query(parameters(key, &enough))?;
    let mut out = Vec::new();
    while let Some(row) = rows.next()? {
        let values = 0..row.as_ref().column_count();
        let values: Result<Row, ReadError> =
            values.map(|c| Ok(Scalar::from(row.get_ref(c)?).to_value())).collect();
        out.push(Rc::new(values?));
        if out.len() > most {
            met(Limit::Parents);
            return Ok(None);
        }
    }
    Ok(Some(out.into()))
}
