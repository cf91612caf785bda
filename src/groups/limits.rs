//! How much the groups of a core keep. The simulation draws small ones, so that what happens at each is met.

use crate::cvr::parts::Sizes;
use crate::views::limits::ViewLimits;

/// Limits of groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupLimits {
    /// Of their views.
    pub views: ViewLimits,
    /// Most queries of one group, wanted or within their time to live.
    pub queries: usize,
    /// Most clients that one group remembers. A browser profile has tens of tabs.
    pub clients: usize,
    /// Most row keys kept of views that a group has left, for tabs that were away.
    pub left_keys: usize,
    /// Most removed queries kept for tabs that were away.
    pub removed_queries: usize,
    /// Most changes of mutation results kept for tabs that were away.
    pub result_changes: usize,
    /// Most queries that one client's record names, wanted or not: above it those that are over
    /// are forgotten.
    pub remembered_queries: usize,
    /// Most groups without connections that a core remembers: what they were told is a few
    /// kilobytes each, and without it their clients lose their unsent mutations.
    pub idle_groups: usize,
    /// Most bytes of encoded views kept on a core once nobody waits for them. Several clients
    /// that ask for the same at the same moment find them; a thousand different queries must
    /// not pile theirs up.
    pub encoded_bytes: usize,
    /// Rows up to which a view that exists already is sent by reading its rows by key.
    pub small_view: usize,
    /// Rows of a catch-up that are written at once: a few milliseconds of reading by key.
    pub catch_up_rows: usize,
    /// How often in a row a view may have to be read anew before it could join its groups. After
    /// that it is read within the batch, which waits for it: or it might never join.
    pub overtaken: u32,
    /// How many views that were read anew may join while their group waits for others, and others
    /// again. After that the ones it waits for are read within the batch.
    pub passed: u32,
    /// Rows of one record of members. Of a view of before a step of the core writes one such record, of a view
    /// of now a part of its rows, in as many as that takes.
    pub record_rows: usize,
    /// Bytes of a frame of the record log.
    pub record_frame: Sizes,
}

impl Default for GroupLimits {
    /// What a server has.
    fn default() -> GroupLimits {
        GroupLimits {
            views: ViewLimits::DEFAULT,
            queries: 10_000,
            clients: 1_000,
            left_keys: 100_000,
            removed_queries: 10_000,
            result_changes: 1_000,
            remembered_queries: 2 * super::desires::MAX_DESIRED,
            idle_groups: 20_000,
            encoded_bytes: 8 << 20,
            small_view: 1_000,
            catch_up_rows: 1_000,
            overtaken: 3,
            passed: 8,
            record_rows: 1_000,
            record_frame: Sizes::default(),
        }
    }
}
