//! Inputs that want to do harm, by the way that they come.

mod answers;
mod asts;
mod bystander;
mod delay;
mod frames;
mod http;
mod messages;
mod mutations;
mod outcome;
mod suite;
mod tokens;
mod upgrades;
