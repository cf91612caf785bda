//! Client groups: desires, cookies, poke composition.
//!
//! A client group is its clients and what each wants, the views it has, the cookie of what
//! it was told, and its last mutation ids. It has no rows of its own. Everything here is
//! decided from arguments; frames go out through [`sink::Sink`].

mod arrivals;
pub mod catchup;
mod compose;
pub mod config_change;
pub mod desires;
pub mod execution;
mod failures;
mod filling;
pub mod forgotten;
pub mod group;
pub mod group_record;
mod history;
pub mod housekeeping;
pub mod inspect;
pub mod limits;
pub mod mutations;
pub mod purging;
pub mod query;
pub mod reading;
mod record_changes;
pub mod record_log;
pub mod recovered_views;
pub mod resends;
pub mod restore;
mod row_naming;
pub mod schema;
mod schema_change;
pub mod shared;
pub mod shedding;
pub mod sink;
pub mod sorted;
pub mod step;
mod stream;
pub mod syncer;
pub mod user;
