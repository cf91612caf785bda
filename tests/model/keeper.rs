//! Views kept current the way a core does it, without the core: hydrate, classify a batch,
//! evaluate what has to be, take effect.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

use futures_lite::future::block_on;
use kelvin::changes::batch::Batch;
use kelvin::changes::commit::Commit;
use kelvin::changes::version::StateVersion;
use kelvin::replica::reader::Reader;
use kelvin::views::collect::Collector;
use kelvin::views::journal::Delta;
use kelvin::views::registry::Views;
use kelvin::views::rows::{RowId, Rows};
use kelvin::views::view::{Effect, State, View, ViewId};
use kelvin::zql::ast::Ast;
use kelvin::zql::evaluate::{NoPace, evaluate};
use kelvin::zql::{canonical, plan};

use super::probe;
use super::replica::Replica;
use super::schema::Schema;
use super::tree::Chosen;

/// A table and a row's identity in it.
pub type Name = (usize, String);

/// Views of one core.
pub struct Keeper {
    pub rows: Rc<RefCell<Rows>>,
    pub views: Views,
    pub version: StateVersion,
    reader: Reader,
    schema: Schema,
}

impl Keeper {
    pub fn new(replica: &Replica, schema: &Schema) -> Keeper {
        let rows = Rc::new(RefCell::new(Rows::default()));
        let reader = replica.reader();
        let version = reader.begin().expect("a snapshot");
        Keeper { views: Views::new(rows.clone()), rows, version, reader, schema: schema.clone() }
    }

    /// Subscribes to a query and hydrates it, if nobody has.
    pub fn open(&mut self, ast: &Ast) -> ViewId {
        let planned = Rc::new(plan::plan(ast, &self.schema.catalogue, &self.schema).expect("a plan"));
        let mut key = Vec::new();
        canonical::write(ast, &mut key);
        let id = self.views.subscribe(key.into(), &self.schema.catalogue, || planned);
        if !self.view(id).live {
            let state = self.evaluated(id);
            let version = self.version;
            let view = self.views.get_mut(id).expect("the view");
            view.state = Rc::new(state);
            view.at = version;
            view.live = true;
        }
        id
    }

    /// Takes commits as one batch. `gap`: it is not known what they changed.
    pub fn advance(&mut self, commits: &[Arc<Commit>], gap: bool) {
        self.version = self.reader.begin().expect("a snapshot");
        let batch = if gap {
            Batch::everything(&self.schema.catalogue, self.version)
        } else {
            Batch::fold(commits, self.version)
        };
        let ids = self.views.reading(batch.tables.keys());
        let effects: Vec<(ViewId, Effect)> =
            ids.into_iter().map(|id| (id, self.view(id).effect(&batch, &self.rows.borrow()))).collect();
        let mut done = Vec::new();
        for (id, effect) in effects {
            match effect {
                Effect::None => {}
                Effect::Contents(edited) => done.push((id, None, edited)),
                Effect::Evaluate(edited) => done.push((id, Some(self.evaluated(id)), edited)),
            }
        }
        for (id, state, edited) in done {
            let rows = self.rows.clone();
            let view = self.views.get_mut(id).expect("the view");
            match state {
                None => view.edit(edited, batch.end, &mut rows.borrow_mut()),
                Some(state) => {
                    view.replace(state, &edited, batch.end, &mut rows.borrow_mut());
                }
            }
        }
    }

    fn evaluated(&self, id: ViewId) -> State {
        let view = self.view(id);
        let (layout, plan) = (view.layout.clone(), view.plan.clone());
        let mut collector = Collector::new(self.rows.clone(), layout, plan.clone(), view.state.clone(), None);
        block_on(evaluate(&self.reader, &plan, &mut collector, &mut NoPace)).expect("an answer");
        collector.finish(self.version).0
    }

    pub fn view(&self, id: ViewId) -> &View {
        self.views.get(id).expect("the view")
    }

    pub fn members(&self, id: ViewId) -> BTreeSet<Name> {
        members(self.view(id), &self.rows.borrow())
    }

    pub fn chosen(&self, id: ViewId) -> Chosen {
        chosen(self.view(id), &self.rows.borrow())
    }

    /// What the journal says of the time since a version.
    pub fn deltas(&self, id: ViewId, since: StateVersion) -> Vec<Delta> {
        self.view(id).journal.since(since).cloned().collect()
    }

    pub fn names(&self, ids: &[RowId]) -> BTreeSet<Name> {
        ids.iter().map(|id| name(*id, &self.rows.borrow())).collect()
    }
}

/// What a row number stands for.
pub fn name(id: RowId, rows: &Rows) -> Name {
    (rows.table_of(id).0 as usize, probe::name(rows.key_of(id)))
}

/// Members of a view.
pub fn members(view: &View, rows: &Rows) -> BTreeSet<Name> {
    let names: BTreeSet<Name> = view.state.members.iter().map(|id| name(*id, rows)).collect();
    assert_eq!(names.len(), view.state.members.len(), "a member is listed twice");
    names
}

/// Witnesses of a view.
pub fn chosen(view: &View, rows: &Rows) -> Chosen {
    let witnesses = view.state.witnesses.iter();
    witnesses
        .map(|((node, key), ids)| {
            let picked = ids.iter().map(|id| name(*id, rows).1).collect();
            ((*node as usize, probe::name(key)), picked)
        })
        .collect()
}
