//! Waiting for what a client is told: always for a time, since pings are answered for ever.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Client, Event, QUIET, Query, WAIT};

impl Client {
    /// Takes events until `take` finds what it looks for.
    pub fn until_event<T>(&mut self, what: &str, mut take: impl FnMut(Event) -> Option<T>) -> T {
        let deadline = Instant::now() + WAIT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let event = self.next(left).filter(|_| !left.is_zero());
            let event = event.unwrap_or_else(|| panic!("{}: waited in vain for {what}", self.id));
            if let Some(found) = take(event) {
                return found;
            }
        }
    }

    /// Takes events until the condition holds. Errors and closes are the test's failure.
    pub fn until(&mut self, what: &str, done: impl Fn(&Client) -> bool) {
        self.until_within(WAIT, what, done);
    }

    /// The same with a limit.
    pub fn until_within(&mut self, limit: Duration, what: &str, done: impl Fn(&Client) -> bool) {
        let deadline = Instant::now() + limit;
        while !done(self) {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.next(left.min(Duration::from_millis(100))) {
                Some(event @ (Event::Error(_) | Event::Closed(..))) => {
                    panic!("{}: {event:?} while waiting for {what}", self.id)
                }
                Some(_) => {}
                None => assert!(
                    !left.is_zero(),
                    "{}: waited in vain for {what}; at {:?}, got {:?}, {} rows, last poke {:?}",
                    self.id,
                    self.store.cookie,
                    self.store.got,
                    self.store.rows.len(),
                    self.pokes.last().map(|p| (&p.base, &p.cookie, p.puts.len(), &p.got)),
                ),
            }
        }
    }

    /// Waits until these queries are got.
    pub fn until_got(&mut self, queries: &[Query]) {
        let hashes: Vec<String> = queries.iter().map(Query::hash).collect();
        // A tab may hold it from before: only with a poke is it known here that this one is there.
        let has = |c: &Client| !c.pokes.is_empty() && hashes.iter().all(|h| c.store.got.contains(h));
        self.until(&format!("got {hashes:?}"), has);
    }

    /// Takes events until an error comes, and the close after it.
    pub fn until_error(&mut self) -> Value {
        let deadline = Instant::now() + WAIT;
        let error = loop {
            if let Some(error) = self.refusal.take() {
                break error;
            }
            match self.next(deadline.saturating_duration_since(Instant::now())) {
                Some(Event::Error(error)) => break error,
                Some(Event::Closed(code, reason)) => {
                    panic!("{}: closed without an error: {code:?} {reason:?}", self.id)
                }
                event => assert!(event.is_some() && Instant::now() < deadline, "{}: no error came", self.id),
            }
        };
        match self.next(WAIT) {
            Some(Event::Closed(None | Some(3000), _)) => error,
            other => panic!("{}: after {error} came {other:?}", self.id),
        }
    }

    /// Whether it was let in; takes the error and the close if it was not.
    pub fn was_let_in(&mut self) -> bool {
        let is_in = self.refusal.is_none();
        if !is_in {
            self.until_error();
        }
        is_in
    }

    /// Connects and is refused because of who it is: an error before anything else, and its
    /// reason in the close.
    pub fn until_refused(&mut self) -> Value {
        let init = self.init_body(Vec::new());
        self.open(Some(&init));
        match (self.next(WAIT), self.next(WAIT)) {
            (Some(Event::Error(error)), Some(Event::Closed(Some(3000), reason))) => {
                assert!(
                    error["message"].as_str().is_some_and(|m| m.starts_with(reason.trim_end_matches("..."))),
                    "{reason}"
                );
                error
            }
            other => panic!("{}: it was not refused: {other:?}", self.id),
        }
    }

    /// Takes events until the connection is closed; an error is the test's failure.
    pub fn until_closed(&mut self) -> (Option<u16>, String) {
        let deadline = Instant::now() + WAIT;
        loop {
            match self.next(deadline.saturating_duration_since(Instant::now())) {
                Some(Event::Closed(code, reason)) => return (code, reason),
                Some(Event::Error(error)) => panic!("{}: {error} before the close", self.id),
                event => {
                    assert!(event.is_some() && Instant::now() < deadline, "{}: it is not closed", self.id);
                }
            }
        }
    }

    /// Takes what comes until nothing has come for this long.
    pub fn settle(&mut self, quiet: Duration) -> VecDeque<Event> {
        let mut events = VecDeque::new();
        while let Some(event) = self.next(quiet) {
            let closed = !event.is_not_closed();
            events.push_back(event);
            if closed {
                break;
            }
        }
        events
    }

    /// Checks that no poke comes.
    pub fn quiet(&mut self, what: &str) {
        self.round_trip();
        let before = self.pokes.len();
        self.settle(QUIET);
        assert_eq!(self.pokes.len(), before, "{what}: {:?}", self.pokes.last());
    }

    /// Sends a ping and waits for its pong: everything sent before has been read by then.
    pub fn round_trip(&mut self) {
        self.ping();
        self.until("a pong", |c| c.pinged.is_none());
    }
}
