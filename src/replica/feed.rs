//! Between a source and the writer: operations go in, and come back as positions that are safe.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Instant;

use kelvin_io::channel::{Receiver, Sender, bounded};

use super::gauges::Gauges;
use super::work::{Copied, FillWork, Op, Operations, Reached, Work};
use crate::model::ids::TableId;
use crate::model::version::StateVersion;

/// What a source is given by its engine.
pub struct Feed {
    queue: Sender<Work>,
    /// Gets a message when more has become durable. One says all: look again.
    synced: Receiver<()>,
    gauges: Arc<Gauges>,
    /// A connection of this run has streamed: a further one is a reconnect.
    has_streamed: Cell<bool>,
}

/// Where the rows of tables go that are being filled.
#[derive(Clone)]
pub struct FillFeed {
    queue: Sender<Work>,
}

impl FillFeed {
    pub(super) fn new(queue: Sender<Work>) -> FillFeed {
        FillFeed { queue }
    }

    /// Begins to fill a table with its rows as they were after all transactions below a position.
    pub async fn begin(&self, table: TableId, from: StateVersion) -> Result<(), WriterGone> {
        self.send(FillWork::Begin { table, from }).await
    }

    /// Hands over some rows. Whoever waits until they are stored before it hands over more lets changes of the stream have their
    /// turn in between.
    pub async fn rows(&self, table: TableId, rows: Copied) -> Result<Stored, WriterGone> {
        let (reply, stored) = bounded(1);
        self.send(FillWork::Rows { table, rows, reply }).await?;
        Ok(Stored(stored))
    }

    /// Says that these were all rows, and waits until the table can be shown. False: it has become another meanwhile.
    pub async fn end(&self, table: TableId) -> Result<bool, WriterGone> {
        let (reply, filled) = bounded(1);
        self.send(FillWork::End { table, reply }).await?;
        Ok(filled.recv().await.is_ok())
    }

    async fn send(&self, work: FillWork) -> Result<(), WriterGone> {
        self.queue.send(Work::Fill(work)).await.map_err(|_| WriterGone)
    }
}

/// Rows that the writer was given.
pub struct Stored(Receiver<Result<u64, String>>);

impl Stored {
    /// Waits until they are stored. Returns how many there were, or what is wrong with them.
    pub async fn count(self) -> Result<Result<u64, String>, WriterGone> {
        self.0.recv().await.map_err(|_| WriterGone)
    }
}

/// The writer takes nothing more. It says why itself.
#[derive(Debug)]
pub struct WriterGone;

impl Feed {
    /// The feed of a writer's queue, and where the engine says that more is durable.
    pub(super) fn new(queue: Sender<Work>, gauges: Arc<Gauges>) -> (Feed, Sender<()>) {
        let (sender, synced) = bounded(1);
        (Feed { queue, synced, gauges, has_streamed: Cell::new(false) }, sender)
    }

    /// There is a connection, and what follows comes from it.
    pub fn connected(&self) {
        if self.has_streamed.replace(true) {
            self.gauges.reconnected();
        }
        self.gauges.lag.connected(true, Instant::now());
    }

    /// Hands operations to the writer. Waits while it has enough to do: a source that reads no further
    /// meanwhile is all the back-pressure that there is.
    pub async fn hand_on(&self, batch: Operations) -> Result<(), WriterGone> {
        self.queue.send(Work::Changes(batch)).await.map_err(|_| WriterGone)
    }

    /// Position up to which the replica has committed.
    pub fn written(&self) -> StateVersion {
        self.gauges.written()
    }

    /// Position up to which the replica survives a power cut.
    pub fn durable(&self) -> StateVersion {
        self.gauges.durable()
    }

    /// Waits until more may have become durable.
    pub async fn durable_grew(&self) {
        if self.synced.recv().await.is_err() {
            // The engine is about to end, and this with it.
            std::future::pending().await
        }
    }

    /// The connection is over: whatever is incomplete is undone.
    pub(super) async fn disconnected(&self) {
        self.gauges.lag.connected(false, Instant::now());
        let abort = Operations { ops: vec![Op::Abort], arrived: None };
        // The writer is gone: then there is nothing to undo.
        let _ = self.hand_on(abort).await;
    }

    /// Waits until the writer has committed or undone all that is queued, and returns where the replica is.
    pub(super) async fn settle(&self) -> Result<Reached, WriterGone> {
        let (reply, settled) = bounded(1);
        self.queue.send(Work::Settle(reply)).await.map_err(|_| WriterGone)?;
        settled.recv().await.map_err(|_| WriterGone)
    }
}
