//! One view on its way over a batch: taken out, brought forward, put back. In between others
//! run; nobody sees the view half way.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use super::advance::{Advance, Advanced};
use super::changed::Changed;
use super::journal::Delta;
use super::pace::Pace;
use super::registry::Views;
use super::rows::Rows;
use super::state::ViewState;
use super::view::{Layout, ViewId};
use crate::model::reason::Reason;
use crate::model::version::StateVersion;
use crate::replica::reader::{ReadError, Reader};
use crate::testing::panics;
use crate::views::candidates::Candidates;
use crate::zql::plan::Plan;

/// What is to be done for a view.
pub struct Task {
    /// The view.
    pub view: ViewId,
    generation: u64,
    plan: Arc<Plan>,
    layout: Rc<Layout>,
    rows: Rc<RefCell<Rows>>,
    state: ViewState,
    candidates: Candidates,
}

/// What was done.
pub struct Done {
    /// The view.
    pub view: ViewId,
    generation: u64,
    plan: Arc<Plan>,
    advanced: Advanced,
    error: Option<ReadError>,
    looked_at: usize,
    /// Time of the core that it took, in nanoseconds: whoever has a clock says so.
    pub nanoseconds: u64,
}

/// What became of a view.
#[derive(Debug, PartialEq, Eq)]
pub enum ViewOutcome {
    /// Nothing that anybody has to hear of.
    Same,
    /// Rows came, went or changed.
    Touched,
    /// It has to be read anew.
    Stale(Reason),
    /// It can no longer be kept; the text says why.
    Failed(String),
}

/// What has to be done for the views that a batch touches.
#[derive(Default)]
pub struct Tasks {
    /// Views that are brought forward by looking at rows.
    pub advance: Vec<Task>,
    /// Views that have to be read anew.
    pub stale: Vec<(ViewId, Reason)>,
}

/// Takes the views out that a batch touches, with what each has to look at.
pub fn take(views: &mut Views, found: BTreeMap<ViewId, Candidates>) -> Tasks {
    let rows = views.rows().clone();
    let mut tasks = Tasks::default();
    for (id, candidates) in found {
        let Some(view) = views.get(id).filter(|v| v.is_live()) else { continue };
        let (generation, plan, layout) = (view.generation, view.plan.clone(), view.layout.clone());
        match candidates.evaluate {
            Some(reason) => tasks.stale.push((id, reason)),
            None => {
                let state = views.take_state(id).unwrap_or_default();
                let rows = rows.clone();
                tasks.advance.push(Task { view: id, generation, plan, layout, rows, state, candidates });
            }
        }
    }
    tasks
}

impl Task {
    /// Does it. `reader`: on the snapshot that the batch ends with.
    pub async fn perform(self, changed: &Changed<'_>, reader: &Reader, pace: &mut impl Pace) -> Done {
        panics::here("bringing a view forward");
        let Task { view, generation, plan, layout, rows, state, candidates } = self;
        let advance = Advance::new(changed, (&plan, &layout), rows, reader, state, pace);
        let (advanced, error) = advance.run(&candidates, reader.version()).await;
        let looked_at = candidates.nodes.values().map(Vec::len).sum();
        Done { view, generation, plan, advanced, error, looked_at, nanoseconds: 0 }
    }
}

impl Done {
    /// Whether looking at rows took more than it may.
    pub fn is_interrupted(&self) -> bool {
        matches!(self.error, Some(ReadError::Interrupted))
    }

    /// What happened to the view's rows.
    pub fn delta(&self) -> &Delta {
        &self.advanced.delta
    }

    /// Puts the view back. It was right at `from`, the version before the batch.
    pub fn settle(self, views: &mut Views, from: StateVersion) -> ViewOutcome {
        let touched = views.put_state(self.view, self.generation, &self.plan, self.advanced);
        let Some(view) = views.get_mut(self.view).filter(|v| v.generation == self.generation) else {
            return ViewOutcome::Same;
        };
        view.cost.looked_at += self.looked_at as u64;
        view.cost.nanoseconds += self.nanoseconds;
        view.cost.updates.record(self.nanoseconds);
        match self.error {
            // What it holds and what is told of it agree; only is it not the query's answer.
            Some(ReadError::Interrupted) => {
                views.make_stale(self.view, from, Reason::Budget);
                ViewOutcome::Stale(Reason::Budget)
            }
            Some(error) => ViewOutcome::Failed(error.to_string()),
            None if touched => ViewOutcome::Touched,
            None => ViewOutcome::Same,
        }
    }
}
