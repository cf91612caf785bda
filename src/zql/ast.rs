//! The query as it travels: `docs/spec/zql.md` §1.
//!
//! Clients' ASTs are read strictly (an unknown key is an error), those of the app's
//! endpoint tolerantly. Names are server names and are resolved only by the planner.

use simd_json::prelude::*;
use simd_json::{BorrowedValue, StaticNode};

/// Deepest nesting of conditions and subqueries. Far above what a query builder makes, far
/// below what could exhaust the stack or SQLite's expression depth.
pub const MAX_DEPTH: usize = 64;

/// Most conditions and subqueries in one query; bounds planning time and statement size.
pub const MAX_NODES: usize = 4_000;

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
    /// Appends the name of every table that the query names.
    pub fn tables<'a>(&'a self, out: &mut Vec<&'a str>) {
        out.push(&self.table);
        if let Some(condition) = &self.condition {
            condition.tables(out);
        }
        self.related.iter().for_each(|related| related.subquery.tables(out));
    }
}

impl Condition {
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

/// Whether unknown keys are errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strictness {
    /// Messages of clients.
    Strict,
    /// Answers of the app's endpoint.
    Tolerant,
}

/// Why a value is not a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseError(pub String);

impl std::fmt::Display for ParseError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ParseError {}

/// Reads a query from its JSON text.
pub fn parse(json: &str, strictness: Strictness) -> Result<Ast, ParseError> {
    let mut bytes = json.as_bytes().to_vec();
    let value = simd_json::to_borrowed_value(&mut bytes).map_err(|e| ParseError(e.to_string()))?;
    Reader { strictness, nodes: 0 }.ast(&value, 0)
}

/// Reads a condition from its JSON text, as permission rules hold them.
pub fn parse_condition(json: &str) -> Result<Condition, ParseError> {
    let mut bytes = json.as_bytes().to_vec();
    let value = simd_json::to_borrowed_value(&mut bytes).map_err(|e| ParseError(e.to_string()))?;
    Reader { strictness: Strictness::Tolerant, nodes: 0 }.condition(&value, 0)
}

type Object<'v> = simd_json::borrowed::Object<'v>;

struct Reader {
    strictness: Strictness,
    nodes: usize,
}

fn fail<T>(message: impl Into<String>) -> Result<T, ParseError> {
    Err(ParseError(message.into()))
}

impl Reader {
    fn enter(&mut self, depth: usize) -> Result<(), ParseError> {
        self.nodes += 1;
        if depth > MAX_DEPTH {
            return fail(format!("query is nested more than {MAX_DEPTH} levels deep"));
        }
        if self.nodes > MAX_NODES {
            return fail(format!("query has more than {MAX_NODES} conditions and subqueries"));
        }
        Ok(())
    }

    fn object<'a, 'v>(
        &self,
        value: &'a BorrowedValue<'v>,
        what: &str,
        keys: &[&str],
    ) -> Result<&'a Object<'v>, ParseError> {
        let Some(object) = value.as_object() else { return fail(format!("{what} must be an object")) };
        if self.strictness == Strictness::Strict
            && let Some(unknown) = object.keys().find(|k| !keys.contains(&k.as_ref()))
        {
            return fail(format!("unexpected key {unknown:?} in {what}"));
        }
        Ok(object)
    }

    fn ast(&mut self, value: &BorrowedValue, depth: usize) -> Result<Ast, ParseError> {
        self.enter(depth)?;
        let keys = ["schema", "table", "alias", "where", "related", "start", "limit", "orderBy"];
        let object = self.object(value, "query", &keys)?;
        let mut ast = Ast { table: text(object, "table", "query")?, ..Ast::default() };
        if present(object, "schema").is_some() {
            text(object, "schema", "query")?;
        }
        if present(object, "alias").is_some() {
            ast.alias = Some(text(object, "alias", "query")?);
        }
        if let Some(value) = present(object, "where") {
            ast.condition = Some(self.condition(value, depth + 1)?);
        }
        for value in array(object, "related")? {
            ast.related.push(self.correlated(value, depth + 1)?);
        }
        if let Some(value) = present(object, "start") {
            ast.start = Some(self.start(value)?);
        }
        if let Some(value) = present(object, "limit") {
            let Some(limit) = value.cast_f64() else { return fail("limit must be a number") };
            ast.limit = Some(limit);
        }
        for value in array(object, "orderBy")? {
            ast.order_by.push(order_part(value)?);
        }
        Ok(ast)
    }

    fn start(&self, value: &BorrowedValue) -> Result<Start, ParseError> {
        let object = self.object(value, "start", &["row", "exclusive"])?;
        let Some(row) = object.get("row").and_then(|r| r.as_object()) else {
            return fail("start.row must be an object");
        };
        let Some(exclusive) = object.get("exclusive").and_then(|e| e.as_bool()) else {
            return fail("start.exclusive must be a boolean");
        };
        let mut fields = Vec::with_capacity(row.len());
        for (name, value) in row {
            let literal = literal(value).or_else(|_| Ok(Literal::Json(value.encode())))?;
            fields.push((name.to_string(), literal));
        }
        fields.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(Start { row: fields, exclusive })
    }

    fn correlated(&mut self, value: &BorrowedValue, depth: usize) -> Result<Correlated, ParseError> {
        let object =
            self.object(value, "related subquery", &["correlation", "hidden", "subquery", "system"])?;
        let Some(correlation) = object.get("correlation") else { return fail("correlation is missing") };
        let correlation = self.object(correlation, "correlation", &["parentField", "childField"])?;
        let parent_field = names(correlation, "parentField")?;
        let child_field = names(correlation, "childField")?;
        if parent_field.len() != child_field.len() {
            return fail("parentField and childField must have the same length");
        }
        if let Some(hidden) = present(object, "hidden")
            && hidden.as_bool().is_none()
        {
            return fail("hidden must be a boolean");
        }
        let system = match present(object, "system").map(|s| s.as_str()) {
            None | Some(Some("client" | "test")) => System::Client,
            Some(Some("permissions")) => System::Permissions,
            _ => return fail("system must be permissions, client or test"),
        };
        let Some(subquery) = object.get("subquery") else { return fail("subquery is missing") };
        Ok(Correlated { parent_field, child_field, subquery: self.ast(subquery, depth + 1)?, system })
    }

    fn condition(&mut self, value: &BorrowedValue, depth: usize) -> Result<Condition, ParseError> {
        self.enter(depth)?;
        let kind = value.get_str("type").unwrap_or_default();
        match kind {
            "simple" => {
                let object = self.object(value, "condition", &["type", "op", "left", "right"])?;
                let name = text(object, "op", "condition")?;
                let op =
                    Operator::named(&name).ok_or_else(|| ParseError(format!("unknown operator {name:?}")))?;
                let left = self.operand(object.get("left"))?;
                let right = self.operand(object.get("right"))?;
                if matches!(right, Operand::Column(_)) {
                    return fail("the right side of a comparison cannot be a column");
                }
                Ok(Condition::Simple { op, left, right })
            }
            "and" | "or" => {
                let object = self.object(value, "condition", &["type", "conditions"])?;
                let Some(members) = object.get("conditions").and_then(|c| c.as_array()) else {
                    return fail("conditions must be an array");
                };
                let members: Result<Vec<_>, _> =
                    members.iter().map(|m| self.condition(m, depth + 1)).collect();
                Ok(if kind == "and" { Condition::And(members?) } else { Condition::Or(members?) })
            }
            "correlatedSubquery" => {
                let keys = ["type", "related", "op", "flip", "scalar"];
                let object = self.object(value, "condition", &keys)?;
                let negated = match text(object, "op", "condition")?.as_str() {
                    "EXISTS" => false,
                    "NOT EXISTS" => true,
                    other => return fail(format!("unknown operator {other:?}")),
                };
                for hint in ["flip", "scalar"] {
                    if present(object, hint).is_some_and(|v| v.as_bool().is_none()) {
                        return fail(format!("{hint} must be a boolean"));
                    }
                }
                let Some(related) = object.get("related") else { return fail("related is missing") };
                let related = Box::new(self.correlated(related, depth + 1)?);
                let flip = present(object, "flip").and_then(|f| f.as_bool());
                Ok(Condition::Exists { related, negated, flip })
            }
            other => fail(format!("unknown type of condition {other:?}")),
        }
    }

    fn operand(&self, value: Option<&BorrowedValue>) -> Result<Operand, ParseError> {
        let Some(value) = value else { return fail("a comparison needs a left and a right side") };
        match value.get_str("type").unwrap_or_default() {
            "literal" => {
                let object = self.object(value, "literal", &["type", "value"])?;
                let value = object.get("value").unwrap_or(&BorrowedValue::Static(StaticNode::Null));
                Ok(Operand::Literal(literal(value)?))
            }
            "column" => {
                let object = self.object(value, "column", &["type", "name"])?;
                Ok(Operand::Column(text(object, "name", "column")?))
            }
            "static" => {
                let object = self.object(value, "static parameter", &["type", "anchor", "field"])?;
                let field = match object.get("field") {
                    Some(v) if v.is_str() => vec![text(object, "field", "static parameter")?],
                    _ => names(object, "field")?,
                };
                Ok(Operand::Static { anchor: text(object, "anchor", "static parameter")?, field })
            }
            other => fail(format!("unknown kind of value {other:?}")),
        }
    }
}

fn present<'a, 'v>(object: &'a Object<'v>, key: &str) -> Option<&'a BorrowedValue<'v>> {
    object.get(key)
}

fn text(object: &Object, key: &str, what: &str) -> Result<String, ParseError> {
    match object.get(key).and_then(|v| v.as_str()) {
        Some(text) => Ok(text.to_owned()),
        None => fail(format!("{key} of {what} must be a string")),
    }
}

fn array<'a, 'v>(object: &'a Object<'v>, key: &str) -> Result<&'a [BorrowedValue<'v>], ParseError> {
    match object.get(key) {
        None => Ok(&[]),
        Some(value) => match value.as_array() {
            Some(items) => Ok(items),
            None => fail(format!("{key} must be an array")),
        },
    }
}

fn names(object: &Object, key: &str) -> Result<Vec<String>, ParseError> {
    let items = array(object, key)?;
    let names: Option<Vec<String>> = items.iter().map(|i| i.as_str().map(str::to_owned)).collect();
    match names {
        Some(names) if !names.is_empty() => Ok(names),
        _ => fail(format!("{key} must be an array of names")),
    }
}

fn order_part(value: &BorrowedValue) -> Result<(String, Direction), ParseError> {
    let parts = value.as_array().map(Vec::as_slice).unwrap_or_default();
    let [column, direction] = parts else { return fail("orderBy holds pairs of column and direction") };
    let direction = match direction.as_str() {
        Some("asc") => Direction::Ascending,
        Some("desc") => Direction::Descending,
        _ => return fail("a direction is asc or desc"),
    };
    match column.as_str() {
        Some(column) => Ok((column.to_owned(), direction)),
        None => fail("orderBy names columns"),
    }
}

fn literal(value: &BorrowedValue) -> Result<Literal, ParseError> {
    if let Some(items) = value.as_array() {
        let items: Result<Vec<_>, _> = items.iter().map(literal).collect();
        return Ok(Literal::Array(items?));
    }
    if value.is_null() {
        return Ok(Literal::Null);
    }
    if let Some(b) = value.as_bool() {
        return Ok(Literal::Bool(b));
    }
    if let Some(n) = value.cast_f64() {
        return Ok(Literal::Number(n));
    }
    match value.as_str() {
        Some(s) => Ok(Literal::String(s.to_owned())),
        None => fail("a literal is a string, number, boolean, null or an array of these"),
    }
}
