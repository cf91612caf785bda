//! Canonical bytes of a query: the identity of a view (rule 11).
//!
//! Two queries with equal bytes have equal answers. Names of relationships and hints are
//! left out; everything that decides rows is in, each part with its length, so that no two
//! different queries can be spelled alike. Compared as bytes, never by hash alone.

use hashbrown::HashSet;

use super::ast::{Ast, Condition, Correlated, Direction, Literal, Operand, System};

/// Appends the canonical form of a query.
pub fn write(ast: &Ast, out: &mut Vec<u8>) {
    out.push(b'Q');
    text(&ast.table, out);
    match &ast.condition {
        None => out.push(0),
        Some(condition) => write_condition(condition, out),
    }
    let related = distinct_related(ast);
    count(related.len(), out);
    for child in related {
        write_correlated(child, out);
    }
    match &ast.start {
        None => out.push(0),
        Some(start) => {
            out.push(if start.exclusive { 1 } else { 2 });
            count(start.row.len(), out);
            for (column, value) in &start.row {
                text(column, out);
                write_literal(value, out);
            }
        }
    }
    match ast.limit {
        None => out.push(0),
        Some(limit) => {
            out.push(1);
            out.extend(limit.to_bits().to_be_bytes());
        }
    }
    let order = distinct_order(ast);
    count(order.len(), out);
    for (column, direction) in order {
        text(column, out);
        out.push(matches!(direction, Direction::Descending) as u8);
    }
}

/// The columns that an order has: one that is repeated decides nothing.
pub fn distinct_order(ast: &Ast) -> Vec<(&str, Direction)> {
    let mut known = HashSet::with_capacity(ast.order_by.len());
    let all = ast.order_by.iter().map(|(column, direction)| (column.as_str(), *direction));
    all.filter(|(column, _)| known.insert(*column)).collect()
}

/// The related subqueries that count: of several with one alias, the last.
pub fn distinct_related(ast: &Ast) -> Vec<&Correlated> {
    let mut known = HashSet::with_capacity(ast.related.len());
    let mut out: Vec<&Correlated> = Vec::with_capacity(ast.related.len());
    for child in ast.related.iter().rev() {
        if child.subquery.alias.as_ref().is_none_or(|alias| known.insert(alias)) {
            out.push(child);
        }
    }
    out.reverse();
    out
}

fn write_correlated(child: &Correlated, out: &mut Vec<u8>) {
    out.push(matches!(child.system, System::Permissions) as u8);
    count(child.parent_field.len(), out);
    for name in child.parent_field.iter().chain(&child.child_field) {
        text(name, out);
    }
    write(&child.subquery, out);
}

fn write_condition(condition: &Condition, out: &mut Vec<u8>) {
    match condition {
        Condition::Simple { op, left, right } => {
            out.push(1);
            out.push(*op as u8);
            write_operand(left, out);
            write_operand(right, out);
        }
        Condition::And(members) | Condition::Or(members) => {
            out.push(if matches!(condition, Condition::And(_)) { 2 } else { 3 });
            count(members.len(), out);
            members.iter().for_each(|m| write_condition(m, out));
        }
        Condition::Exists { related, negated, .. } => {
            out.push(if *negated { 5 } else { 4 });
            write_correlated(related, out);
        }
    }
}

fn write_operand(operand: &Operand, out: &mut Vec<u8>) {
    match operand {
        Operand::Literal(literal) => {
            out.push(1);
            write_literal(literal, out);
        }
        Operand::Column(name) => {
            out.push(2);
            text(name, out);
        }
        Operand::Static { anchor, field } => {
            out.push(3);
            text(anchor, out);
            count(field.len(), out);
            field.iter().for_each(|f| text(f, out));
        }
    }
}

fn write_literal(literal: &Literal, out: &mut Vec<u8>) {
    match literal {
        Literal::Null => out.push(0),
        Literal::Bool(b) => out.push(1 + *b as u8),
        Literal::Number(n) => {
            out.push(3);
            // -0 and 0 are one number.
            out.extend((n + 0.0).to_bits().to_be_bytes());
        }
        Literal::String(s) => {
            out.push(4);
            text(s, out);
        }
        Literal::Array(items) => {
            out.push(5);
            count(items.len(), out);
            items.iter().for_each(|i| write_literal(i, out));
        }
        Literal::Json(json) => {
            out.push(6);
            text(json, out);
        }
    }
}

fn text(text: &str, out: &mut Vec<u8>) {
    count(text.len(), out);
    out.extend(text.as_bytes());
}

fn count(n: usize, out: &mut Vec<u8>) {
    out.extend((n as u32).to_be_bytes());
}
