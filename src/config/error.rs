//! A setting that cannot be accepted.

use std::fmt;

/// Longest part of a bad value that a message repeats.
const SHOWN_CHARS: usize = 80;

/// Start-up cannot go on: one message that names the setting, its value and the remedy.
///
/// Usually caused by a typing error or by a variable meant for something else. Print it to standard
/// error and exit with [`ConfigError::EXIT_STATUS`] (`docs/spec/rulings.md`, 20).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The setting as the user wrote it: `--port`, `ZERO_PORT`, or `ZERO_PORT (in .env)`.
    pub setting: String,
    /// The whole message, which names the setting too.
    pub message: String,
}

impl ConfigError {
    /// Exit status of a process that was started with settings that it cannot accept.
    pub const EXIT_STATUS: i32 = 2;

    /// `setting` has the value `shown` (already redacted), of which `problem` says what is wrong.
    pub(super) fn bad(setting: &str, shown: &str, problem: &str, remedy: &str) -> ConfigError {
        ConfigError { setting: setting.to_owned(), message: format!("{setting}={shown} {problem}. {remedy}") }
    }

    /// An error about `setting` for which no value has to be shown.
    pub(super) fn plain(setting: &str, message: String) -> ConfigError {
        ConfigError { setting: setting.to_owned(), message }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ConfigError {}

/// `value` in quotes, shortened; nothing of it when it is secret.
pub(super) fn shown(value: &str, secret: bool) -> String {
    if secret {
        return "(hidden)".to_owned();
    }
    match value.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{:?}", format!("{}…", &value[..end])),
        None => format!("{value:?}"),
    }
}
