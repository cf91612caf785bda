//! What whoever sent something must see on his connection.

use serde_json::json;

use crate::support::client::{Client, Event, WAIT};

/// What becomes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is served on: a ping and what is sent after it are answered, and no error has come before.
    Served,
    /// It is told this error, and then closed.
    Error(&'static str),
    /// It is closed with this code, and a reason, without an error.
    Closed(u16),
    /// It is closed, as a connection that has said goodbye.
    Ended,
}

impl Outcome {
    /// Waits for it.
    pub fn check(self, client: &mut Client, name: &str) {
        match self {
            Outcome::Served => {
                client.round_trip();
                until_read(client, name);
            }
            Outcome::Error(kind) => {
                let error = client.until_error();
                assert_eq!(error["kind"], kind, "{name}: {error}");
                let message = error["message"].as_str().unwrap_or_default();
                // What is sent back is a sentence, not what was sent.
                assert!(message.len() <= 4 << 10, "{name}: an error of {} bytes", message.len());
            }
            Outcome::Closed(code) => {
                let (seen, reason) = client.until_closed();
                assert_eq!(seen, Some(code), "{name}: {reason}");
                assert!(!reason.is_empty() && reason.len() <= 123, "{name}: {reason:?}");
            }
            Outcome::Ended => loop {
                match client.next(WAIT) {
                    Some(Event::Closed(..)) => return,
                    Some(Event::Connected(_) | Event::Poke(_) | Event::Pong) => {}
                    other => panic!("{name}: it is not closed: {other:?}"),
                }
            },
        }
    }
}

/// Waits until everything that was sent has been acted on. A pong does not show it, for a ping is answered by who reads
/// the socket; a question of the inspector takes its turn behind what came before it.
fn until_read(client: &mut Client, name: &str) {
    let id = format!("after {name}");
    client.send(json!(["inspect", {"op": "version", "id": id}]));
    loop {
        match client.next(WAIT) {
            Some(Event::Other(answer)) if answer[0] == "inspect" && answer[1]["id"] == id.as_str() => return,
            Some(Event::Error(error)) => panic!("{name}: {error}"),
            Some(Event::Closed(code, reason)) => panic!("{name}: closed with {code:?}: {reason}"),
            Some(_) => {}
            None => panic!("{name}: nothing is answered any more"),
        }
    }
}
