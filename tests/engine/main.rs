//! Views, groups and their records, and the simulation that drives all of them; no server runs, except to compare.

#[path = "../model/mod.rs"]
mod model;
#[path = "../support/mod.rs"]
mod support;

mod core_outboxes;
mod core_sessions;
mod core_tasks;
mod driving;
mod exists_checklist;
mod group_budgets;
mod group_dialects;
mod group_held;
mod group_history;
mod group_hydrations;
mod group_pokes;
mod group_records;
mod group_streams;
mod group_time;
mod like;
mod plain_sql;
mod purging;
mod query_answers;
mod query_checklist;
mod query_failures;
mod query_limits;
mod shedding;
mod simulation;
mod sources;
mod view_maintenance;
