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
use kelvin::views::changed::Changed;
use kelvin::views::collect::Collector;
use kelvin::views::journal::Delta;
use kelvin::views::registry::Views;
use kelvin::views::routing::Routing;
use kelvin::views::rows::{RowId, Rows};
use kelvin::views::state::State;
use kelvin::views::task::{self, Outcome, Task};
use kelvin::views::view::{View, ViewId};
use kelvin::zql::ast::Ast;
use kelvin::zql::evaluate::{NoPace, evaluate};
use kelvin::zql::plan::Kind;
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
    /// Views that were evaluated again, and that were not.
    pub evaluations: usize,
    pub advances: usize,
    reader: Reader,
    schema: Schema,
}

/// Finds what a batch has to look at, or what of it one view has to.
pub fn route(views: &mut Views, reader: &Reader, batch: &Batch<'_>, only: Option<ViewId>) -> Vec<Task> {
    let changed = Changed::new(batch, &views.rows().borrow());
    let mut routing = Routing::new(batch, &changed, views, only);
    while routing.step(views, reader).expect("the parents") {}
    let found = routing.finish();
    task::take(views, found, batch, &changed)
}

impl Keeper {
    pub fn new(replica: &Replica, schema: &Schema) -> Keeper {
        let rows = Rc::new(RefCell::new(Rows::default()));
        let reader = replica.reader();
        let version = reader.begin().expect("a snapshot");
        let (views, schema) = (Views::new(rows.clone()), schema.clone());
        Keeper { views, rows, version, reader, schema, evaluations: 0, advances: 0 }
    }

    /// Subscribes to a query and hydrates it, if nobody has.
    pub fn open(&mut self, ast: &Ast) -> ViewId {
        let planned = Rc::new(plan::plan(ast, &self.schema.catalogue, &self.schema).expect("a plan"));
        let mut key = Vec::new();
        canonical::write(ast, &mut key);
        let id = self.views.subscribe(key.into(), &self.schema.catalogue, || planned);
        if !self.view(id).live {
            let state = self.evaluated(id);
            self.views.hydrated(id, state, self.version);
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
        let tasks = route(&mut self.views, &self.reader, &batch, None);
        let changed = Changed::new(&batch, &self.rows.borrow());
        for task in tasks {
            self.evaluations += task.reason().is_some() as usize;
            self.advances += task.reason().is_none() as usize;
            let done = block_on(task.perform(&changed, &self.reader, &mut NoPace));
            let outcome = done.settle(&mut self.views, self.version);
            assert!(!matches!(outcome, Outcome::Failed(_)), "{outcome:?}");
        }
    }

    fn evaluated(&self, id: ViewId) -> State {
        let view = self.view(id);
        let (layout, plan) = (view.layout.clone(), view.plan.clone());
        let mut collector = Collector::new(self.rows.clone(), layout, plan.clone(), &view.state, None);
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
    let names: BTreeSet<Name> = view.state.iter().map(|id| name(id, rows)).collect();
    assert_eq!(names.len(), view.state.len(), "a member is listed twice");
    names
}

/// Witnesses of a view.
pub fn chosen(view: &View, rows: &Rows) -> Chosen {
    let mut out = Chosen::new();
    for (node, slots) in view.state.nodes.iter().enumerate() {
        if view.plan.nodes[node].kind != Kind::Witness {
            continue;
        }
        for (key, slot) in slots.iter().filter(|(_, slot)| !slot.rows.is_empty()) {
            let picked = slot.rows.iter().map(|id| name(id, rows).1).collect();
            out.insert((node, probe::name(key)), picked);
        }
    }
    out
}
