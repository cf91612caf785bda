//! The threads of a replica, begun and ended together.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use kelvin_io::channel::{Receiver, bounded};

use super::checkpoint::{Checkpointer, Gate};
use super::durable::SyncThread;
use super::error::Error;
use super::gauges::Gauges;
use super::writer::{self, Commits, Writer};

/// One writes, one makes durable what was written, one keeps the log short.
pub(super) struct Threads {
    pub writer: Writer,
    pub checkpointer: Checkpointer,
    /// A message for every sync; the first failure is the last one.
    pub synced: Receiver<Result<(), Error>>,
    syncer: SyncThread,
    checkpoints: JoinHandle<()>,
}

impl Threads {
    /// Starts them on a replica. Blocks shortly.
    pub fn start(
        path: &Path,
        start: writer::WriterParts,
        gauges: &Arc<Gauges>,
        commits: Commits,
    ) -> Result<Threads, Error> {
        let gate = Arc::new(Gate::default());
        let (notify, synced) = bounded(1);
        let syncer = SyncThread::start(path, gauges.clone(), notify)?;
        let writer = Writer::start(path, start, gauges.clone(), gate.clone(), syncer.written(), commits)?;
        let (checkpointer, checkpoints) = Checkpointer::start(path, gate)?;
        Ok(Threads { writer, checkpointer, synced, syncer, checkpoints })
    }

    /// Ends all of them. Blocks.
    pub fn stop(self) {
        let Threads { writer, checkpointer, synced, syncer, checkpoints } = self;
        synced.close();
        // A held gate would only delay the writer.
        checkpointer.end();
        writer.stop();
        syncer.stop();
        // Whoever closes the file last copies the log into it: nobody may do so later, when the file may be another's.
        let _ = checkpoints.join();
    }
}
