//! Looks at what is published, so that it is known where in the stream it is so (`docs/spec/schema-changes.md` S7).

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use kelvin_io::executor;
use kelvin_io::postgres::{Connection, connect};
use tokio_postgres::Client;

use super::check::Server;
use super::decode::MARKER_SUFFIX;
use super::error::{Doing, Error};
use super::published::{self, Published};
use super::schema_change::Looks;
use super::settings::Settings;
use super::shard::Shard;

/// Longest time that a look may take: a catalogue of ten thousands of tables is read in some seconds. A connection
/// that has taken longer is given up, as it may be dead without a word.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Times that a look is begun again because something changed meanwhile, before it is given up for now: a migration
/// of many statements that commit one by one changes something every few milliseconds.
const ATTEMPTS: u32 = 100;

/// Looks at upstream, for the stream and for the watch.
pub struct Looker {
    settings: Rc<Settings>,
    shard: Rc<Shard>,
    server: Server,
    instance: String,
    /// What was seen and has not come by the stream yet.
    pub looks: Rc<RefCell<Looks>>,
}

impl Looker {
    /// `instance`: no other process has the same.
    pub fn new(settings: Rc<Settings>, shard: Rc<Shard>, server: Server, instance: String) -> Looker {
        Looker { settings, shard, server, instance, looks: Rc::default() }
    }

    /// What is published at the moment. It may be something else in the next one.
    pub async fn published(&self, client: &Client) -> Result<Published, Error> {
        published::read(client, &self.shard.publications(), self.server.version).await
    }

    /// Looks, by a connection of its own.
    pub async fn look_anew(&self) -> Result<(), Error> {
        let looking = async {
            let connection: Connection = connect(&self.settings.target, "zero-schema-look")
                .await
                .doing("connecting to look at the schema")?;
            self.look(&connection.client).await
        };
        let late = || Err(Error::Setup("upstream did not answer a look at the schema in time".into()));
        executor::timeout(LIMIT, looking).await.unwrap_or_else(late)
    }

    /// Looks, writes the marker, and looks again: what was so before and after was so where the marker stands. No lock
    /// is taken, since a migration that is under way would have to wait for it, or the other way round.
    pub async fn look(&self, client: &Client) -> Result<(), Error> {
        let mut before = self.published(client).await?;
        for _ in 0..ATTEMPTS {
            let marker = self.looks.borrow_mut().begin(&self.instance);
            let prefix = format!("{}{MARKER_SUFFIX}", self.shard.message_prefix());
            client
                .execute("SELECT pg_logical_emit_message(true, $1, $2)", &[&prefix, &marker])
                .await
                .doing("writing where the schema was looked at")?;
            let after = self.published(client).await?;
            if after == before {
                self.looks.borrow_mut().end(&marker, Some(after));
                return Ok(());
            }
            self.looks.borrow_mut().end(&marker, None);
            before = after;
        }
        Err(Error::Setup("the schema changes all the time".into()))
    }
}
