//! Structured, levelled logging (`docs/spec/config-ops.md` §8.1).
//!
//! `debug` and `info` go to standard output, `warn` and `error` to standard error, as text or as one JSON
//! object per line. A caller only formats its line and puts it in a bounded queue; a thread of its own
//! writes. When the queue is full lines are dropped, counted, and the count is logged.
//!
//! ```ignore
//! crate::info!("all workers ready ({ms} ms)");
//! crate::warn!(component = "change-source", watermark = w; "reconnecting in {delay:?}");
//! log::info("reconnected", &[("component", "change-source".into())]);
//! ```
//!
//! Never log tokens, passwords, arguments of mutations or values of rows; `config::Secret` and
//! `config::PostgresUrl` print without theirs.

mod field;
mod line;
mod sink;

use std::cell::Cell;
use std::fmt;
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, SystemTime};

pub use field::Value;
use line::Context;
use sink::Sink;

pub use crate::model::logging::{Format, Level};

struct Logger {
    sink: Sink,
    context: Context,
}

static LOGGER: OnceLock<Logger> = OnceLock::new();
/// Until the settings are known only what needs attention is printed.
static LEVEL: AtomicU8 = AtomicU8::new(Level::Warn as u8);

thread_local! {
    static WORKER: Cell<Option<(&'static str, usize)>> = const { Cell::new(None) };
}

/// Starts the writing thread. `fields` are on every line (`taskID`, …), after the process id. A second
/// call only changes the level.
///
/// # Errors
/// When the system gives no thread.
pub fn start(level: Level, format: Format, fields: &[(&str, Value<'_>)]) -> io::Result<()> {
    if LOGGER.get().is_none() {
        let context = Context::new(format, fields);
        let sink = Sink::start(Box::new(io::stdout()), Box::new(io::stderr()), format)?;
        // Lost only to another start at the same moment, which is as good.
        let _ = LOGGER.set(Logger { sink, context });
    }
    LEVEL.store(level as u8, Ordering::Relaxed);
    Ok(())
}

/// Whether a line of this level would be written. One relaxed load.
pub fn enabled(level: Level) -> bool {
    level as u8 >= LEVEL.load(Ordering::Relaxed)
}

/// Sets the fields `worker` (`syncer`, `replicator`, …) and `workerIndex` of the lines of this thread.
pub fn set_worker(worker: &'static str, index: usize) {
    WORKER.set(Some((worker, index)));
}

/// Writes a line, if its level is enabled. Prefer the macros, which format nothing otherwise.
pub fn write(level: Level, message: fmt::Arguments<'_>, fields: &[(&str, Value<'_>)]) {
    if !enabled(level) {
        return;
    }
    let now = SystemTime::now();
    match LOGGER.get() {
        Some(logger) => {
            logger.sink.push(level, logger.context.line(now, level, WORKER.get(), message, fields))
        }
        None => {
            eprint!("{}", Context::new(Format::Text, &[]).line(now, level, WORKER.get(), message, fields))
        }
    }
}

/// Writes a line of level debug.
pub fn debug(message: &str, fields: &[(&str, Value<'_>)]) {
    write(Level::Debug, format_args!("{message}"), fields);
}

/// Writes a line of level info.
pub fn info(message: &str, fields: &[(&str, Value<'_>)]) {
    write(Level::Info, format_args!("{message}"), fields);
}

/// Writes a line of level warn.
pub fn warn(message: &str, fields: &[(&str, Value<'_>)]) {
    write(Level::Warn, format_args!("{message}"), fields);
}

/// Writes a line of level error.
pub fn error(message: &str, fields: &[(&str, Value<'_>)]) {
    write(Level::Error, format_args!("{message}"), fields);
}

/// Waits until what was logged so far is written, but no longer than `limit`. For the end of the
/// process; never for a core that serves clients. `false` when the time was too short.
pub fn flush(limit: Duration) -> bool {
    LOGGER.get().is_none_or(|logger| logger.sink.flush(limit))
}

/// Number of lines that were dropped because the queue was full.
pub fn dropped() -> u64 {
    LOGGER.get().map_or(0, |logger| logger.sink.dropped())
}

/// Logs at a level: `log_at!(Level::Info; key = value, …; "message {x}")`.
#[macro_export]
macro_rules! log_at {
    ($level:expr; $($key:ident = $value:expr),* $(,)?; $($message:tt)+) => {
        if $crate::observe::log::enabled($level) {
            $crate::observe::log::write(
                $level,
                ::std::format_args!($($message)+),
                &[$((::std::stringify!($key), $crate::observe::log::Value::from($value))),*],
            );
        }
    };
}

/// Logs at level debug: `debug!("message {x}")` or `debug!(key = value, …; "message {x}")`.
#[macro_export]
macro_rules! debug {
    ($($key:ident = $value:expr),+ $(,)?; $($message:tt)+) => {
        $crate::log_at!($crate::observe::log::Level::Debug; $($key = $value),+; $($message)+)
    };
    ($($message:tt)+) => { $crate::log_at!($crate::observe::log::Level::Debug; ; $($message)+) };
}

/// Logs at level info: `info!("message {x}")` or `info!(key = value, …; "message {x}")`.
#[macro_export]
macro_rules! info {
    ($($key:ident = $value:expr),+ $(,)?; $($message:tt)+) => {
        $crate::log_at!($crate::observe::log::Level::Info; $($key = $value),+; $($message)+)
    };
    ($($message:tt)+) => { $crate::log_at!($crate::observe::log::Level::Info; ; $($message)+) };
}

/// Logs at level warn: `warn!("message {x}")` or `warn!(key = value, …; "message {x}")`.
#[macro_export]
macro_rules! warn {
    ($($key:ident = $value:expr),+ $(,)?; $($message:tt)+) => {
        $crate::log_at!($crate::observe::log::Level::Warn; $($key = $value),+; $($message)+)
    };
    ($($message:tt)+) => { $crate::log_at!($crate::observe::log::Level::Warn; ; $($message)+) };
}

/// Logs at level error: `error!("message {x}")` or `error!(key = value, …; "message {x}")`.
#[macro_export]
macro_rules! error {
    ($($key:ident = $value:expr),+ $(,)?; $($message:tt)+) => {
        $crate::log_at!($crate::observe::log::Level::Error; $($key = $value),+; $($message)+)
    };
    ($($message:tt)+) => { $crate::log_at!($crate::observe::log::Level::Error; ; $($message)+) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_macros_take_messages_with_and_without_fields() {
        let watermark = 7u64;
        // Level debug is off here, so that nothing is printed by the test.
        crate::debug!("plain {watermark}");
        crate::debug!("positional {}", watermark);
        crate::debug!(component = "upstream", watermark = watermark; "with fields {}", 1 + 1);
        assert!(!enabled(Level::Debug) && enabled(Level::Error));
    }

    #[test]
    fn levels_are_read_in_lower_case_only() {
        assert_eq!(Level::parse("warn"), Some(Level::Warn));
        assert_eq!(Level::parse("WARN"), None);
        assert_eq!(Level::parse("trace"), None);
    }
}
