//! The two oracles of the tests disagree about what a query means: plain loops over rows
//! (`model/meaning.rs`) and plain SQL (`model/plain_sql.rs`), made apart from one another.

use std::collections::BTreeSet;
use std::rc::Rc;

use crate::model::choices::{Choices, cases, decisions};
use crate::model::database::Database;
use crate::model::oracle::{Answer, Oracle};
use crate::model::tree::{Chosen, Role, judge, key_name, nodes};
use crate::model::{envelope, print, random, random_query};
use kelvin::zql::ast::Ast;
use proptest::prelude::*;

/// What the loops choose: the first witnesses of each key, found parents first.
fn chosen(db: &Database, ast: &Ast) -> Chosen {
    let nodes = nodes(db, ast);
    let mut out = Chosen::new();
    let mut rows = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        let mut found = Vec::new();
        let bindings = match node.edge {
            None => vec![Vec::new()],
            Some((parent, tie)) => {
                let parents: &Vec<_> = &rows[parent];
                parents.iter().filter_map(|row| db.bind(nodes[parent].table, tie, row)).collect()
            }
        };
        for binding in bindings {
            if node.role != Role::Witness {
                found.extend(db.select(node.ast, &binding).into_iter().cloned());
                continue;
            }
            let some: Vec<_> = db.witnesses(node.ast, &binding).into_iter().take(3).cloned().collect();
            let names = some.iter().map(|row| db.identity(node.table, row)).collect();
            out.insert((index, key_name(&binding)), names);
            found.extend(some);
        }
        rows.push(found);
    }
    out
}

fn case(decisions: (u64, usize)) -> Result<(), TestCaseError> {
    let mut choices = Choices::new(decisions);
    let schema = random::schema();
    let (mut db, mut oracle) = (Database::new(&schema), Oracle::new(&schema));
    for version in 1..3 {
        oracle.commit(version, &random::transaction(&mut choices, &mut db, 40));
    }
    for _ in 0..4 {
        let ast = random_query::query(&mut choices, &schema);
        let text = print::query(&ast);
        let fail = |error: String| TestCaseError::fail(format!("{error}\n{text}"));
        let synced = judge(&db, &nodes(&db, &ast), &chosen(&db, &ast), None).map_err(fail)?;
        let rows: BTreeSet<(usize, String)> = synced.keys().cloned().collect();
        let name = |number: &usize| {
            let version = &oracle.versions[*number];
            (version.table, db.identity(version.table, &version.row))
        };
        let held: BTreeSet<usize> = oracle.alive(2).filter(|number| rows.contains(&name(number))).collect();
        let answer: Rc<Answer> = Rc::new(oracle.answer(&ast, &schema, 2));
        let same = envelope::check(&held, std::slice::from_ref(&answer));
        prop_assert!(same.is_ok(), "{same:?}: {answer:?}\n{rows:?}\n{text}");
    }
    Ok(())
}

proptest! {
    #![proptest_config(cases(400))]
    #[test]
    fn loops_and_plain_sql_give_the_same_answers(decisions in decisions(1200)) {
        case(decisions)?;
    }
}
