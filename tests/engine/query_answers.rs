//! A query's answer differs from what the specification says it is.
//!
//! Random data and random queries, evaluated by SQL on a replica file and by plain loops
//! over rows in memory, which share nothing but the type of the query.

use std::rc::Rc;

use crate::model::choices::{Choices, cases, decisions};
use crate::model::database::Database;
use crate::model::probe::Probe;
use crate::model::replica::Replica;
use crate::model::tree::{Node, Role, judge, nodes};
use crate::model::{print, random, random_query};
use kelvin::model::value::Value;
use kelvin::replica::reader::Reader;
use kelvin::zql::ast::Ast;
use kelvin::zql::evaluate::evaluate_from;
use kelvin::zql::limits::Limits;
use kelvin::zql::plan::{Kind, Plan, plan};
use kelvin::zql::sql::Statements;
use proptest::prelude::*;

fn evaluated(reader: &Reader, plan: &Plan, driver: usize, mut probe: Probe) -> Probe {
    reader.begin().expect("a snapshot");
    evaluate_from(reader, plan, driver, &mut probe).expect("the query can be evaluated");
    probe
}

/// The ways to read the root.
fn ways(plan: &Plan) -> std::ops::RangeInclusive<usize> {
    match &plan.nodes[0].statements {
        Statements::Once(once) => 0..=once.drivers(),
        _ => 0..=0,
    }
}

/// The plan has the nodes that the specification gives the query.
fn same_shape(plan: &Plan, nodes: &[Node]) -> Result<(), String> {
    if plan.nodes.len() != nodes.len() {
        return Err(format!("{} nodes planned, {} expected", plan.nodes.len(), nodes.len()));
    }
    for (index, (planned, node)) in plan.nodes.iter().zip(nodes).enumerate() {
        let kind = match planned.kind {
            Kind::Root => Role::Root,
            Kind::Related => Role::Related,
            Kind::Witness => Role::Witness,
        };
        let planned = (planned.table.0 as usize, kind, planned.parent, planned.emitted);
        let expected = (node.table, node.role, node.edge.map(|e| e.0), node.sent);
        if planned != expected {
            return Err(format!("node {index} is {planned:?}, expected {expected:?}"));
        }
    }
    Ok(())
}

/// Compares what one evaluation found.
fn compare(db: &Database, ast: &Ast, probe: &Probe, before: Option<&Probe>) -> Result<(), String> {
    let nodes = nodes(db, ast);
    let expected = judge(db, &nodes, &probe.chosen, before.map(|b| &b.chosen))?;
    if let Some(twice) = probe.repeated.iter().find(|(node, _)| nodes[*node].role != Role::Witness) {
        return Err(format!("{twice:?} was found twice"));
    }
    let mut found = std::collections::BTreeMap::new();
    for ((node, identity), values) in &probe.rows {
        found.insert((nodes[*node].table, identity.clone()), values.clone());
    }
    let visible = |table: usize| db.schema.visible(table);
    let expected: std::collections::BTreeMap<(usize, String), Vec<Value>> = expected
        .into_iter()
        .map(|((table, id), row)| {
            ((table, id), visible(table).into_iter().map(|c| row[c].stored()).collect())
        })
        .collect();
    if found != expected {
        return Err(format!("found {found:#?}\nexpected {expected:#?}"));
    }
    Ok(())
}

fn case(decisions: (u64, usize)) -> Result<(), TestCaseError> {
    let mut choices = Choices::new(decisions);
    let schema = random::schema();
    let mut db = Database::new(&schema);
    let mut replica = Replica::create(&schema);
    let reader = Rc::new(replica.reader());
    let writes = random::transaction(&mut choices, &mut db, 40);
    replica.commit(&writes);
    let queries: Vec<Ast> = (0..4).map(|_| random_query::query(&mut choices, &schema)).collect();
    let mut earlier: Vec<Option<Probe>> = queries.iter().map(|_| None).collect();
    for _ in 0..2 {
        for (ast, earlier) in queries.iter().zip(&mut earlier) {
            let planned = plan(ast, &schema.catalogue, &schema, &Limits::DEFAULT)
                .map_err(|e| TestCaseError::fail(format!("{e}: {}", print::query(ast))))?;
            let mut last = None;
            for way in ways(&planned) {
                let probe = earlier.as_ref().map(Probe::after).unwrap_or_else(|| Probe::of(&planned));
                let probe = evaluated(&reader, &planned, way, probe);
                same_shape(&planned, &nodes(&db, ast))
                    .and_then(|()| compare(&db, ast, &probe, earlier.as_ref()))
                    .map_err(|e| TestCaseError::fail(format!("{e}\n{way}: {}", print::query(ast))))?;
                last = Some(probe);
            }
            *earlier = last;
        }
        reader.end().expect("the snapshot is given up");
        let writes = random::transaction(&mut choices, &mut db, 8);
        replica.commit(&writes);
    }
    Ok(())
}

proptest! {
    #![proptest_config(cases(600))]
    #[test]
    fn random_queries_have_the_answers_of_the_specification(decisions in decisions(900)) {
        case(decisions)?;
    }
}
