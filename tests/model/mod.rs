//! A second opinion on queries, views and client groups: plain data structures and loops,
//! made from the specification alone. Each test binary uses a part of it.
#![allow(dead_code)]

pub mod build;
pub mod cell;
pub mod choices;
pub mod client;
pub mod core;
pub mod database;
pub mod fixture;
pub mod keeper;
pub mod meaning;
pub mod print;
pub mod probe;
pub mod quiet;
pub mod random;
pub mod random_query;
pub mod replica;
pub mod schema;
pub mod script;
pub mod sheet;
pub mod steps;
pub mod tables;
pub mod tree;
pub mod world;
