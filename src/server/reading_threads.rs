//! The threads of a core that read whole views (decision 005).
//!
//! A statement cannot be left in the middle: one that sorts a million rows, or meets pages
//! that are not in memory, holds its thread until it is done. So it is not the core's thread.
//! Threads start when they are needed, and give way to the cores: what is live comes first.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use kelvin_io::channel::{Receiver, Sender, bounded};

use crate::core::effect::Reported;
use crate::core::limits::MAX_HYDRATIONS;
use crate::replica::reader::{ReadError, Reader};
use crate::testing::panics;
use crate::views::scan::{Chunk, Job, scan};

/// Chunks that a thread may be ahead of its core: a few, so that neither waits for the other
/// at every chunk, and a core that is busy holds a few megabytes at most.
const AHEAD: usize = 4;

/// Priority of the threads ("nice"): a core that has something to do gets the processor first.
const NICE: i32 = 5;

/// Priority of a thread that has read for longer than [`LONG`]: short readings pass it.
const NICE_LONG: i32 = 15;

/// A reading that takes longer than this is a long one.
const LONG: Duration = Duration::from_millis(50);

struct Order {
    reader: Reader,
    job: Job,
    out: Sender<Reported>,
}

/// The threads of one core.
pub struct ReadingThreads {
    name: String,
    orders: (Sender<Order>, Receiver<Order>),
    running: Cell<usize>,
    idle: (Sender<()>, Receiver<()>),
}

impl ReadingThreads {
    /// No thread yet.
    pub fn new(core: usize) -> ReadingThreads {
        // One more for the inspector.
        let (orders, idle) = (bounded(MAX_HYDRATIONS + 1), bounded(MAX_HYDRATIONS + 1));
        ReadingThreads { name: format!("reader-{core}"), orders, running: Cell::new(0), idle }
    }

    /// Has a view read. At most [`MAX_HYDRATIONS`] may be under way.
    pub fn read(&self, reader: Reader, job: Job) -> Result<Receiver<Reported>, ReadError> {
        let (out, messages) = bounded(AHEAD);
        // A token of a thread that waits, or else a new thread.
        if self.idle.1.try_recv().is_err() {
            self.start()?;
        }
        let order = Order { reader, job, out };
        match self.orders.0.try_send(order) {
            Ok(()) => Ok(messages),
            Err(_) => {
                Err(ReadError::Unsupported("more views are read at a time than there are threads".into()))
            }
        }
    }

    fn start(&self) -> Result<(), ReadError> {
        let (orders, idle) = (self.orders.1.clone(), self.idle.0.clone());
        let name = format!("{}.{}", self.name, self.running.replace(self.running.get() + 1));
        let thread = std::thread::Builder::new().name(name).spawn(move || run(&orders, &idle));
        let cannot = |e| ReadError::Unsupported(format!("no thread to read with could be started: {e}"));
        thread.map(drop).map_err(cannot)
    }
}

fn run(orders: &Receiver<Order>, idle: &Sender<()>) {
    give_way(NICE);
    while let Ok(order) = orders.recv_blocking() {
        if perform(order, idle) {
            // An unprivileged thread cannot take its priority back: the next order gets a new one.
            return;
        }
        // What the core has freed of it stays with this thread until the thread looks.
        kelvin_io::memory::tidy();
    }
}

/// Does what was ordered. Returns whether it took long.
fn perform(order: Order, idle: &Sender<()>) -> bool {
    let Order { reader, job, out } = order;
    let began = Instant::now();
    let mut long = false;
    let mut hand = |chunk: Chunk| {
        if !long && began.elapsed() > LONG {
            long = true;
            give_way(NICE_LONG);
        }
        // Nobody takes it any more.
        out.send_blocking(Reported::Chunk(chunk)).map_err(|_| ReadError::Interrupted)
    };
    let mut read = || {
        panics::here("a hydration's thread");
        reader.map(true).and_then(|()| scan(&reader, &job, &mut hand))
    };
    let result = catch_unwind(AssertUnwindSafe(&mut read));
    // The panic hook has logged it.
    let panicked = |_| Err(ReadError::Unsupported("the view could not be read; the log says why".into()));
    let result = result.unwrap_or_else(panicked);
    // Where it fails here it fails for the next one, too, which says so.
    let _ = reader.end().and_then(|()| reader.map(false));
    if !long {
        // Before the core hears of the end: it may order the next at once, and would start another
        // thread for it.
        let _ = idle.try_send(());
    }
    let _ = out.send_blocking(Reported::End(Some(reader), result));
    long
}

/// Lets other threads go first. That it is refused is no reason not to read.
fn give_way(nice: i32) {
    // To Linux "this process" is the calling thread.
    let _ = rustix::process::setpriority_process(None, nice);
}
