//! A query as plain SQL, naively: `docs/spec/zql.md` §4 and §5 clause by clause, every EXISTS a
//! correlated subquery. Nothing is shared with the server but the type of the query.
//!
//! The tables keep every version of every row ([`super::oracle`]): `?1` is the version asked for.

use kelvin::zql::ast::{Ast, Condition, Correlated, Direction, Literal, Operand, Operator};

use super::cell::Kind;
use super::schema::Schema;

/// The rows of a node at a version, in its order: their numbers. `keys`: columns that must equal
/// `?2` and what follows.
pub fn select(schema: &Schema, ast: &Ast, keys: &[usize]) -> String {
    let order: Vec<String> = order(schema, ast)
        .into_iter()
        .map(|(column, direction)| match direction {
            Direction::Ascending => format!("a.c{column} ASC"),
            Direction::Descending => format!("a.c{column} DESC"),
        })
        .collect();
    let limit = ast.limit.filter(|limit| limit.fract() == 0.0);
    let limit = limit.map_or(String::new(), |limit| format!(" LIMIT {limit}"));
    format!("{} ORDER BY {}{limit}", matching(schema, ast, keys), order.join(", "))
}

/// The same in no order and without the limit: what makes an EXISTS true.
pub fn witnesses(schema: &Schema, ast: &Ast, keys: &[usize]) -> String {
    let nothing = if ast.limit == Some(0.0) { " AND 0" } else { "" };
    matching(schema, ast, keys) + nothing
}

fn matching(schema: &Schema, ast: &Ast, keys: &[usize]) -> String {
    let keys = keys.iter().enumerate().map(|(n, column)| format!(" AND a.c{column} = ?{}", n + 2));
    format!("SELECT a.rowid {}{}", from_where(schema, ast, "a"), keys.collect::<String>())
}

fn from_where(schema: &Schema, ast: &Ast, name: &str) -> String {
    let table = schema.find(&ast.table);
    let condition = ast.condition.as_ref().map(|c| format!(" AND {}", condition(schema, table, c, name)));
    let start = ast.start.as_ref().map(|_| format!(" AND {}", start(schema, ast, name)));
    format!(
        "FROM t{table} AS {name} WHERE {name}.since <= ?1 AND {name}.until > ?1{}{}",
        condition.unwrap_or_default(),
        start.unwrap_or_default()
    )
}

fn condition(schema: &Schema, table: usize, condition: &Condition, name: &str) -> String {
    let all = |members: &[Condition], word: &str, empty: &str| {
        let parts: Vec<String> = members.iter().map(|c| self::condition(schema, table, c, name)).collect();
        if parts.is_empty() { empty.to_owned() } else { format!("({})", parts.join(word)) }
    };
    match condition {
        Condition::And(members) => all(members, " AND ", "1"),
        Condition::Or(members) => all(members, " OR ", "0"),
        Condition::Simple { op, left, right } => simple(schema, table, *op, left, right, name),
        Condition::Exists { related, negated, .. } => {
            let word = if *negated { "NOT EXISTS" } else { "EXISTS" };
            format!("{word} ({})", subquery(schema, table, related, name))
        }
    }
}

fn subquery(schema: &Schema, parent: usize, related: &Correlated, name: &str) -> String {
    let inner = format!("{name}x");
    let from = from_where(schema, &related.subquery, &inner);
    let pairs = pairs(schema, parent, related);
    let never = pairs.is_none() || related.subquery.limit == Some(0.0);
    let ties = pairs.unwrap_or_default().into_iter().map(|(p, c)| format!(" AND {inner}.c{c} = {name}.c{p}"));
    format!("SELECT 1 {from}{}{}", ties.collect::<String>(), if never { " AND 0" } else { "" })
}

/// Pairs of columns of parent and child; `None`: their types differ, so that nothing matches.
pub fn pairs(schema: &Schema, parent: usize, related: &Correlated) -> Option<Vec<(usize, usize)>> {
    let child = schema.find(&related.subquery.table);
    let names = related.parent_field.iter().zip(&related.child_field);
    names
        .map(|(p, c)| {
            let (p, c) = (schema.column(parent, p), schema.column(child, c));
            let kind = |table: usize, column: usize| type_of(schema.spec(table).columns[column].1);
            (kind(parent, p) == kind(child, c)).then_some((p, c))
        })
        .collect()
}

/// Types as clients know them.
fn type_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Bool => "boolean",
        Kind::Int | Kind::Real => "number",
        Kind::Text => "string",
        Kind::Json => "json",
        Kind::Bytes => "none",
    }
}

fn type_of_literal(literal: &Literal) -> &'static str {
    match literal {
        Literal::Null | Literal::Array(_) => "none",
        Literal::Bool(_) => "boolean",
        Literal::Number(_) => "number",
        Literal::String(_) => "string",
        Literal::Json(_) => "json",
    }
}

fn constant(literal: &Literal) -> String {
    match literal {
        Literal::Null | Literal::Array(_) => "NULL".to_owned(),
        Literal::Bool(b) => (*b as u8).to_string(),
        Literal::Number(n) => format!("{n:?}"),
        // A statement ends at a NUL.
        Literal::String(s) | Literal::Json(s) => {
            format!("('{}')", s.replace('\'', "''").replace('\0', "'||char(0)||'"))
        }
    }
}

fn simple(
    schema: &Schema,
    table: usize,
    op: Operator,
    left: &Operand,
    right: &Operand,
    name: &str,
) -> String {
    let Operand::Literal(right) = right else { panic!("{right:?} is no constant") };
    let (left, kind) = match left {
        Operand::Column(column) => {
            let column = schema.column(table, column);
            (format!("{name}.c{column}"), type_of(schema.spec(table).columns[column].1))
        }
        Operand::Literal(literal) => (constant(literal), type_of_literal(literal)),
        Operand::Static { .. } => panic!("a static parameter"),
    };
    if let Literal::Array(items) = right {
        let same: Vec<String> = items.iter().filter(|i| type_of_literal(i) == kind).map(constant).collect();
        let word = if op == Operator::In { "IN" } else { "NOT IN" };
        // NULL is neither in a list nor not in it, were it empty (ruling 3).
        return format!("({left} IS NOT NULL AND {left} {word} ({}))", same.join(", "));
    }
    let null = *right == Literal::Null;
    let other_type = !null && type_of_literal(right) != kind;
    let right = constant(right);
    match op {
        // Values of different types are never equal.
        Operator::Equal | Operator::Is if other_type => "0".to_owned(),
        Operator::NotEqual if other_type => format!("({left} IS NOT NULL)"),
        Operator::IsNot if other_type => "1".to_owned(),
        Operator::Equal => format!("({left} = {right})"),
        Operator::NotEqual => format!("({left} <> {right})"),
        Operator::Is => format!("({left} IS {right})"),
        Operator::IsNot => format!("({left} IS NOT {right})"),
        Operator::Less => format!("({left} < {right})"),
        Operator::LessOrEqual => format!("({left} <= {right})"),
        Operator::Greater => format!("({left} > {right})"),
        Operator::GreaterOrEqual => format!("({left} >= {right})"),
        Operator::Like => format!("like_all({left}, {right})"),
        Operator::NotLike => format!("(NOT like_all({left}, {right}))"),
        // Both sides in lower case, as Unicode has it (ruling 4).
        Operator::Ilike => format!("like_all(lower_all({left}), lower_all({right}))"),
        Operator::NotIlike => format!("(NOT like_all(lower_all({left}), lower_all({right})))"),
        Operator::In | Operator::NotIn => panic!("{op:?} takes a list"),
    }
}

/// Completed with the key by which the clients know the rows, its columns sorted by name.
fn order(schema: &Schema, ast: &Ast) -> Vec<(usize, Direction)> {
    let table = schema.find(&ast.table);
    let given = ast.order_by.iter();
    let mut out: Vec<_> = given.map(|(name, d)| (schema.column(table, name), *d)).collect();
    for column in schema.identity(table) {
        if out.iter().all(|(known, _)| *known != column) {
            out.push((column, Direction::Ascending));
        }
    }
    out
}

/// The row is after the cursor, or at it: the comparison of rows spelled out.
fn start(schema: &Schema, ast: &Ast, name: &str) -> String {
    let Some(start) = &ast.start else { return "1".to_owned() };
    let table = schema.find(&ast.table);
    let mut equal = Vec::new();
    let mut any = Vec::new();
    for (column, direction) in order(schema, ast) {
        let field = start.row.iter().find(|(field, _)| schema.column(table, field) == column);
        let value = field.map_or("NULL".to_owned(), |(_, value)| constant(value));
        let (row, null) = (format!("{name}.c{column}"), value == "NULL");
        let after = match direction {
            Direction::Ascending if null => format!("{row} IS NOT NULL"),
            Direction::Ascending => format!("{row} > {value}"),
            Direction::Descending if null => "0".to_owned(),
            Direction::Descending => format!("({row} < {value} OR {row} IS NULL)"),
        };
        any.push(equal.iter().cloned().chain([after]).collect::<Vec<_>>().join(" AND "));
        equal.push(format!("{row} IS {value}"));
    }
    if !start.exclusive {
        any.push(equal.join(" AND "));
    }
    format!("(({}))", any.join(") OR ("))
}
