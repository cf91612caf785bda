//! A core that records, ends at any moment, and comes back.

use kelvin::groups::record_log::LogName;
use kelvin::groups::restore::Restoration;
use kelvin::testing::faults::{self, Fault};

use super::choices::Choices;
use super::core::Core;
use super::disk::{Disk, End};
use super::replica::FIRST;
use super::world::World;

impl World {
    /// Records from now on.
    pub fn start_recording(&mut self, disk: Disk) {
        self.disk = Some(disk);
        self.name_log();
    }

    fn name_log(&mut self) {
        let name = LogName { replica: FIRST, epoch: self.epoch, core: 0 };
        self.core.start_recording(name);
    }

    /// Takes what has to be recorded. Between batches the present file is filled.
    pub fn record(&mut self) {
        let Some(disk) = &mut self.disk else { return };
        self.core.fill();
        disk.waiting_for(self.core.take_writes());
    }

    /// Writes until nothing waits; what was sent meanwhile may go.
    pub fn flush(&mut self) {
        self.record();
        while self.written() {}
    }

    /// What the core wanted written is on the disk. False: that was nothing.
    pub fn written(&mut self) -> bool {
        let Some(disk) = &mut self.disk else { return false };
        disk.waiting_for(self.core.take_writes());
        if !disk.is_behind() {
            return false;
        }
        disk.flush(self.epoch);
        self.core.recorded();
        true
    }

    /// The server ends, and another one begins on the same disk.
    pub fn crash(&mut self, choices: &mut Choices, end: End) {
        self.observe();
        self.record();
        self.log.push(format!("the server ends: {end:?}"));
        let Some(disk) = &mut self.disk else { return };
        disk.end(end, choices);
        let recovered = disk.recover();
        self.forget_connections();
        self.epoch += u64::from(!faults::is_on(Fault::Epoch));
        self.crashes += 1;
        self.asts.clear();
        let (counts, slices) = (self.core.counts(), self.core.slices.take());
        let mut schema = self.schema.clone();
        // The replica has its indexes still.
        schema.catalogue = self.core.syncer().shared.catalogue.clone();
        self.core = Core::new(&self.replica, &schema, self.epoch, self.limits);
        self.core.counts = counts;
        self.core.slices = slices;
        self.core.set_time(self.now);
        let mut syncer = self.core.syncer();
        let restoration = Restoration::new(recovered, FIRST, &mut syncer.shared);
        if let Some(mut restoration) = restoration {
            while restoration.step(&mut syncer, self.now) {}
        }
        drop(syncer);
        self.name_log();
    }

    /// Every tab has read what it was sent, or has not; and then its socket is gone.
    fn forget_connections(&mut self) {
        for group in &mut self.groups {
            for tab in &mut group.tabs {
                tab.line = None;
                tab.receiver.disconnected();
            }
        }
        self.vanished.clear();
    }
}
