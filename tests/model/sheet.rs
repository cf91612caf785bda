//! One entry of the conformance checklist: a query on the fixture, what it gives, and what
//! a client is told after each of some transactions.

use std::collections::BTreeSet;

use kelvin::zql::ast::Ast;

use super::database::Database;
use super::fixture;
use super::keeper::{Keeper, Name};
use super::replica::Replica;
use super::tree::{judge, nodes};

/// Checks an entry, with and without indexes on the correlated columns. `steps`: a script
/// and the operations that it leads to, `"+a -b"`; what is told of a row is its final state.
/// Witnesses are the smallest by key that are not there yet (ruling 1).
pub fn entry(number: &str, query: Ast, expected: &str, steps: &[(&str, &str)]) {
    for indexed in [true, false] {
        run(&format!("{number}, indexes {indexed}"), &query, expected, steps, indexed);
    }
}

fn run(entry: &str, query: &Ast, expected: &str, steps: &[(&str, &str)], indexed: bool) {
    let schema = fixture::schema(indexed);
    let mut db = Database::new(&schema);
    let mut replica = Replica::create(&schema);
    replica.commit(&fixture::rows(&mut db));
    let mut keeper = Keeper::new(&replica, &schema);
    let view = keeper.open(query);
    assert_eq!(texts(keeper.members(view)), words(expected), "{entry}");
    let mut chosen = keeper.chosen(view);
    for (script, told) in steps {
        let commit = replica.commit(&super::script::writes(script, &mut db));
        let since = keeper.version;
        keeper.advance(&[commit], false);
        let mut ops = BTreeSet::new();
        for delta in keeper.deltas(view, since) {
            let signed = |sign: &str, ids| {
                texts(keeper.names(ids)).into_iter().map(|t| format!("{sign}{t}")).collect::<Vec<_>>()
            };
            ops.extend(signed("+", &delta.entered));
            ops.extend(signed("+", &delta.edited));
            ops.extend(signed("-", &delta.left));
        }
        assert_eq!(ops, words(told), "{entry}, {script}");
        let now = keeper.chosen(view);
        let synced = judge(&db, &nodes(&db, query), &now, Some(&chosen));
        let synced = synced.unwrap_or_else(|e| panic!("{entry}, {script}: {e}"));
        assert_eq!(keeper.members(view), synced.into_keys().collect(), "{entry}, {script}");
        chosen = now;
    }
}

fn texts(names: BTreeSet<Name>) -> BTreeSet<String> {
    names.into_iter().map(|(_, id)| id.replace('"', "").replace(',', "/")).collect()
}

fn words(text: &str) -> BTreeSet<String> {
    text.split_whitespace().map(str::to_owned).collect()
}
