//! What a query means: AST, values, plan, evaluation.
//!
//! Follows `docs/spec/zql.md`. A query is planned once against the catalogue and then
//! evaluated over any snapshot of the replica. The evaluator is the definition that every
//! faster way of keeping a view must agree with.

pub mod ast;
pub mod builder;
pub mod canonical;
pub mod custom_query;
pub mod driving;
pub mod evaluate;
pub mod explain;
mod filter;
pub mod limits;
pub mod list;
pub mod order;
pub mod parser;
pub mod plan;
mod planner;
pub mod predicate;
mod resolved;
pub mod sql;
pub mod test;
pub mod texts;
