//! How much the views of a core keep and follow. The simulation draws small ones, so that what happens at each is met.

/// Limits of views.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ViewLimits {
    /// Most row keys that one journal keeps. A tab that missed more is better off with the
    /// whole view; at 4 bytes a key this is 256 KiB for a busy view.
    pub journal_keys: usize,
    /// Most deltas that one journal keeps, for views that change a row at a time for ever.
    pub journal_deltas: usize,
    /// Most parents that are looked at for one key of a condition. With more, the views that have
    /// the condition are read anew: that costs no more, and is done elsewhere.
    pub parents: usize,
    /// Most keys of one condition that are followed in one batch.
    pub dirty_keys: usize,
    /// Rows that may always be looked at again one by one, whatever the size of the view.
    pub candidates: usize,
}

impl ViewLimits {
    /// What a server has.
    pub const DEFAULT: ViewLimits = ViewLimits {
        journal_keys: 65_536,
        journal_deltas: 4_096,
        parents: 1_000,
        dirty_keys: 2_000,
        candidates: 4_000,
    };
}
