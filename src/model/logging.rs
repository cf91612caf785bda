//! How severe a line of the log is, and how lines are written: settings say it, and whoever logs does.

/// How severe a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// For finding a fault in the program.
    Debug,
    /// What an operator wants to have read later.
    Info,
    /// What an operator should look at.
    Warn,
    /// What does not work.
    Error,
}

impl Level {
    /// Reads `debug`, `info`, `warn` or `error`, in lower case.
    pub fn parse(text: &str) -> Option<Level> {
        [Level::Debug, Level::Info, Level::Warn, Level::Error].into_iter().find(|level| {
            level.name().eq_ignore_ascii_case(text) && text.bytes().all(|b| b.is_ascii_lowercase())
        })
    }

    /// In upper case, as it is printed.
    pub fn name(self) -> &'static str {
        match self {
            Level::Debug => "DEBUG",
            Level::Info => "INFO",
            Level::Warn => "WARN",
            Level::Error => "ERROR",
        }
    }
}

/// How a line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Time (UTC), level, fields, message.
    Text,
    /// One JSON object, without a time: log collectors add their own.
    Json,
}
