//! Writes what a core records (rule 23).
//!
//! The record of a batch is one append, which begins as soon as it
//! is known; a task per core does all else. The core says what comes next when it has heard that the last is written.

mod recovery;

use std::cell::{Cell, RefCell};
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_lite::FutureExt;
use kelvin_io::append_file::AppendFile;
use kelvin_io::channel::{Receiver, Sender, bounded};
use kelvin_io::executor::{blocking, spawn};

use self::recovery::{fail, recover};
use super::record_files;
use super::serving::Serving;
use crate::config::RecordMode;
use crate::core::effect::Event;
use crate::groups::record_log::{LogName, Output};

/// Cores whose present file is complete, over the process.
pub type Completed = Arc<AtomicUsize>;

/// The record log of one core.
pub struct RecordWriter {
    mode: RecordMode,
    directory: PathBuf,
    cores: usize,
    completed: Completed,
    /// What the writing task is to write.
    waiting: RefCell<Vec<Output>>,
    /// The present file; not while it is written with more than one append.
    file: RefCell<Option<AppendFile>>,
    /// An append of so many bytes is under way. Whoever looks first when it is done tells the core.
    begun: Cell<Option<usize>>,
    /// Why what was begun has failed.
    broken: RefCell<Option<io::Error>>,
    /// Number of the present file, and whether one was complete.
    sequence: Cell<u64>,
    was_complete: Cell<bool>,
    signal: (Sender<()>, Receiver<()>),
}

impl RecordWriter {
    /// Of a core; nothing is written before [`start`].
    pub fn new(mode: RecordMode, directory: PathBuf, cores: usize, completed: Completed) -> RecordWriter {
        RecordWriter {
            mode,
            directory,
            cores,
            completed,
            waiting: RefCell::default(),
            file: RefCell::default(),
            begun: Cell::new(None),
            broken: RefCell::default(),
            sequence: Cell::new(0),
            was_complete: Cell::new(false),
            signal: bounded(1),
        }
    }

    /// Has this written. What is one append to the present file is begun at once, so that it is under way while the
    /// clients of a batch are told.
    pub fn write(&self, outputs: Vec<Output>) {
        if let Err(outputs) = self.begin(outputs) {
            self.waiting.replace(outputs);
        }
        // In any case: the task may wait for the end of another append, which nobody tells it when it was seen here.
        self.wake_writer();
    }

    fn wake_writer(&self) {
        // A full queue means that the writer knows.
        let _ = self.signal.0.try_send(());
    }

    /// `Err`: it is more than one append, or none can be begun.
    fn begin(&self, mut outputs: Vec<Output>) -> Result<(), Vec<Output>> {
        let is_plain =
            |output: &Output| output.next.is_none() && !output.complete && !output.bytes.is_empty();
        if self.mode != RecordMode::Written || outputs.len() != 1 || !is_plain(&outputs[0]) {
            return Err(outputs);
        }
        let mut file = self.file.borrow_mut();
        let Some(file) = file.as_mut() else { return Err(outputs) };
        let bytes = std::mem::take(&mut outputs[0].bytes);
        let length = bytes.len();
        match file.begin(bytes) {
            Ok(()) => {
                self.begun.set(Some(length));
                Ok(())
            }
            Err(bytes) => {
                outputs[0].bytes = bytes;
                Err(outputs)
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
        let length = self.begun.get()?;
        let result = self.file.borrow_mut().as_mut()?.poll()?;
        if result.is_ok() {
            self.begun.set(None);
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

    /// The present file is of no use any more.
    fn give_up(&self) {
        self.file.take();
        self.begun.set(None);
        self.waiting.take();
    }
}

/// Begins to record. The groups that were restored must be there.
pub fn start(serving: &Rc<Serving>, name: LogName) {
    if serving.records.mode == RecordMode::Off {
        return;
    }
    serving.supervisor.spawn("writing records", write(serving.clone(), name));
    serving.tell(Event::StartRecords(name));
}

async fn write(serving: Rc<Serving>, name: LogName) {
    let records = &serving.records;
    while records.signal.1.recv().await.is_ok() {
        loop {
            let written = if records.begun.get().is_some() {
                finish(records).await
            } else if records.waiting.borrow().is_empty() {
                break;
            } else {
                write_whole(records, name).await.map(Some)
            };
            match written {
                Ok(Some(bytes)) => serving.recorded(bytes),
                // Somebody else has seen it.
                Ok(None) => {}
                Err(error) => stop_serving(&serving, &error),
            }
        }
    }
}

fn stop_serving(serving: &Rc<Serving>, error: &io::Error) {
    fail(serving, error);
    let guard = serving.supervisor.guard("waiting for a disk that takes records");
    let serving = serving.clone();
    spawn(async move {
        recover(serving).await;
        guard.done();
    })
    .detach();
}

/// Waits for what was begun; the bytes of it, or `None` if somebody else has seen that it is done.
async fn finish(records: &RecordWriter) -> io::Result<Option<usize>> {
    while records.begun.get().is_some() {
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
async fn write_whole(records: &RecordWriter, name: LogName) -> io::Result<usize> {
    let outputs = records.waiting.take();
    let bytes = outputs.iter().map(Output::len).sum();
    let mut file = records.file.take();
    write_some(records, name, &mut file, outputs).await?;
    records.file.replace(file);
    Ok(bytes)
}

async fn write_some(
    records: &RecordWriter,
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

async fn append(records: &RecordWriter, file: &mut Option<AppendFile>, bytes: Vec<u8>) -> io::Result<()> {
    let Some(file) = file.as_mut().filter(|_| !bytes.is_empty()) else { return Ok(()) };
    file.append(bytes).await?;
    if records.mode == RecordMode::Synced {
        file.sync().await?;
    }
    Ok(())
}

/// Removes the files that the present one replaces. Those of earlier processes go when every core
/// has written what it took over.
async fn remove_older(records: &RecordWriter, name: LogName) {
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
    fn what_follows_an_append_is_written_after_somebody_else_saw_its_end() {
        let directory = std::env::temp_dir();
        let path = directory.join(format!("kelvin-collects-{}", std::process::id()));
        let file = path.clone();
        let executor = start("test", None, move || async move {
            let records = RecordWriter::new(RecordMode::Written, directory, 1, Completed::default());
            let mut made = AppendFile::create(&file).await.unwrap();
            made.append(b"room".to_vec()).await.unwrap();
            records.file.replace(Some(made));
            records.write(vec![output()]);
            assert!(records.begun.get().is_some());
            // The writing task has heard of it, and waits for the end.
            records.signal.1.recv().await.unwrap();
            while records.is_done().is_none() {
                std::thread::yield_now();
            }
            records.write(vec![Output { complete: true, ..output() }]);
            (records.waiting.borrow().len(), records.signal.1.len())
        });
        assert_eq!(executor.unwrap().join().unwrap(), (1, 1));
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
                let records = RecordWriter::new(RecordMode::Written, path.clone(), 2, completed.clone());
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
}
