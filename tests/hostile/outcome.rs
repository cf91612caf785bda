//! What whoever sent something must see on his connection.

use crate::support::client::{Client, Event, WAIT};

/// What becomes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is served on: a ping is answered, and no error has come before.
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
            Outcome::Served => client.round_trip(),
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
