//! Heartbeats: small messages of ours in upstream's log (`docs/spec/replication.md`, lag reports).
//!
//! They come back by the stream, so they tell how far behind the replica is, and that the stream moves at all;
//! and they let the slot of a database advance in which nobody writes to a published table.

use std::time::{Duration, Instant};

use kelvin_io::postgres::Error as PostgresError;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::error::{Doing, Error};
use crate::model::logging::Level;
use crate::model::version::StateVersion;
use crate::replica::events::Events;
use crate::replica::lag::Lag;

/// When the first is sent: the stream has just been connected.
const FIRST: Duration = Duration::from_secs(1);

/// Lags from which on they are logged, and from which on an operator should look.
const NOTICEABLE: Duration = Duration::from_secs(1);
const LARGE: Duration = Duration::from_secs(10);

/// What follows the shard's own prefix in the prefix of a heartbeat.
pub const SUFFIX: &str = "/heartbeat";

/// When the next one is due, and how it is written.
pub struct Heartbeat {
    prefix: String,
    /// `None`: none is written.
    interval: Option<Duration>,
    due: Instant,
}

impl Heartbeat {
    /// `prefix`: of the shard's messages.
    pub fn new(prefix: &str, interval: Option<Duration>, now: Instant) -> Heartbeat {
        Heartbeat { prefix: format!("{prefix}{SUFFIX}"), interval, due: now + FIRST }
    }

    /// When the next one is to be written, if one is.
    pub fn due(&self) -> Option<Instant> {
        self.interval.map(|_| self.due)
    }

    /// Writes one. Where that is not possible it is said once, and no more are written.
    pub async fn beat(&mut self, client: &Client, lag: &Lag, events: &dyn Events) -> Result<(), Error> {
        let Some(interval) = self.interval else { return Ok(()) };
        self.due = Instant::now() + interval;
        tell(lag.known(Instant::now()).time, events);
        let sent = Instant::now();
        // Where the log ended before: the message says where it begins when it comes, not where it ends.
        let written = client
            .query_one(
                "SELECT pg_current_wal_insert_lsn()::text, pg_logical_emit_message(false, $1, '')::text",
                &[&self.prefix],
            )
            .await;
        match written {
            Ok(row) => {
                let position = row.get::<_, Option<&str>>(0).and_then(StateVersion::from_lsn);
                position.into_iter().for_each(|position| lag.sent(position, sent));
                Ok(())
            }
            Err(error) if is_refused(&error) => {
                self.interval = None;
                events.log(
                    Level::Warn,
                    "the replication lag is not measured, and a stream that stands still is not noticed: upstream \
                     takes no logical messages from this role. Grant it EXECUTE on pg_logical_emit_message(boolean, \
                     text, text), or set ZERO_REPLICATION_LAG_REPORT_INTERVAL_MS=0",
                    &[("error", PostgresError::from(error).to_string())],
                );
                Ok(())
            }
            Err(error) => Err(error).doing("writing a heartbeat"),
        }
    }
}

/// Whether trying again is of no use.
fn is_refused(error: &tokio_postgres::Error) -> bool {
    let refused = [
        SqlState::INSUFFICIENT_PRIVILEGE,
        SqlState::READ_ONLY_SQL_TRANSACTION,
        // A standby.
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
    ];
    error.code().is_some_and(|code| refused.contains(code))
}

fn tell(lag: Duration, events: &dyn Events) {
    let level = match lag {
        lag if lag > LARGE => Level::Warn,
        lag if lag > NOTICEABLE => Level::Info,
        _ => return,
    };
    events.log(level, "the replica is behind upstream", &[("lagMs", lag.as_millis().to_string())]);
}
