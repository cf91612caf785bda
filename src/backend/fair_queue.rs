//! In which order those come who want one of a few places: in turns, whoever asks most.
//!
//! Everybody who asks does so for a *party*, say a client group. Parties take turns, and one has at most some of
//! the places, so that whoever asks a thousand times delays himself. Decides only; who waits is the caller's affair.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

/// One question for a place.
pub type Ticket = u64;

/// The places of one kind, and who waits for one.
#[derive(Debug)]
pub struct FairQueue {
    places: usize,
    of_party: usize,
    taken: usize,
    next_ticket: Ticket,
    /// Places that each party has.
    held: HashMap<Rc<str>, usize>,
    /// Who waits, by party.
    waiting: HashMap<Rc<str>, VecDeque<Ticket>>,
    /// Parties with somebody who waits; the first is the next.
    turns: VecDeque<Rc<str>>,
}

impl FairQueue {
    /// So many places, of which one party has at most so many.
    pub fn new(places: usize, of_party: usize) -> FairQueue {
        FairQueue {
            places,
            of_party,
            taken: 0,
            next_ticket: 0,
            held: HashMap::new(),
            waiting: HashMap::new(),
            turns: VecDeque::new(),
        }
    }

    /// Asks for a place; [`FairQueue::next`] says when it is there.
    pub fn ask(&mut self, party: &Rc<str>) -> Ticket {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let waiting = self.waiting.entry(party.clone()).or_default();
        if waiting.is_empty() {
            self.turns.push_back(party.clone());
        }
        waiting.push_back(ticket);
        ticket
    }

    /// Who has a place from now on, if there is one and somebody may have it. Call it until it says nobody.
    pub fn take(&mut self) -> Option<Ticket> {
        if self.taken >= self.places {
            return None;
        }
        let is_let_in = |party: &Rc<str>| self.held.get(party).is_none_or(|held| *held < self.of_party);
        let at = self.turns.iter().position(is_let_in)?;
        let party = self.turns.remove(at)?;
        let waiting = self.waiting.get_mut(&party)?;
        let ticket = waiting.pop_front()?;
        match waiting.is_empty() {
            true => drop(self.waiting.remove(&party)),
            false => self.turns.push_back(party.clone()),
        }
        self.taken += 1;
        *self.held.entry(party).or_default() += 1;
        Some(ticket)
    }

    /// A place of a party is free again.
    pub fn leave(&mut self, party: &Rc<str>) {
        if let Some(held) = self.held.get_mut(party) {
            *held -= 1;
            self.taken -= 1;
            if *held == 0 {
                self.held.remove(party);
            }
        }
    }

    /// Somebody who waits does so no more.
    pub fn cancel(&mut self, party: &Rc<str>, ticket: Ticket) {
        let Some(waiting) = self.waiting.get_mut(party) else { return };
        waiting.retain(|other| *other != ticket);
        if waiting.is_empty() {
            self.waiting.remove(party);
            self.turns.retain(|other| other != party);
        }
    }

    /// Whether nobody has a place and nobody waits.
    pub fn is_idle(&self) -> bool {
        self.taken == 0 && self.turns.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn party(name: &str) -> Rc<str> {
        name.into()
    }

    fn all(queue: &mut FairQueue) -> Vec<Ticket> {
        std::iter::from_fn(|| queue.take()).collect()
    }

    #[test]
    fn parties_take_turns() {
        let (a, b, c) = (party("a"), party("b"), party("c"));
        let mut queue = FairQueue::new(1, 1);
        let of_a: Vec<Ticket> = (0..20_000).map(|_| queue.ask(&a)).collect();
        assert_eq!(all(&mut queue), [of_a[0]]);
        let (of_b, of_c) = (queue.ask(&b), queue.ask(&c));
        queue.leave(&a);
        assert_eq!(all(&mut queue), [of_a[1]], "it was its turn when the others came");
        queue.leave(&a);
        assert_eq!(all(&mut queue), [of_b]);
        queue.leave(&b);
        assert_eq!(all(&mut queue), [of_c]);
        queue.leave(&c);
        assert_eq!(all(&mut queue), [of_a[2]], "and each of a party in order");
    }

    #[test]
    fn a_party_has_its_share_only() {
        let (a, b) = (party("a"), party("b"));
        let mut queue = FairQueue::new(4, 2);
        let of_a: Vec<Ticket> = (0..4).map(|_| queue.ask(&a)).collect();
        assert_eq!(all(&mut queue), of_a[..2], "places that are free wait for others");
        let of_b: Vec<Ticket> = (0..3).map(|_| queue.ask(&b)).collect();
        assert_eq!(all(&mut queue), of_b[..2]);
        queue.leave(&a);
        assert_eq!(all(&mut queue), of_a[2..3]);
    }

    #[test]
    fn whoever_goes_leaves_nothing_behind() {
        let (a, b) = (party("a"), party("b"));
        let mut queue = FairQueue::new(1, 1);
        let (first, second, other) = (queue.ask(&a), queue.ask(&a), queue.ask(&b));
        queue.cancel(&a, first);
        assert_eq!(all(&mut queue), [second]);
        queue.cancel(&b, other);
        queue.leave(&a);
        queue.leave(&a);
        assert!(all(&mut queue).is_empty() && queue.is_idle());
        assert_eq!((queue.held.len(), queue.waiting.len()), (0, 0));
    }
}
