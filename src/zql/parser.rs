//! Reads a query from JSON, within limits.

use simd_json::prelude::*;
use simd_json::{BorrowedValue, StaticNode};

use super::ast::{Ast, Condition, Correlated, Direction, Literal, Operand, Operator, Start, System};
use super::limits::{Limits, TooMuch};

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
pub enum ParseError {
    /// It is not one.
    Malformed(String),
    /// It may be one, but is more than one may be.
    TooMuch(TooMuch),
}

impl std::fmt::Display for ParseError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ParseError::Malformed(why) => f.write_str(why),
            ParseError::TooMuch(what) => what.fmt(f),
        }
    }
}

impl std::error::Error for ParseError {}

impl From<TooMuch> for ParseError {
    fn from(what: TooMuch) -> ParseError {
        ParseError::TooMuch(what)
    }
}

/// Reads a query from its JSON text.
pub fn parse(json: &str, strictness: Strictness, limits: &Limits) -> Result<Ast, ParseError> {
    Limits::check("bytes", json.len(), limits.text)?;
    limits.check_nesting(json)?;
    let mut bytes = json.as_bytes().to_vec();
    let value = simd_json::to_borrowed_value(&mut bytes).map_err(|e| ParseError::Malformed(e.to_string()))?;
    Reader { strictness, limits, nodes: 0, values: 0, constants: 0 }.ast(&value, 0)
}

type Object<'v> = simd_json::borrowed::Object<'v>;

/// Counts what it reads.
struct Reader<'l> {
    strictness: Strictness,
    limits: &'l Limits,
    nodes: usize,
    values: usize,
    constants: usize,
}

fn fail<T>(message: impl Into<String>) -> Result<T, ParseError> {
    Err(ParseError::Malformed(message.into()))
}

impl Reader<'_> {
    fn enter(&mut self, depth: usize) -> Result<(), ParseError> {
        self.nodes += 1;
        Limits::check("levels of conditions and subqueries", depth, self.limits.depth)?;
        Limits::check("conditions and subqueries", self.nodes, self.limits.nodes)?;
        Ok(())
    }

    /// Counts a constant of so many bytes.
    fn constant(&mut self, bytes: usize) -> Result<(), ParseError> {
        self.values += 1;
        self.constants += bytes;
        Limits::check("constants", self.values, self.limits.values)?;
        Limits::check("bytes of constants", self.constants, self.limits.constants)?;
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
        let order = array(object, "orderBy")?;
        Limits::check("columns in an order", order.len(), self.limits.order)?;
        for value in order {
            ast.order_by.push(order_part(value)?);
        }
        Ok(ast)
    }

    fn start(&mut self, value: &BorrowedValue) -> Result<Start, ParseError> {
        let object = self.object(value, "start", &["row", "exclusive"])?;
        let Some(row) = object.get("row").and_then(|r| r.as_object()) else {
            return fail("start.row must be an object");
        };
        let Some(exclusive) = object.get("exclusive").and_then(|e| e.as_bool()) else {
            return fail("start.exclusive must be a boolean");
        };
        let mut fields = Vec::with_capacity(row.len());
        for (name, value) in row {
            let literal = match self.literal(value) {
                Err(ParseError::Malformed(_)) => {
                    let json = value.encode();
                    self.constant(json.len())?;
                    Literal::Json(json)
                }
                literal => literal?,
            };
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
        Limits::check("columns in a correlation", parent_field.len(), self.limits.correlation)?;
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
                let op = Operator::named(&name)
                    .ok_or_else(|| ParseError::Malformed(format!("unknown operator {name:?}")))?;
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

    fn operand(&mut self, value: Option<&BorrowedValue>) -> Result<Operand, ParseError> {
        let Some(value) = value else { return fail("a comparison needs a left and a right side") };
        match value.get_str("type").unwrap_or_default() {
            "literal" => {
                let object = self.object(value, "literal", &["type", "value"])?;
                let value = object.get("value").unwrap_or(&BorrowedValue::Static(StaticNode::Null));
                Ok(Operand::Literal(self.literal(value)?))
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

    fn literal(&mut self, value: &BorrowedValue) -> Result<Literal, ParseError> {
        self.constant(value.as_str().map_or(0, str::len))?;
        if let Some(items) = value.as_array() {
            let items: Result<Vec<_>, _> = items.iter().map(|item| self.literal(item)).collect();
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
