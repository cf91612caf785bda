//! The frames of a step: rows that views have in encoded form are copied, all others are read by key.

use bytes::Bytes;

use super::shared::{RowOp, Shared};
use super::step::Moved;
use crate::model::version::StateVersion;
use crate::protocol::dialect::Dialect;
use crate::protocol::poke::PokeBody;
use crate::protocol::poke_writer::{Place, PokeWriter};
use crate::replica::reader::ReadError;
use crate::views::rows::{RowId, RowMap};
use crate::views::view::{View, ViewId};

/// The frames of a step beside its start and its end.
pub(super) struct Told {
    /// `pokeID` of the frames.
    pub poke_id: String,
    /// Its frames.
    pub frames: Vec<Bytes>,
    /// Row operations in them.
    pub rows: usize,
}

/// Writes the frames of a step in one dialect. `fresh`: the group had no views.
pub(super) fn compose(
    shared: &mut Shared,
    body: &PokeBody,
    moved: &Moved,
    fresh: bool,
    ops: &[RowOp],
    dialect: Dialect,
) -> Result<Told, ReadError> {
    let begin = |poke_id: &str| {
        let mut poke = PokeWriter::new(Place::first(dialect), poke_id);
        poke.part(body);
        poke
    };
    if fresh {
        let poke_id = lead_poke_id(shared, &moved.joined);
        let mut poke = begin(&poke_id);
        let rows = join_fresh(shared, &moved.joined, &mut poke)?;
        return Ok(Told { poke_id, frames: poke.finish(), rows });
    }
    let poke_id = shared.poke_id();
    let mut poke = begin(&poke_id);
    let frames = if moved.joined.iter().any(|v| shared.encoded_view(*v).is_some()) {
        write_joined(shared, &moved.joined, ops, &mut poke)?;
        poke.finish()
    } else {
        shared.finish(poke, ops)?
    };
    Ok(Told { poke_id, frames, rows: ops.len() })
}

/// The poke takes the id of the largest encoded view, whose parts can then go as they are.
fn lead_poke_id(shared: &Shared, joined: &[ViewId]) -> String {
    let encoded = joined.iter().filter_map(|v| shared.encoded_view(*v));
    encoded.max_by_key(|view| view.size).map_or_else(|| shared.poke_id(), |view| view.poke_id.clone())
}

/// Rows of views joined by a group that had none: everything is new, so nothing has to be
/// looked up; a row that two views hold is sent once.
fn join_fresh(shared: &mut Shared, joined: &[ViewId], poke: &mut PokeWriter) -> Result<usize, ReadError> {
    let mut order: Vec<ViewId> = joined.to_vec();
    // The view that lends its id first: its parts go out whole.
    order.sort_by_key(|v| shared.encoded_view(*v).is_none_or(|f| f.poke_id != poke.poke_id()));
    let mut told = 0;
    for (position, id) in order.iter().enumerate() {
        let Some(view) = shared.views.get(*id) else { continue };
        let earlier: Vec<&View> = order[..position].iter().filter_map(|v| shared.views.get(*v)).collect();
        let seen = |row: RowId| earlier.iter().any(|v| v.state.contains(row));
        let mut rest: Vec<RowOp> = Vec::new();
        match shared.encoded_view(*id) {
            None => rest.extend(view.state.sorted().into_iter().filter(|r| !seen(*r)).map(RowOp::Put)),
            Some(encoded) => {
                let stale: Vec<RowId> = stale(view, encoded.at);
                let whole = encoded.poke_id == poke.poke_id() && earlier.is_empty();
                for part in &encoded.parts {
                    if whole && !part.rows.iter().any(|r| stale.binary_search(r).is_ok()) {
                        encoded.write(part, poke);
                        continue;
                    }
                    for (row, fragment) in part.fragments() {
                        if stale.binary_search(&row).is_err() && !seen(row) {
                            poke.row(fragment);
                        }
                    }
                }
                let alive = stale.iter().filter(|r| view.state.contains(**r) && !seen(**r));
                rest.extend(alive.map(|r| RowOp::Put(*r)));
            }
        }
        told += view.state.len();
        shared.write_rows(&rest, poke)?;
    }
    Ok(told)
}

/// Rows that the journal names after the version at which the view was encoded.
fn stale(view: &View, encoded_at: StateVersion) -> Vec<RowId> {
    let mut rows: Vec<RowId> = view.journal.since(encoded_at).flat_map(|d| d.rows()).collect();
    rows.sort_unstable();
    rows.dedup();
    rows
}

/// Operations of a step with joined views that are encoded already: fragments are copied.
fn write_joined(
    shared: &mut Shared,
    joined: &[ViewId],
    ops: &[RowOp],
    poke: &mut PokeWriter,
) -> Result<(), ReadError> {
    let mut wanted: RowMap<()> = RowMap::default();
    wanted.extend(ops.iter().filter_map(|op| match op {
        RowOp::Put(id) => Some((*id, ())),
        RowOp::Del(_) => None,
    }));
    for id in joined {
        let (Some(view), Some(encoded)) = (shared.views.get(*id), shared.encoded_view(*id)) else { continue };
        let stale = stale(view, encoded.at);
        for (row, fragment) in encoded.parts.iter().flat_map(|p| p.fragments()) {
            if stale.binary_search(&row).is_err() && wanted.remove(&row).is_some() {
                poke.row(fragment);
            }
        }
    }
    let rest: Vec<RowOp> = ops
        .iter()
        .filter(|op| match op {
            RowOp::Put(id) => wanted.contains_key(id),
            RowOp::Del(_) => true,
        })
        .copied()
        .collect();
    shared.write_rows(&rest, poke)
}
