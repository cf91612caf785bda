//! The disk that a simulated core records on: what is written survives the process, what is synced
//! survives the machine, and of the rest a power cut leaves what it likes.

use std::collections::BTreeMap;

use kelvin::cvr::frame::Frames;
use kelvin::cvr::record::Record;
use kelvin::cvr::recovered::Recovered;
use kelvin::cvr::replay::Replay;
use kelvin::groups::record_log::Output;

use super::choices::Choices;

/// A file.
#[derive(Default, Clone)]
struct File {
    bytes: Vec<u8>,
    synced: usize,
}

/// How a core ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The process is killed.
    Kill,
    /// The machine loses its power.
    PowerCut,
}

#[derive(Default)]
pub struct Disk {
    /// By epoch and sequence.
    files: BTreeMap<(u64, u64), File>,
    waiting: Vec<Output>,
    present: (u64, u64),
    syncs: bool,
    /// Bytes written.
    pub written: usize,
    /// Views and groups that were not recorded.
    pub unrecorded: usize,
    /// Records that were read in parts.
    pub parts: usize,
}

impl Disk {
    /// Empty. `syncs`: every write is synced before anybody hears of what it says.
    pub fn new(syncs: bool) -> Disk {
        Disk { syncs, ..Disk::default() }
    }

    pub fn waiting_for(&mut self, outputs: Vec<Output>) {
        self.unrecorded += outputs.iter().map(|output| output.unrecorded).sum::<usize>();
        self.waiting.extend(outputs);
    }

    pub fn is_behind(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Writes what waits.
    pub fn flush(&mut self, epoch: u64) {
        for output in std::mem::take(&mut self.waiting) {
            self.append(&output.bytes);
            if let Some((sequence, bytes)) = output.next {
                self.present = (epoch, sequence);
                self.files.insert(self.present, File::default());
                self.append(&bytes);
            }
            if output.complete {
                self.sync();
                let present = self.present;
                self.files.retain(|name, _| *name >= present);
            }
        }
        if self.syncs {
            self.sync();
        }
    }

    fn append(&mut self, bytes: &[u8]) {
        self.written += bytes.len();
        if let Some(file) = self.files.get_mut(&self.present) {
            file.bytes.extend(bytes);
        }
    }

    fn sync(&mut self) {
        if let Some(file) = self.files.get_mut(&self.present) {
            file.synced = file.bytes.len();
        }
    }

    /// The end: of what waits some may have been written, of what was written some may be lost.
    pub fn end(&mut self, end: End, choices: &mut Choices) {
        let mut rest: Vec<u8> = Vec::new();
        for output in std::mem::take(&mut self.waiting) {
            rest.extend(output.bytes);
            // A new file that nobody heard of.
            if output.next.is_some() {
                break;
            }
        }
        rest.truncate(choices.below(rest.len() + 1));
        self.append(&rest);
        if end == End::Kill {
            return;
        }
        for file in self.files.values_mut() {
            let lost = file.bytes.len() - file.synced;
            if lost == 0 {
                continue;
            }
            // What was not synced is there in part, in any order.
            match choices.below(3) {
                0 => file.bytes.truncate(file.synced + choices.below(lost + 1)),
                1 => {
                    let from = file.synced + choices.below(lost);
                    let to = (from + 1 + choices.below(64)).min(file.bytes.len());
                    file.bytes[from..to].fill(0);
                }
                _ => {
                    let at = file.synced + choices.below(lost);
                    file.bytes[at] ^= 1 + choices.below(255) as u8;
                }
            }
        }
    }

    /// What the files say. They are synced: what is written from now on refers to them.
    pub fn recover(&mut self) -> Recovered {
        let mut replay = Replay::up_to(usize::MAX);
        for file in self.files.values_mut() {
            file.synced = file.bytes.len();
            let Ok(Some(mut frames)) = Frames::of(&*file.bytes) else { continue };
            while let Ok(Some(payload)) = frames.next_payload() {
                let Ok(record) = Record::read(payload) else { break };
                self.parts += usize::from(matches!(record, Record::Deltas(_)));
                replay.apply(record);
            }
        }
        replay.finish()
    }
}
