//! Views kept current the way a core does it, without the core: hydrate, classify a batch,
//! evaluate what has to be, take effect.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

use futures_lite::future::block_on;
use kelvin::model::batch::Batch;
use kelvin::model::catalogue::Catalogue;
use kelvin::model::commit::Commit;
use kelvin::model::version::StateVersion;
use kelvin::protocol::dialect::Dialect;
use kelvin::replica::live_indexes::IndexRequest;
use kelvin::replica::reader::Reader;
use kelvin::views::assemble::Assembly;
use kelvin::views::changed::Changed;
use kelvin::views::difference::difference;
use kelvin::views::journal::Delta;
use kelvin::views::limits::ViewLimits;
use kelvin::views::pace::NoPace;
use kelvin::views::registry::{Source, Views};
use kelvin::views::routing::Routing;
use kelvin::views::rows::{RowId, RowSet, Rows};
use kelvin::views::scan::{Chunk, Job, Witnesses, scan};
use kelvin::views::state::ViewState;
use kelvin::views::task::{self, Tasks, ViewOutcome};
use kelvin::views::view::{View, ViewId};
use kelvin::views::witnesses::witnesses;
use kelvin::zql::ast::Ast;
use kelvin::zql::limits::Limits;
use kelvin::zql::plan::Kind;
use kelvin::zql::{canonical, plan};

use super::choices::Choices;
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
    /// Indexes that were made because views would read by them.
    pub indexes: usize,
    /// Views that the last batch had read anew.
    pub anew: BTreeSet<ViewId>,
    reader: Reader,
    schema: Schema,
    catalogue: Arc<Catalogue>,
}

/// Finds what a batch has to look at, or what of it one view has to.
pub fn route(views: &mut Views, reader: &Reader, batch: &Batch<'_>, only: Option<ViewId>) -> Tasks {
    let changed = Changed::new(batch, &views.rows().borrow());
    let mut routing = Routing::new(batch, &changed, views, only);
    while routing.step(views, reader).expect("the parents") {}
    let found = routing.finish();
    task::take(views, found)
}

impl Keeper {
    pub fn new(replica: &Replica, schema: &Schema) -> Keeper {
        let rows = Rc::new(RefCell::new(Rows::default()));
        let reader = replica.reader();
        let version = reader.begin().expect("a snapshot");
        let (views, schema, catalogue) =
            (Views::new(rows.clone(), ViewLimits::DEFAULT), schema.clone(), schema.catalogue.clone());
        let (evaluations, advances, indexes, anew) = (0, 0, 0, BTreeSet::new());
        Keeper { views, rows, version, reader, schema, catalogue, evaluations, advances, indexes, anew }
    }

    /// Subscribes to a query and hydrates it, if nobody has.
    pub fn open(&mut self, ast: &Ast) -> ViewId {
        let planned =
            Arc::new(plan::plan(ast, &self.catalogue, &self.schema, &Limits::DEFAULT).expect("a plan"));
        let mut key = Vec::new();
        canonical::write(ast, &mut key);
        let id = self.views.subscribe(key.into(), &self.catalogue, || planned);
        let keys = Rc::new(self.schema.clone());
        self.views.remember_source(id, Source { ast: ast.clone(), keys });
        if !self.view(id).is_live() {
            let (state, _) = self.read(id, None, Witnesses::new());
            self.views.hydrated(id, state, self.version);
        }
        id
    }

    /// Gives the replica an index that some view would read by, if one would.
    pub fn index(&mut self, replica: &mut Replica, choices: &mut Choices) {
        let views = (0..self.views.len()).filter_map(|id| self.views.get(ViewId(id as u32)));
        let index_requests: BTreeSet<IndexRequest> =
            views.flat_map(|view| view.plan.index_requests.iter().cloned()).collect();
        let index_requests: Vec<IndexRequest> = index_requests.into_iter().collect();
        if index_requests.is_empty() {
            return;
        }
        if let Some(catalogue) = replica.index(&self.catalogue, choices.pick(&index_requests)) {
            self.indexes += 1;
            self.catalogue = catalogue;
            self.views.plan_anew(&self.catalogue, &Limits::DEFAULT);
        }
    }

    /// Takes commits as one batch. `gap`: it is not known what they changed.
    pub fn advance(&mut self, commits: &[Arc<Commit>], gap: bool) {
        let from = self.version;
        self.version = self.reader.begin().expect("a snapshot");
        let batch = if gap {
            Batch::everything(&self.catalogue, self.version)
        } else {
            Batch::fold(commits, self.version)
        };
        self.anew.clear();
        let tasks = route(&mut self.views, &self.reader, &batch, None);
        let changed = Changed::new(&batch, &self.rows.borrow());
        for task in tasks.advance {
            self.advances += 1;
            let view = task.view;
            let done = block_on(task.perform(&changed, &self.reader, &mut NoPace));
            match done.settle(&mut self.views, from) {
                ViewOutcome::Same | ViewOutcome::Touched => {}
                ViewOutcome::Stale(_) => self.anew(view, from),
                ViewOutcome::Failed(error) => panic!("{error}"),
            }
        }
        for (view, reason) in tasks.stale {
            self.views.make_stale(view, from, reason);
            self.anew(view, from);
        }
    }

    /// Reads a view anew that was right at `since`.
    fn anew(&mut self, id: ViewId, since: StateVersion) {
        self.evaluations += 1;
        self.anew.insert(id);
        let prior = self.views.take_prior(id);
        let plan = self.view(id).plan.clone();
        let known = block_on(witnesses(&prior, &plan, &self.rows, &mut NoPace));
        let (state, edited) = self.read(id, Some(since), known);
        let delta = block_on(difference(&prior, &state, &edited, (self.version, usize::MAX), &mut NoPace));
        self.views.rejoin(id, prior, state, delta, self.version);
    }

    fn read(&mut self, id: ViewId, since: Option<StateVersion>, witnesses: Witnesses) -> (ViewState, RowSet) {
        let view = self.view(id);
        let (layout, plan) = (view.layout.clone(), view.plan.clone());
        let nodes = layout.identities.iter().copied().zip(layout.encoders.iter().cloned()).collect();
        let job = Job { plan: plan.clone(), nodes, poke_id: None, dialect: Dialect::Text, witnesses, since };
        let mut assembly = Assembly::new(self.rows.clone(), layout, plan);
        let mut chunks: Vec<Chunk> = Vec::new();
        let mut hand = |chunk| {
            chunks.push(chunk);
            Ok(())
        };
        scan(&self.reader, &job, &mut hand).expect("an answer");
        chunks.into_iter().for_each(|chunk| assembly.take(chunk));
        while self.views.settle(id, &mut assembly, usize::MAX) {}
        let (state, _, edited) = assembly.finish(self.version, "");
        (state, edited)
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
    (rows.describe(rows.identity_of(id)).table.0 as usize, probe::name(rows.key_of(id)))
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
