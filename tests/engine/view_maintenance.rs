//! A view differs from a fresh evaluation after commits, or tells its changes wrongly.
//!
//! Random transactions, several folded into a batch, against random queries: rules 2 to 9
//! of `docs/spec/rules.md` as far as an engine that evaluates again needs them.

use std::collections::BTreeSet;

use crate::model::choices::{Choices, cases, decisions};
use crate::model::database::Database;
use crate::model::keeper::{Keeper, Name};
use crate::model::replica::Replica;
use crate::model::tree::{Chosen, Synced, judge, nodes};
use crate::model::{print, random, random_query};
use kelvin::model::commit::TableChange;
use kelvin::views::view::ViewId;
use kelvin::zql::ast::Ast;
use proptest::prelude::*;

/// One view under watch, with what it held after the last batch.
struct Watched {
    id: ViewId,
    ast: Ast,
    synced: Synced,
    chosen: Chosen,
}

impl Watched {
    fn open(keeper: &mut Keeper, db: &Database, ast: Ast) -> Result<Watched, String> {
        let id = keeper.open(&ast);
        let mut watched = Watched { id, ast, synced: Synced::new(), chosen: Chosen::new() };
        (watched.synced, watched.chosen) = watched.held(keeper, db, None)?;
        Ok(watched)
    }

    /// What the view holds now, if that is right.
    fn held(
        &self,
        keeper: &Keeper,
        db: &Database,
        before: Option<&Chosen>,
    ) -> Result<(Synced, Chosen), String> {
        let chosen = keeper.chosen(self.id);
        let synced = judge(db, &nodes(db, &self.ast), &chosen, before)?;
        let expected: BTreeSet<Name> = synced.keys().cloned().collect();
        let members = keeper.members(self.id);
        if members != expected {
            return Err(format!("members {members:?}, expected {expected:?}"));
        }
        Ok((synced, chosen))
    }

    /// Looks at the view after a batch that began at `since`. `bulk`: tables whose rows
    /// were not listed.
    fn check(
        &mut self,
        keeper: &Keeper,
        db: &Database,
        since: kelvin::model::version::StateVersion,
        bulk: &BTreeSet<usize>,
    ) -> Result<(), String> {
        let (synced, chosen) = self.held(keeper, db, Some(&self.chosen))?;
        let deltas = keeper.deltas(self.id, since);
        if deltas.len() > 1 {
            return Err(format!("one batch, {} deltas", deltas.len()));
        }
        let delta = deltas.into_iter().next().unwrap_or_default();
        let visible = |name: &Name, synced: &Synced| {
            synced
                .get(name)
                .map(|row| db.schema.visible(name.0).iter().map(|c| row[*c].clone()).collect::<Vec<_>>())
        };
        let all: BTreeSet<&Name> = synced.keys().chain(self.synced.keys()).collect();
        let (mut entered, mut left, mut edited) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for name in all {
            match (visible(name, &self.synced), visible(name, &synced)) {
                (None, _) => drop(entered.insert(name.clone())),
                (_, None) => drop(left.insert(name.clone())),
                (Some(before), Some(after)) if before != after => drop(edited.insert(name.clone())),
                _ => {}
            }
        }
        let told = (keeper.names(&delta.entered), keeper.names(&delta.left), keeper.names(&delta.edited));
        if (&told.0, &told.1) != (&entered, &left) {
            return Err(format!("told {told:?}, but {entered:?} came and {left:?} went"));
        }
        // Of a view that was read anew only the version of a row is known.
        let anew = keeper.anew.contains(&self.id);
        let excused = |name: &&Name| (anew || bulk.contains(&name.0)) && synced.contains_key(*name);
        if !edited.is_subset(&told.2) || !told.2.difference(&edited).all(|n| excused(&n)) {
            return Err(format!("edited {:?}, expected {edited:?}, in bulk {bulk:?}", told.2));
        }
        (self.synced, self.chosen) = (synced, chosen);
        Ok(())
    }
}

fn case(decisions: (u64, usize)) -> Result<(), TestCaseError> {
    let mut choices = Choices::new(decisions);
    let schema = random::schema();
    let mut db = Database::new(&schema);
    let mut replica = Replica::create(&schema);
    let writes = random::transaction(&mut choices, &mut db, 40);
    replica.commit(&writes);
    let mut keeper = Keeper::new(&replica, &schema);
    let mut views: Vec<Watched> = Vec::new();
    for _ in 0..8 {
        if views.len() < 4 {
            let ast = random_query::query(&mut choices, &schema);
            let text = print::query(&ast);
            views.push(
                Watched::open(&mut keeper, &db, ast)
                    .map_err(|e| TestCaseError::fail(format!("{e}\n{text}")))?,
            );
        } else if choices.percent(10) {
            let gone = views.swap_remove(choices.below(4));
            keeper.views.unsubscribe(gone.id);
        }
        if choices.percent(25) {
            keeper.index(&mut replica, &mut choices);
        }
        let mut commits = Vec::new();
        let mut bulk = BTreeSet::new();
        let mut log = Vec::new();
        for _ in 0..=choices.below(3) {
            let writes = random::transaction(&mut choices, &mut db, 5);
            let commit = replica.commit(&writes);
            let is_bulk = |change: &TableChange| *change == TableChange::Bulk;
            bulk.extend(commit.tables.iter().filter(|(_, c)| is_bulk(c)).map(|(t, _)| t.0 as usize));
            commits.push(commit);
            log.push(writes);
        }
        let gap = choices.percent(5);
        if gap {
            bulk.extend(0..schema.specs.len());
        }
        let since = keeper.version;
        keeper.advance(&commits, gap);
        for view in &mut views {
            view.check(&keeper, &db, since, &bulk).map_err(|e| {
                TestCaseError::fail(format!("{e}\n{}\nafter {log:?}", print::query(&view.ast)))
            })?;
        }
    }
    for view in views {
        keeper.views.unsubscribe(view.id);
    }
    prop_assert_eq!(keeper.rows.borrow().len(), 0, "references are left over");
    prop_assert!(
        keeper.views.subscription_index().is_empty() && keeper.views.shapes().is_empty(),
        "subscription_index are left over"
    );
    Ok(())
}

proptest! {
    #![proptest_config(cases(800))]
    #[test]
    fn views_equal_a_fresh_evaluation_after_every_batch(decisions in decisions(1600)) {
        case(decisions)?;
    }
}
