//! What one group has the server ask of the app never keeps another group's mutations waiting
//! (`docs/spec/view-syncer.md` §9.6).

use crate::support::app::{Answer, Call, items};
use crate::support::stage::Stage;
use serde_json::{Value, json};

const CLEAN_UP: &str = "_zero_cleanupResults";

/// What the clean-ups so far were about.
fn clean_ups(calls: &[Call]) -> Vec<Value> {
    let of_kind = calls.iter().filter(|c| c.names() == [CLEAN_UP]);
    of_kind.map(|c| c.body["mutations"][0]["args"][0].clone()).collect()
}

#[test]
fn twenty_thousand_acknowledgements_do_not_keep_anothers_mutation() {
    let stage = Stage::new(&[]);
    let mut greedy = stage.tab(&[items()]);
    let mut other = stage.tab(&[items()]);
    // More than are ever called at a time: whoever waits behind them waits for ever.
    stage.app.script_mutate(vec![Answer::Hang; 1_000]);
    for id in 1..=20_000 {
        greedy.send(json!(["ackMutationResponses", {"clientID": greedy.id, "id": id}]));
        if id % 200 == 0 {
            greedy.send(json!(["deleteClients", {"clientIDs": [format!("gone{id}"), "gone200"]}]));
        }
    }
    greedy.round_trip();
    other.mutate("put", json!({"id": "a", "n": 1}));
    stage.app.until_mutation("the other's mutation", |c| c.names() == ["put"]);
    assert!(clean_ups(&stage.app.mutations()).len() <= 2, "one at a time, and one of another kind");
    // Nothing is lost: the last acknowledgement says all of the ones before it.
    stage.app.forget_script();
    stage.app.release();
    let is_last = |c: &Call| c.body["mutations"][0]["args"][0]["upToMutationID"] == 20_000;
    let calls = stage.app.until_mutation("the last acknowledgement", is_last);
    let single = json!({"type": "single", "clientGroupID": greedy.group, "clientID": greedy.id, "upToMutationID": 20_000});
    assert!(clean_ups(&calls).contains(&single));
    let is_bulk = |c: &Call| c.body["mutations"][0]["args"][0]["type"] == "bulk";
    let calls = stage.app.until_mutation("the clients that are gone", is_bulk);
    let bulk = clean_ups(&calls).into_iter().find(|about| about["type"] == "bulk").expect("it came");
    let mut ids: Vec<&str> =
        bulk["clientIDs"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    assert_eq!(ids.len(), 100);
    ids.dedup();
    assert_eq!((ids.len(), ids[0]), (100, "gone200"));
    assert_eq!(clean_ups(&stage.app.mutations()).len(), 3);
    greedy.round_trip();
    other.round_trip();
}
