//! A second opinion on queries, views and client groups: plain data structures and loops,
//! made from the specification alone. Each test binary uses a part of it.
#![allow(dead_code)]

pub mod acting;
pub mod build;
pub mod cell;
pub mod choices;
// Benches use the model without what else tests share.
#[allow(clippy::duplicate_mod)]
#[path = "../support/chunks.rs"]
pub mod chunks;
pub mod client;
pub mod core;
pub mod counts;
pub mod database;
pub mod dialects;
pub mod disk;
pub mod envelope;
pub mod fixture;
pub mod host;
pub mod keeper;
pub mod limits;
pub mod meaning;
pub mod oracle;
pub mod plain_sql;
pub mod print;
pub mod probe;
pub mod quiet;
pub mod random;
pub mod random_query;
pub mod random_world;
pub mod replica;
pub mod restart;
pub mod scenario;
pub mod schema;
pub mod script;
pub mod sheet;
pub mod simulation;
pub mod socket;
#[allow(clippy::duplicate_mod)]
#[path = "../support/spelled.rs"]
pub mod spelled;
pub mod steps;
pub mod tables;
pub mod tree;
pub mod upstream;
pub mod watch;
pub mod wishes;
pub mod world;
