//! A tab is told more, less or something else than what it asked for
//! (`docs/spec/view-syncer.md` §3.5, §5).

use crate::support::app::{Query, THREE, items, of, query};
use crate::support::client::Client;
use crate::support::stage::Stage;
use crate::support::store::{Poke, keys};
use serde_json::{Value, json};

/// A query with any AST; `number` tells those with the same one apart.
fn spelled(ast: Value, number: u64) -> Query {
    query("spelled", json!([ast, number]))
}

/// Operations of a part, of all kinds.
fn operations(part: &Value) -> usize {
    let lists = ["rowsPatch", "gotQueriesPatch", "mutationsPatch"].map(|name| part[name].as_array());
    let desired = part["desiredQueriesPatches"].as_object();
    lists.iter().flatten().map(|l| l.len()).sum::<usize>() + desired.map_or(0, |d| d.len())
}

#[test]
fn a_further_query_brings_only_the_rows_that_are_new() {
    let stage = Stage::prepared(THREE, &[]);
    let mut tab = stage.tab(&[of("x")]);
    let before = tab.pokes.len();
    tab.change(vec![items().put()]);
    tab.until_got(&[items()]);
    let [config, data] = &tab.pokes[before..] else { panic!("{:?}", &tab.pokes[before..]) };
    assert_eq!(config.desired, [(tab.id.clone(), "put".into(), items().hash())]);
    assert!(config.got.is_empty() && config.puts.is_empty());
    assert_eq!(data.base.as_ref(), Some(&config.cookie));
    assert_eq!(data.got, [("put".to_owned(), items().hash())]);
    assert_eq!(keys(&data.puts), [r#"["c"]"#]);
    assert!(data.desired.is_empty() && data.dels.is_empty());
    // A query of which everything is there already: no rows at all.
    let before = tab.pokes.len();
    tab.change(vec![of("y").put()]);
    tab.until_got(&[of("y")]);
    assert!(tab.pokes[before..].iter().all(|p| p.puts.is_empty()), "{:?}", &tab.pokes[before..]);
}

#[test]
fn queries_with_the_same_answer_are_each_got_and_their_rows_sent_once() {
    let stage = Stage::prepared(THREE, &[]);
    let ast = json!({"table": "item", "orderBy": [["id", "asc"]]});
    let (one, two) = (spelled(ast.clone(), 1).ttl(0), spelled(ast.clone(), 2).ttl(0));
    let mut tab = stage.tab(&[one.clone(), two.clone()]);
    let sent: Vec<&str> = tab.pokes.iter().flat_map(|p| keys(&p.puts)).collect();
    assert_eq!(sent, [r#"["a"]"#, r#"["b"]"#, r#"["c"]"#]);
    tab.change(vec![one.del()]);
    tab.until("the end of one", |c| !c.store.got.contains(&one.hash()));
    assert_eq!(tab.store.rows.len(), 3, "the other one has them");
    let three = spelled(ast, 3).ttl(0);
    tab.change(vec![two.del(), three.put()]);
    tab.until("the end of both", |c| !c.store.got.contains(&two.hash()));
    tab.until_got(std::slice::from_ref(&three));
    // Between the two there may be none; in the end they are there.
    assert_eq!(tab.store.rows.len(), 3);
    tab.change(vec![three.del()]);
    tab.until("the end of all", |c| c.store.got.is_empty() && c.store.rows.is_empty());
}

#[test]
fn what_no_query_sees_moves_no_cookie() {
    let mut stage = Stage::prepared(THREE, &[]);
    let mut tab = stage.tab(&[of("x")]);
    let cookie = tab.store.cookie.clone();
    for unseen in [
        "INSERT INTO tick VALUES (1)",
        "UPDATE item SET n = 7 WHERE owner = 'y'",
        "BEGIN; INSERT INTO item VALUES ('t', 'x', 1, NULL); DELETE FROM item WHERE id = 't'; COMMIT",
        "BEGIN; UPDATE item SET n = 5 WHERE id = 'a'; UPDATE item SET n = 1 WHERE id = 'a'; COMMIT",
        "BEGIN; DELETE FROM item WHERE id = 'a'; INSERT INTO item VALUES ('a', 'x', 1, NULL); COMMIT",
        "BEGIN; DELETE FROM item; ROLLBACK",
        "UPDATE item SET n = n",
    ] {
        stage.sql.run(unseen);
        tab.quiet(unseen);
    }
    assert_eq!(tab.store.cookie, cookie);
    // What it sees comes in one poke from there, past all of them.
    let before = tab.pokes.len();
    stage.sql.run("UPDATE item SET n = 2 WHERE id = 'b'");
    tab.until("the change", |c| c.store.row("item", "b").is_some_and(|r| r["n"] == 2));
    let [poke] = &tab.pokes[before..] else { panic!("{:?}", &tab.pokes[before..]) };
    assert_eq!((&poke.base, keys(&poke.puts)), (&cookie, vec![r#"["b"]"#]));
    assert!(poke.cookie > cookie.unwrap_or_default());
}

#[test]
fn no_part_of_a_poke_is_large() {
    let mut stage = Stage::prepared("INSERT INTO item SELECT i, 'o', i FROM generate_series(1, 250) i", &[]);
    let mut tab = stage.tab(&[items()]);
    stage.sql.run("UPDATE item SET n = n + 1");
    tab.until("the change", |c| c.store.row("item", "250").is_some_and(|r| r["n"] == 251));
    let mut late = Client::in_group(&stage.server, &tab.group);
    late.connect(&[]);
    late.until("all rows", |c| c.store.rows.len() == 250);
    let large = |poke: &&Poke| poke.puts.len() == 250;
    let pokes: Vec<&Poke> = tab.pokes.iter().chain(&late.pokes).filter(large).collect();
    assert_eq!(pokes.len(), 3, "hydrated, changed, caught up");
    for poke in pokes {
        let sizes: Vec<usize> = poke.parts.iter().map(operations).collect();
        // One more for what is said beside the rows.
        assert!(sizes.len() >= 3 && sizes.iter().all(|s| *s <= 101), "{sizes:?}");
    }
}

/// What the tab was told of the query `h1`, as often as it was told.
fn told_of_h1(tab: &Client) -> Vec<&Value> {
    tab.refused.iter().filter(|error| error["id"] == "h1").collect()
}

#[test]
fn a_spelled_query_is_not_answered_as_if_there_were_no_rows() {
    let stage = Stage::prepared(THREE, &[]);
    let mut tab = stage.client();
    let ast = json!({"table": "item", "orderBy": [["id", "asc"]],
                     "where": {"type": "simple", "op": "=", "left": {"type": "column", "name": "owner"},
                               "right": {"type": "literal", "value": "x"}}});
    let spelled = json!({"op": "put", "hash": "h1", "ast": ast});
    let init = tab.init_body(vec![spelled.clone()]);
    tab.open(Some(&init));
    tab.until_connected();
    tab.until("its refusal", |c| !told_of_h1(c).is_empty());
    let error = told_of_h1(&tab)[0].clone();
    assert_eq!(
        (&error["error"], &error["name"]),
        (&json!("app"), &json!("")),
        "as the stock client reads it"
    );
    assert!(error["message"].as_str().is_some_and(|m| m.contains("ZERO_QUERY_URL")), "{error}");
    tab.until("that it does not have it", |c| {
        c.pokes.iter().any(|p| p.got == [("del".to_owned(), "h1".to_owned())])
    });
    assert!(stage.app.queries().iter().all(|c| c.names().is_empty()), "the app is not asked about it");
    // Others go on, and one that names a table that is not there is no worse.
    tab.change(vec![json!({"op": "put", "hash": "h2", "ast": {"table": "nonesuch"}}), items().put()]);
    tab.until_got(&[items()]);
    tab.until("its refusal", |c| c.refused.iter().any(|e| e["id"] == "h2"));
    assert_eq!((tab.store.rows.len(), tab.store.got.contains("h1")), (3, false));
    // A client that comes back does not ask again, and one that asks again is answered.
    let before = told_of_h1(&tab).len();
    tab.close();
    tab.open(Some(&json!({"desiredQueriesPatch": []})));
    tab.until_connected();
    tab.until("its refusal", |c| told_of_h1(c).len() > before);
    let before = told_of_h1(&tab).len();
    tab.change(vec![spelled]);
    tab.until("its refusal", |c| told_of_h1(c).len() > before);
    // Whoever operates it is told once.
    stage.server.until_log("not answered", "ZERO_QUERY_URL");
    assert_eq!(stage.server.log().lines().filter(|line| line.contains("not answered")).count(), 1);
}

#[test]
fn a_row_that_no_client_can_hold_comes_and_goes() {
    let mut stage = Stage::prepared(THREE, &[]);
    let mut tab = stage.tab(&[items(), of("y")]);
    let hash = items().hash();
    stage.sql.run("INSERT INTO item VALUES ('big', 'x', 9007199254740993, NULL)");
    tab.until("its refusal", |c| c.refused.iter().any(|error| error["id"] == hash.as_str()));
    let error = tab.refused.iter().find(|error| error["id"] == hash.as_str()).expect("just seen").clone();
    assert!(error["message"].as_str().is_some_and(|m| m.contains("\"n\"") && m.contains("item")), "{error}");
    tab.until("that it does not have it", |c| !c.store.got.contains(&hash));
    // What others have goes on meanwhile.
    stage.sql.run("UPDATE item SET n = 8 WHERE id = 'c'; INSERT INTO item VALUES ('d', 'x', 4, NULL)");
    tab.until("a change of another query", |c| c.store.row("item", "c").is_some_and(|row| row["n"] == 8));
    let mut late = tab.sibling();
    late.connect(&[items()]);
    late.until("its refusal", |c| c.refused.iter().any(|error| error["id"] == hash.as_str()));
    stage.sql.run("DELETE FROM item WHERE id = 'big'");
    tab.until_got(&[items()]);
    assert_eq!(tab.store.rows.len(), 4);
    late.until_got(&[items()]);
    assert_eq!(late.store.rows.len(), 4);
    stage.sql.run("UPDATE item SET n = 9 WHERE id = 'd'");
    tab.until("a change", |c| c.store.row("item", "d").is_some_and(|row| row["n"] == 9));
}

#[test]
fn a_put_says_what_the_query_is_only_the_first_time() {
    let stage = Stage::prepared(THREE, &[]);
    let mut tab = stage.tab(&[of("x")]);
    let mut other = tab.sibling();
    other.open(Some(&json!({"desiredQueriesPatch": [{"op": "put", "hash": of("x").hash()}]})));
    other.until_connected();
    other.until("its wish", |c| c.store.desired.get(&c.id).is_some_and(|d| d.len() == 1));
    // What a hash stands for does not change.
    other.change(vec![json!({"op": "put", "hash": of("x").hash(), "name": "items", "args": []})]);
    other.quiet("the same wish");
    assert_eq!(other.store.rows.len(), 2);
    // Names that the reference uses itself mean nothing.
    other.change(vec![json!({"op": "put", "hash": "lmids", "name": "items", "args": []})]);
    other.change(vec![json!({"op": "put", "hash": "mutationResults", "name": "items", "args": []})]);
    // Nor does what was never wanted.
    other.change(vec![json!({"op": "del", "hash": "never"}), json!({"op": "del", "hash": "lmids"})]);
    other.quiet("nothing of that is a wish");
    other.change(vec![json!({"op": "put", "hash": "never"})]);
    assert_eq!(other.until_error()["kind"], "Internal");
    tab.round_trip();
}

#[test]
fn operations_are_applied_in_order() {
    let stage = Stage::prepared(THREE, &[]);
    let (x, y) = (of("x").ttl(0), of("y").ttl(0));
    let mut tab = stage.tab(&[x.clone(), y.clone()]);
    let before = tab.pokes.len();
    // A refresh is no change of what is got.
    tab.change(vec![x.del(), x.put(), y.put(), y.del()]);
    tab.until("the end of y", |c| !c.store.got.contains(&y.hash()));
    tab.round_trip();
    assert!(tab.store.got.contains(&x.hash()));
    assert_eq!(tab.store.desired[&tab.id].iter().collect::<Vec<_>>(), [&x.hash()]);
    let got: Vec<_> = tab.pokes[before..].iter().flat_map(|p| p.got.clone()).collect();
    assert_eq!(got, [("del".to_owned(), y.hash())]);
    tab.change(vec![json!({"op": "clear"}), y.put()]);
    tab.until("x instead of y", |c| !c.store.got.contains(&x.hash()) && c.store.got.contains(&y.hash()));
    assert_eq!(tab.store.rows.len(), 1);
}
