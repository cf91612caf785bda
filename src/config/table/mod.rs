//! The table of all options, by group, in the order in which `--help` prints them.
//!
//! To add an option: one entry in the file of its group. Its flag, its variable, `--help`,
//! `docs/settings.md` and the checks of its value follow. An option that acts is then read in
//! `validate.rs`; one that does not says why with `not_yet`, `missing` or `ignored`.

use super::option::Opt;

pub mod api;
pub mod app;
pub mod auth;
pub mod backup;
pub mod databases;
pub mod engine;
pub mod legacy;
pub mod network;
pub mod observability;
pub mod replica;
pub mod streamer;

/// Options that are documented together.
#[derive(Debug)]
pub struct Section {
    /// Heading in `--help` and in the docs.
    pub title: &'static str,
    /// The options, most important first.
    pub options: &'static [&'static Opt],
}

/// All groups, in the order of `--help`.
pub static GROUPS: &[Section] = &[
    Section { title: "Databases", options: databases::OPTIONS },
    Section { title: "App, publications, shard", options: app::OPTIONS },
    Section { title: "The app's own endpoints", options: api::OPTIONS },
    Section { title: "Authentication and administration", options: auth::OPTIONS },
    Section { title: "Ports and sockets", options: network::OPTIONS },
    Section { title: "Replica and replication", options: replica::OPTIONS },
    Section { title: "Cores and queries", options: engine::OPTIONS },
    Section { title: "Logs and identity", options: observability::OPTIONS },
    Section { title: "Several nodes", options: streamer::OPTIONS },
    Section { title: "Backup", options: backup::OPTIONS },
    Section { title: "Names of older releases", options: legacy::OPTIONS },
];

/// Every option, in table order.
pub fn all() -> impl Iterator<Item = &'static Opt> {
    GROUPS.iter().flat_map(|group| group.options.iter().copied())
}

/// Defines options as statics, and `OPTIONS` as the list of them in the order written.
macro_rules! options {
    ($($name:ident = $opt:expr;)+) => {
        $(
            #[doc = concat!("See `", stringify!($name), "` in `docs/settings.md`.")]
            pub static $name: Opt = $opt;
        )+
        /// The options of this group, in the order of `--help`.
        pub static OPTIONS: &[&Opt] = &[$(&$name),+];
    };
}
use options;
