//! The app of a world: what it is asked, and what it answers, late or never.

use kelvin::zql::custom_query::{Named, Transformed};

use super::World;
use crate::model::choices::Choices;

/// An answer that the app still owes.
pub(super) struct Owed {
    group: usize,
    serial: u64,
    queries: Vec<Named>,
}

impl World {
    /// The server asks the app for transformations: for those missing, or for all.
    pub fn ask(&mut self, group: usize, all: bool) {
        let (serial, queries) = self.core.syncer().transform(&self.groups[group].id, all);
        if !queries.is_empty() {
            self.owed.push(Owed { group, serial, queries });
        }
    }

    /// The app answers one request, or fails it.
    pub fn reply(&mut self, choices: &mut Choices, failing: bool) {
        if self.owed.is_empty() {
            return;
        }
        let owed = self.owed.swap_remove(choices.below(self.owed.len()));
        for named in owed.queries.iter().filter(|_| !failing) {
            self.answer(choices, owed.group, Some(owed.serial), named);
        }
        self.core.syncer().transform_failed(&self.groups[owed.group].id, owed.serial);
    }

    /// The server that asked is gone.
    pub fn drop_owed(&mut self) {
        self.owed.clear();
    }

    pub fn owes(&self) -> bool {
        !self.owed.is_empty()
    }

    pub(super) fn answer(&mut self, choices: &mut Choices, group: usize, serial: Option<u64>, named: &Named) {
        let number: usize = named.hash[1..].parse().expect("a hash of the test");
        let group = &self.groups[group];
        let form = &self.scenario.queries[number][group.forms[number]];
        let ast = form.clone().filter(|_| !choices.percent(2));
        self.log.push(format!(
            "{} {} is {:?}",
            group.id,
            named.hash,
            ast.as_ref().map(|_| group.forms[number])
        ));
        let answer = match &ast {
            Some(ast) => Transformed::Ast(Box::new((**ast).clone())),
            None => Transformed::Refused(serde_json::json!({"error": "app", "id": named.hash})),
        };
        let mut syncer = self.core.syncer();
        syncer.transformed(&group.id, &named.hash, serial, answer);
        let query = syncer.groups.get(group.id.as_str()).and_then(|g| g.queries.get(&named.hash));
        let view = query.and_then(|q| q.pending.or(q.current));
        if let (Some(id), Some(ast)) = (view, ast)
            && let Some(view) = syncer.shared.views.get(id)
        {
            self.asts.entry((id, view.generation)).or_insert(ast);
        }
    }
}
