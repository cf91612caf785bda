//! Random queries over the random tables: every operator, every construct.

use kelvin::zql::ast::{Ast, Condition, Correlated, Direction, Literal, Operand, Operator, Start, System};

use super::cell::Kind;
use super::choices::Choices;
use super::random::cell;
use super::schema::Schema;

/// Where a query stands.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Result,
    Exists,
}

/// A query that can be planned.
pub fn query(choices: &mut Choices, schema: &Schema) -> Ast {
    let table = choices.below(schema.of_app());
    node(choices, schema, table, 0, Place::Result)
}

fn node(choices: &mut Choices, schema: &Schema, table: usize, depth: usize, place: Place) -> Ast {
    let mut ast = Ast { table: schema.spec(table).name.to_owned(), ..Ast::default() };
    ast.alias = (depth > 0).then(|| format!("a{}", choices.below(6)));
    if choices.percent(65) {
        ast.condition = Some(condition(choices, schema, table, depth, 2));
    }
    let fan_out = if depth < 2 { choices.below(3) } else { 0 };
    // What is related to the rows of an EXISTS has no effect.
    if place == Place::Result || choices.percent(10) {
        for _ in 0..fan_out {
            let system = if choices.percent(12) { System::Permissions } else { System::Client };
            ast.related.push(correlated(choices, schema, table, depth, Place::Result, system));
        }
    }
    for _ in 0..choices.below(3) {
        let column = choices.below(schema.spec(table).columns.len());
        let (name, kind, _) = schema.spec(table).columns[column];
        let direction = if choices.percent(50) { Direction::Descending } else { Direction::Ascending };
        let used = ast.order_by.iter().any(|(n, _)| n == name);
        if !used && !matches!(kind, Kind::Json | Kind::Bytes) {
            ast.order_by.push((name.to_owned(), direction));
        }
    }
    if choices.percent(20) {
        ast.start = Some(start(choices, schema, table, &ast));
    }
    if choices.percent(35) {
        ast.limit = Some(*choices.pick(&[2.0, 1.0, 3.0, 4.0, 0.0, 1.5]));
    }
    ast
}

fn start(choices: &mut Choices, schema: &Schema, table: usize, ast: &Ast) -> Start {
    let spec = schema.spec(table);
    let key = schema.identity(table);
    let columns = (0..spec.columns.len())
        .filter(|c| key.contains(c) || ast.order_by.iter().any(|(name, _)| name == spec.columns[*c].0));
    let mut row = Vec::new();
    for column in columns {
        // A missing field counts as null.
        if !choices.percent(25) {
            let value = cell(choices, spec.columns[column].1, false).literal();
            row.push((spec.columns[column].0.to_owned(), value));
        }
    }
    row.sort_by(|a, b| a.0.cmp(&b.0));
    Start { row, exclusive: choices.percent(50) }
}

fn correlated(
    choices: &mut Choices,
    schema: &Schema,
    parent: usize,
    depth: usize,
    place: Place,
    system: System,
) -> Correlated {
    let child = choices.below(schema.of_app());
    let mut parent_field = Vec::new();
    let mut child_field = Vec::new();
    let pairs = if choices.percent(25) { 2 } else { 1 };
    for _ in 0..pairs {
        // Pairs of one type, self joins through a key, and types that never match.
        let (p, c) = *choices.pick(&[
            ("i", "i"),
            ("i", "k"),
            ("k", "i"),
            ("s", "id"),
            ("id", "s"),
            ("s", "s"),
            ("r", "i"),
            ("i", "r"),
            ("b", "b"),
            ("r", "r"),
            ("id", "id"),
            ("k", "k"),
            ("b", "i"),
            ("i", "s"),
        ]);
        parent_field.push(p.to_owned());
        child_field.push(c.to_owned());
    }
    debug_assert!(parent < schema.specs.len());
    let subquery = node(choices, schema, child, depth + 1, place);
    Correlated { parent_field, child_field, subquery, system }
}

fn condition(
    choices: &mut Choices,
    schema: &Schema,
    table: usize,
    depth: usize,
    nesting: usize,
) -> Condition {
    match choices.below(10) {
        0..4 => simple(choices, schema, table),
        4..7 if depth < 3 => {
            let system = if choices.percent(12) { System::Permissions } else { System::Client };
            Condition::Exists {
                related: Box::new(correlated(choices, schema, table, depth, Place::Exists, system)),
                negated: choices.percent(35),
                flip: *choices.pick(&[None, Some(true), Some(false)]),
            }
        }
        7..9 if nesting > 0 => {
            let members = (0..choices.below(4))
                .map(|_| condition(choices, schema, table, depth, nesting - 1))
                .collect::<Vec<_>>();
            if choices.percent(50) { Condition::Or(members) } else { Condition::And(members) }
        }
        _ => simple(choices, schema, table),
    }
}

const EQUALITY: [Operator; 4] = [Operator::Equal, Operator::NotEqual, Operator::Is, Operator::IsNot];
const ORDER: [Operator; 4] =
    [Operator::Less, Operator::Greater, Operator::LessOrEqual, Operator::GreaterOrEqual];
const LIKE: [Operator; 4] = [Operator::Like, Operator::NotLike, Operator::Ilike, Operator::NotIlike];
const LISTS: [Operator; 2] = [Operator::In, Operator::NotIn];
const PATTERNS: [&str; 17] = [
    "%\0a", "%a_b%", "%_%_b", "%", "a%", "_", "a\\%b", "%b", "x_y", "x%y", "É", "A", "a\\_b", "", "%\\\\%",
    "αΣ", "%σ%",
];

fn simple(choices: &mut Choices, schema: &Schema, table: usize) -> Condition {
    let columns = &schema.spec(table).columns;
    let (name, kind, _) = columns[choices.below(columns.len() - 1)];
    let column = Operand::Column(name.to_owned());
    let literal = |l: Literal| Operand::Literal(l);
    let make = |op, left, right| Condition::Simple { op, left, right };
    if kind == Kind::Json {
        // A JSON value has no order and no equality that the specification fixes.
        let op = *choices.pick(&[Operator::Is, Operator::IsNot, Operator::Equal, Operator::Less]);
        return make(op, column, literal(Literal::Null));
    }
    match choices.below(8) {
        0..2 => make(*choices.pick(&EQUALITY), column, literal(cell(choices, kind, false).literal())),
        2..4 => make(*choices.pick(&ORDER), column, literal(cell(choices, kind, false).literal())),
        4 if kind == Kind::Text => {
            let pattern = (*choices.pick(&PATTERNS)).to_owned();
            make(*choices.pick(&LIKE), column, literal(Literal::String(pattern)))
        }
        5 => {
            // A constant of another type equals nothing.
            let other = *choices.pick(&[Kind::Bool, Kind::Int, Kind::Text]);
            make(*choices.pick(&EQUALITY), column, literal(cell(choices, other, true).literal()))
        }
        6 => {
            let left = cell(choices, kind, false).literal();
            let op = if choices.percent(50) { *choices.pick(&EQUALITY) } else { *choices.pick(&ORDER) };
            make(op, literal(left), literal(cell(choices, kind, false).literal()))
        }
        _ => {
            let items = (0..choices.below(4)).map(|_| cell(choices, kind, true).literal()).collect();
            make(*choices.pick(&LISTS), column, literal(Literal::Array(items)))
        }
    }
}
