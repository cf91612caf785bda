//! The tables have changed under the groups (`docs/spec/schema-changes.md` S4, S5).
//!
//! Views go on as they are, because no column that they know has moved. Clients whose schema names what is not there
//! any more are told so and stay known: they are served again once it fits. Queries that ask for it without being
//! clients' own words are refused until it is there again.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use super::execution::query_name;
use super::schema::Resolved;
use super::syncer::Syncer;
use crate::model::catalogue::Catalogue;
use crate::protocol::downstream::refusal;
use crate::views::view::ViewId;

/// What clients of a query are told that asks for what is gone.
const GONE: &str = "a table, column or key that the query asks for is not there any more";

impl Syncer {
    /// Takes the tables of the snapshot that the batch under way ends with.
    pub fn follow_schema(&mut self, catalogue: &Arc<Catalogue>) {
        self.shared.catalogue = catalogue.clone();
        self.shared.contents.follow_schema(catalogue);
        self.refit_clients();
        let unanswerable = self.shared.views.follow_schema(catalogue);
        unanswerable.into_iter().for_each(|view| self.refuse_view(view));
        self.failures.forget_unanswerable(catalogue);
        self.plans_anew = true;
    }

    /// Compares the schema of every group's clients with the tables, once for all that have the same.
    fn refit_clients(&mut self) {
        self.shared.schemas.forget();
        let mut known: HashMap<*const Resolved, Rc<Resolved>> = HashMap::new();
        // The schemas of before live until all are replaced, so that no two are at one address.
        let mut before = Vec::new();
        for group in self.groups.values_mut() {
            let resolved = known.entry(Rc::as_ptr(&group.schema)).or_insert_with(|| {
                let (schemas, catalogue) = (&mut self.shared.schemas, &self.shared.catalogue);
                schemas.restore(&group.schema.schema, catalogue)
            });
            before.push(std::mem::replace(&mut group.schema, resolved.clone()));
            if let Some(misfit) = &group.schema.misfit {
                group.connections.iter().for_each(|connection| connection.sink.fail(misfit));
            }
        }
    }

    /// Refuses every query that a view answers; nobody finds the view any more.
    fn refuse_view(&mut self, view: ViewId) {
        self.shared.views.retire(view);
        let groups: Vec<Rc<str>> = self.shared.interested.get(&view).into_iter().flatten().cloned().collect();
        for id in groups {
            let Some(group) = self.groups.get_mut(&id) else { continue };
            let uses = |q: &super::query::Query| q.pending == Some(view) || q.current == Some(view);
            let used: Vec<String> =
                group.queries.iter().filter(|(_, query)| uses(query)).map(|(hash, _)| hash.clone()).collect();
            for hash in used {
                let Some(group) = self.groups.get_mut(&id) else { continue };
                let error = refusal(&hash, &query_name(group, &hash), GONE);
                if let Some(query) = group.queries.get_mut(&hash) {
                    query.unplanned = true;
                }
                self.refuse(&id, &hash, error);
            }
        }
    }

    /// Groups with queries that named what there was not when they were planned, which may be there now: they are to be
    /// transformed again.
    pub fn retry_unplanned(&mut self) -> Vec<Rc<str>> {
        let mut groups = Vec::new();
        if !std::mem::take(&mut self.plans_anew) {
            return groups;
        }
        for group in self.groups.values_mut() {
            let mut any = false;
            for query in group.queries.values_mut().filter(|query| query.unplanned && query.failed) {
                let is_told = query.refusal_told && query.current.is_none() && query.pending.is_none();
                if is_told {
                    (query.failed, query.unplanned, any) = (false, false, true);
                }
            }
            if any && !group.connections.is_empty() {
                groups.push(group.id.clone());
            }
        }
        groups
    }
}
