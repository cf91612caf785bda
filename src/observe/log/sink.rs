//! A bounded queue of lines, and the thread that writes them.

use std::io::{self, Write};
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use super::line::Context;
use super::{Format, Level};

/// Lines that wait or are being written. Enough for a burst of a few hundred milliseconds.
const MAX_LINES: usize = 16 * 1024;
/// Their bytes.
const MAX_BYTES: usize = 8 * 1024 * 1024;

struct Line {
    level: Level,
    text: String,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Line>,
    /// Of the lines that wait and those that are being written.
    lines: usize,
    bytes: usize,
    /// Lines ever taken in, and ever written.
    accepted: u64,
    written: u64,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    filled: Condvar,
    emptied: Condvar,
    dropped: AtomicU64,
}

impl Shared {
    /// A panic elsewhere must not end logging: the queue is valid after every statement.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where lines go.
pub(super) struct Sink {
    shared: Arc<Shared>,
}

impl Sink {
    /// Starts the writing thread, which ends with the process.
    pub(super) fn start(
        out: Box<dyn Write + Send>,
        err: Box<dyn Write + Send>,
        format: Format,
    ) -> io::Result<Sink> {
        let shared = Arc::new(Shared::default());
        let writer =
            Writer { shared: shared.clone(), out, err, context: Context::new(format, &[]), reported: 0 };
        thread::Builder::new().name("log".to_owned()).spawn(move || writer.run())?;
        Ok(Sink { shared })
    }

    /// Takes a line in, or drops it. Holds the lock for a push only: the writer never writes under it.
    pub(super) fn push(&self, level: Level, text: String) {
        let mut queue = self.shared.lock();
        if queue.lines >= MAX_LINES || queue.bytes + text.len() > MAX_BYTES {
            drop(queue);
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        queue.lines += 1;
        queue.bytes += text.len();
        queue.accepted += 1;
        queue.waiting.push(Line { level, text });
        let first = queue.waiting.len() == 1;
        drop(queue);
        // A writer that has more to take does not sleep.
        if first {
            self.shared.filled.notify_one();
        }
    }

    /// Waits until the lines taken in so far are written.
    pub(super) fn flush(&self, limit: Duration) -> bool {
        let queue = self.shared.lock();
        let goal = queue.accepted;
        let waited = self.shared.emptied.wait_timeout_while(queue, limit, |queue| queue.written < goal);
        let (queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
        queue.written >= goal
    }

    pub(super) fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }
}

struct Writer {
    shared: Arc<Shared>,
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
    context: Context,
    /// Number of dropped lines that the log already tells of.
    reported: u64,
}

impl Writer {
    fn run(mut self) {
        let mut batch: Vec<Line> = Vec::new();
        loop {
            self.take(&mut batch);
            for line in &batch {
                self.write(line);
            }
            self.report_dropped();
            // A closed output is no reason to end the server, and there is nowhere to say so.
            let _ = self.out.flush();
            let _ = self.err.flush();
            self.done(&mut batch);
        }
    }

    fn take(&self, batch: &mut Vec<Line>) {
        let queue = self.shared.lock();
        let queue = self.shared.filled.wait_while(queue, |queue| queue.waiting.is_empty());
        let mut queue = queue.unwrap_or_else(PoisonError::into_inner);
        mem::swap(&mut queue.waiting, batch);
    }

    fn write(&mut self, line: &Line) {
        let stream = if line.level >= Level::Warn { &mut self.err } else { &mut self.out };
        let _ = stream.write_all(line.text.as_bytes());
    }

    fn report_dropped(&mut self) {
        let dropped = self.shared.dropped.load(Ordering::Relaxed);
        let new = dropped - self.reported;
        if new > 0 {
            self.reported = dropped;
            let message = format_args!("{new} log lines were dropped: the output is slower than the log");
            let text = self.context.line(SystemTime::now(), Level::Warn, None, message, &[]);
            self.write(&Line { level: Level::Warn, text });
        }
    }

    fn done(&self, batch: &mut Vec<Line>) {
        let mut queue = self.shared.lock();
        queue.lines -= batch.len();
        queue.bytes -= batch.iter().map(|line| line.text.len()).sum::<usize>();
        queue.written += batch.len() as u64;
        drop(queue);
        batch.clear();
        self.shared.emptied.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Writes nothing until it is let go.
    struct Gate {
        open: Option<mpsc::Receiver<()>>,
        text: Arc<Mutex<String>>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if let Some(open) = self.open.take() {
                let _ = open.recv();
            }
            self.text.lock().unwrap().push_str(&String::from_utf8_lossy(bytes));
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn sink(open: Option<mpsc::Receiver<()>>) -> (Sink, Arc<Mutex<String>>, Arc<Mutex<String>>) {
        let (out, err) = (Arc::default(), Arc::default());
        let sink = Sink::start(
            Box::new(Gate { open, text: Arc::clone(&out) }),
            Box::new(Gate { open: None, text: Arc::clone(&err) }),
            Format::Text,
        );
        (sink.unwrap(), out, err)
    }

    #[test]
    fn lines_go_to_the_stream_of_their_level_in_order() {
        let (sink, out, err) = sink(None);
        for (level, text) in
            [(Level::Info, "1\n"), (Level::Warn, "2\n"), (Level::Debug, "3\n"), (Level::Error, "4\n")]
        {
            sink.push(level, text.to_owned());
        }
        assert!(sink.flush(Duration::from_secs(10)));
        assert_eq!((out.lock().unwrap().as_str(), err.lock().unwrap().as_str()), ("1\n3\n", "2\n4\n"));
    }

    #[test]
    fn a_blocked_output_drops_lines_beyond_the_limit_and_says_how_many() {
        let (let_go, open) = mpsc::channel();
        let (sink, out, err) = sink(Some(open));
        for _ in 0..MAX_LINES + 7 {
            sink.push(Level::Info, "x\n".to_owned());
        }
        assert_eq!(sink.dropped(), 7);
        assert!(!sink.flush(Duration::from_millis(1)));
        let_go.send(()).unwrap();
        assert!(sink.flush(Duration::from_secs(10)));
        assert_eq!(out.lock().unwrap().lines().count(), MAX_LINES);
        assert!(err.lock().unwrap().contains("7 log lines were dropped"));
    }

    #[test]
    fn the_bytes_are_limited_too() {
        let (_let_go, open) = mpsc::channel();
        let (sink, _, _) = sink(Some(open));
        for _ in 0..10 {
            sink.push(Level::Info, "x".repeat(MAX_BYTES / 4));
        }
        assert_eq!(sink.dropped(), 6);
    }
}
