//! Where the changes of a replica come from: what a source promises its engine (decision 014).

use std::future::Future;

use super::feed::{Feed, FillFeed};
use super::verdict::Verdict;
use super::work::Reached;

/// Something that has a past of changes which a replica continues.
///
/// What a source puts into the [`Feed`] are operations ([`Op`](super::work::Op)) on the tables of the catalogue that
/// the engine was started with, as transactions in the order of their positions: `Begin` with the position, changes,
/// and `Commit`, or `Abort` when the rest will not come. It may begin with transactions that the replica has; the
/// engine passes over them. It must not leave any out: a source that no longer has what follows a position says
/// [`Verdict::CannotFollow`] before it yields anything.
///
/// What it hears is how far the replica is: [`Feed::written`] will be shown to readers, and [`Feed::durable`] survives
/// a power cut. Only what is durable may be forgotten where the changes come from.
pub trait ChangeSource: 'static {
    /// One connection, from its beginning to its loss. The engine calls it again after a pause if the answer is
    /// [`Ended::Lost`]; what was incomplete is undone by then. It goes on even while the feed takes nothing
    /// more, as far as the other side would take it for dead.
    fn stream(&self, from: Reached, feed: &Feed) -> impl Future<Output = Ended>;

    /// Looks after whatever beside the stream may end replication, and fills tables that the catalogue says are to be
    /// filled. Begun once; runs until then.
    fn watch(&self, fill: FillFeed) -> impl Future<Output = Verdict>;
}

/// Why a connection of a source ended.
#[derive(Debug)]
pub enum Ended {
    /// It was lost, or there was none, for this reason: try again.
    Lost(String),
    /// Trying again is of no use.
    ForGood(Verdict),
}
