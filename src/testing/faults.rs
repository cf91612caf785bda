//! Rules switched off, so that the tests can prove that they would see a broken rule.
//!
//! Each of the rules 2 to 24 of `docs/spec/rules.md` has a place, or two, where it is kept; that
//! place asks whether the rule is switched off on this thread. In builds without debug
//! assertions the answer is a constant: nothing can be switched off, and nothing is paid.

/// A rule that is not kept. Those of the order of work are the driver's to ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Rule 2: of several changes of a row the last one's old values count.
    Fold,
    /// Rule 3: rows that swapped their client keys are not paired anew.
    Identity,
    /// Rule 4: a row whose condition may be another now is not looked at.
    Touched,
    /// Rule 5: the old key of a changed child is not followed.
    OldKey,
    /// Rule 6: nothing happens where parents cannot be found.
    GiveUp,
    /// Rule 7: a window that lost rows is not filled up.
    Refill,
    /// Rule 8: a key that lost witnesses gets no others.
    Witnesses,
    /// Rule 9: a table whose changes are not listed counts as unchanged.
    Bulk,
    /// Rule 10: what was committed while a hydration read does not reach its view.
    Overtaken,
    /// Rule 11: clients with other keys share the view.
    ViewKey,
    /// Rule 12: a tab that comes is told the rows of its own queries only.
    OwnRows,
    /// Rule 13: groups step while half of the views are at the new version.
    Barrier,
    /// Rule 14: groups step in the middle of a batch.
    Between,
    /// Rule 15: a row that left one view is deleted whatever holds it.
    Alive,
    /// Rule 16: groups step while a view of theirs is read anew or replaced.
    Hold,
    /// Rule 17: within one version a cookie is issued again and again.
    Cookies,
    /// Rule 18: after a restart the epoch is the same.
    Epoch,
    /// Rule 19: a tab that was away is not told of the rows of views that were left meanwhile.
    Left,
    /// Rule 20: a group that gave its views up is served from its history.
    Floor,
    /// Rule 21: what a tab has that cannot be proved is not cleared.
    Clear,
    /// Rule 21: a client that may want what is not known need not come back to say so.
    Resend,
    /// Rule 22: a tab takes part in its group's steps wherever it is.
    Sockets,
    /// Rule 23: how a view differs after it was read anew is not written down.
    Record,
    /// Rule 24: rows that changed while no server ran are taken for what they were.
    Edits,
}

impl Fault {
    /// All there are, with the rule that each breaks.
    pub const ALL: [(u8, Fault); 24] = [
        (2, Fault::Fold),
        (3, Fault::Identity),
        (4, Fault::Touched),
        (5, Fault::OldKey),
        (6, Fault::GiveUp),
        (7, Fault::Refill),
        (8, Fault::Witnesses),
        (9, Fault::Bulk),
        (10, Fault::Overtaken),
        (11, Fault::ViewKey),
        (12, Fault::OwnRows),
        (13, Fault::Barrier),
        (14, Fault::Between),
        (15, Fault::Alive),
        (16, Fault::Hold),
        (17, Fault::Cookies),
        (18, Fault::Epoch),
        (19, Fault::Left),
        (20, Fault::Floor),
        (21, Fault::Clear),
        (21, Fault::Resend),
        (22, Fault::Sockets),
        (23, Fault::Record),
        (24, Fault::Edits),
    ];
}

#[cfg(debug_assertions)]
thread_local! {
    static ON: std::cell::Cell<Option<Fault>> = const { std::cell::Cell::new(None) };
}

/// Whether a rule is switched off on this thread.
#[cfg(debug_assertions)]
#[inline]
pub fn is_on(fault: Fault) -> bool {
    ON.get() == Some(fault)
}

/// Whether a rule is switched off on this thread: never.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub const fn is_on(_: Fault) -> bool {
    false
}

/// Switches one rule off on this thread, or none.
#[cfg(debug_assertions)]
pub fn switch(fault: Option<Fault>) {
    ON.set(fault);
}

/// Switches nothing off: every rule is kept in such a build.
#[cfg(not(debug_assertions))]
pub fn switch(_: Option<Fault>) {}
