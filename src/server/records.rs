//! Writes what a core records, before what was sent meanwhile leaves (rule 23).
//!
//! While a write is under way, what is recorded collects, and what is sent is held: the next write
//! takes all of it (group commit). The record of a batch is one append, which begins as soon as it
//! is known; a task per core does all else. A disk that fails stops the core's
//! groups, with a reason, until it takes a whole new file.

mod recovery;

use std::cell::{Cell, RefCell};
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_lite::FutureExt;
use kelvin_io::append_file::AppendFile;
use kelvin_io::channel::{Receiver, Sender, bounded};
use kelvin_io::executor::{blocking, now, spawn};

use self::recovery::{fail, recover, refusal};
use super::core::Core;
use super::record_files;
use crate::config::RecordMode;
use crate::core::effect::Event;
use crate::core::host::RecordQueue;
use crate::cvr::frame::MAX_PAYLOAD;
use crate::groups::recorder::{LogName, Output};
use crate::protocol::error::ProtocolError;

/// Bytes that may wait to be written before the filling of a file pauses: what is live comes first.
const MAX_FILLING: usize = 4 << 20;

/// Bytes that may wait before no more views are read: each of them is recorded with its rows. A
/// disk that is slower than the readers would otherwise fill the memory.
const MAX_WAITING: usize = 32 << 20;

/// Time between warnings of what is not recorded.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// Cores whose present file is complete, over the process.
pub type Completed = Arc<AtomicUsize>;

/// What becomes of the present file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writing {
    Nothing,
    /// An append of so many bytes is under way. Whoever looks first when it is done lets go what waits for it.
    Begun(usize),
    /// The writing task does more than that.
    Whole,
}

/// The record log of one core.
pub struct Records {
    mode: RecordMode,
    directory: PathBuf,
    cores: usize,
    completed: Completed,
    name: Cell<Option<LogName>>,
    waiting: RefCell<Vec<Output>>,
    waiting_bytes: Cell<usize>,
    /// The present file; not while it is written with more than one append.
    file: RefCell<Option<AppendFile>>,
    writing: Cell<Writing>,
    /// Why what was begun has failed.
    broken: RefCell<Option<io::Error>>,
    failed: Cell<bool>,
    /// Number of the present file, and whether one was complete.
    sequence: Cell<u64>,
    was_complete: Cell<bool>,
    /// What has not been recorded since that was said last.
    unrecorded: Cell<usize>,
    said_at: Cell<Option<Instant>>,
    signal: (Sender<()>, Receiver<()>),
}

impl Records {
    /// Of a core; nothing is written before [`start`].
    pub fn new(mode: RecordMode, directory: PathBuf, cores: usize, completed: Completed) -> Records {
        Records {
            mode,
            directory,
            cores,
            completed,
            name: Cell::new(None),
            waiting: RefCell::default(),
            waiting_bytes: Cell::new(0),
            file: RefCell::default(),
            writing: Cell::new(Writing::Nothing),
            broken: RefCell::default(),
            failed: Cell::new(false),
            sequence: Cell::new(0),
            was_complete: Cell::new(false),
            unrecorded: Cell::new(0),
            said_at: Cell::new(None),
            signal: bounded(1),
        }
    }

    /// Whether something is recorded.
    pub fn is_on(&self) -> bool {
        self.name.get().is_some()
    }

    /// Whether what is sent now has to wait for a write.
    pub fn is_behind(&self) -> bool {
        self.writing.get() != Writing::Nothing || self.waiting_bytes.get() > 0
    }

    /// How much waits to be written.
    pub fn queue(&self) -> RecordQueue {
        match self.waiting_bytes.get() {
            _ if self.failed.get() => RecordQueue::Failed,
            bytes if bytes > MAX_WAITING => RecordQueue::Overfull,
            bytes if bytes > MAX_FILLING => RecordQueue::Long,
            _ => RecordQueue::Short,
        }
    }

    /// Why no groups are served at present, if they are not.
    pub fn refusal(&self) -> Option<ProtocolError> {
        self.failed.get().then(refusal)
    }

    /// Takes what has to be written.
    pub fn push(&self, output: Output) {
        if output.unrecorded > 0 {
            self.say_unrecorded(output.unrecorded);
        }
        self.waiting_bytes.set(self.waiting_bytes.get() + output.len().max(1));
        self.waiting.borrow_mut().push(output);
        self.wake_writer();
    }

    /// Some views or groups are not recorded. Said at once, and then no more than once in a while: a client can
    /// bring it about again and again.
    fn say_unrecorded(&self, count: usize) {
        let count = self.unrecorded.get() + count;
        self.unrecorded.set(count);
        let is_due = self.said_at.get().is_none_or(|at| now().saturating_duration_since(at) >= SAY_AGAIN);
        if !is_due {
            return;
        }
        self.said_at.set(Some(now()));
        self.unrecorded.set(0);
        crate::warn!(
            count = count;
            "some client groups or views are not recorded, since a key of a row, or what a group asks for, is larger \
             than {MAX_PAYLOAD} bytes together: after a restart their clients are sent everything anew. Queries \
             with smaller arguments, or fewer of them, help"
        );
    }

    fn wake_writer(&self) {
        // A full queue means that the writer knows.
        let _ = self.signal.0.try_send(());
    }

    /// Begins to write what waits, if that is one append to the present file; the writing task does
    /// the rest. So the write is under way while the clients of a batch are told.
    pub fn begin(&self) -> bool {
        if self.writing.get() != Writing::Nothing || self.waiting.borrow().is_empty() {
            return false;
        }
        let begun = self.begin_one();
        match begun {
            Some(length) => {
                self.waiting_bytes.set(0);
                self.writing.set(Writing::Begun(length));
            }
            // It may still wait for what is done: its completion was taken by whoever saw it first, so
            // no event of the ring tells it.
            None => self.wake_writer(),
        }
        begun.is_some()
    }

    /// The length of what was begun.
    fn begin_one(&self) -> Option<usize> {
        let mut waiting = self.waiting.borrow_mut();
        let is_plain =
            |output: &Output| output.next.is_none() && !output.complete && !output.bytes.is_empty();
        if self.mode != RecordMode::Written || waiting.len() != 1 || !is_plain(&waiting[0]) {
            return None;
        }
        let mut file = self.file.borrow_mut();
        let file = file.as_mut()?;
        let bytes = std::mem::take(&mut waiting[0].bytes);
        let length = bytes.len();
        match file.begin(bytes) {
            Ok(()) => {
                waiting.clear();
                Some(length)
            }
            Err(bytes) => {
                waiting[0].bytes = bytes;
                None
            }
        }
    }

    /// Whether what was begun is done now; how many bytes. A failure is left to the writing task.
    pub fn is_done(&self) -> Option<usize> {
        match self.poll()? {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                self.broken.replace(Some(error));
                self.wake_writer();
                None
            }
        }
    }

    fn poll(&self) -> Option<io::Result<usize>> {
        let Writing::Begun(length) = self.writing.get() else { return None };
        let result = self.file.borrow_mut().as_mut()?.poll()?;
        if result.is_ok() {
            self.writing.set(Writing::Nothing);
        }
        Some(result.map(|()| length))
    }

    /// Waits until what was begun is done, or more is to be written.
    async fn until_done(&self) -> io::Result<()> {
        let Some(done) = self.file.borrow().as_ref().map(AppendFile::done) else { return Ok(()) };
        let more = async {
            let _ = self.signal.1.recv().await;
            Ok(())
        };
        done.wait().or(more).await
    }

    fn take(&self) -> Vec<Output> {
        self.waiting_bytes.set(0);
        std::mem::take(&mut *self.waiting.borrow_mut())
    }
}

/// Begins to record. The groups that were restored must be there.
pub fn start(core: &Rc<Core>, name: LogName) {
    if core.records.mode == RecordMode::Off {
        return;
    }
    core.records.name.set(Some(name));
    core.with(|s| s.shared.recorder.start(name));
    core.supervisor.spawn("writing records", write(core.clone(), name));
    core.tell(Event::FillRecords);
}

async fn write(core: Rc<Core>, name: LogName) {
    while core.records.signal.1.recv().await.is_ok() {
        while core.records.is_behind() && !core.records.failed.get() {
            let written = match core.records.writing.get() {
                Writing::Begun(_) => finish(&core.records).await,
                _ => write_whole(&core, name).await.map(Some),
            };
            match written {
                Ok(Some(bytes)) => written_some(&core, bytes),
                // Somebody else has seen it.
                Ok(None) => {}
                Err(error) => {
                    fail(&core, &error);
                    let guard = core.supervisor.guard("waiting for a disk that takes records");
                    let core = core.clone();
                    spawn(async move {
                        recover(core).await;
                        guard.done();
                    })
                    .detach();
                }
            }
        }
    }
}

/// Waits for what was begun; the bytes of it, or `None` if somebody else has seen that it is done.
async fn finish(records: &Records) -> io::Result<Option<usize>> {
    while let Writing::Begun(_) = records.writing.get() {
        if let Some(error) = records.broken.take() {
            return Err(error);
        }
        if let Some(result) = records.poll() {
            return result.map(Some);
        }
        records.until_done().await?;
    }
    Ok(None)
}

/// Writes all that waits.
async fn write_whole(core: &Core, name: LogName) -> io::Result<usize> {
    let records = &core.records;
    records.writing.set(Writing::Whole);
    let outputs = records.take();
    core.send_buffer.mark();
    let bytes = outputs.iter().map(Output::len).sum();
    let mut file = records.file.take();
    write_some(records, name, &mut file, outputs).await?;
    records.file.replace(file);
    records.writing.set(Writing::Nothing);
    Ok(bytes)
}

/// Something was written: what was told before may go.
pub fn written_some(core: &Core, bytes: usize) {
    core.metrics.records_written(bytes);
    core.send_buffer.release_marked(!core.records.is_behind());
    core.tell(Event::Recorded);
}

async fn write_some(
    records: &Records,
    name: LogName,
    file: &mut Option<AppendFile>,
    outputs: Vec<Output>,
) -> io::Result<()> {
    let (mut bytes, mut complete) = (Vec::new(), None);
    for output in outputs {
        bytes.extend(output.bytes);
        if let Some((sequence, first)) = output.next {
            append(records, file, std::mem::take(&mut bytes)).await?;
            if let Some(old) = file.take() {
                old.close().await;
            }
            let path = records.directory.join(record_files::name(name.epoch, name.core, sequence));
            *file = Some(AppendFile::create(&path).await?);
            complete = None;
            bytes = first;
            records.sequence.set(sequence);
        }
        complete = if output.complete { Some(()) } else { complete };
    }
    append(records, file, bytes).await?;
    if complete.is_some() {
        // What the older files say must not be lost before this one is safe.
        if let Some(file) = file {
            file.sync().await?;
        }
        remove_older(records, name).await;
    }
    Ok(())
}

async fn append(records: &Records, file: &mut Option<AppendFile>, bytes: Vec<u8>) -> io::Result<()> {
    let Some(file) = file.as_mut().filter(|_| !bytes.is_empty()) else { return Ok(()) };
    file.append(bytes).await?;
    if records.mode == RecordMode::Synced {
        file.sync().await?;
    }
    Ok(())
}

/// Removes the files that the present one replaces. Those of earlier processes go when every core
/// has written what it took over.
async fn remove_older(records: &Records, name: LogName) {
    let sequence = records.sequence.get();
    let is_first = !records.was_complete.replace(true);
    let done = match is_first {
        true => records.completed.fetch_add(1, Ordering::AcqRel) + 1,
        false => records.completed.load(Ordering::Acquire),
    };
    let (directory, all) = (records.directory.clone(), done >= records.cores);
    let is_over = move |epoch: u64, core: usize, number: u64| {
        (all && epoch < name.epoch) || (epoch == name.epoch && core == name.core && number < sequence)
    };
    let result = blocking(move || record_files::remove(&directory, is_over)).await;
    if let Err(error) = result {
        // They are read once more at the next start, which changes nothing.
        crate::warn!(core = name.core; "an old record log could not be removed: {error}");
    }
}

#[cfg(test)]
mod tests {
    use kelvin_io::executor::start;

    use super::*;
    use crate::model::version::StateVersion;

    fn output() -> Output {
        Output { bytes: vec![1; 100], ..Output::default() }
    }

    /// The writing task sleeps while something waits to be written: it waits for the end of an append
    /// that was taken from the ring before it came to wait, so nothing will ever wake it.
    #[test]
    fn what_collects_during_an_append_is_written_after_somebody_else_saw_its_end() {
        let directory = std::env::temp_dir();
        let path = directory.join(format!("kelvin-collects-{}", std::process::id()));
        let file = path.clone();
        let executor = start("test", None, move || async move {
            let records = Records::new(RecordMode::Written, directory, 1, Completed::default());
            let mut made = AppendFile::create(&file).await.unwrap();
            made.append(b"room".to_vec()).await.unwrap();
            records.file.replace(Some(made));
            records.push(output());
            assert!(records.begin());
            // The writing task has heard of all of it, and waits for the end.
            (0..2).for_each(|_| records.push(output()));
            records.signal.1.recv().await.unwrap();
            while records.is_done().is_none() {
                std::thread::yield_now();
            }
            assert!(!records.begin());
            (records.is_behind(), records.signal.1.len())
        });
        assert_eq!(executor.unwrap().join().unwrap(), (true, 1));
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn files_of_an_earlier_process_stay_until_every_core_has_written_what_it_took_over() {
        let directory = std::env::temp_dir().join(format!("kelvin-earlier-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let names = [(1, 0, 5), (1, 1, 3), (2, 0, 1), (2, 0, 2), (2, 1, 1)];
        for (epoch, core, sequence) in names {
            std::fs::write(directory.join(record_files::name(epoch, core, sequence)), "").unwrap();
        }
        let path = directory.clone();
        let executor = start("test", None, move || async move {
            let completed = Completed::default();
            let left = || std::fs::read_dir(&path).unwrap().count();
            let mut counts = Vec::new();
            for (core, sequence) in [(0, 2), (0, 2), (1, 1)] {
                let name = LogName { replica: StateVersion(1), epoch: 2, core };
                let records = Records::new(RecordMode::Written, path.clone(), 2, completed.clone());
                records.sequence.set(sequence);
                // The second file of a core is not a second core.
                records.was_complete.set(counts.len() == 1);
                remove_older(&records, name).await;
                counts.push(left());
            }
            counts
        });
        assert_eq!(executor.unwrap().join().unwrap(), [4, 4, 2]);
        std::fs::remove_dir_all(&directory).unwrap();
    }

    /// More and more views are read while the disk takes none of those that have been.
    #[test]
    fn no_view_is_read_while_more_waits_than_the_disk_takes() {
        let path = std::env::temp_dir().join(format!("kelvin-overfull-{}", std::process::id()));
        let file = path.clone();
        let executor = start("test", None, move || async move {
            let records = Records::new(RecordMode::Written, PathBuf::new(), 1, Completed::default());
            records.file.replace(Some(AppendFile::create(&file).await.unwrap()));
            let mut pushed = 0;
            while records.queue() != RecordQueue::Overfull {
                records.push(Output { bytes: vec![0; 1 << 20], ..Output::default() });
                pushed += 1;
            }
            let waiting = records.take();
            let mut file = records.file.take();
            let name = LogName { replica: StateVersion(1), epoch: 1, core: 0 };
            write_some(&records, name, &mut file, waiting).await.unwrap();
            (pushed, records.queue() == RecordQueue::Overfull)
        });
        assert_eq!(executor.unwrap().join().unwrap(), ((MAX_WAITING >> 20) + 1, false));
        assert_eq!(std::fs::metadata(&path).unwrap().len() as usize, MAX_WAITING + (1 << 20));
        std::fs::remove_file(&path).unwrap();
    }
}
