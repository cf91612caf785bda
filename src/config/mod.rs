//! Every option, once: flag, `ZERO_` name, default, documentation.
//!
//! `table/` defines the options; the flags, the variables, `--help`, `docs/settings.md` and the checks
//! are made from it. What a user gives passes three stages: `raw` (who gave what), `values` (of the right
//! type), `validate` (a [`Config`]). Each may end start-up with a [`ConfigError`] that names the setting,
//! its value and the remedy.
//!
//! [`parse`] is pure. [`load`] gives it this process's arguments, environment and `.env` file; nothing else
//! in the program reads any of them.

use std::fmt;

mod app;
mod docs;
mod dotenv;
mod endpoint;
mod endpoints;
mod environment;
mod error;
mod help;
mod nearest;
pub mod option;
mod postgres;
mod process;
mod raw;
mod settings;
pub mod table;
#[cfg(test)]
mod tests;
mod validate;
pub mod value;
mod values;

pub use app::App;
pub use docs::settings_page;
pub use endpoint::without_secrets;
pub use endpoint::{Endpoint, UrlRefused, UrlRule};
pub use error::ConfigError;
pub use help::help;
pub use postgres::{PostgresUrl, SslMode};
pub use process::load;
pub use settings::{
    Auth, ChangeStreamer, Compression, Config, InitialSync, JwtKey, LegacySchema, Log, Pool, RecordMode,
    Role, Upstream, WebSocket,
};

/// What defaults depend on.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Processors that this process may use.
    pub cores: usize,
    /// A name for this instance, unique among all, for when the user gives none.
    pub random_id: String,
}

/// What the command line asks for.
#[derive(Debug)]
pub enum Outcome {
    /// To run with these settings.
    Run(Box<Parsed>),
    /// To print this text to standard output and exit with status 0.
    Help(String),
    /// To print the version and exit with status 0.
    Version,
}

/// Settings, and what start-up should log once it can: `notes` at level info.
#[derive(Debug)]
pub struct Parsed {
    /// The settings.
    pub config: Config,
    /// One line each, for level warn.
    pub warnings: Vec<String>,
    /// One line each, for level info.
    pub notes: Vec<String>,
    /// One line each, for level debug.
    pub debug: Vec<String>,
}

/// Makes settings of arguments (without the program's name), environment, and the text of `.env`.
///
/// Flags win over the environment, that over `.env`, that over defaults; an empty value counts as not
/// given (`docs/spec/config-ops.md` §2).
pub fn parse(
    args: impl IntoIterator<Item = String>,
    env: impl IntoIterator<Item = (String, String)>,
    dotenv_text: Option<&str>,
    facts: &Facts,
) -> Result<Outcome, ConfigError> {
    let raw = match raw::collect(args, env, dotenv_text)? {
        raw::Request::Help => return Ok(Outcome::Help(help())),
        raw::Request::Version => return Ok(Outcome::Version),
        raw::Request::Run(raw) => raw,
    };
    let mut values = values::check(raw)?;
    let config = validate::validate(&mut values, facts)?;
    let values::Values { warnings, notes, debug, .. } = values;
    Ok(Outcome::Run(Box::new(Parsed { config, warnings, notes, debug })))
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::SingleNode => "single node",
            Role::ReplicationManager => "replication manager",
            Role::ViewSyncer => "view syncer",
        })
    }
}
