//! The app and its shard, and the names that follow from them (`docs/spec/replication.md` §2).

/// Which app this server serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App {
    /// `[a-z0-9_]+`; also the name of the global schema upstream.
    pub id: String,
    /// The user's own publications, in configured order, each once; empty for the default one.
    pub publications: Vec<String>,
    /// Number of the shard.
    pub shard_num: u32,
}

impl App {
    /// The upstream schema of the shard, `zero_0`; also the legacy name of the slot.
    pub fn shard_schema(&self) -> String {
        format!("{}_{}", self.id, self.shard_num)
    }

    /// The publication of all public tables, `_zero_public_0`.
    pub fn default_publication(&self) -> String {
        format!("_{}_public_{}", self.id, self.shard_num)
    }

    /// The publication of the shard's own tables, `_zero_metadata_0`.
    pub fn metadata_publication(&self) -> String {
        format!("_{}_metadata_{}", self.id, self.shard_num)
    }

    /// What the names of slots begin with, `zero_0_`.
    pub fn slot_prefix(&self) -> String {
        self.shard_schema() + "_"
    }

    /// What the prefixes of logical messages begin with, `zero/0`.
    pub fn message_prefix(&self) -> String {
        format!("{}/{}", self.id, self.shard_num)
    }
}

/// Whether Postgres objects may be named after `id`: `^[a-z0-9_]+$`.
pub(super) fn is_app_id(id: &str) -> bool {
    !id.is_empty() && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

/// Whether `name` is one that a user's publication may have: `^[a-zA-Z_][a-zA-Z0-9_]*$`, at most 63
/// characters, and not starting with `_`, which is kept for the server's own.
pub(super) fn is_user_publication(name: &str) -> bool {
    let first_is_letter = name.starts_with(|c: char| c.is_ascii_alphabetic());
    first_is_letter && name.len() <= 63 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}
