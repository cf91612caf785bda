//! A random scenario: tables, keys, indexes, two beliefs of clients, queries with their forms,
//! rows to begin with.

use std::rc::Rc;

use kelvin::zql::ast::{Ast, Condition};

use super::build::from;
use super::choices::Choices;
use super::database::{Database, Write};
use super::random::{self, ID, K};
use super::random_query;
use super::scenario::Scenario;
use super::schema::{Schema, TableSpec};

const NAMES: [&str; 5] = ["alpha", "beta", "delta", "gamma", "omega"];

/// Most nodes of a query: so many that a run stays fast.
const MAX_NODES: usize = 5;

/// Steps of the transaction that there is before anybody comes.
const INITIAL: usize = 40;

pub fn scenario(choices: &mut Choices) -> Scenario {
    let schema = schema(choices);
    let believed = vec![schema.clone(), other_belief(choices, &schema)];
    let mut db = Database::new(&schema);
    let initial = random::transaction(choices, &mut db, INITIAL);
    let mut queries: Vec<Vec<Option<Rc<Ast>>>> = Vec::new();
    for _ in 0..6 + choices.below(4) {
        let forms = (0..2 + choices.below(2)).map(|form| {
            if form > 0 && choices.percent(8) {
                return None;
            }
            // Two queries with one answer share a view.
            let known: Vec<Rc<Ast>> = queries.iter().flatten().flatten().cloned().collect();
            if !known.is_empty() && choices.percent(15) {
                return Some(choices.pick(&known).clone());
            }
            Some(Rc::new(query(choices, &schema)))
        });
        let forms = forms.collect();
        queries.push(forms);
    }
    Scenario { believed, queries, large: None, initial, transaction, schema }
}

fn transaction(choices: &mut Choices, db: &mut Database) -> Vec<Write> {
    let most = *choices.pick(&[3, 1, 6]);
    random::transaction(choices, db, most)
}

fn schema(choices: &mut Choices) -> Schema {
    let count = 2 + choices.below(NAMES.len() - 1);
    let mut tables: Vec<TableSpec> = NAMES[..count].iter().map(|name| table(choices, name)).collect();
    // Clients know one table at least.
    let first = &mut tables[0];
    first.client_key.get_or_insert(first.candidate_keys[0].clone());
    tables.extend(TableSpec::of_the_shard());
    Schema::new(tables)
}

fn table(choices: &mut Choices, name: &'static str) -> TableSpec {
    let keys: &[&[usize]] = match choices.below(5) {
        0 => &[&[ID]],
        1 => &[&[ID], &[K]],
        2 => &[&[K, ID]],
        3 => &[&[K], &[ID]],
        _ => &[&[ID], &[K], &[K, ID]],
    };
    let candidate_keys: Vec<Vec<usize>> = keys.iter().map(|key| key.to_vec()).collect();
    let client_key = Some(choices.pick(&candidate_keys).clone()).filter(|_| !choices.percent(12));
    let all: [&[usize]; 5] = [&[2], &[4], &[3], &[5], &[4, 2]];
    let indexes = all.iter().filter(|_| choices.percent(50)).map(|index| index.to_vec()).collect();
    let columns = random::columns();
    TableSpec { name, columns, row_key: candidate_keys[0].clone(), candidate_keys, client_key, indexes }
}

/// Other clients know some table by another key, or not at all, or though the first do not.
fn other_belief(choices: &mut Choices, schema: &Schema) -> Schema {
    let other = |spec: &TableSpec| match choices.below(4) {
        0 | 1 => spec.client_key.clone(),
        2 if spec.candidate_keys.len() == 1 && !spec.name.contains('.') => None,
        _ if spec.name.contains('.') => None,
        _ => Some(choices.pick(&spec.candidate_keys).clone()),
    };
    let mut keys: Vec<Option<Vec<usize>>> = schema.specs.iter().map(other).collect();
    keys[0].get_or_insert(schema.specs[0].candidate_keys[0].clone());
    schema.known_by(keys)
}

fn query(choices: &mut Choices, schema: &Schema) -> Ast {
    for _ in 0..6 {
        let ast = random_query::query(choices, schema);
        if nodes(&ast) <= MAX_NODES {
            return ast;
        }
    }
    from(schema.spec(choices.below(schema.of_app())).name)
}

fn nodes(ast: &Ast) -> usize {
    let related = ast.related.iter().map(|child| nodes(&child.subquery));
    1 + ast.condition.as_ref().map_or(0, nodes_of) + related.sum::<usize>()
}

fn nodes_of(condition: &Condition) -> usize {
    match condition {
        Condition::Simple { .. } => 0,
        Condition::And(members) | Condition::Or(members) => members.iter().map(nodes_of).sum(),
        Condition::Exists { related, .. } => nodes(&related.subquery),
    }
}
