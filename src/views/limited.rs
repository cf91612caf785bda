//! The parts of [`Advance`] that read rows: windows of nodes with a limit, witnesses, and
//! keys that came into scope (rules 7 and 8).

use std::collections::{BTreeMap, BTreeSet};

use super::advance::{Advance, Look, Looks};
use super::pace::Pace;
use super::rows::{RowId, RowMap};
use super::view::identity_bytes;
use super::window::{TAIL, Window};
use crate::model::commit::Row;
use crate::model::key;
use crate::model::value::Value;
use crate::replica::reader::ReadError;
use crate::testing::faults::{self, Fault};
use crate::zql::builder::Statement;
use crate::zql::evaluate::{UNEQUAL, parameters};
use crate::zql::order::{self, Position};
use crate::zql::plan::{Kind, MAX_WITNESSES};
use crate::zql::sql::{Statements, json_array};

/// A row that was read.
struct FoundRow {
    identity: Box<[u8]>,
    row: Row,
}

/// What happens to one window.
#[derive(Default)]
struct Plan<'l> {
    /// Candidates that are in it.
    dropped: Vec<(RowId, Look<'l>)>,
    /// Candidates that have its key now, by identity.
    wanted: Vec<(&'l [u8], Look<'l>)>,
}

impl<'c, P: Pace> Advance<'_, 'c, P> {
    /// Looks at rows of a node with a limit.
    pub(super) async fn windows(
        &mut self,
        node: usize,
        looks: &Looks<'_>,
        entering: &[Box<[u8]>],
    ) -> Result<(), ReadError> {
        let mut windows: BTreeMap<Vec<u8>, Plan> = BTreeMap::new();
        for (identity, look) in looks {
            let (old_key, new_key) = self.keys(node, look);
            if let (Some(key), Some(id)) = (old_key, self.find(node, identity))
                && self.state.holds(node, &key, id)
            {
                windows.entry(key).or_default().dropped.push((id, *look));
            }
            if let Some(key) = new_key.filter(|key| self.is_open(node, key, entering)) {
                windows.entry(key).or_default().wanted.push((identity, *look));
            }
        }
        for (key, plan) in windows {
            self.window(node, &key, plan).await?;
        }
        Ok(())
    }

    /// Brings one window up to date (rule 7).
    async fn window(&mut self, node: usize, key: &[u8], plan: Plan<'_>) -> Result<(), ReadError> {
        let order = self.plan.nodes[node].order.clone();
        let limit = self.plan.nodes[node].limit.unwrap_or(u64::MAX) as usize;
        let before = self.window_size(node, key);
        let window =
            self.slot(node, key).and_then(|slot| slot.window.take()).map_or_else(Window::default, |w| *w);
        let full = before >= limit;
        // Of a full window without a known end nothing can be said: it is read anew.
        let bound = window.last().cloned().filter(|_| full);
        if full && bound.is_none() {
            return self.read_window(node, key, &plan).await;
        }
        let mut adds: Vec<(Position, &[u8], Look)> = Vec::new();
        for (identity, look) in &plan.wanted {
            let Some(new) = look.new else { continue };
            let beyond = bound.as_ref().is_some_and(|b| order::compare_row(&order, new, b).is_gt());
            if !beyond && self.passes(node, identity, look).await? {
                adds.push((order::position(&order, new), identity, *look));
            }
        }
        let mut turn = Turn::new(before - plan.dropped.len(), window);
        for (id, look) in &plan.dropped {
            turn.window.remove(*id);
            turn.gone.insert(*id, *look);
        }
        for (position, identity, look) in adds {
            turn.add(&order, position, self.intern(node, identity), look);
        }
        while turn.size > limit {
            if !turn.evict() {
                self.release_all(turn.refs);
                return self.read_window(node, key, &plan).await;
            }
        }
        let short = full && turn.size < limit && !faults::is_on(Fault::Refill);
        self.settle(node, key, turn)?;
        match (short, bound) {
            (true, Some(bound)) => self.refill(node, key, &bound, limit).await,
            _ => Ok(()),
        }
    }

    fn window_size(&self, node: usize, key: &[u8]) -> usize {
        match self.state.is_flat(node) {
            true => self.state.flat_rows,
            false => self.state.nodes[node].get(key).map_or(0, |slot| slot.rows.len()),
        }
    }

    fn intern(&self, node: usize, identity: &[u8]) -> RowId {
        self.rows.borrow_mut().intern(self.layout.identities[node], identity)
    }

    fn release_all(&self, ids: Vec<RowId>) {
        self.rows.borrow_mut().release_all(&ids);
    }

    /// Makes what was decided about a window take effect.
    fn settle(&mut self, node: usize, key: &[u8], turn: Turn<'_>) -> Result<(), ReadError> {
        let Turn { window, mut gone, came, evicted, refs, .. } = turn;
        for (id, look) in came {
            match gone.remove(&id) {
                Some(_) => self.row_stays(node, &look)?,
                None => {
                    let identity = self.rows.borrow().key_of(id).to_vec();
                    let id = self.row_in(node, &identity, look.new)?;
                    self.put_in(node, key, id);
                }
            }
        }
        let mut gone: Vec<(RowId, Look)> = gone.into_iter().collect();
        gone.sort_unstable_by_key(|(id, _)| *id);
        for (id, look) in gone {
            self.take_out(node, key, id);
            self.row_out_as(node, id, look.old)?;
        }
        for id in evicted {
            self.take_out(node, key, id);
            self.row_out(node, id)?;
        }
        if let Some(slot) = self.slot(node, key) {
            slot.window = Some(Box::new(window));
        }
        self.release_all(refs);
        Ok(())
    }

    /// Reads on after the last row that there was.
    async fn refill(
        &mut self,
        node: usize,
        key: &[u8],
        bound: &Position,
        limit: usize,
    ) -> Result<(), ReadError> {
        let missing = limit - self.window_size(node, key);
        let plan = self.plan;
        let Some(refill) = &plan.nodes[node].refill else { return Ok(()) };
        let statement = refill.after(bound, missing as u64);
        let order = &plan.nodes[node].order;
        for found in self.read(node, &statement, &key::values(key)).await? {
            let id = self.row_in(node, &found.identity, Some(&found.row))?;
            self.put_in(node, key, id);
            if let Some(slot) = self.slot(node, key) {
                slot.window.get_or_insert_default().push(order::position(order, &found.row), id);
            }
        }
        Ok(())
    }

    /// Reads a window anew and compares.
    async fn read_window(&mut self, node: usize, key: &[u8], plan: &Plan<'_>) -> Result<(), ReadError> {
        let order = self.plan.nodes[node].order.clone();
        let old: BTreeSet<RowId> = self.state.rows_of(node, key, &self.rows.borrow()).into_iter().collect();
        let found = self.read_key(node, key).await?;
        let looks: RowMap<Look> = plan.dropped.iter().copied().collect();
        let mut window = Window::default();
        let mut stays = BTreeSet::new();
        let from = found.len().saturating_sub(TAIL);
        for (at, found) in found.iter().enumerate() {
            let known = self.find(node, &found.identity).filter(|id| old.contains(id));
            let id = match known {
                Some(id) => {
                    stays.insert(id);
                    if let Some(look) = looks.get(&id) {
                        self.row_stays(node, look)?;
                    }
                    id
                }
                None => {
                    let id = self.row_in(node, &found.identity, Some(&found.row))?;
                    self.put_in(node, key, id);
                    id
                }
            };
            if at >= from {
                window.push(order::position(&order, &found.row), id);
            }
        }
        for id in old.difference(&stays) {
            self.take_out(node, key, *id);
            self.row_out(node, *id)?;
        }
        if let Some(slot) = self.slot(node, key) {
            slot.window = Some(Box::new(window));
        }
        Ok(())
    }

    /// Reads the rows of a node under one key, in its order.
    async fn read_key(&mut self, node: usize, key: &[u8]) -> Result<Vec<FoundRow>, ReadError> {
        let values = key::values(key);
        let (statement, variable) = match &self.plan.nodes[node].statements {
            // What takes long from this side is left to a hydration, which tries out others.
            Statements::Once(once) => (&once.statement, values),
            Statements::PerKey(statement) => (statement, values),
            Statements::Witness { fill, .. } => (fill, values),
            Statements::Batch(statement) => (statement, vec![list([values])]),
            Statements::Never => return Ok(Vec::new()),
        };
        self.read(node, &statement.clone(), &variable).await
    }

    /// Looks at witnesses: those that still are some stay, others take the places of those
    /// that are none any more (rule 8).
    pub(super) async fn witnesses(
        &mut self,
        node: usize,
        looks: &Looks<'_>,
        entering: &[Box<[u8]>],
    ) -> Result<(), ReadError> {
        let mut short: BTreeSet<Vec<u8>> = BTreeSet::new();
        for (identity, look) in looks {
            let (old_key, new_key) = self.keys(node, look);
            let known = self.find(node, identity);
            let held =
                known.filter(|id| old_key.as_ref().is_some_and(|key| self.state.holds(node, key, *id)));
            let stays = old_key == new_key;
            let new_key = new_key.filter(|key| self.is_open(node, key, entering));
            let passes = new_key.is_some() && self.passes(node, identity, look).await?;
            match (held, old_key) {
                (Some(_), _) if stays && passes => self.row_stays(node, look)?,
                (Some(id), Some(old_key)) => {
                    self.take_out(node, &old_key, id);
                    self.row_out_as(node, id, look.old)?;
                    short.insert(old_key);
                    short.extend(new_key.filter(|_| passes));
                }
                _ => short.extend(new_key.filter(|_| passes)),
            }
        }
        for key in short {
            if self.is_open(node, &key, entering) {
                self.fill(node, &key).await?;
            }
        }
        Ok(())
    }

    /// Gives a key as many witnesses as it can have.
    async fn fill(&mut self, node: usize, key: &[u8]) -> Result<(), ReadError> {
        let held = |this: &Self| this.state.nodes[node].get(key).map_or(0, |slot| slot.rows.len());
        if held(self) >= MAX_WITNESSES || faults::is_on(Fault::Witnesses) {
            return Ok(());
        }
        for found in self.read_key(node, key).await? {
            let known = self.find(node, &found.identity);
            let is_one = known.is_some_and(|id| self.state.holds(node, key, id));
            if !is_one && held(self) < MAX_WITNESSES {
                let id = self.row_in(node, &found.identity, Some(&found.row))?;
                self.put_in(node, key, id);
            }
        }
        Ok(())
    }

    /// Reads the rows of keys that came into the scope of a node.
    pub(super) async fn read_keys(&mut self, node: usize, keys: &[Box<[u8]>]) -> Result<(), ReadError> {
        if let Statements::Batch(statement) = &self.plan.nodes[node].statements {
            let (statement, keys) = (statement.clone(), list(keys.iter().map(|key| key::values(key))));
            for found in self.read(node, &statement, &[keys]).await? {
                let columns = &self.plan.nodes[node].child_columns;
                if let Some(key) = identity_bytes(columns, &found.row) {
                    self.place(node, &key, &found)?;
                }
            }
            return Ok(());
        }
        for key in keys {
            for found in self.read_key(node, key).await? {
                self.place(node, key, &found)?;
            }
        }
        Ok(())
    }

    /// Puts a row of a key that came into scope into its slot, after those before it.
    fn place(&mut self, node: usize, key: &[u8], found: &FoundRow) -> Result<(), ReadError> {
        if !self.state.nodes[node].contains_key(key) {
            // Equal to SQLite, not to us.
            return Err(ReadError::Unsupported(UNEQUAL.to_owned()));
        }
        let id = self.row_in(node, &found.identity, Some(&found.row))?;
        self.put_in(node, key, id);
        let plan = &self.plan.nodes[node];
        let Some(limit) = plan.limit.filter(|_| plan.kind != Kind::Witness) else { return Ok(()) };
        let order = &plan.order;
        if let Some(slot) = self.slot(node, key)
            && slot.rows.len() as u64 + TAIL as u64 > limit
        {
            slot.window.get_or_insert_default().push(order::position(order, &found.row), id);
        }
        Ok(())
    }

    /// Runs a statement of a node.
    async fn read(
        &mut self,
        node: usize,
        statement: &Statement,
        variable: &[Value],
    ) -> Result<Vec<FoundRow>, ReadError> {
        let plan = &self.plan.nodes[node];
        let mut prepared = self.reader.prepare(&statement.text)?;
        let mut rows = prepared.query(parameters(variable, &statement.constants))?;
        let mut out = Vec::new();
        while let Some(found) = rows.next()? {
            let row = super::read::row(plan, found)?;
            let Some(identity) = identity_bytes(&plan.key, &row) else {
                return Err(ReadError::Unsupported("a row's key is null".to_owned()));
            };
            out.push(FoundRow { identity: identity.into(), row });
            if self.pace.due() {
                self.pace.rest().await;
            }
        }
        Ok(out)
    }
}

/// Keys as the one parameter of a batch.
fn list(keys: impl IntoIterator<Item = Vec<Value>>) -> Value {
    let tuples: Vec<String> = keys.into_iter().map(|values| json_array(&values)).collect();
    Value::Text(format!("[{}]", tuples.join(",")).into())
}

/// A window while it is decided who is in it.
struct Turn<'l> {
    size: usize,
    window: Window,
    /// Rows that were in it and were looked at; those that stay are in `came`, too.
    gone: RowMap<Look<'l>>,
    came: Vec<(RowId, Look<'l>)>,
    /// Rows pushed out that were not looked at.
    evicted: Vec<RowId>,
    /// References to the rows in `came`.
    refs: Vec<RowId>,
}

impl<'l> Turn<'l> {
    fn new(size: usize, window: Window) -> Turn<'l> {
        let (gone, came) = (RowMap::default(), Vec::new());
        Turn { size, window, gone, came, evicted: Vec::new(), refs: Vec::new() }
    }

    fn add(&mut self, order: &order::Order, position: Position, id: RowId, look: Look<'l>) {
        self.window.insert(order, position, id, self.size);
        self.size += 1;
        self.came.push((id, look));
        self.refs.push(id);
    }

    /// Pushes the last row out. False: it is not known which that is.
    fn evict(&mut self) -> bool {
        let Some(id) = self.window.pop() else { return false };
        self.size -= 1;
        match self.came.iter().position(|(came, _)| *came == id) {
            Some(at) => drop(self.came.swap_remove(at)),
            None => self.evicted.push(id),
        }
        true
    }
}
