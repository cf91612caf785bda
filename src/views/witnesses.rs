//! The witnesses of a view as a reading takes them with it: by key, not by number.

use std::cell::RefCell;

use super::pace::Pace;
use super::rows::Rows;
use super::scan::Witnesses;
use super::state::ViewState;
use crate::zql::plan::{Kind, Plan};

/// Witnesses of a state, by node and correlation key.
pub async fn witnesses(
    state: &ViewState,
    plan: &Plan,
    rows: &RefCell<Rows>,
    pace: &mut impl Pace,
) -> Witnesses {
    let mut out = Witnesses::new();
    for (node, slots) in state.nodes.iter().enumerate() {
        if plan.nodes[node].kind != Kind::Witness {
            continue;
        }
        for (key, slot) in slots.iter() {
            let found = slot.rows.iter().map(|id| rows.borrow().key_of(id).into()).collect();
            out.insert((node as u16, key.clone()), found);
            if pace.due() {
                pace.rest().await;
            }
        }
    }
    out
}
