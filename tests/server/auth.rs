//! Tokens that this server verifies itself: who comes in, what may take a token's place.

use std::time::Duration;

use crate::support::app::{Answer, Query, query};
use crate::support::client::Client;
use crate::support::stage::Stage;
use crate::support::tokens::{Signer, seconds};
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

const TWO: &str = "INSERT INTO item VALUES ('a', 'x', 1, NULL), ('b', 'y', 1, NULL)";
const SECRET: &str = "a secret that is long enough for everybody";

fn items() -> Query {
    query("items", json!([]))
}

fn signer() -> Signer {
    Signer::secret(SECRET.as_bytes())
}

/// A tab of user `u` with this token that has all items.
fn tab_with(stage: &Stage, token: &str) -> Client {
    let mut tab = stage.client();
    tab.user = Some("u".into());
    tab.token = Some(token.to_owned());
    tab.connect(&[items()]);
    tab.until_got(&[items()]);
    tab
}

/// The same tab, connecting once more with another token.
fn again(tab: &Client, token: &str) -> Client {
    let mut again = tab.sibling();
    again.id.clone_from(&tab.id);
    again.token = Some(token.to_owned());
    again
}

fn issued(at: u64) -> String {
    signer().sign(&json!({"sub": "u", "iat": at}))
}

#[test]
fn a_bad_token_is_refused_and_the_tab_with_a_good_one_goes_on() {
    let mut stage = Stage::prepared(TWO, &[("AUTH_SECRET", SECRET)]);
    let mut tab = tab_with(&stage, &signer().token("u"));
    let now = seconds();
    let good = signer().token("u");
    let claims = good.split('.').nth(1).expect("claims");
    let bad = [
        ("expired", signer().sign(&json!({"sub": "u", "exp": now - 1}))),
        ("expires now", signer().sign(&json!({"sub": "u", "exp": now}))),
        ("not yet valid", signer().sign(&json!({"sub": "u", "nbf": now + 60}))),
        ("another user's", signer().token("v")),
        ("nobody's", signer().sign(&json!({"exp": now + 60}))),
        ("signed by another", Signer::secret(b"guessed").token("u")),
        ("of another kind", Signer::elliptic("k", 1).token("u")),
        // {"alg":"none"}
        ("not signed", format!("eyJhbGciOiJub25lIn0.{claims}.")),
        ("changed", good.replacen('.', "A.", 1)),
        ("no token", "x".to_owned()),
        ("three parts of nothing", "..".to_owned()),
    ];
    for (what, token) in bad {
        let error = again(&tab, &token).until_refused();
        assert_eq!(error["kind"], "AuthInvalidated", "{what}: {error}");
        tab.round_trip();
    }
    // Without saying who it is, no token helps.
    let mut nobody = again(&tab, &good);
    nobody.user = None;
    assert_eq!(nobody.until_refused()["kind"], "Unauthorized");
    // A group is one user's, however good the token of another is.
    let mut other = again(&tab, &signer().token("v"));
    other.user = Some("v".into());
    assert_eq!(other.until_refused()["kind"], "Unauthorized");
    stage.sql.run("UPDATE item SET n = 2");
    tab.until("a change", |c| c.store.row("item", "b").is_some_and(|r| r["n"] == 2));
    for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
        tab_with(&stage, &signer().with(algorithm).token("u"));
    }
}

#[test]
fn issuer_and_audience_have_to_be_claimed_when_they_are_set() {
    let settings = [("AUTH_SECRET", SECRET), ("AUTH_ISSUER", "us"), ("AUTH_AUDIENCE", "zero")];
    let stage = Stage::prepared(TWO, &settings);
    let claims = |issuer: Value, audience: Value| json!({"sub": "u", "iss": issuer, "aud": audience});
    tab_with(&stage, &signer().sign(&claims(json!("us"), json!("zero"))));
    let tab = tab_with(&stage, &signer().sign(&claims(json!("us"), json!(["other", "zero"]))));
    for bad in [
        claims(json!("them"), json!("zero")),
        claims(json!(["us"]), json!("zero")),
        claims(json!("us"), json!("other")),
        claims(json!("us"), json!([])),
        json!({"sub": "u", "iss": "us"}),
        json!({"sub": "u", "aud": "zero"}),
    ] {
        assert_eq!(again(&tab, &signer().sign(&bad)).until_refused()["kind"], "AuthInvalidated", "{bad}");
    }
}

#[test]
fn one_public_key_admits_its_own_algorithms_only() {
    let signer = Signer::rsa("k").named(None);
    let jwk = signer.jwk().to_string();
    let stage = Stage::prepared(TWO, &[("AUTH_JWK", &jwk)]);
    let tab = tab_with(&stage, &signer.token("u"));
    tab_with(&stage, &signer.with(Algorithm::PS512).token("u"));
    // The id does not matter if there is one key only.
    tab_with(&stage, &signer.named(Some("other")).token("u"));
    let jwk = signer.jwk();
    let modulus = jwk["n"].as_str().expect("a modulus");
    for secret in [modulus.as_bytes(), jwk.to_string().as_bytes()] {
        let error = again(&tab, &Signer::secret(secret).token("u")).until_refused();
        assert_eq!(error["kind"], "AuthInvalidated", "everybody knows the public key");
    }
    let mut narrow = jwk;
    narrow["alg"] = json!("RS256");
    let stage = Stage::prepared(TWO, &[("AUTH_JWK", &narrow.to_string())]);
    let tab = tab_with(&stage, &signer.token("u"));
    assert_eq!(
        again(&tab, &signer.with(Algorithm::PS256).token("u")).until_refused()["kind"],
        "AuthInvalidated"
    );
}

#[test]
fn a_token_gives_way_only_to_a_newer_one_of_the_same_user() {
    let stage = Stage::prepared(TWO, &[("AUTH_SECRET", SECRET)]);
    let (first, second) = (issued(100), issued(200));
    let mut tab = tab_with(&stage, &first);
    let mut other = tab.sibling();
    other.connect(&[]);
    other.until("a poke", |c| !c.pokes.is_empty());
    let update = |tab: &mut Client, token: &str| {
        tab.send(json!(["updateAuth", {"auth": token}]));
        tab.round_trip();
    };
    update(&mut tab, &second);
    stage.app.until_queries_with(&second, 1);
    let asked = stage.app.queries().len();
    for unchanged in [&second, &first, &issued(200)] {
        update(&mut tab, unchanged);
    }
    tab.settle(Duration::from_millis(100));
    assert_eq!(stage.app.queries().len(), asked, "the same, an older and an equally old one");
    tab.mutate("put", json!({"id": "a", "n": 2}));
    let pushed = stage.app.until_mutation("a push", |_| true).remove(0);
    assert_eq!(pushed.request.header("authorization"), Some(&*format!("Bearer {second}")));
    let now = seconds();
    let bad = [
        ("AuthInvalidated", signer().token("v")),
        ("AuthInvalidated", signer().sign(&json!({"sub": "u", "iat": 300, "exp": now - 1}))),
        ("AuthInvalidated", "x".to_owned()),
        ("Unauthorized", signer().token("u")),
        ("Unauthorized", String::new()),
    ];
    for (kind, token) in bad {
        let mut tab = tab_with(&stage, &second);
        tab.send(json!(["updateAuth", {"auth": token}]));
        assert_eq!(tab.until_error()["kind"], kind, "{token}");
    }
    other.round_trip();
}

#[test]
fn a_tab_without_a_token_may_get_one() {
    let stage = Stage::prepared(TWO, &[]);
    let mut tab = stage.client();
    tab.user = Some("u".into());
    tab.connect(&[items()]);
    tab.until_got(&[items()]);
    let asked = stage.app.queries().len();
    tab.send(json!(["updateAuth", {"auth": ""}]));
    tab.round_trip();
    tab.settle(Duration::from_millis(100));
    assert_eq!(stage.app.queries().len(), asked, "none takes the place of none");
    tab.send(json!(["updateAuth", {"auth": "first"}]));
    stage.app.until_queries_with("first", 1);
    tab.round_trip();
    // Nobody has said who this one is.
    let mut nobody = stage.client();
    nobody.connect(&[items()]);
    nobody.until_got(&[items()]);
    nobody.send(json!(["updateAuth", {"auth": "first"}]));
    assert_eq!(nobody.until_error()["kind"], "Unauthorized");
}

#[test]
fn what_a_newer_token_of_a_second_tab_may_see_both_tabs_see() {
    let stage = Stage::prepared(TWO, &[("AUTH_SECRET", SECRET)]);
    let narrow = |owner: &str| {
        let ast = json!({"table": "item", "orderBy": [["id", "asc"]], "where":
            {"type": "simple", "op": "=", "left": {"type": "column", "name": "owner"},
             "right": {"type": "literal", "value": owner}}});
        let answer = json!({"id": items().hash(), "name": "items", "ast": ast});
        Answer::Text(json!({"kind": "QueryResponse", "queries": [answer]}).to_string())
    };
    stage.app.rule_query(&issued(100), Some(narrow("x")));
    let mut tab = tab_with(&stage, &issued(100));
    assert_eq!(tab.store.rows.len(), 1);
    let before = tab.pokes.len();
    let mut second = tab.sibling();
    second.token = Some(issued(200));
    second.connect(&[items()]);
    second.until("all rows", |c| c.store.rows.len() == 2);
    tab.until("all rows", |c| c.store.rows.len() == 2);
    let put: usize = tab.pokes[before..].iter().map(|p| p.puts.len() + p.dels.len()).sum();
    assert_eq!(put, 1, "only what it did not have");
}

#[test]
fn tokens_are_in_no_log_and_in_no_error() {
    let stage = Stage::prepared(TWO, &[("AUTH_SECRET", SECRET), ("LOG_LEVEL", "debug")]);
    let mut said = String::new();
    let mut tokens = vec![signer().token("u"), issued(100), issued(200)];
    let mut tab = tab_with(&stage, &tokens[1]);
    tab.send(json!(["updateAuth", {"auth": tokens[2]}]));
    stage.app.until_queries_with(&tokens[2], 1);
    let foreign = [Signer::secret(b"guessed").token("u"), signer().token("mallory")];
    for token in &foreign {
        said += &again(&tab, token).until_refused().to_string();
        let mut tab = tab_with(&stage, &tokens[1]);
        tab.send(json!(["updateAuth", {"auth": token}]));
        said += &tab.until_error().to_string();
    }
    tokens.extend(foreign);
    // Messages and headers in which it stands where it does not belong.
    for message in [
        json!(tokens[0]),
        json!(["updateAuth", tokens[0]]),
        json!(["updateAuth", {"auth": {"token": tokens[0]}}]),
        json!(["updateAuth", {"auth": [tokens[0]]}]),
        json!(["changeDesiredQueries", {"desiredQueriesPatch": tokens[0]}]),
        json!(["initConnection", {"desiredQueriesPatch": [], "userQueryHeaders": tokens[0]}]),
    ] {
        let mut tab = tab_with(&stage, &tokens[1]);
        tab.send(message);
        said += &tab.until_error().to_string();
    }
    for header in
        [json!(tokens[0]), json!({"authToken": [tokens[0]]}), json!({"authToken": {"t": tokens[0]}})]
    {
        use base64::Engine;
        let mut tab = stage.client();
        let header = base64::engine::general_purpose::STANDARD.encode(header.to_string()).replace('=', "%3D");
        let target = tab.target();
        tab.open_raw(&target, Some(&header));
        said += &tab.until_closed().1;
    }
    // The app refuses it, of a query and of a mutation.
    for endpoint in ["query", "mutate"] {
        let mut tab = tab_with(&stage, &tokens[1]);
        if endpoint == "query" {
            stage.app.script_query([Answer::Status(401, "no")]);
            tab.send(json!(["updateAuth", {"auth": tokens[2]}]));
        } else {
            stage.app.script_mutate([Answer::Status(401, "no")]);
            tab.mutate("put", json!({"id": "a", "n": 2}));
        }
        said += &tab.until_error().to_string();
    }
    said += &stage.server.log();
    assert!(said.contains("a connection was not admitted"), "the log was read");
    let parts = tokens.iter().flat_map(|token| token.split('.').skip(1)).chain([SECRET]);
    for part in parts.filter(|part| part.len() > 8) {
        assert!(!said.contains(part), "it was said: {:?}", said.lines().find(|l| l.contains(part)));
    }
}
