//! An error reaches a client that has just been told `connected` and still reads its store: the client
//! forgets the error, and goes on as connected without a socket (`docs/spec/sync-protocol.md` §4.3).

use std::io::Write;
use std::time::{Duration, Instant};

use crate::support::app::{Answer, THREE, items, schema};
use crate::support::client::{Client, Event, WAIT};
use crate::support::stage::Stage;
use serde_json::json;

/// Nothing comes that is not asked for, and no error in particular.
fn says_nothing(tab: &mut Client) {
    let event = tab.next_without_pings(Duration::from_millis(700));
    assert!(event.is_none(), "{event:?}");
}

/// A tab whose connection the app refuses.
fn refused(stage: &Stage) -> Client {
    stage.app.script_query([Answer::Status(401, "no")]);
    let mut tab = stage.client();
    tab.connect(&[items()]);
    assert!(tab.refusal.is_none(), "the app was asked after it");
    stage.server.until_log("TransformFailed", &tab.id);
    tab
}

#[test]
fn what_is_known_at_once_is_said_instead_of_connected() {
    let stage = Stage::prepared(THREE, &[]);
    let mut other = schema();
    other["tables"]["item"]["columns"]["nonesuch"] = json!({"type": "string"});
    let cases = [
        (json!({"desiredQueriesPatch": [], "clientSchema": other}), None, "SchemaVersionNotSupported"),
        (json!({"desiredQueriesPatch": []}), None, "InvalidConnectionRequest"),
        (json!({"desiredQueriesPatch": []}), Some("01"), "ClientNotFound"),
        (json!({"desiredQueriesPatch": [], "surprise": 1, "clientSchema": schema()}), None, "InvalidMessage"),
    ];
    for (init, cookie, kind) in cases {
        let mut tab = stage.client();
        tab.store.cookie = cookie.map(str::to_owned);
        tab.open(Some(&init));
        match (tab.next(WAIT), tab.next(WAIT)) {
            (Some(Event::Error(error)), Some(Event::Closed(None, _))) => {
                assert_eq!(error["kind"], kind, "{error}")
            }
            other => panic!("{kind}: {other:?}"),
        }
    }
}

#[test]
fn an_error_waits_for_the_first_message() {
    let stage = Stage::prepared(THREE, &[]);
    let messages = [
        json!(["ping", {}]),
        json!(["changeDesiredQueries", {"desiredQueriesPatch": []}]),
        json!(["deleteClients", {"clientIDs": ["long-gone"]}]),
    ];
    for message in messages {
        let mut tab = refused(&stage);
        says_nothing(&mut tab);
        // What the network sends by itself shows nothing: an empty pong, masked.
        tab.raw().write_all(&[0x8a, 0x80, 1, 2, 3, 4]).expect("it is open");
        says_nothing(&mut tab);
        tab.send(message);
        let error = tab.until_error();
        assert_eq!((&error["kind"], &error["status"]), (&json!("TransformFailed"), &json!(401)));
    }
}

#[test]
fn a_message_that_came_first_is_enough() {
    let stage = Stage::prepared(THREE, &[]);
    // What did not fit into the header is sent when the store has been read.
    let mut tab = stage.client();
    stage.app.script_query([Answer::Status(401, "no")]);
    tab.open(None);
    tab.until_connected();
    tab.send_init(&[items()]);
    let began = Instant::now();
    assert_eq!(tab.until_error()["kind"], "TransformFailed");
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}

#[test]
fn who_never_says_anything_is_told_in_the_end() {
    let stage = Stage::prepared(THREE, &[]);
    let mut tab = refused(&stage);
    let event = tab.next_without_pings(WAIT);
    assert!(matches!(&event, Some(Event::Error(error)) if error["kind"] == "TransformFailed"), "{event:?}");
}

#[test]
fn nobody_keeps_a_group_by_an_error_that_waits() {
    let stage = Stage::prepared(THREE, &[]);
    let mut tab = refused(&stage);
    says_nothing(&mut tab);
    // The same tab comes once more, and is let in at once.
    let mut again = tab.sibling();
    again.id = tab.id.clone();
    again.connect(&[items()]);
    again.until_got(&[items()]);
    // Neither does a client that closes have to wait.
    tab.close();
    let mut third = refused(&stage);
    third.vanish();
    again.round_trip();
}

#[test]
fn pokes_do_not_wait() {
    let mut stage = Stage::prepared(THREE, &[]);
    let mut tab = stage.tab(&[items()]);
    stage.sql.run("UPDATE item SET n = 9 WHERE id = 'a'");
    let began = Instant::now();
    tab.until("the change", |c| c.store.row("item", "a").is_some_and(|row| row["n"] == 9));
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}
