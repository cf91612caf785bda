//! What happens in a scenario that is told step by step, each step sure to succeed.

use std::collections::BTreeSet;

use kelvin::views::view::ViewId;

use super::choices::Choices;
use super::client::{Receiver, Store};
use super::core::roomy;
use super::host::Moment;
use super::script::writes;
use super::tables;
use super::world::{Tab, World};

impl World {
    /// A group, and journals that keep so many keys.
    pub fn with_journals_of(keys: usize) -> World {
        let mut limits = roomy();
        limits.groups.views.journal_keys = keys;
        World::limited(tables::scenario(0), 1, limits)
    }

    /// A new tab of a group connects, wanting these queries.
    pub fn tab(&mut self, group: usize, wanted: &[usize]) -> usize {
        let receiver = Receiver::new(self.groups[group].schema.clone(), Store::default());
        let wanted: BTreeSet<usize> = wanted.iter().copied().collect();
        let tabs = &mut self.groups[group].tabs;
        let tab = tabs.len();
        tabs.push(Tab {
            client: format!("g{group}t{tab}"),
            receiver,
            wanted,
            line: None,
            mutations: 0,
            sent: 0,
        });
        self.connect(&mut Choices::new((0, 0)), group, tab).expect("connected");
        tab
    }

    /// Postgres commits what the script says.
    pub fn write(&mut self, script: &str) {
        let writes = writes(script, &mut self.db);
        self.commit(writes);
    }

    /// The same at a moment that only the core knows.
    pub fn write_at(&mut self, moment: Moment, script: &str) {
        let writes = writes(script, &mut self.db);
        self.commit_at(moment, writes);
    }

    /// The view of a query of a group.
    pub fn view(&self, group: usize, query: usize) -> ViewId {
        let syncer = self.core.look();
        let known = &syncer.groups[self.groups[group].id.as_str()];
        known.queries.get(&format!("q{query}")).and_then(|query| query.current).expect("it is got")
    }

    /// Has a view read anew within the batch from now on.
    pub fn read_inline(&mut self, view: ViewId) {
        self.core.syncer().shared.views.read_inline(view);
    }

    /// Postgres commits what the script says, and the core has it.
    pub fn replicate(&mut self, script: &str) {
        self.write(script);
        self.batch();
    }

    /// The core goes to the newest snapshot.
    pub fn batch(&mut self) {
        self.core.batch();
    }

    /// Nothing is left to do, and every tab has what its queries say.
    pub fn settled(&mut self) {
        self.settle().and_then(|()| self.check()).unwrap_or_else(|e| panic!("{e}"));
    }
}
