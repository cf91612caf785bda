//! From a query and the catalogue to a [`Plan`]: names resolved, constants typed, every node
//! and condition with what is needed to keep it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use hashbrown::HashMap;

use super::ast::{Ast, Condition, Correlated, Direction, System};
use super::builder::{Builder, SharedTexts, Statement};
use super::canonical::{self, distinct_order, distinct_related};
use super::limits::{Account, Limits};
use super::plan::{Exists, Keys, Kind, Node, Plan, PlanError};
use super::predicate::Predicate;
use super::resolved::{Resolved, comparable, correlation, cursor, limit, visible_column};
use super::test::{self, Test};
use crate::model::catalogue::{Catalogue, ColumnIndex, Table, ZeroType};
use crate::model::value::Value;
use crate::replica::live_indexes::IndexRequest;
use crate::testing::panics;

/// Most columns of an index that is asked for: the first ones leave few rows.
const MAX_COLUMNS: usize = 3;

/// Resolves a query. A panic on the way is that query's error: nothing is shared that it could leave half done.
pub fn plan(ast: &Ast, catalogue: &Catalogue, keys: &dyn Keys, limits: &Limits) -> Result<Plan, PlanError> {
    let resolved = catch_unwind(AssertUnwindSafe(|| resolve(ast, catalogue, keys, limits)));
    resolved
        .unwrap_or_else(|_| Err(PlanError::new("the query could not be planned; the server's log says why")))
}

fn resolve(ast: &Ast, catalogue: &Catalogue, keys: &dyn Keys, limits: &Limits) -> Result<Plan, PlanError> {
    panics::here("planning a query");
    let mut planner = Planner {
        catalogue,
        keys,
        limits,
        nodes: Vec::new(),
        conditions: Vec::new(),
        index_requests: RefCell::default(),
        tests: RefCell::default(),
        shared: SharedTexts::default(),
        account: Account::default(),
        texts: Cell::new(0),
    };
    planner.node(ast, Kind::Root, None, true)?;
    planner.index_request_for_root();
    let bytes = planner.account.bytes() + planner.shared.bytes() - planner.texts.get();
    let Planner { mut nodes, conditions, index_requests, .. } = planner;
    // Each view has a plan of its own.
    nodes.shrink_to_fit();
    let index_requests = index_requests.into_inner().into_iter().collect();
    let mut tables: Vec<_> =
        nodes.iter().map(|n| n.table).chain(conditions.iter().map(|c| c.table)).collect();
    tables.sort_unstable();
    tables.dedup();
    Ok(Plan { nodes, conditions, tables, index_requests, bytes })
}

pub(super) struct Planner<'a> {
    pub catalogue: &'a Catalogue,
    keys: &'a dyn Keys,
    limits: &'a Limits,
    nodes: Vec<Node>,
    conditions: Vec<Exists>,
    /// Indexes that statements would read by.
    index_requests: RefCell<BTreeSet<IndexRequest>>,
    /// What was resolved, by its place in the query: a condition is part of many statements.
    tests: RefCell<HashMap<*const Condition, Test>>,
    shared: SharedTexts,
    /// Bytes of all that was made.
    account: Account,
    /// Those that are texts of statements.
    texts: Cell<usize>,
}

/// Where a node hangs.
struct Edge<'e> {
    parent: usize,
    correlated: &'e Correlated,
}

/// Whose filter a condition is part of.
#[derive(Clone, Copy)]
struct Owner<'a> {
    table: &'a Table,
    /// The node, if its rows are part of the answer.
    node: Option<usize>,
    /// No permission rule stands above.
    emitted: bool,
}

impl<'a> Planner<'a> {
    /// An empty statement.
    pub(super) fn builder(&self) -> Builder<'_> {
        Builder::new(&self.shared)
    }

    /// Whether a statement under construction may go on.
    pub(super) fn check(&self, sql: &Builder) -> Result<(), PlanError> {
        Limits::check("constants in one statement", sql.bound(), self.limits.bound)?;
        Ok(self.account.check(sql.bytes(), self.limits)?)
    }

    /// Counts a statement that is done.
    pub(super) fn finish(&self, sql: Builder) -> Result<Statement, PlanError> {
        self.check(&sql)?;
        let statement = sql.finish();
        self.charge(statement.bytes_of_constants())?;
        self.charge_text(statement.text.len())?;
        Ok(statement)
    }

    /// Counts bytes of a text.
    pub(super) fn charge_text(&self, bytes: usize) -> Result<(), PlanError> {
        self.texts.set(self.texts.get() + bytes);
        self.charge(bytes)
    }

    fn charge(&self, bytes: usize) -> Result<(), PlanError> {
        Ok(self.account.charge(bytes, self.limits)?)
    }

    /// A comparison, resolved once.
    pub(super) fn test(&self, table: &Table, condition: &Condition) -> Result<Test, PlanError> {
        let Condition::Simple { op, left, right } = condition else { return Ok(Test::Constant(true)) };
        let place = std::ptr::from_ref(condition);
        if let Some(known) = self.tests.borrow().get(&place) {
            return Ok(known.clone());
        }
        let test = test::resolve(table, *op, left, right)?;
        self.charge(test.bytes_shared())?;
        self.tests.borrow_mut().insert(place, test.clone());
        Ok(test)
    }

    fn node(&mut self, ast: &Ast, kind: Kind, edge: Option<Edge>, emitted: bool) -> Result<(), PlanError> {
        let resolved = self.resolve(ast)?;
        let table = resolved.table;
        let (parent, parent_columns, child_columns) = match &edge {
            None => (None, Vec::new(), Vec::new()),
            Some(edge) => {
                let parent_table = self.catalogue.get(self.nodes[edge.parent].table);
                let (parent, child) = correlation(parent_table, table, edge.correlated)?;
                (Some(edge.parent), parent, child)
            }
        };
        let mut filter = self.predicate(table, ast.condition.as_ref())?;
        if let Some(parent) = parent
            && !comparable(
                self.catalogue.get(self.nodes[parent].table),
                &parent_columns,
                table,
                &child_columns,
            )
        {
            filter = Predicate::Test(Test::Constant(false));
        }
        let statements = self.statements(ast, &resolved, kind, &child_columns, &filter)?;
        let in_schema = self.keys.client_key(table).is_some();
        let index = self.nodes.len();
        let columns: Arc<[ColumnIndex]> = table.visible_columns().map(|(i, _)| i).collect();
        let cursor = cursor(ast, &resolved)?;
        let position = cursor.iter().flat_map(|cursor| cursor.position.iter());
        let position: usize = position.map(|value| size_of::<Value>() + value.heap_size()).sum();
        self.charge(size_of::<Node>() + size_of_val(&*columns) + filter.bytes() + position)?;
        self.nodes.push(Node {
            table: table.id,
            key: resolved.key.clone(),
            emitted: emitted && in_schema,
            kind,
            parent,
            children: Vec::new(),
            parent_columns,
            child_columns: child_columns.clone(),
            columns,
            width: table.columns.len(),
            statements,
            holds: self.holds(ast, &resolved)?,
            lookup: self.lookup(&resolved)?,
            filter,
            conditions: Vec::new(),
            cursor,
            refill: match resolved.limit {
                Some(_) => Some(self.refill(ast, &resolved, &child_columns)?),
                None => None,
            },
            order: resolved.order.into(),
            limit: resolved.limit,
        });
        if let Some(parent) = parent {
            self.nodes[parent].children.push(index);
        }
        if let Some(condition) = &ast.condition {
            let owner = Owner { table, node: Some(index), emitted };
            self.nodes[index].conditions = self.conditions(condition, owner, true)?;
        }
        // What an app relates to rows of an EXISTS is not part of the answer (zql T7).
        if kind != Kind::Witness {
            for child in distinct_related(ast) {
                let (nodes, conditions) = (self.nodes.len(), self.conditions.len());
                let emitted = emitted && child.system == System::Client;
                let edge = Edge { parent: index, correlated: child };
                self.node(&child.subquery, Kind::Related, Some(edge), emitted)?;
                if self.prune(nodes) {
                    self.conditions.truncate(conditions);
                }
            }
        }
        Ok(())
    }

    /// Whether the rows with given values in these columns are found by an index. If not, one
    /// is asked for.
    pub(super) fn reads_by_index(&self, table: &Table, columns: &[ColumnIndex]) -> bool {
        // Reading a small part of a table by scanning it once is fine either way.
        let found = (1..=columns.len()).rev().any(|n| table.has_index_on(&columns[..n]))
            || columns.iter().any(|c| table.has_index_on(&[*c]));
        if !found {
            self.index_request(table, columns);
        }
        found
    }

    fn index_request(&self, table: &Table, columns: &[ColumnIndex]) {
        let is_useful = |c: &&ColumnIndex| {
            // Half of a table's rows are not worth an index; JSON has no order.
            !matches!(table.columns[**c as usize].zero_type, Some(ZeroType::Boolean | ZeroType::Json))
        };
        let columns: Vec<ColumnIndex> = columns.iter().filter(is_useful).take(MAX_COLUMNS).copied().collect();
        if !columns.is_empty() {
            self.index_requests.borrow_mut().insert(IndexRequest { table: table.id, columns });
        }
    }

    /// Requests for indexes that find the rows of the root: by the columns that its filter
    /// fixes, or else, if only some rows are wanted, in its order.
    fn index_request_for_root(&self) {
        let root = &self.nodes[0];
        let table = self.catalogue.get(root.table);
        match root.filter.wanted() {
            Some(alternatives) => {
                for alternative in alternatives {
                    self.reads_by_index(table, &alternative.columns);
                }
            }
            None if root.limit.is_some_and(|limit| limit > 0) => {
                let direction = root.order[0].1;
                let alike = root.order.iter().take_while(|(_, d)| *d == direction).map(|(c, _)| *c);
                let columns: Vec<ColumnIndex> = alike.take(MAX_COLUMNS).collect();
                // Rows that are equal in the first column are mostly few enough to be sorted.
                if !table.has_index_on(&columns[..1]) {
                    self.index_request(table, &columns);
                }
            }
            None => {}
        }
    }

    /// Takes the nodes from `first` on away if none of them sends anything.
    fn prune(&mut self, first: usize) -> bool {
        if self.nodes[first..].iter().any(|node| node.emitted) {
            return false;
        }
        self.nodes.truncate(first);
        self.nodes.iter_mut().for_each(|node| node.children.retain(|child| *child < first));
        for condition in &mut self.conditions {
            condition.witness = condition.witness.filter(|node| *node < first);
        }
        true
    }

    /// Lists the conditions of a filter, and adds a node for each whose rows clients are
    /// sent. `must_hold`: the condition holds for every row that passes.
    fn conditions(
        &mut self,
        condition: &Condition,
        owner: Owner<'a>,
        must_hold: bool,
    ) -> Result<Vec<usize>, PlanError> {
        match condition {
            Condition::Simple { .. } => Ok(Vec::new()),
            Condition::And(members) | Condition::Or(members) => {
                let and = matches!(condition, Condition::And(_));
                let must_hold = must_hold && (and || members.len() == 1);
                let mut out = Vec::new();
                for member in members {
                    out.extend(self.conditions(member, owner, must_hold)?);
                }
                Ok(out)
            }
            Condition::Exists { related, negated, .. } => {
                // A NOT EXISTS that holds has no rows; a permission's rows are nobody's.
                let hidden = (*negated && must_hold) || related.system == System::Permissions;
                let owner = Owner { node: owner.node.filter(|_| !hidden), ..owner };
                Ok(self.exists_plan(related, owner)?.into_iter().collect())
            }
        }
    }

    /// One condition. `None`: it is true or false for every row alike.
    fn exists_plan(&mut self, related: &Correlated, owner: Owner<'a>) -> Result<Option<usize>, PlanError> {
        let ast = &related.subquery;
        let resolved = self.resolve(ast)?;
        let (parent_columns, child_columns) = correlation(owner.table, resolved.table, related)?;
        let filter = self.predicate(resolved.table, ast.condition.as_ref())?;
        let (nested, witness) = self.below(related, owner, resolved.table)?;
        if self.is_constant(related, owner.table)? {
            return Ok(None);
        }
        let cursor = cursor(ast, &resolved)?.map(|cursor| (cursor, Arc::from(resolved.order.as_slice())));
        let mut structural = child_columns.clone();
        filter.columns(&mut structural);
        if cursor.is_some() {
            structural.extend(resolved.order.iter().map(|(column, _)| *column));
        }
        for condition in &nested {
            structural.extend(&self.conditions[*condition].parent_columns);
        }
        structural.sort_unstable();
        structural.dedup();
        let shape = shape(owner.table, &parent_columns, &resolved, &child_columns, ast);
        let parents = self.reads_by_index(owner.table, &parent_columns);
        let parents = parents.then(|| super::sql::parents(owner.table, &parent_columns));
        self.charge(size_of::<Exists>() + shape.len() + filter.bytes())?;
        self.charge_text(parents.as_ref().map_or(0, |text| text.len()))?;
        self.conditions.push(Exists {
            shape,
            parent_table: owner.table.id,
            table: resolved.table.id,
            parents,
            parent_columns,
            child_columns,
            filter,
            cursor,
            structural,
            nested,
            witness,
        });
        Ok(Some(self.conditions.len() - 1))
    }

    /// What is inside a condition: its own conditions, and the node that sends its rows.
    fn below(
        &mut self,
        related: &Correlated,
        owner: Owner<'a>,
        table: &'a Table,
    ) -> Result<(Vec<usize>, Option<usize>), PlanError> {
        let Some(parent) = owner.node else {
            let inner = Owner { table, node: None, emitted: false };
            return match &related.subquery.condition {
                None => Ok((Vec::new(), None)),
                Some(condition) => Ok((self.conditions(condition, inner, true)?, None)),
            };
        };
        let first = self.nodes.len();
        let edge = Edge { parent, correlated: related };
        self.node(&related.subquery, Kind::Witness, Some(edge), owner.emitted)?;
        let nested = self.nodes[first].conditions.clone();
        Ok((nested, (!self.prune(first)).then_some(first)))
    }

    /// Whether a condition is true or false for every row alike.
    fn is_constant(&self, related: &Correlated, parent: &Table) -> Result<bool, PlanError> {
        let resolved = self.resolve(&related.subquery)?;
        let (parents, children) = correlation(parent, resolved.table, related)?;
        Ok(resolved.limit == Some(0) || !comparable(parent, &parents, resolved.table, &children))
    }

    pub(super) fn table(&self, name: &str) -> Result<&'a Table, PlanError> {
        let table = self.catalogue.table(name).filter(|t| t.is_syncable());
        table.ok_or_else(|| {
            // Which tables there are is not for everybody who asks for one.
            PlanError::new(format!("table \"{name}\" does not exist upstream or is not replicated"))
        })
    }

    pub(super) fn resolve(&self, ast: &Ast) -> Result<Resolved<'a>, PlanError> {
        let table = self.table(&ast.table)?;
        let mut key = self.keys.client_key(table).unwrap_or_else(|| table.candidate_keys[0].clone());
        key.sort_by(|a, b| table.columns[*a as usize].name.cmp(&table.columns[*b as usize].name));
        let mut order = Vec::with_capacity(ast.order_by.len() + key.len());
        for (name, direction) in distinct_order(ast) {
            let column = visible_column(table, name)?;
            if table.columns[column as usize].zero_type == Some(ZeroType::Json) {
                return Err(PlanError::new(format!(
                    "cannot order by \"{}\".\"{name}\": JSON values have no order",
                    table.name
                )));
            }
            order.push((column, direction));
        }
        for column in &key {
            if !order.iter().any(|(c, _)| c == column) {
                order.push((*column, Direction::Ascending));
            }
        }
        Ok(Resolved { table, order, key: key.into(), limit: limit(ast)? })
    }

    pub(super) fn predicate(
        &self,
        table: &Table,
        condition: Option<&Condition>,
    ) -> Result<Predicate, PlanError> {
        let members = |members: &[Condition]| -> Result<Vec<_>, PlanError> {
            members.iter().map(|m| self.predicate(table, Some(m))).collect()
        };
        Ok(match condition {
            None => Predicate::And(Vec::new()),
            Some(condition @ Condition::Simple { .. }) => Predicate::Test(self.test(table, condition)?),
            Some(Condition::And(m)) => Predicate::And(members(m)?),
            Some(Condition::Or(m)) => Predicate::Or(members(m)?),
            Some(Condition::Exists { related, negated, .. }) => match self.is_constant(related, table)? {
                true => Predicate::Test(Test::Constant(*negated)),
                false => Predicate::Unknown,
            },
        })
    }
}

/// What makes two conditions one: where they hang, and what they ask.
fn shape(
    parent: &Table,
    parent_columns: &[ColumnIndex],
    resolved: &Resolved,
    child_columns: &[ColumnIndex],
    ast: &Ast,
) -> Arc<[u8]> {
    let mut bytes = parent.id.0.to_be_bytes().to_vec();
    // Whoever shares it reads parents with as many columns.
    bytes.extend((parent.columns.len() as u16).to_be_bytes());
    // The order matters to a cursor, and it depends on the key that clients name.
    for columns in [parent_columns, child_columns, &resolved.key[..]] {
        bytes.extend((columns.len() as u16).to_be_bytes());
        columns.iter().for_each(|c| bytes.extend(c.to_be_bytes()));
    }
    canonical::write(ast, &mut bytes);
    bytes.into()
}
