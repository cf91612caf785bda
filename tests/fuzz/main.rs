//! Decoders meet bytes that nobody has thought of: what begins as something valid and was cut, mixed and repeated. None
//! may panic, and each keeps what it promises beyond that.
//!
//! Each target runs for two seconds, or for `KELVIN_FUZZ_SECONDS`. An input that failed becomes a line of the target's
//! table, so that it is tried first for ever.

mod answers;
mod asts;
mod engine;
mod frames;
mod heads;
mod messages;
mod mutate;
mod operations;
mod pgoutput;
mod records;
#[path = "../support/spelled.rs"]
mod spelled;
mod tokens;
mod upgrades;
mod urls;
mod values;
