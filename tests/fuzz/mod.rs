//! Targets by what they decode.

mod answers;
mod asts;
mod engine;
mod frames;
mod heads;
mod messages;
mod mutate;
mod pgoutput;
mod records;
mod tokens;
mod upgrades;
mod urls;
mod values;
