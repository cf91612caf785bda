//! Queries that the app defines: a client names one, the app answers what it is (`docs/spec/view-syncer.md` §8).

use serde_json::Value;

use super::ast::Ast;

/// A query to be transformed by the app.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Named {
    /// Its hash.
    pub hash: String,
    /// Name.
    pub name: String,
    /// JSON array.
    pub args: String,
}

/// Answer of the app for one query.
pub enum Transformed {
    /// The query to execute.
    Ast(Box<Ast>),
    /// Refused; an entry of `transformError`.
    Refused(Value),
}
