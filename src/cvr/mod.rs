//! Client view records: what views held and what groups had been told, on disk (rules 18 to 20,
//! 23, 24; `docs/decisions/007-record-log.md`).
//!
//! A restart then costs what changed meanwhile, not everything. What decides is pure: bytes
//! come out of a [`crate::groups::record_log::RecordLog`], and go into a [`replay::Replay`]; `server/` writes
//! and reads the files.

pub mod frame;
mod known;
mod limit;
pub mod names;
pub mod parts;
pub mod record;
mod record_bytes;
pub mod recovered;
pub mod replay;
mod sealing;
