//! What a run of a core is about: tables, queries and transactions.

use std::rc::Rc;

use kelvin::zql::ast::Ast;

use super::choices::Choices;
use super::database::{Database, Write};
use super::schema::Schema;

/// One world to play in.
pub struct Scenario {
    pub schema: Schema,
    /// What clients believe the tables to be; the groups take them in turn.
    pub believed: Vec<Schema>,
    /// By number, then by form. `None`: the app refuses it.
    pub queries: Vec<Vec<Option<Rc<Ast>>>>,
    /// The query with a result that is not sent at once.
    pub large: Option<usize>,
    /// Rows that there are before anybody comes.
    pub initial: Vec<Write>,
    /// Makes a transaction of the app, and applies it to the database.
    pub transaction: fn(&mut Choices, &mut Database) -> Vec<Write>,
}
