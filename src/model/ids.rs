//! Ids that several folders name things by.

use serde::{Deserialize, Serialize};

/// Number of a connection on this core; never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// One life of one view, in any process: numbers are given by a core, and the epoch is new
/// with each start (rule 18).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordId {
    /// Epoch of the process that began it.
    pub epoch: u64,
    /// Core and number there.
    pub number: u64,
}

/// Bits of a record's number below the core's.
const CORE_SHIFT: u32 = 48;

impl RecordId {
    /// The record with this number, of this core.
    pub fn of_core(epoch: u64, core: usize, number: u64) -> RecordId {
        RecordId { epoch, number: (core as u64) << CORE_SHIFT | (number & ((1 << CORE_SHIFT) - 1)) }
    }

    /// The core that gave the number.
    pub fn core(self) -> usize {
        (self.number >> CORE_SHIFT) as usize
    }
}

/// Number of a table in the replica. It is given once in a lineage (one initial sync), and never to
/// another table, also when its own is gone: what names a table by it never means another one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TableId(pub u16);
