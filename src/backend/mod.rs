//! The app's own endpoints: query transformation and mutation push.
//!
//! Bodies and answers are made and read without any I/O; [`call`] performs a request.

pub mod answers;
pub mod call;
pub mod clean_up;
pub mod context;
mod failure;
pub mod fair_queue;
pub mod push;
pub mod transform;
pub mod turns;
