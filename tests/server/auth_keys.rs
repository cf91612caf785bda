//! Tokens that are verified with the keys of a URL.

use std::time::{Duration, Instant};

use crate::support::app::{Query, query};
use crate::support::client::Client;
use crate::support::key_server::{KeyServer, Reply, set};
use crate::support::lateness::Lateness;
use crate::support::ports::free_port;
use crate::support::stage::Stage;
use crate::support::tokens::Signer;
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

const TWO: &str = "INSERT INTO item VALUES ('a', 'x', 1, NULL), ('b', 'y', 1, NULL)";

fn items() -> Query {
    query("items", json!([]))
}

fn with_keys(keys: &KeyServer) -> Stage {
    Stage::prepared(TWO, &[("AUTH_JWKS_URL", &keys.url())])
}

/// A tab of user `u` with this token.
fn tab(stage: &Stage, token: String) -> Client {
    let mut tab = stage.client();
    tab.user = Some("u".into());
    tab.token = Some(token);
    tab
}

fn is_admitted(stage: &Stage, signer: &Signer) -> Client {
    let mut tab = tab(stage, signer.token("u"));
    tab.connect(&[items()]);
    tab.until_got(&[items()]);
    tab
}

/// Why a token is refused.
fn refusal(stage: &Stage, token: String) -> String {
    let error = tab(stage, token).until_refused();
    assert_eq!(error["kind"], "AuthInvalidated", "{error}");
    error["message"].as_str().expect("a message").to_owned()
}

#[test]
fn keys_of_every_kind_are_fetched_once() {
    let signers = [Signer::rsa("r"), Signer::elliptic("e", 1), Signer::edwards("o", 1)];
    let keys = KeyServer::start(&signers.each_ref());
    let stage = with_keys(&keys);
    assert!(!stage.server.log().contains("ZERO_AUTH_JWKS_URL (--auth-jwks-url) has no effect"));
    assert!(keys.asked().is_empty(), "nobody has come yet");
    let mut open: Vec<Client> = signers.iter().map(|s| is_admitted(&stage, s)).collect();
    open.push(is_admitted(&stage, &signers[0].with(Algorithm::PS384)));
    // There is one of each type only.
    open.push(is_admitted(&stage, &signers[1].named(None)));
    assert_eq!(keys.asked(), ["/keys"]);
    // Somebody else's key, and another user's token.
    let message = refusal(&stage, Signer::edwards("o", 2).token("u"));
    assert!(message.contains("signature"), "{message}");
    let message = refusal(&stage, signers[2].token("v"));
    assert!(message.contains("userID"), "{message}");
    open.iter_mut().for_each(Client::round_trip);
}

#[test]
fn tabs_that_come_together_wait_for_one_request() {
    let signer = Signer::edwards("k", 1);
    let keys = KeyServer::start(&[]);
    keys.reply(Reply::Slow(Duration::from_millis(500), set(&[signer.jwk()])));
    let stage = with_keys(&keys);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| is_admitted(&stage, &signer));
        }
    });
    assert_eq!(keys.asked().len(), 1);
}

#[test]
fn keys_that_are_replaced() {
    let (old, new) = (Signer::edwards("old", 1), Signer::edwards("new", 2));
    let keys = KeyServer::start(&[&old]);
    let stage = with_keys(&keys);
    let mut tab = is_admitted(&stage, &old);
    keys.publish(&[&new]);
    is_admitted(&stage, &new);
    assert_eq!(keys.asked().len(), 2, "its id was not known");
    let message = refusal(&stage, old.token("u"));
    assert!(message.contains("no key"), "{message}");
    for n in 0..20 {
        refusal(&stage, Signer::edwards(&format!("random {n}"), 3).token("u"));
    }
    assert_eq!(keys.asked().len(), 2, "whoever invents ids does not make us ask");
    // Tokens are verified when they come, not while they are in use.
    tab.round_trip();
    // A known key goes on, and serves for an update, too.
    let token = new.token("u");
    tab.send(json!(["updateAuth", {"auth": token}]));
    stage.app.until_queries_with(&token, 1);
    tab.round_trip();
}

#[test]
fn old_keys_are_used_on_when_new_ones_cannot_be_fetched() {
    let signer = Signer::edwards("k", 1);
    let keys = KeyServer::start(&[&signer]);
    let stage = with_keys(&keys);
    is_admitted(&stage, &signer);
    keys.reply(Reply::Status(500));
    let message = refusal(&stage, Signer::edwards("unknown", 2).token("u"));
    assert!(message.contains("no key"), "{message}");
    assert_eq!(keys.asked().len(), 2);
    is_admitted(&stage, &signer);
    stage.server.until_log("ZERO_AUTH_JWKS_URL", "used on");
}

#[test]
fn answers_that_are_no_keys_admit_nobody() {
    let signer = Signer::edwards("k", 1);
    let elsewhere = KeyServer::start(&[&signer]);
    let padded = json!({"keys": [signer.jwk()], "padding": "x".repeat(1 << 20)}).to_string();
    let many = set(&vec![signer.jwk(); 1_000]);
    let replies = [
        ("an error", Reply::Status(503)),
        ("an answer without content", Reply::Status(204)),
        ("another place", Reply::Redirect(elsewhere.url())),
        ("too many bytes", Reply::Document(padded)),
        ("too many keys", Reply::Document(many)),
        ("no JSON", Reply::Document("<html>".into())),
        ("no set", Reply::Document(signer.jwk().to_string())),
        ("no keys", Reply::Document(r#"{"keys":[1]}"#.into())),
        ("half of it", Reply::Half),
    ];
    for (what, reply) in replies {
        let keys = KeyServer::start(&[]);
        keys.reply(reply);
        let stage = with_keys(&keys);
        let (began, lateness) = (Instant::now(), Lateness::measured());
        let message = refusal(&stage, signer.token("u"));
        assert!(message.contains("could not be fetched"), "{what}: {message}");
        let limit = lateness.allow(Duration::from_secs(8));
        assert!(began.elapsed() < limit, "{what}: {:?}", began.elapsed());
        refusal(&stage, signer.token("u"));
        assert_eq!(keys.asked().len(), 1, "{what}: not at once again");
        if what == "an error" {
            keys.publish(&[&signer]);
            std::thread::sleep(Duration::from_secs(5));
            is_admitted(&stage, &signer);
        }
    }
    assert!(elsewhere.asked().is_empty(), "a redirect is not followed");
    let stage = Stage::prepared(TWO, &[("AUTH_JWKS_URL", &format!("http://127.0.0.1:{}/keys", free_port()))]);
    assert!(refusal(&stage, signer.token("u")).contains("could not be fetched"));
}

#[test]
fn keys_that_are_slow_hold_up_nobody_else() {
    let (known, new) = (Signer::edwards("known", 1), Signer::edwards("new", 2));
    let keys = KeyServer::start(&[&known]);
    let stage = with_keys(&keys);
    let mut healthy = is_admitted(&stage, &known);
    let bystander = stage.bystander();
    keys.reply(Reply::Slow(Duration::from_secs(4), set(&[known.jwk(), new.jwk()])));
    let mut updating = is_admitted(&stage, &known);
    let token = new.token("u");
    updating.send(json!(["updateAuth", {"auth": token}]));
    let began = Instant::now();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| is_admitted(&stage, &new));
        while keys.asked().len() < 2 {
            std::thread::sleep(Duration::from_millis(10));
        }
        updating.round_trip();
        healthy.round_trip();
        is_admitted(&stage, &known);
        let mut nobody = stage.client();
        nobody.connect(&[items()]);
        nobody.until_got(&[items()]);
        assert!(began.elapsed() < Duration::from_millis(3_900), "{:?}", began.elapsed());
        waiting.join().expect("it was admitted");
    });
    stage.app.until_queries_with(&token, 1);
    bystander.finish(Duration::from_secs(1));
    assert_eq!(keys.asked().len(), 2);
}

#[test]
fn the_tab_that_came_last_stays_however_long_its_keys_take() {
    let (known, new) = (Signer::edwards("known", 1), Signer::edwards("new", 2));
    let keys = KeyServer::start(&[&known]);
    let stage = with_keys(&keys);
    let mut first = is_admitted(&stage, &known);
    keys.reply(Reply::Slow(Duration::from_secs(1), set(&[known.jwk(), new.jwk()])));
    let again = |signer: &Signer| {
        let mut again = first.sibling();
        again.id.clone_from(&first.id);
        again.token = Some(signer.token("u"));
        again
    };
    let (mut slow, mut quick) = (again(&new), again(&known));
    slow.open(Some(&slow.init_body(Vec::new())));
    while keys.asked().len() < 2 {
        std::thread::sleep(Duration::from_millis(10));
    }
    first.round_trip();
    quick.connect(&[]);
    assert_eq!(first.until_closed().0, None);
    assert_eq!(slow.until_closed().0, None, "it is the older of the two");
    quick.round_trip();
}

#[test]
fn only_keys_for_signatures_verify_and_only_one_may_match() {
    let changed = |signer: &Signer, name: &str, value: Value| {
        let mut jwk = signer.jwk();
        jwk[name] = value;
        jwk
    };
    let numbered: Vec<Signer> = (1..8).map(|n| Signer::elliptic(&format!("{n}"), n)).collect();
    let rsa = Signer::rsa("r");
    let documents = set(&[
        changed(&numbered[0], "use", json!("enc")),
        changed(&numbered[1], "key_ops", json!(["deriveKey"])),
        changed(&numbered[2], "alg", json!("ES384")),
        changed(&numbered[3], "use", json!("sig")),
        changed(&numbered[4], "kid", json!("twice")),
        changed(&numbered[5], "kid", json!("twice")),
        changed(&rsa, "alg", json!("RS256")),
        json!({"kty": "oct", "kid": "s", "k": "c2VjcmV0"}),
        json!({"kty": "EC", "crv": "secp256k1", "kid": "x", "x": "AQ", "y": "AQ"}),
        json!({"kty": "unheard of"}),
    ]);
    let keys = KeyServer::start(&[]);
    keys.reply(Reply::Document(documents));
    let stage = with_keys(&keys);
    let mut tab = is_admitted(&stage, &numbered[3]);
    is_admitted(&stage, &rsa.named(None));
    for unusable in &numbered[..3] {
        let message = refusal(&stage, unusable.token("u"));
        assert!(message.contains("no key"), "{message}");
    }
    let message = refusal(&stage, rsa.with(Algorithm::PS256).token("u"));
    assert!(message.contains("no key"), "{message}");
    for ambiguous in [numbered[4].named(Some("twice")), numbered[3].named(None)] {
        let message = refusal(&stage, ambiguous.token("u"));
        assert!(message.contains("several keys"), "{message}");
    }
    // Everybody knows these bytes, the set itself included.
    let jwk = rsa.jwk();
    let modulus = jwk["n"].as_str().expect("a modulus");
    for (id, secret) in [("r", modulus.as_bytes()), ("s", b"secret"), ("4", b"")] {
        let forged = Signer::secret(secret).named(Some(id));
        assert!(refusal(&stage, forged.token("u")).contains("no key"), "{id}");
    }
    tab.round_trip();
}
