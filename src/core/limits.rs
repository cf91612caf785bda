//! The limits of one core, with their reasons. The simulation draws small ones, so that what happens at each is met.

use crate::groups::limits::GroupLimits;

/// Limits of one core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Of its groups.
    pub groups: GroupLimits,
    /// Most hydrations under way at a time. Each holds a snapshot, and its result in memory.
    pub hydrations: usize,
    /// Of these, those whose query may have any number of rows: the others are kept for queries that are known to be
    /// small, which a large one must not keep waiting.
    pub large_hydrations: usize,
    /// The same while memory is tight: each holds what it reads.
    pub tight_hydrations: usize,
    /// Most bytes of commits kept for hydrations. One that misses some looks at its view again.
    pub recent_bytes: usize,
    /// Batches by which a hydration may try to begin at the core's own version. A commit may come between the two
    /// snapshots; hardly ever twice in a row.
    pub begins: usize,
    /// Encoded bytes after which a hydration offers them to the tab that waits. What is smaller is over at once, and is
    /// better shared with whoever asks for the same within the next seconds.
    pub stream_from: usize,
    /// Rows that a hydration must have before it is ended for want of memory: small ones are over soon.
    pub large_rows: usize,
    /// Slots of a new state that are put in place between looks at the clock.
    pub settled_slots: usize,
    /// Rows between looks at the clock.
    pub rows_per_look: u32,
    /// Of what waits for sockets.
    pub outboxes: OutboxLimits,
    /// Of what waits to be recorded.
    pub records: RecordLimits,
    /// Of mutations that wait for the app.
    pub pushes: PushLimits,
    /// Most connections of the core: each takes some kilobytes here and in the kernel, and the process may have so many
    /// files open.
    pub connections: usize,
}

/// Limits of what waits for sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxLimits {
    /// Bytes that may wait before a connection counts as behind. Live pokes are small; this is several seconds of a busy
    /// view.
    pub bytes: usize,
    /// The same while memory is tight: many slow sockets must not be what fills it.
    pub tight_bytes: usize,
    /// Bytes of one poke up to which it is collected. What is larger costs its copy anyway.
    pub collected_bytes: usize,
    /// Sockets that one slice of work sends to: that comes on top of the slice, and takes some ten microseconds for
    /// each.
    pub sends: usize,
}

impl Default for OutboxLimits {
    fn default() -> OutboxLimits {
        OutboxLimits { bytes: 1 << 20, tight_bytes: 64 << 10, collected_bytes: 32 << 10, sends: 100 }
    }
}

/// Limits of what waits to be recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordLimits {
    /// Bytes that may wait before the filling of a file pauses: what is live comes first.
    pub filling_bytes: usize,
    /// Bytes that may wait before no more views are read: each of them is recorded with its rows. A disk that is slower
    /// than the readers would otherwise fill the memory.
    pub waiting_bytes: usize,
}

impl Default for RecordLimits {
    fn default() -> RecordLimits {
        RecordLimits { filling_bytes: 4 << 20, waiting_bytes: 32 << 20 }
    }
}

/// Limits of mutations that wait for the app. Whoever has sent more is not read from until the app has caught up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PushLimits {
    /// Bytes that may wait of one group before its next mutations are queued.
    pub of_group: usize,
    /// Bytes that may wait of all groups before those who have some queue more: an app that is away must not fill the
    /// memory.
    pub of_core: usize,
}

impl Default for PushLimits {
    fn default() -> PushLimits {
        PushLimits { of_group: 16 << 20, of_core: 64 << 20 }
    }
}

/// Most hydrations under way at a time, however many processors there are.
pub const MAX_HYDRATIONS: usize = 8;

/// Most connections of a core, however many files the process may open.
pub const MAX_CONNECTIONS: usize = 100_000;

/// Least: one for small queries when the other has a large one.
const MIN_HYDRATIONS: usize = 2;

/// Hydrations by processor: some wait for the disk. Of more, each takes longer, and so do those whom they keep from
/// their processor, however low their priority.
const PER_PROCESSOR: usize = 2;

impl Limits {
    /// Of each of so many cores.
    pub fn of(processors: usize, cores: usize) -> Limits {
        let hydrations = (processors * PER_PROCESSOR / cores.max(1)).clamp(MIN_HYDRATIONS, MAX_HYDRATIONS);
        Limits {
            groups: GroupLimits::default(),
            hydrations,
            large_hydrations: hydrations / 2,
            tight_hydrations: 2,
            recent_bytes: 64 << 20,
            begins: 3,
            stream_from: 1 << 20,
            large_rows: 10_000,
            settled_slots: 64,
            rows_per_look: 16,
            outboxes: OutboxLimits::default(),
            records: RecordLimits::default(),
            pushes: PushLimits::default(),
            connections: MAX_CONNECTIONS,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_core_has_room_for_a_small_query_beside_a_large_one() {
        for (processors, cores, hydrations) in [(1, 1, 2), (2, 1, 4), (2, 2, 2), (64, 32, 4), (64, 1, 8)] {
            let limits = Limits::of(processors, cores);
            assert_eq!(limits.hydrations, hydrations, "{processors} processors, {cores} cores");
            assert!(limits.large_hydrations < limits.hydrations);
        }
    }
}
