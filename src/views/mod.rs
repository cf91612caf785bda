//! Shared views: who holds which rows, and what changed.
//!
//! A view is a query as it is executed, held once per core, whichever and however many
//! client groups want it. It is a set of row numbers that is kept equal to what the
//! evaluator finds. This module decides and never performs: it opens no file, sends
//! nothing, reads no clock.

pub mod collect;
pub mod contents;
pub mod fragment;
pub mod full;
pub mod journal;
pub mod registry;
pub mod rows;
pub mod view;
