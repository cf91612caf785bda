//! How much one query, and all queries of one client group, may be (`docs/decisions/008-overload.md`).
//!
//! A query is some hundred bytes of JSON that come from anybody. What is made of it is larger: statements
//! for each node that repeat the conditions inside, an order that a cursor repeats, constants
//! in several forms. So there are limits for what is read, and others for what is made of it, which are
//! counted while it is made. What is too much is an error of that query alone.

use std::cell::Cell;

/// The limits. They are handed down, so that tests have small ones.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of the JSON text of a query. Everything is linear in it, and reading so much takes a core some
    /// ten milliseconds.
    pub text: usize,
    /// Deepest nesting of conditions and subqueries. Far above what a query builder makes, far below what could
    /// exhaust the stack or SQLite's expression depth.
    pub depth: usize,
    /// Conditions and subqueries; bounds planning, and what each changed row is compared with.
    pub nodes: usize,
    /// Columns of one order, repeated ones included. Tables with more columns are rare; nobody sorts by
    /// all of them.
    pub order: usize,
    /// Columns of one correlation: a key of Postgres has at most 32.
    pub correlation: usize,
    /// Constants: values of lists and cursors, and those that stand alone.
    pub values: usize,
    /// Bytes of all constants.
    pub constants: usize,
    /// Bytes of what is made of a query: statements, constants, filters, what conditions are known by.
    pub plan: usize,
    /// Values that one statement binds. SQLite takes 32,766.
    pub bound: usize,
    /// Bytes of the arguments of one query that the app knows by name.
    pub arguments: usize,
    /// Bytes by which all queries of a group are spelled: names, arguments, JSON text.
    pub asked: usize,
    /// Bytes of what is made of all queries of a group, whoever else has the same.
    pub plans: usize,
}

impl Limits {
    /// What a server has.
    pub const DEFAULT: Limits = Limits {
        text: 4 << 20,
        depth: 64,
        nodes: 4_000,
        order: 128,
        correlation: 32,
        values: 50_000,
        constants: 2 << 20,
        plan: 8 << 20,
        bound: 32_000,
        arguments: 2 << 20,
        asked: 16 << 20,
        plans: 64 << 20,
    };

    /// Whether JSON is nested no deeper than a query can be, without reading it: readers of JSON use the
    /// stack. A level of conditions or subqueries has up to four of JSON.
    pub(super) fn check_nesting(&self, json: &str) -> Result<(), TooMuch> {
        let most = (self.depth + 2) * 4;
        let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
        for byte in json.bytes() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = in_string,
                b'"' => in_string = !in_string,
                b'[' | b'{' if !in_string => depth += 1,
                b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth > most {
                return Err(TooMuch(format!("the query is nested more than {} levels deep", self.depth)));
            }
        }
        Ok(())
    }

    /// Whether so much of something is within its limit.
    pub(super) fn check(of: &str, much: usize, most: usize) -> Result<(), TooMuch> {
        if much > most {
            return Err(TooMuch(format!("the query has more than {most} {of}: split it, or ask for less")));
        }
        Ok(())
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits::DEFAULT
    }
}

/// A query is more than its limits allow. Told to whoever asked, so it says what and how much.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TooMuch(pub String);

impl std::fmt::Display for TooMuch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TooMuch {}

/// Bytes of what is made of a query, while it is made.
#[derive(Debug, Default)]
pub(super) struct Account(Cell<usize>);

impl Account {
    /// Adds bytes that stay.
    pub fn charge(&self, bytes: usize, limits: &Limits) -> Result<(), TooMuch> {
        self.0.set(self.0.get().saturating_add(bytes));
        self.check(0, limits)
    }

    /// Whether there is room for so many more.
    pub fn check(&self, more: usize, limits: &Limits) -> Result<(), TooMuch> {
        let most = limits.plan;
        if self.0.get().saturating_add(more) > most {
            return Err(TooMuch(format!(
                "the query's statements take more than {} KiB: use fewer conditions and subqueries, or split it",
                most >> 10
            )));
        }
        Ok(())
    }

    /// Bytes so far.
    pub fn bytes(&self) -> usize {
        self.0.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nesting_is_counted_outside_of_texts() {
        let limits = Limits { depth: 1, ..Limits::DEFAULT };
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(limits.check_nesting(&nested(12)).is_ok() && limits.check_nesting(&nested(13)).is_err());
        assert!(limits.check_nesting(&format!("\"{}\"", "[\\\"".repeat(100))).is_ok());
        assert!(limits.check_nesting(&format!("\"\\\\\"{}", nested(13))).is_err());
        assert!(limits.check_nesting(&nested(3).repeat(100)).is_ok());
    }
}
