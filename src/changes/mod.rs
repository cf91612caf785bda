//! Commits: what one upstream transaction changed, and how cores hear of it.
//!
//! Rules 1 and 2 of `docs/spec/rules.md`.

pub mod batch;
pub mod commit;
pub mod faults;
pub mod panics;
pub mod queue;
pub mod version;
