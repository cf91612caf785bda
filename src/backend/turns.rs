//! Who may call the app now: calls of one kind to one endpoint have places of their own, and client groups take
//! turns for them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::task::{Poll, Waker};

use futures_lite::future::poll_fn;

use super::fair_queue::{FairQueue, Ticket};

/// What a call is for. Calls of one kind never wait for those of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CallKind {
    /// The app spells out queries, or lets a connection in.
    Transform,
    /// Mutations.
    Push,
    /// The app forgets results that clients have. Nobody waits for it.
    CleanUp,
}

/// Calls of one endpoint under way at a time, from one core. After a restart all clients come at once, and an app
/// that is asked a thousand things at once refuses most; the others wait here.
const MAX_CALLS: usize = 128;

/// Those of a client group: its tabs ask for themselves, and must leave places for others.
const MAX_OF_GROUP: usize = 32;

/// Clean-ups under way at a time: nobody waits for them, and the app should have its hands free for what is waited for.
const MAX_CLEAN_UPS: usize = 8;

/// Calls of one endpoint that clients name and the settings allow by a pattern: there may be any number of them.
const MAX_OF_NAMED: usize = 16;

impl CallKind {
    fn most(self) -> usize {
        match self {
            CallKind::Transform | CallKind::Push => MAX_CALLS,
            CallKind::CleanUp => MAX_CLEAN_UPS,
        }
    }
}

/// Which places.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Place {
    /// Of an endpoint, shared by groups.
    Endpoint(CallKind, Rc<str>),
    /// Of all endpoints that clients name, shared by these endpoints.
    Named(CallKind),
}

/// One sort of places.
struct Places {
    queue: FairQueue,
    /// Who waits, and who has been let in and does not know it yet (`None`).
    waiting: HashMap<Ticket, Option<Waker>>,
}

impl Places {
    fn let_in(&mut self) {
        while let Some(ticket) = self.queue.take() {
            if let Some(waker) = self.waiting.remove(&ticket).flatten() {
                waker.wake();
            }
        }
    }
}

/// The calls of one core; cheap to clone.
#[derive(Clone, Default)]
pub struct Turns {
    places: Rc<RefCell<HashMap<Place, Places>>>,
}

/// A call may be made for as long as this lives.
pub struct Turn(Vec<Taken>);

impl Turns {
    /// Waits until a call of the endpoint may be made for a group. `is_listed`: the settings name the endpoint as it is.
    pub async fn wait(&self, kind: CallKind, endpoint: &str, is_listed: bool, group: &str) -> Turn {
        let endpoint: Rc<str> = endpoint.into();
        let most = if is_listed { kind.most() } else { kind.most().min(MAX_OF_NAMED) };
        let own = FairQueue::new(most, MAX_OF_GROUP.min(most));
        let place = Place::Endpoint(kind, endpoint.clone());
        let mut taken = vec![Taken::of(self, place, group.into(), own).await];
        if !is_listed {
            let all = FairQueue::new(kind.most(), MAX_OF_NAMED.min(kind.most()));
            taken.push(Taken::of(self, Place::Named(kind), endpoint, all).await);
        }
        // The places that are shared by more are free first.
        taken.reverse();
        Turn(taken)
    }
}

impl Turn {
    /// Places that it has taken.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Never: a turn takes a place at least.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A place, or the wish for one.
struct Taken {
    turns: Turns,
    place: Place,
    party: Rc<str>,
    ticket: Ticket,
}

impl Taken {
    /// Waits for a place; `fresh`: how many there are.
    async fn of(turns: &Turns, place: Place, party: Rc<str>, fresh: FairQueue) -> Taken {
        let ticket = {
            let mut all = turns.places.borrow_mut();
            let fresh = || Places { queue: fresh, waiting: HashMap::new() };
            let places = all.entry(place.clone()).or_insert_with(fresh);
            let ticket = places.queue.ask(&party);
            places.waiting.insert(ticket, None);
            places.let_in();
            ticket
        };
        // From here on it is given back whatever happens.
        let taken = Taken { turns: turns.clone(), place, party, ticket };
        poll_fn(|cx| {
            let mut all = taken.turns.places.borrow_mut();
            match all.get_mut(&taken.place).and_then(|places| places.waiting.get_mut(&taken.ticket)) {
                None => Poll::Ready(()),
                Some(waker) => {
                    *waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await;
        taken
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut all = self.turns.places.borrow_mut();
        let Some(places) = all.get_mut(&self.place) else { return };
        match places.waiting.remove(&self.ticket) {
            Some(_) => places.queue.cancel(&self.party, self.ticket),
            None => places.queue.leave(&self.party),
        }
        places.let_in();
        // Clients may name endpoints: those that nobody calls are forgotten.
        if places.queue.is_idle() {
            all.remove(&self.place);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::{block_on, poll_once};

    use super::*;

    const URL: &str = "https://app.example.com/api";

    /// The turns that a group gets at once.
    fn take(turns: &Turns, kind: CallKind, url: &str, is_listed: bool, group: &str) -> Vec<Turn> {
        let one = || block_on(poll_once(turns.wait(kind, url, is_listed, group)));
        std::iter::from_fn(one).collect()
    }

    #[test]
    fn no_kind_of_call_waits_for_another_and_no_group_for_one_that_asks_much() {
        let turns = Turns::default();
        let greedy = take(&turns, CallKind::CleanUp, URL, true, "greedy");
        assert_eq!(greedy.len(), MAX_CLEAN_UPS);
        let greedy_too = take(&turns, CallKind::Transform, URL, true, "greedy");
        assert_eq!(greedy_too.len(), MAX_OF_GROUP);
        assert!(!take(&turns, CallKind::Push, URL, true, "other").is_empty());
        assert!(!take(&turns, CallKind::Transform, URL, true, "other").is_empty());
        drop((greedy, greedy_too));
        assert!(turns.places.borrow().is_empty(), "nothing is kept for an endpoint that nobody calls");
    }

    #[test]
    fn endpoints_that_clients_name_share_some_places() {
        let turns = Turns::default();
        let mut hanging = Vec::new();
        for n in 0..100 {
            hanging.extend(take(&turns, CallKind::Push, &format!("{URL}/{n}"), false, &format!("g{n}")));
        }
        assert_eq!(hanging.len(), MAX_CALLS);
        assert!(
            !take(&turns, CallKind::Push, URL, true, "other").is_empty(),
            "the app's own is not among them"
        );
        hanging.truncate(MAX_CALLS - 1);
        assert_eq!(take(&turns, CallKind::Push, "https://x.example.com", false, "other").len(), 1);
    }

    #[test]
    fn whoever_waits_is_woken_when_a_place_is_free() {
        let turns = Turns::default();
        let mut places = take(&turns, CallKind::CleanUp, URL, true, "a");
        let mut waiting = Box::pin(turns.wait(CallKind::CleanUp, URL, true, "b"));
        assert!(block_on(poll_once(&mut waiting)).is_none());
        let mut gone = Box::pin(turns.wait(CallKind::CleanUp, URL, true, "c"));
        assert!(block_on(poll_once(&mut gone)).is_none());
        drop(gone);
        places.pop();
        assert_eq!(block_on(waiting).len(), 1);
    }
}
