//! Which results of mutations the app may forget, because clients have taken note of them
//! (`docs/spec/view-syncer.md` §9.6).
//!
//! One request of a group is under way at a time. What waits is as small as it can be: of the acknowledgements
//! of a client the last one says all, and clients that are gone are listed together.

use std::collections::{HashSet, VecDeque};
use std::rc::Rc;

use bytes::Bytes;
use serde_json::json;

use super::context::Context;

/// Clients of a group that may wait with an acknowledgement. A group has a few tabs; what comes beyond it is left out,
/// and the results stay until the client acknowledges another or is gone.
pub const MAX_WAITING: usize = 128;

/// Clients that are gone and may wait together, of one group.
pub const MAX_GONE: usize = 20_000;

/// Results that clients have taken note of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Forget {
    /// All of a client up to this one.
    UpTo {
        /// The client.
        client_id: String,
        /// Last mutation.
        id: u64,
    },
    /// All of these clients.
    Clients(Vec<String>),
}

/// One request to come.
#[derive(Debug)]
pub struct CleanUp {
    /// What whoever asked for it last brings along.
    pub context: Rc<Context>,
    /// Name of the request.
    pub request_id: String,
    /// What it is about.
    pub forget: Forget,
}

impl CleanUp {
    /// The request's body; `now_ms`: milliseconds since 1970.
    pub fn body(&self, group_id: &str, now_ms: u64) -> Bytes {
        let (client, argument) = match &self.forget {
            Forget::UpTo { client_id, id } => (
                client_id.as_str(),
                json!({"type": "single", "clientGroupID": group_id, "clientID": client_id, "upToMutationID": id}),
            ),
            Forget::Clients(ids) => (
                ids.first().map_or("", String::as_str),
                json!({"type": "bulk", "clientGroupID": group_id, "clientIDs": ids}),
            ),
        };
        let body = json!({
            "clientGroupID": group_id,
            "mutations": [{
                "type": "custom",
                "id": 0,
                "clientID": client,
                "name": "_zero_cleanupResults",
                "args": [argument],
                "timestamp": now_ms,
            }],
            "pushVersion": 1,
            "timestamp": now_ms,
            "requestID": self.request_id,
        });
        Bytes::from(body.to_string())
    }
}

/// What a group has to have cleaned up.
#[derive(Debug, Default)]
pub struct CleanUps {
    waiting: VecDeque<CleanUp>,
    /// Clients that are gone and wait.
    gone: HashSet<String>,
}

impl CleanUps {
    /// Adds what a connection asks for to what waits.
    pub fn add(&mut self, new: CleanUp) {
        let room = self.waiting.len() < MAX_WAITING;
        let of_kind = |waiting: &&mut CleanUp| match (&waiting.forget, &new.forget) {
            (Forget::UpTo { client_id: old, .. }, Forget::UpTo { client_id: new, .. }) => old == new,
            (Forget::Clients(_), Forget::Clients(_)) => true,
            _ => false,
        };
        let old = self.waiting.iter_mut().find(of_kind);
        match (old, new.forget) {
            (Some(old), Forget::UpTo { client_id, id }) => {
                let newest = match old.forget {
                    Forget::UpTo { id: before, .. } => id.max(before),
                    Forget::Clients(_) => id,
                };
                *old = CleanUp { forget: Forget::UpTo { client_id, id: newest }, ..new };
            }
            (None, Forget::UpTo { client_id, id }) if room => {
                self.waiting.push_back(CleanUp { forget: Forget::UpTo { client_id, id }, ..new });
            }
            (None, Forget::UpTo { .. }) => {}
            (old, Forget::Clients(ids)) => {
                let mut listed = Vec::new();
                for id in ids {
                    if self.gone.len() < MAX_GONE && self.gone.insert(id.clone()) {
                        listed.push(id);
                    }
                }
                match old {
                    Some(CleanUp { forget: Forget::Clients(before), context, .. }) => {
                        before.extend(listed);
                        *context = new.context;
                    }
                    _ if listed.is_empty() => {}
                    // There is one at most, beside those of the clients.
                    _ => self.waiting.push_back(CleanUp { forget: Forget::Clients(listed), ..new }),
                }
            }
        }
    }

    /// The next request, in order of arrival.
    pub fn take(&mut self) -> Option<CleanUp> {
        let next = self.waiting.pop_front()?;
        if matches!(next.forget, Forget::Clients(_)) {
            self.gone.clear();
        }
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(all: &mut CleanUps, forget: Forget) {
        all.add(CleanUp { context: Rc::default(), request_id: "r".into(), forget });
    }

    fn up_to(client: &str, id: u64) -> Forget {
        Forget::UpTo { client_id: client.into(), id }
    }

    fn clients(ids: &[&str]) -> Forget {
        Forget::Clients(ids.iter().map(|id| (*id).to_owned()).collect())
    }

    fn rest(all: &mut CleanUps) -> Vec<Forget> {
        std::iter::from_fn(|| all.take()).map(|c| c.forget).collect()
    }

    #[test]
    fn the_last_acknowledgement_of_a_client_says_all() {
        let mut all = CleanUps::default();
        (0..20_000).for_each(|id| add(&mut all, up_to("a", id)));
        add(&mut all, up_to("b", 7));
        add(&mut all, up_to("a", 3));
        assert_eq!(rest(&mut all), [up_to("a", 19_999), up_to("b", 7)]);
    }

    #[test]
    fn clients_that_are_gone_are_listed_together_and_once() {
        let mut all = CleanUps::default();
        for ids in [["x", "y"], ["y", "z"], ["x", "x"]] {
            add(&mut all, clients(&ids));
        }
        add(&mut all, up_to("a", 1));
        assert_eq!(rest(&mut all), [clients(&["x", "y", "z"]), up_to("a", 1)]);
        add(&mut all, clients(&["x"]));
        assert_eq!(rest(&mut all), [clients(&["x"])], "what is under way does not count");
    }

    #[test]
    fn clients_that_are_made_up_do_not_pile_up() {
        let mut all = CleanUps::default();
        (0..10_000).for_each(|n| add(&mut all, up_to(&format!("c{n}"), 1)));
        let many: Vec<String> = (0..2 * MAX_GONE).map(|n| format!("c{n}")).collect();
        add(&mut all, Forget::Clients(many));
        assert_eq!((all.waiting.len(), all.gone.len()), (MAX_WAITING + 1, MAX_GONE));
        add(&mut all, up_to("c0", 9));
        assert!(rest(&mut all).contains(&up_to("c0", 9)), "those that wait go on");
    }

    #[test]
    fn requests_are_as_the_apps_library_reads_them() {
        let body = |forget| {
            let clean_up = CleanUp { context: Rc::default(), request_id: "cleanup-1".into(), forget };
            serde_json::from_slice::<serde_json::Value>(&clean_up.body("g", 5)).unwrap()
        };
        let single = body(up_to("c", 4));
        assert_eq!((&single["requestID"], &single["pushVersion"]), (&json!("cleanup-1"), &json!(1)));
        let mutation = &single["mutations"][0];
        assert_eq!((&mutation["id"], &mutation["clientID"]), (&json!(0), &json!("c")));
        let expected = json!({"type": "single", "clientGroupID": "g", "clientID": "c", "upToMutationID": 4});
        assert_eq!(mutation["args"], json!([expected]));
        let bulk = &body(clients(&["x", "y"]))["mutations"][0];
        assert_eq!(bulk["clientID"], "x");
        let expected = json!({"type": "bulk", "clientGroupID": "g", "clientIDs": ["x", "y"]});
        assert_eq!(bulk["args"], json!([expected]));
    }
}
