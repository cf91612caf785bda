//! The threads that read whole views: each is done at once, and what it found comes bit by bit.

use std::collections::VecDeque;

use kelvin::core::effect::{Event, ReadingId, Reported};
use kelvin::groups::reading::Reading;
use kelvin::replica::reader::{ReadError, Reader};
use kelvin::views::scan::{Chunk, Job, scan};

use super::{BATCHES, Core, ENDLESS, HYDRATION, STARTING};

/// A statement that takes many steps.
const LONG: &str =
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 10000) SELECT count(*) FROM n";

/// A reading: the thread is done at once, what it found comes bit by bit.
pub(super) struct Thread {
    pub(super) view: u64,
    chunks: VecDeque<Chunk>,
    /// What it reported last has been taken.
    pub(super) is_asked: bool,
    end: Option<(Reader, Result<usize, ReadError>)>,
}

impl Thread {
    pub(super) fn read(view: u64, reader: Reader, job: &Job) -> Thread {
        let mut chunks = VecDeque::new();
        let mut hand = |chunk| {
            chunks.push_back(chunk);
            Ok(())
        };
        let result = scan(&reader, job, &mut hand);
        Thread { view, chunks, is_asked: true, end: Some((reader, result)) }
    }
}

impl Core {
    /// Whether the thread of a hydration has been told to stop.
    pub fn is_stopped(&self, which: usize) -> bool {
        let view = self.value.readings()[which].0.request.generation;
        let thread = self.threads.values().find(|thread| thread.view == view).expect("it reads");
        let (reader, _) = thread.end.as_ref().expect("it has not ended");
        // So long that somebody looks at the flag meanwhile.
        let mut long = reader.prepare_once(LONG).expect("a statement");
        long.query_row([], |row| row.get::<_, i64>(0)).is_err()
    }

    /// Starts the hydrations that were asked for. `racing`: commits come between the core's
    /// snapshot and theirs.
    pub fn start_hydrations(&mut self, racing: bool) {
        if self.is_busy() {
            return;
        }
        self.limit(|limits| limits.begins = if racing { 0 } else { 3 });
        let before = self.threads.len();
        self.run(STARTING, ENDLESS);
        while self.run(HYDRATION, ENDLESS) {}
        debug_assert!(self.threads.len() >= before);
    }

    /// How many have begun.
    pub fn hydrations(&self) -> usize {
        self.value.readings().len()
    }

    /// What one of them reads.
    pub fn reading(&self, which: usize) -> Reading {
        self.value.readings()[which].0.clone()
    }

    /// Those that send what they read.
    pub fn streams(&self) -> usize {
        self.value.readings().iter().filter(|(_, streams)| *streams).count()
    }

    /// Lets one go on for some chunks; at its end it joins as soon as nobody else depends on the version.
    pub fn step_hydration(&mut self, which: usize, steps: usize) {
        let view = self.value.readings()[which].0.request.generation;
        match self.threads.iter().find(|(_, thread)| thread.view == view).map(|(id, _)| *id) {
            Some(id) => self.read_on(id, steps),
            None => drop(self.run_some(HYDRATION)),
        }
    }

    /// Reports some chunks, or else the end.
    pub(super) fn read_on(&mut self, id: ReadingId, steps: usize) {
        let is_at_its_end = self.threads.get(&id).is_some_and(|thread| thread.chunks.is_empty());
        for _ in 0..steps {
            let Some(thread) = self.threads.get_mut(&id) else { return };
            if thread.is_asked {
                match thread.chunks.pop_front() {
                    Some(chunk) => {
                        thread.is_asked = false;
                        self.value.handle(Event::Read(id, Reported::Chunk(chunk)));
                    }
                    None if is_at_its_end => self.report_end(id),
                    None => return,
                }
            }
            self.go_on();
        }
    }

    fn report_end(&mut self, id: ReadingId) {
        if let Some((reader, result)) = self.threads.remove(&id).and_then(|thread| thread.end) {
            self.counts.hydrations += usize::from(result.is_ok());
            self.value.handle(Event::Read(id, Reported::End(Some(reader), result)));
        }
    }

    /// Whoever waits for a report takes it: the next one comes only then.
    fn go_on(&mut self) {
        self.run_some(HYDRATION);
        while self.slices.is_none() && self.run(HYDRATION, ENDLESS) {}
        if self.is_busy() {
            self.run(BATCHES, ENDLESS);
        }
    }

    /// Gives up every hydration.
    pub fn stop(&mut self) {
        self.slices = None;
        self.end_batch();
        for (id, thread) in std::mem::take(&mut self.threads) {
            let reader = thread.end.map(|(reader, _)| reader);
            self.value.handle(Event::Read(id, Reported::End(reader, Err(ReadError::Interrupted))));
        }
        while self.run(HYDRATION, ENDLESS) {}
    }
}
