//! Metrics and logs: what an operator sees of a running server.
//!
//! Nothing here decides anything, and nothing here makes a core wait: metrics are relaxed atomics of the
//! core itself, logs go through a bounded queue to a thread of their own. Times are given by the callers,
//! so that simulated runs measure simulated time.

pub mod exposition;
pub mod histogram;
pub mod log;
pub mod metrics;
pub mod registry;
pub mod statz;
