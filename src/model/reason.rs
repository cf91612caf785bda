//! Why the live path gives a view up.

/// Why a view is read anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// It is not known which rows of a table changed.
    Bulk,
    /// Too many parents, or keys, of a condition; or finding them would be a scan.
    Condition,
    /// More rows than looking at each is worth.
    Candidates,
    /// A read that takes more than the live path may give it: a refill without an index.
    Budget,
}

impl Reason {
    /// All there are.
    pub const ALL: [Reason; 4] = [Reason::Bulk, Reason::Condition, Reason::Candidates, Reason::Budget];

    /// As metrics call it.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Bulk => "bulk",
            Reason::Condition => "condition",
            Reason::Candidates => "candidates",
            Reason::Budget => "budget",
        }
    }
}
