//! Somebody asks why a core is busy, and the server cannot say.

use crate::support::app::query;
use crate::support::http;
use crate::support::stage::Stage;
use serde_json::{Value, json};

/// The views of the only core as `/statz` describes them.
fn views(stage: &Stage) -> Vec<Value> {
    // Of any user; the password is "secret".
    let head = "GET /statz?group=views&format=json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
                Authorization: Basic OnNlY3JldA==\r\n\r\n";
    let answer = http::exchange(stage.server.port, head.as_bytes()).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a body");
    assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
    let page: Value = serde_json::from_str(body).expect("JSON");
    page["views"]["core0"].as_array().unwrap_or_else(|| panic!("{page:#}")).clone()
}

#[test]
fn a_view_says_what_it_holds_and_what_it_cost() {
    let mut stage = Stage::new(&[("ADMIN_PASSWORD", "secret")]);
    stage.sql.run("INSERT INTO item SELECT 'i' || i, 'x', i, NULL FROM generate_series(1, 20) i");
    let mut clients = [stage.client(), stage.client()];
    for client in &mut clients {
        client.connect(&[query("items", json!([]))]);
        client.until("twenty items", |c| c.store.table("item").len() == 20);
    }
    stage.sql.run("UPDATE item SET n = n + 100 WHERE id = 'i3'");
    stage.sql.run("DELETE FROM item WHERE id = 'i4'");
    for client in &mut clients {
        client.until("nineteen items", |c| c.store.table("item").len() == 19);
    }
    let views = views(&stage);
    assert_eq!(views.len(), 1, "{views:#?}");
    let view = &views[0];
    assert_eq!(view["status"], "live");
    assert_eq!(view["subscribers"], 2, "both groups have the one view");
    assert_eq!(view["rows"], 19);
    assert_eq!((&view["rowsEdited"], &view["rowsLeft"]), (&json!(1), &json!(1)));
    assert_eq!(view["readings"], 1, "it was read once for both");
    assert_eq!(view["readAnewBecause"], json!({}));
    assert_eq!(view["nodes"][0]["table"], "item");
    assert!(view["milliseconds"].as_f64() > Some(0.0) && view["bytes"].as_u64() > Some(0), "{view:#}");
    stage.sql.run("TRUNCATE item");
    for client in &mut clients {
        client.until("nothing", |c| c.store.table("item").is_empty());
    }
    let again = self::views(&stage);
    assert_eq!(again[0]["readAnewBecause"], json!({"bulk": 1}), "it says why");
}
