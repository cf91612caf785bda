//! The frames of a step: rows that views have in encoded form are copied, all others are read by key.

use bytes::Bytes;

use super::shared::{RowOp, Shared, flush, push_row};
use super::step::Moved;
use crate::model::version::StateVersion;
use crate::protocol::downstream::PokeBody;
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

/// Writes the frames of a step. `fresh`: the group had no views.
pub(super) fn compose(
    shared: &mut Shared,
    mut body: PokeBody,
    moved: &Moved,
    fresh: bool,
    ops: &[RowOp],
) -> Result<Told, ReadError> {
    let mut frames = Vec::new();
    if fresh {
        let poke_id = lead_poke_id(shared, &moved.joined);
        flush(&mut body, &poke_id, &mut frames);
        let rows = join_fresh(shared, &moved.joined, &poke_id, &mut frames)?;
        return Ok(Told { poke_id, frames, rows });
    }
    let poke_id = shared.poke_id();
    flush(&mut body, &poke_id, &mut frames);
    if moved.joined.iter().any(|v| shared.full(*v).is_some()) {
        encode_joined(shared, &moved.joined, ops, &poke_id, &mut frames)?;
    } else {
        frames.extend(shared.row_frames(ops)?.iter().cloned());
    }
    Ok(Told { poke_id, frames, rows: ops.len() })
}

/// The poke takes the id of the largest encoded view, whose frames can then go as they are.
fn lead_poke_id(shared: &Shared, joined: &[ViewId]) -> String {
    let fulls = joined.iter().filter_map(|v| shared.full(*v));
    fulls.max_by_key(|f| f.size).map_or_else(|| shared.poke_id(), |f| f.poke_id.clone())
}

/// Rows of views joined by a group that had none: everything is new, so nothing has to be
/// looked up; a row that two views hold is sent once.
fn join_fresh(
    shared: &mut Shared,
    joined: &[ViewId],
    poke_id: &str,
    frames: &mut Vec<Bytes>,
) -> Result<usize, ReadError> {
    let mut order: Vec<ViewId> = joined.to_vec();
    // The view that lends its id first: its frames go out whole.
    order.sort_by_key(|v| shared.full(*v).is_none_or(|f| f.poke_id != poke_id));
    let mut told = 0;
    for (position, id) in order.iter().enumerate() {
        let Some(view) = shared.views.get(*id) else { continue };
        let earlier: Vec<&View> = order[..position].iter().filter_map(|v| shared.views.get(*v)).collect();
        let seen = |row: RowId| earlier.iter().any(|v| v.state.contains(row));
        let mut rest: Vec<RowOp> = Vec::new();
        match shared.full(*id) {
            None => rest.extend(view.state.sorted().into_iter().filter(|r| !seen(*r)).map(RowOp::Put)),
            Some(full) => {
                let stale: Vec<RowId> = stale(view, full.at);
                let whole = full.poke_id == poke_id && earlier.is_empty();
                let mut body = PokeBody::default();
                for part in &full.parts {
                    if whole && !part.rows.iter().any(|(r, _)| stale.binary_search(r).is_ok()) {
                        frames.push(part.frame.clone());
                        continue;
                    }
                    for (row, fragment) in part.fragments() {
                        if stale.binary_search(&row).is_err() && !seen(row) {
                            push_row(&mut body, fragment, poke_id, frames);
                        }
                    }
                }
                flush(&mut body, poke_id, frames);
                let alive = stale.iter().filter(|r| view.state.contains(**r) && !seen(**r));
                rest.extend(alive.map(|r| RowOp::Put(*r)));
            }
        }
        told += view.state.len();
        frames.extend(shared.encode(poke_id, &rest)?);
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
fn encode_joined(
    shared: &mut Shared,
    joined: &[ViewId],
    ops: &[RowOp],
    poke_id: &str,
    frames: &mut Vec<Bytes>,
) -> Result<(), ReadError> {
    let mut wanted: RowMap<()> = RowMap::default();
    wanted.extend(ops.iter().filter_map(|op| match op {
        RowOp::Put(id) => Some((*id, ())),
        RowOp::Del(_) => None,
    }));
    let mut body = PokeBody::default();
    for id in joined {
        let (Some(view), Some(full)) = (shared.views.get(*id), shared.full(*id)) else { continue };
        let stale = stale(view, full.at);
        for (row, fragment) in full.parts.iter().flat_map(|p| p.fragments()) {
            if stale.binary_search(&row).is_err() && wanted.remove(&row).is_some() {
                push_row(&mut body, fragment, poke_id, frames);
            }
        }
    }
    flush(&mut body, poke_id, frames);
    let rest: Vec<RowOp> = ops
        .iter()
        .filter(|op| match op {
            RowOp::Put(id) => wanted.contains_key(id),
            RowOp::Del(_) => true,
        })
        .copied()
        .collect();
    frames.extend(shared.encode(poke_id, &rest)?);
    Ok(())
}
