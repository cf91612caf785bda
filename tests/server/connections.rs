//! More clients come than the process may have files open, and one of those who are served must
//! notice.

use std::time::{Duration, Instant};

use crate::support::app::items;
use crate::support::client::{Client, Event, WAIT};
use crate::support::stage::Stage;
use rustix::process::{Resource, Rlimit, setrlimit};
use serde_json::Value;

/// Files that the server may open, and what it keeps of them for other uses than clients.
const FILES: u64 = 1_074;
const OTHERS: u64 = 1_024;

/// Longest time in which a bystander sees a commit.
const PROMPT: Duration = Duration::from_secs(3);

/// Connects; the error if it is not let in.
fn refusal(client: &mut Client) -> Option<Value> {
    let init = client.init_body(vec![items().put()]);
    client.open(Some(&init));
    let deadline = Instant::now() + WAIT;
    while !client.store.got.contains(&items().hash()) {
        match client.next(Duration::from_millis(100)) {
            Some(Event::Error(error)) => return Some(error),
            Some(Event::Closed(code, reason)) => panic!("closed without a reason: {code:?} {reason}"),
            _ => assert!(Instant::now() < deadline, "neither an answer nor a refusal"),
        }
    }
    None
}

#[test]
fn clients_beyond_the_open_files_are_told_to_come_back() {
    let stage = Stage::unstarted(crate::support::postgres::Cluster::shared(), "", &[]);
    // The server has the limits of who starts it.
    let limit = Rlimit { current: Some(FILES), maximum: Some(FILES) };
    setrlimit(Resource::Nofile, limit).expect("a lower limit");
    let mut stage = stage;
    stage.server.start();
    let bystander = stage.bystander();
    let room = (FILES - OTHERS) as usize - 1;
    let mut served: Vec<Client> = Vec::new();
    let mut refused = Vec::new();
    for _ in 0..room + 20 {
        let mut client = stage.client();
        match refusal(&mut client) {
            None => served.push(client),
            Some(error) => refused.push(error),
        }
    }
    assert_eq!((served.len(), refused.len()), (room, 20));
    for error in &refused {
        assert_eq!(error["kind"], "ServerOverloaded", "{error}");
        assert!(error["minBackoffMs"].as_u64().is_some_and(|ms| ms >= 5_000), "{error}");
    }
    // Those who go make room.
    served.drain(..10).for_each(|mut client| client.close());
    let deadline = Instant::now() + WAIT;
    let mut late = stage.client();
    while refusal(&mut late).is_some() {
        assert!(Instant::now() < deadline, "nobody is let in any more");
        std::thread::sleep(Duration::from_millis(50));
    }
    served.iter_mut().for_each(Client::round_trip);
    bystander.finish(PROMPT);
}
