//! What a core of the model has done: a run that does little proves little.

use std::fmt;

/// What a core has done.
#[derive(Clone, Copy, Default)]
pub struct Counts {
    pub batches: usize,
    /// Hydrations that ended with a result.
    pub hydrations: usize,
    /// Views that were read anew.
    pub anew: usize,
    /// Views that a batch brought forward row by row.
    pub advanced: usize,
    /// Batches of which it is not known what they changed.
    pub lost: usize,
    /// Groups forgotten because nobody came.
    pub purged: usize,
    /// Batches that failed half way.
    pub failed: usize,
}

impl Counts {
    pub fn add(&mut self, other: Counts) {
        self.batches += other.batches;
        self.hydrations += other.hydrations;
        self.anew += other.anew;
        self.advanced += other.advanced;
        self.lost += other.lost;
        self.purged += other.purged;
        self.failed += other.failed;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { batches, hydrations, anew, advanced, lost, purged, failed } = self;
        write!(
            f,
            "{batches} batches ({lost} after a gap, {failed} failed) with {advanced} views row by row, {hydrations} hydrations, "
        )?;
        write!(f, "{anew} views read anew; {purged} groups purged")
    }
}
