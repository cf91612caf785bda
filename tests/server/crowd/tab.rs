//! One tab of the crowd: what it wants, does and holds, from one connection to the next.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};

use super::super::support::client::{Client, Event};
use super::super::support::random::Random;
use super::crew::Tally;
use super::meaning::Question;

/// A tab, over any number of connections.
pub struct Tab {
    pub client: Client,
    /// Numbers of the questions of its group that it asks.
    pub wants: BTreeSet<usize>,
    /// Mutations that it does not know to be applied.
    pending: BTreeMap<u64, Value>,
    /// Mutations of other tabs of its browser, which it sends along when it comes.
    taken_over: Vec<Value>,
    made: u64,
    /// It leaves what comes lying about for a while.
    pub is_slow: bool,
    /// It comes back when the server has ended, not before.
    pub is_away: bool,
    /// What it held when it came back, until it has been sent rows.
    held: Option<BTreeMap<(String, String), Value>>,
}

impl Tab {
    pub fn new(client: Client, wants: BTreeSet<usize>, is_slow: bool) -> Tab {
        let (pending, taken_over) = (BTreeMap::new(), Vec::new());
        Tab { client, wants, pending, taken_over, made: 0, is_slow, is_away: false, held: None }
    }

    /// Connects, or comes back: with its cookie, what it wants that the server may not have heard
    /// of, and the mutations that may be lost. False: the server is not there.
    pub fn come(&mut self, questions: &[Question]) -> bool {
        let wanted: BTreeMap<String, &Question> =
            self.wants.iter().map(|n| (questions[*n].query.hash(), &questions[*n])).collect();
        let told = self.client.store.desired.get(&self.client.id).cloned().unwrap_or_default();
        let gone = told.iter().filter(|hash| !wanted.contains_key(*hash));
        let mut patch: Vec<Value> = gone.map(|hash| json!({"op": "del", "hash": hash})).collect();
        let new = wanted.iter().filter(|(hash, _)| !told.contains(*hash));
        patch.extend(new.map(|(_, question)| question.query.put()));
        let init = self.client.init_body(patch);
        if self.client.try_open(Some(&init)).is_err() {
            return false;
        }
        self.client.raw().set_nonblocking(true).expect("a socket that does not block");
        self.held = self.client.store.cookie.is_some().then(|| self.client.store.rows.clone());
        self.forget_applied();
        let mut again: Vec<Value> = self.pending.values().cloned().collect();
        again.append(&mut self.taken_over);
        if !again.is_empty() {
            let again = self.client.push_message(again);
            self.client.try_send(again);
        }
        true
    }

    /// Mutations that it does not know to be applied, in order.
    pub fn unheard(&self) -> Vec<Value> {
        self.pending.values().cloned().collect()
    }

    /// Has it send mutations of others of its browser when it comes.
    pub fn take_over(&mut self, mutations: Vec<Value>) {
        self.taken_over = mutations;
    }

    /// Takes what has come. False: the connection is over.
    pub fn listen(&mut self, tally: &mut Tally) -> bool {
        while self.client.is_connected() {
            match self.client.next(Duration::ZERO) {
                None => return true,
                Some(Event::Closed(..)) => return false,
                Some(event) => self.take(event, tally),
            }
        }
        false
    }

    fn take(&mut self, event: Event, tally: &mut Tally) {
        let name = format!("{} of {}", self.client.id, self.client.group);
        match event {
            Event::Poke(poke) => {
                assert!(!poke.cleared, "{name} was told to start over: {:?} to {}", poke.base, poke.cookie);
                tally.pokes += 1;
                if !poke.puts.is_empty()
                    && let Some(held) = self.held.take()
                {
                    let is_same =
                        |key: &&(String, String)| held.get(*key) == self.client.store.rows.get(*key);
                    tally.held += held.len();
                    tally.resent += poke.puts.iter().filter(is_same).count();
                }
                self.forget_applied();
                // Nobody needs them; a long run would keep all.
                self.client.pokes.clear();
            }
            Event::Error(error) => panic!("{name} was told {error}"),
            Event::TransformError(errors) => panic!("{name} was refused {errors:?}"),
            Event::DeleteClients(ids) => panic!("{name} was told that {ids:?} are gone"),
            Event::Other(message) => panic!("{name} was sent {message}"),
            Event::Connected(_) | Event::Pong | Event::Closed(..) => {}
        }
    }

    fn forget_applied(&mut self) {
        let last = self.client.store.lmids.get(&self.client.id).copied().unwrap_or(0);
        self.pending = self.pending.split_off(&(last + 1));
    }

    /// Whether all its mutations are known to be applied.
    pub fn is_heard(&self) -> bool {
        self.pending.is_empty()
    }

    /// Asks for something else.
    pub fn change(&mut self, questions: &[Question], random: &mut Random) {
        let number = random.below(questions.len() as u64) as usize;
        let query = &questions[number].query;
        let op = if self.wants.remove(&number) {
            query.del()
        } else {
            self.wants.insert(number);
            query.put()
        };
        self.client.try_send(json!(["changeDesiredQueries", {"desiredQueriesPatch": [op]}]));
    }

    /// Makes a mutation; one in six is refused by the app. Takes note of results now and then.
    pub fn mutate(&mut self, random: &mut Random) {
        self.made += 1;
        let id = format!("m-{}-{}", self.client.id, self.made % 5);
        let owner =
            if random.chance(2) { self.client.group.clone() } else { format!("o{}", random.below(8)) };
        let mutation = match random.below(6) {
            0 => self.client.mutation("nonesuch", json!({"n": self.made})),
            1 => self.client.mutation("del", json!({"id": id})),
            _ => self.client.mutation("put", json!({"id": id, "owner": owner, "n": self.made})),
        };
        let number = mutation["id"].as_u64().expect("a number");
        self.pending.insert(number, mutation.clone());
        let message = self.client.push_message(vec![mutation]);
        self.client.try_send(message);
        if random.chance(4)
            && let Some(last) = self.client.store.lmids.get(&self.client.id)
        {
            let message = json!(["ackMutationResponses", {"clientID": self.client.id, "id": last}]);
            self.client.try_send(message);
        }
    }
}
