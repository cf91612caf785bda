//! Queries as short texts, for the messages of failing tests.

use kelvin::zql::ast::{Ast, Condition, Correlated, Direction, Operand, System};

pub fn query(ast: &Ast) -> String {
    let mut out = ast.table.clone();
    if let Some(condition) = &ast.condition {
        out += &format!("\n  .where({})", self::condition(condition));
    }
    for child in &ast.related {
        let alias = child.subquery.alias.as_deref().unwrap_or_default();
        let text = tied(child).replace('\n', "\n  ");
        out += &format!("\n  .related {alias} ({text})");
    }
    for (column, direction) in &ast.order_by {
        let suffix = if *direction == Direction::Descending { " desc" } else { "" };
        out += &format!(".order({column}{suffix})");
    }
    if let Some(start) = &ast.start {
        out += &format!(".start({:?}, exclusive {})", start.row, start.exclusive);
    }
    if let Some(limit) = ast.limit {
        out += &format!(".limit({limit})");
    }
    out
}

fn tied(child: &Correlated) -> String {
    let pairs: Vec<String> =
        child.parent_field.iter().zip(&child.child_field).map(|(p, c)| format!("{p}={c}")).collect();
    let by = if child.system == System::Permissions { " by permissions" } else { "" };
    format!("{}{by}: {}", pairs.join(","), query(&child.subquery))
}

fn condition(of: &Condition) -> String {
    let list = |members: &[Condition]| members.iter().map(condition).collect::<Vec<_>>().join(", ");
    let side = |operand: &Operand| match operand {
        Operand::Column(name) => name.clone(),
        Operand::Literal(literal) => format!("{literal:?}"),
        other => format!("{other:?}"),
    };
    match of {
        Condition::Simple { op, left, right } => format!("{} {op:?} {}", side(left), side(right)),
        Condition::And(all) => format!("and[{}]", list(all)),
        Condition::Or(any) => format!("or[{}]", list(any)),
        Condition::Exists { related, negated, flip } => {
            let not = if *negated { "not " } else { "" };
            let hint = flip.map(|f| format!(" flip {f}")).unwrap_or_default();
            format!("{not}exists{hint} {{{}}}", tied(related).replace('\n', ""))
        }
    }
}
