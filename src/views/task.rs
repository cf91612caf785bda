//! One view on its way over a batch: taken out, brought forward, put back. In between others
//! run; nobody sees the view half way.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::advance::{Advance, Advanced};
use super::changed::Changed;
use super::collect::Collector;
use super::registry::Views;
use super::routing::{Candidates, Reason};
use super::rows::{RowSet, Rows};
use super::state::State;
use super::view::{Layout, View, ViewId};
use crate::changes::batch::{Batch, TableBatch};
use crate::changes::version::StateVersion;
use crate::replica::reader::{ReadError, Reader};
use crate::zql::evaluate::{Pace, evaluate};
use crate::zql::plan::Plan;

/// What is to be done for a view.
pub struct Task {
    /// The view.
    pub view: ViewId,
    incarnation: u64,
    plan: Rc<Plan>,
    layout: Rc<Layout>,
    rows: Rc<RefCell<Rows>>,
    work: Work,
}

enum Work {
    /// Look at the candidates.
    Advance(State, Candidates),
    /// Evaluate again; with the rows whose contents changed.
    Evaluate(Box<Collector>, RowSet, Reason),
}

/// What was done.
pub struct Done {
    /// The view.
    pub view: ViewId,
    incarnation: u64,
    plan: Rc<Plan>,
    result: Found,
}

enum Found {
    Advanced(Advanced, Option<ReadError>),
    Evaluated(Result<State, ReadError>, RowSet),
}

/// What became of a view.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing that anybody has to hear of.
    Same,
    /// Rows came, went or changed.
    Touched,
    /// It could not be read.
    Failed(String),
}

/// Takes the views that a batch touches out of the registry.
pub fn take<'c>(
    views: &mut Views,
    found: BTreeMap<ViewId, Candidates>,
    batch: &Batch<'c>,
    changed: &Changed<'c>,
) -> Vec<Task> {
    let rows = views.rows().clone();
    let mut tasks = Vec::with_capacity(found.len());
    for (id, candidates) in found {
        let Some(view) = views.get(id).filter(|v| v.live) else { continue };
        let (incarnation, plan, layout) = (view.incarnation, view.plan.clone(), view.layout.clone());
        let work = match candidates.evaluate {
            Some(reason) => {
                let edited = edited(view, batch, changed, &rows.borrow());
                let (layout, plan) = (layout.clone(), plan.clone());
                let collector = Collector::new(rows.clone(), layout, plan, &view.state, None);
                Work::Evaluate(Box::new(collector), edited, reason)
            }
            None => Work::Advance(views.take_state(id).unwrap_or_default(), candidates),
        };
        tasks.push(Task { view: id, incarnation, plan, layout, rows: rows.clone(), work });
    }
    tasks
}

/// Members whose contents changed, as far as is known; of a table that changed in bulk, all.
fn edited(view: &View, batch: &Batch, changed: &Changed, rows: &Rows) -> RowSet {
    let mut out = RowSet::default();
    for (index, node) in view.plan.nodes.iter().enumerate().filter(|(_, node)| node.emitted) {
        let identity = view.layout.identities[index];
        match batch.tables.get(&node.table) {
            None => {}
            Some(TableBatch::Bulk) => {
                out.extend(view.state.iter().filter(|id| rows.identity_of(*id) == identity))
            }
            Some(TableBatch::Rows(_)) => {
                let differing = changed.of(identity).iter().filter(|row| match (row.old, row.new) {
                    (Some(old), Some(new)) => {
                        node.columns.iter().any(|c| old[*c as usize] != new[*c as usize])
                    }
                    _ => false,
                });
                out.extend(differing.filter_map(|row| rows.find(identity, &row.identity)));
            }
        }
    }
    out.retain(|id| view.state.contains(*id));
    out
}

impl Task {
    /// Why the view is evaluated again, if it is.
    pub fn reason(&self) -> Option<Reason> {
        match &self.work {
            Work::Advance(..) => None,
            Work::Evaluate(_, _, reason) => Some(*reason),
        }
    }

    /// Does it. `reader`: on the snapshot that the batch ends with.
    pub async fn perform(self, changed: &Changed<'_>, reader: &Reader, pace: &mut impl Pace) -> Done {
        let Task { view, incarnation, plan, layout, rows, work } = self;
        let result = match work {
            Work::Advance(state, candidates) => {
                let advance = Advance::new(changed, (&plan, &layout), rows, reader, state, pace);
                let (advanced, error) = advance.run(&candidates, reader.version()).await;
                Found::Advanced(advanced, error)
            }
            Work::Evaluate(mut collector, edited, _) => {
                let result = evaluate(reader, &plan, &mut *collector, pace).await;
                Found::Evaluated(result.map(|()| collector.finish(reader.version()).0), edited)
            }
        };
        Done { view, incarnation, plan, result }
    }
}

impl Done {
    /// Puts the view back, at version `end`.
    pub fn settle(self, views: &mut Views, end: StateVersion) -> Outcome {
        let alive = views.get(self.view).is_some_and(|v| v.incarnation == self.incarnation);
        let (touched, error) = match self.result {
            Found::Advanced(advanced, error) => {
                (views.put_state(self.view, self.incarnation, &self.plan, advanced), error)
            }
            Found::Evaluated(Ok(state), edited) if alive => {
                (views.replace(self.view, state, &edited, end), None)
            }
            Found::Evaluated(Ok(state), _) => {
                state.release(&mut views.rows().borrow_mut());
                (false, None)
            }
            Found::Evaluated(Err(error), _) => (false, Some(error)),
        };
        match error {
            Some(error) if alive => Outcome::Failed(error.to_string()),
            None if touched => Outcome::Touched,
            _ => Outcome::Same,
        }
    }
}
