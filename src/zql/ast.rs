//! The query as it travels: `docs/spec/zql.md` §1.
//!
//! Clients' ASTs are read strictly (an unknown key is an error), those of the app's
//! endpoint tolerantly. Names are server names and are resolved only by the planner.

/// One query node.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Ast {
    /// Server table name; `schema.table` outside `public`.
    pub table: String,
    /// Name of the relationship in the parent.
    pub alias: Option<String>,
    /// Filter.
    pub condition: Option<Condition>,
    /// Child queries of the hierarchical result.
    pub related: Vec<Correlated>,
    /// Cursor.
    pub start: Option<Start>,
    /// Most rows, per parent for a child query.
    pub limit: Option<f64>,
    /// Order; completed with the key by the planner.
    pub order_by: Vec<(String, Direction)>,
}

impl Ast {
    /// About how many bytes it takes.
    pub fn bytes(&self) -> usize {
        let start = self.start.iter().flat_map(|start| &start.row);
        size_of::<Ast>()
            + self.table.len()
            + self.alias.as_ref().map_or(0, String::len)
            + self.condition.as_ref().map_or(0, Condition::bytes)
            + self.related.iter().map(Correlated::bytes).sum::<usize>()
            + start.map(|(name, value)| size_of::<String>() + name.len() + value.bytes()).sum::<usize>()
            + self
                .order_by
                .iter()
                .map(|(name, _)| size_of::<(String, Direction)>() + name.len())
                .sum::<usize>()
    }

    /// Appends the name of every table that the query names.
    pub fn tables<'a>(&'a self, out: &mut Vec<&'a str>) {
        out.push(&self.table);
        if let Some(condition) = &self.condition {
            condition.tables(out);
        }
        self.related.iter().for_each(|related| related.subquery.tables(out));
    }
}

impl Literal {
    fn bytes(&self) -> usize {
        size_of::<Literal>()
            + match self {
                Literal::Null | Literal::Bool(_) | Literal::Number(_) => 0,
                Literal::String(text) | Literal::Json(text) => text.len(),
                Literal::Array(items) => items.iter().map(Literal::bytes).sum(),
            }
    }
}

impl Operand {
    fn bytes(&self) -> usize {
        match self {
            Operand::Literal(literal) => literal.bytes(),
            Operand::Column(name) => name.len(),
            Operand::Static { anchor, field } => {
                anchor.len() + field.iter().map(|f| size_of::<String>() + f.len()).sum::<usize>()
            }
        }
    }
}

impl Correlated {
    fn bytes(&self) -> usize {
        let fields = self.parent_field.iter().chain(&self.child_field);
        size_of::<Correlated>()
            + fields.map(|f| size_of::<String>() + f.len()).sum::<usize>()
            + self.subquery.bytes()
    }
}

impl Condition {
    fn bytes(&self) -> usize {
        size_of::<Condition>()
            + match self {
                Condition::Simple { left, right, .. } => left.bytes() + right.bytes(),
                Condition::And(members) | Condition::Or(members) => {
                    members.iter().map(Condition::bytes).sum()
                }
                Condition::Exists { related, .. } => related.bytes(),
            }
    }

    fn tables<'a>(&'a self, out: &mut Vec<&'a str>) {
        match self {
            Condition::Simple { .. } => {}
            Condition::And(members) | Condition::Or(members) => members.iter().for_each(|m| m.tables(out)),
            Condition::Exists { related, .. } => related.subquery.tables(out),
        }
    }
}

/// Sort direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Smallest first, null before everything.
    Ascending,
    /// Largest first, null last.
    Descending,
}

/// A cursor: rows before it are not part of the result.
#[derive(Debug, Clone, PartialEq)]
pub struct Start {
    /// Values of the order columns; missing ones count as null.
    pub row: Vec<(String, Literal)>,
    /// Whether the row at the cursor itself is left out.
    pub exclusive: bool,
}

/// Who introduced a subquery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum System {
    /// The query of the app.
    Client,
    /// A permission rule: its rows are never sent.
    Permissions,
}

/// A subquery tied to its parent by equal columns.
#[derive(Debug, Clone, PartialEq)]
pub struct Correlated {
    /// Columns of the parent.
    pub parent_field: Vec<String>,
    /// Columns of the child, pairwise equal to those.
    pub child_field: Vec<String>,
    /// The child query.
    pub subquery: Ast,
    /// Who introduced it.
    pub system: System,
}

/// A filter.
#[derive(Debug, Clone, PartialEq)]
pub enum Condition {
    /// A comparison.
    Simple {
        /// Operator.
        op: Operator,
        /// Left side.
        left: Operand,
        /// Right side; never a column.
        right: Operand,
    },
    /// All of these; true when empty.
    And(Vec<Condition>),
    /// Any of these; false when empty.
    Or(Vec<Condition>),
    /// Whether the subquery has rows.
    Exists {
        /// The subquery.
        related: Box<Correlated>,
        /// NOT EXISTS.
        negated: bool,
        /// Hint: start from the child (ruling 5: never changes the answer).
        flip: Option<bool>,
    },
}

/// Comparison operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Operator {
    Equal,
    NotEqual,
    Is,
    IsNot,
    Less,
    Greater,
    LessOrEqual,
    GreaterOrEqual,
    Like,
    NotLike,
    Ilike,
    NotIlike,
    In,
    NotIn,
}

impl Operator {
    /// By its name in an AST.
    pub fn named(name: &str) -> Option<Operator> {
        Some(match name {
            "=" => Operator::Equal,
            "!=" => Operator::NotEqual,
            "IS" => Operator::Is,
            "IS NOT" => Operator::IsNot,
            "<" => Operator::Less,
            ">" => Operator::Greater,
            "<=" => Operator::LessOrEqual,
            ">=" => Operator::GreaterOrEqual,
            "LIKE" => Operator::Like,
            "NOT LIKE" => Operator::NotLike,
            "ILIKE" => Operator::Ilike,
            "NOT ILIKE" => Operator::NotIlike,
            "IN" => Operator::In,
            "NOT IN" => Operator::NotIn,
            _ => return None,
        })
    }
}

/// One side of a comparison.
#[derive(Debug, Clone, PartialEq)]
pub enum Operand {
    /// A constant.
    Literal(Literal),
    /// A column of the node's own table.
    Column(String),
    /// A parameter of a permission rule, bound before planning.
    Static {
        /// `authData` or `preMutationRow`.
        anchor: String,
        /// Path into it.
        field: Vec<String>,
    },
}

/// A constant.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum Literal {
    Null,
    Bool(bool),
    Number(f64),
    String(String),
    Array(Vec<Literal>),
    /// JSON text of an object; only meaningful in a cursor.
    Json(String),
}
