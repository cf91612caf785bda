//! Somebody hostile is let in, or gets as far as an upgrade, or has taken over the app's backend. He is told no, or
//! served, and nobody else notices: a bystander's pings are answered promptly all the time, and its rows are right.
//!
//! Each file is a table: an input, what is sent, what must be seen. One server meets all of a table.

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
