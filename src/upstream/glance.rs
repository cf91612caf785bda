//! Whether upstream's catalogue is another one than a moment ago, where nothing announces that
//! (`docs/spec/schema-changes.md` S8). It costs a small part of a look.

use std::time::{Duration, Instant};

use tokio_postgres::{Client, SimpleQueryMessage};

use super::error::{Doing, Error};

/// How often it is asked, if that takes little.
const GLANCE: Duration = Duration::from_millis(20);

/// So many times the time that it took passes until the next.
const SHARE: u32 = 20;

/// Where it takes longer, a look each second finds things as soon.
const LONGEST: Duration = Duration::from_millis(50);

/// Every version of a row has the number of its transaction, so any change that is visible gives another sum. What
/// users make has OIDs from 16384 on.
const SUMS: &str = "SELECT concat_ws(' ',
    (SELECT sum(xmin::text::int8) FROM pg_class WHERE oid >= 16384),
    (SELECT sum(xmin::text::int8) FROM pg_attribute WHERE attrelid >= 16384),
    (SELECT sum(xmin::text::int8) FROM pg_index WHERE indrelid >= 16384),
    (SELECT sum(xmin::text::int8) FROM pg_enum),
    (SELECT sum(xmin::text::int8) FROM pg_inherits),
    (SELECT sum(xmin::text::int8) FROM pg_namespace),
    (SELECT sum(xmin::text::int8) FROM pg_publication),
    (SELECT sum(xmin::text::int8) FROM pg_publication_rel),
    (SELECT sum(xmin::text::int8) FROM pg_publication_namespace))";

/// What was seen, and when to glance again.
pub struct Glance {
    /// `None`: changes are announced.
    due: Option<Instant>,
    /// Where the log ended. Where nobody writes nothing changes.
    position: String,
    sums: String,
}

impl Glance {
    /// Nothing was seen yet.
    pub fn new() -> Glance {
        Glance { due: None, position: String::new(), sums: String::new() }
    }

    /// When to glance, if at all.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Whether it is needed at all: nothing else announces changes.
    pub fn set_needed(&mut self, is_needed: bool, now: Instant) {
        self.due = match (is_needed, self.due) {
            (true, Some(due)) => Some(due),
            (true, None) => Some(now),
            (false, _) => None,
        };
    }

    /// Whether the catalogue is another one than the last time.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn is_other(&mut self, client: &Client) -> Result<bool, Error> {
        let began = Instant::now();
        let other = self.compare(client).await;
        let took = began.elapsed();
        // The next look, a second later at most, decides anew whether it is needed.
        self.due = (took < LONGEST).then(|| Instant::now() + (took * SHARE).max(GLANCE));
        other
    }

    async fn compare(&mut self, client: &Client) -> Result<bool, Error> {
        let position = text(client, "SELECT pg_current_wal_insert_lsn()").await?;
        if position == self.position {
            return Ok(false);
        }
        let sums = text(client, SUMS).await?;
        self.position = position;
        let is_other = !self.sums.is_empty() && sums != self.sums;
        self.sums = sums;
        Ok(is_other)
    }
}

/// The first value of a query, in one round trip.
async fn text(client: &Client, sql: &str) -> Result<String, Error> {
    let messages = client.simple_query(sql).await.doing("glancing at the catalogue")?;
    let value = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    Ok(value.unwrap_or_default().to_owned())
}
