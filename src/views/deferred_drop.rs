//! States that nobody needs any more: given up bit by bit, since one can hold a million rows.

use std::sync::Arc;

use hashbrown::DefaultHashBuilder;

use super::entries::IdentityId;
use super::rows::{RowSet, RowSetIter, Rows};
use super::sharded::IntoIter;
use super::state::{Slot, Slots, ViewState};
use super::subscription_index::{SubscriptionIndex, Target};
use super::view::ViewId;
use crate::zql::plan::Plan;

/// What is left of a state.
pub(super) struct DeferredDrop {
    view: ViewId,
    plan: Arc<Plan>,
    /// Its keys are registered in the subscription index.
    listening: bool,
    flat: Option<IdentityId>,
    members: RowSetIter,
    /// Nodes still to come, the last one first.
    nodes: Vec<Slots>,
    slots: IntoIter<Box<[u8]>, Slot, DefaultHashBuilder>,
}

impl DeferredDrop {
    /// Of a state that a view had. `listening`: its keys are registered in the subscription index.
    pub fn new(view: ViewId, plan: Arc<Plan>, state: ViewState, listening: bool) -> DeferredDrop {
        let (flat, members, nodes) = state.into_parts();
        // The others hold no reference of their own.
        let members = if flat.is_some() { members } else { RowSet::default() }.into_iter();
        DeferredDrop { view, plan, listening, flat, members, nodes, slots: Slots::default().into_iter() }
    }

    /// Gives up about so many rows and keys. Returns how many are left of `most`; none if
    /// there may be more.
    pub fn give_up(
        &mut self,
        most: usize,
        rows: &mut Rows,
        subscription_index: &mut SubscriptionIndex,
    ) -> usize {
        let mut left = most;
        while left > 0 {
            if let Some(id) = self.members.next() {
                left -= 1;
                if Some(rows.identity_of(id)) == self.flat {
                    rows.release(id);
                }
            } else if let Some((key, slot)) = self.slots.next() {
                left = left.saturating_sub(1 + slot.rows.len());
                slot.rows.iter().for_each(|id| rows.release(id));
                // The one whose iterator this is was taken off the list.
                self.unlisten(self.nodes.len(), &key, subscription_index);
            } else {
                match self.nodes.pop() {
                    Some(slots) => self.slots = slots.into_iter(),
                    None => break,
                }
            }
        }
        left
    }

    fn unlisten(&self, node: usize, key: &[u8], subscription_index: &mut SubscriptionIndex) {
        if let Some(plan) = self.plan.nodes.get(node).filter(|_| self.listening && node > 0) {
            let target = Target::Node(self.view, node as u16);
            subscription_index.remove_key(plan.table, &plan.child_columns, key, target);
        }
    }
}
