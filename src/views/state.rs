//! What a view holds: which rows, at which node, under which key of their parents.

use super::entries::IdentityId;
use super::rows::{RowId, RowMap, RowSet, Rows};
use super::sharded::ShardedMap;
use super::window::Window;

/// Rows of one node under one key, in no order. Most are few: those have no allocation of their own.
#[derive(Debug, Clone)]
pub enum Ids {
    /// The first so many of these.
    Few(u8, [RowId; FEW]),
    /// More, or once more.
    Many(Box<RowSet>),
}

/// Rows that take no more room than a pointer to a set would.
const FEW: usize = 3;

impl Default for Ids {
    fn default() -> Self {
        Ids::Few(0, [RowId(0); FEW])
    }
}

impl Ids {
    /// Whether the row is in it.
    pub fn contains(&self, id: RowId) -> bool {
        match self {
            Ids::Few(len, ids) => ids[..*len as usize].contains(&id),
            Ids::Many(ids) => ids.contains(&id),
        }
    }

    /// Adds a row that is not in it.
    pub fn insert(&mut self, id: RowId) {
        match self {
            Ids::Few(len, ids) if (*len as usize) < FEW => {
                ids[*len as usize] = id;
                *len += 1;
            }
            Ids::Few(_, ids) => {
                let many: RowSet = ids.iter().copied().chain([id]).collect();
                *self = Ids::Many(Box::new(many));
            }
            Ids::Many(ids) => drop(ids.insert(id)),
        }
    }

    /// Takes a row out; whether it was in.
    pub fn remove(&mut self, id: RowId) -> bool {
        match self {
            Ids::Few(len, ids) => match ids[..*len as usize].iter().position(|i| *i == id) {
                Some(at) => {
                    *len -= 1;
                    ids[at] = ids[*len as usize];
                    true
                }
                None => false,
            },
            Ids::Many(ids) => ids.remove(&id),
        }
    }

    /// All rows.
    pub fn iter(&self) -> impl Iterator<Item = RowId> + '_ {
        let (few, many) = match self {
            Ids::Few(len, ids) => (&ids[..*len as usize], None),
            Ids::Many(ids) => (&[][..], Some(ids)),
        };
        few.iter().chain(many.into_iter().flat_map(|ids| ids.iter())).copied()
    }

    /// How many.
    pub fn len(&self) -> usize {
        match self {
            Ids::Few(len, _) => *len as usize,
            Ids::Many(ids) => ids.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What a node holds for one key.
#[derive(Debug, Clone, Default)]
pub struct Slot {
    /// Rows of the parent node that have the key.
    pub parents: u32,
    /// Rows here. Left empty by a node without keys whose rows nobody else holds: the view's
    /// members tell.
    pub rows: Ids,
    /// Of a node with a limit.
    pub window: Option<Box<Window>>,
}

/// What a node holds: by correlation key. The root has one slot, under the empty key.
pub type Slots = ShardedMap<Box<[u8]>, Slot>;

/// What a view holds at one version. Each row at each node holds one reference to its number.
#[derive(Debug, Clone, Default)]
pub struct ViewState {
    /// Rows sent, each once.
    members: RowSet,
    /// Rows that more than one node holds, with how many more.
    more: RowMap<u32>,
    /// By node.
    pub nodes: Vec<Slots>,
    /// The root leaves its rows to `members`.
    pub flat: Option<IdentityId>,
    /// How many these are.
    pub flat_rows: usize,
}

impl ViewState {
    /// Of a view with so many nodes. `flat`: the identity of the root's rows if no other
    /// node sends rows of it.
    pub fn new(nodes: usize, flat: Option<IdentityId>) -> ViewState {
        let mut state = ViewState { nodes: vec![Slots::default(); nodes], flat, ..ViewState::default() };
        if let Some(root) = state.nodes.first_mut() {
            root.insert(Box::default(), Slot { parents: 1, ..Slot::default() });
        }
        state
    }

    /// Whether the row is sent.
    pub fn contains(&self, id: RowId) -> bool {
        self.members.contains(&id)
    }

    /// Rows sent.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// All rows sent, in no order.
    pub fn iter(&self) -> impl Iterator<Item = RowId> {
        self.members.iter().copied()
    }

    /// Some of the rows sent: those of one part. Parts come in order; what a row that stays is
    /// in may change, but only to a later one. `None`: there are no more.
    pub fn part(&self, part: usize) -> Option<impl Iterator<Item = RowId>> {
        Some(self.members.part(part)?.copied())
    }

    /// All rows sent, in order of their numbers.
    pub fn sorted(&self) -> Vec<RowId> {
        let mut out: Vec<RowId> = self.iter().collect();
        out.sort_unstable();
        out
    }

    /// One more node holds a row that is sent. Whether it is the first.
    pub fn enter(&mut self, id: RowId) -> bool {
        if self.members.insert(id) {
            return true;
        }
        *self.more.entry(id).or_default() += 1;
        false
    }

    /// One node less holds a row that is sent. Whether it was the last.
    pub fn leave(&mut self, id: RowId) -> bool {
        match self.more.get_mut(&id) {
            Some(1) => drop(self.more.remove(&id)),
            Some(count) => *count -= 1,
            None => {
                self.members.remove(&id);
                return true;
            }
        }
        false
    }

    /// Whether a node leaves its rows to the view's members.
    pub fn is_flat(&self, node: usize) -> bool {
        node == 0 && self.flat.is_some()
    }

    /// Whether a node holds the row under the key.
    pub fn holds(&self, node: usize, key: &[u8], id: RowId) -> bool {
        match self.nodes[node].get(key) {
            Some(_) if self.is_flat(node) => self.contains(id),
            Some(slot) => slot.rows.contains(id),
            None => false,
        }
    }

    /// Rows of a node under a key.
    pub fn rows_of(&self, node: usize, key: &[u8], rows: &Rows) -> Vec<RowId> {
        match (self.flat.filter(|_| node == 0), self.nodes[node].get(key)) {
            (Some(flat), _) => self.iter().filter(|id| rows.identity_of(*id) == flat).collect(),
            (None, Some(slot)) => slot.rows.iter().collect(),
            (None, None) => Vec::new(),
        }
    }

    /// Rows that are flat, if any are, the rows sent, and the nodes.
    pub(super) fn into_parts(self) -> (Option<IdentityId>, RowSet, Vec<Slots>) {
        (self.flat, self.members, self.nodes)
    }

    /// Gives every reference back.
    pub fn release(&self, rows: &mut Rows) {
        if let Some(flat) = self.flat {
            let own: Vec<RowId> = self.iter().filter(|id| rows.identity_of(*id) == flat).collect();
            rows.release_all(&own);
        }
        for slot in self.nodes.iter().flat_map(|slots| slots.values()) {
            slot.rows.iter().for_each(|id| rows.release(id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_sent_until_the_last_node_gives_it_up() {
        let mut state = ViewState::new(2, None);
        assert!(state.enter(RowId(7)) && !state.enter(RowId(7)) && !state.enter(RowId(7)));
        assert!(!state.leave(RowId(7)) && !state.leave(RowId(7)));
        assert!(state.contains(RowId(7)));
        assert!(state.leave(RowId(7)) && !state.contains(RowId(7)));
    }

    #[test]
    fn what_a_key_takes_is_known() {
        // A board has some hundred and fifty keys.
        assert_eq!((size_of::<Ids>(), size_of::<Slot>()), (16, 32));
    }

    #[test]
    fn a_set_that_grows_and_shrinks_holds_what_it_should() {
        let mut ids = Ids::default();
        (0..100).for_each(|i| ids.insert(RowId(i)));
        assert!((0..100).all(|i| ids.contains(RowId(i))));
        assert!((0..99).all(|i| ids.remove(RowId(i))) && !ids.remove(RowId(0)));
        assert_eq!(ids.iter().collect::<Vec<_>>(), [RowId(99)]);
    }
}
