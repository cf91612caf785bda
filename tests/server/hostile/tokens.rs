//! Tokens that were not signed for whoever brings them, and sets of keys that somebody else has written.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use super::bystander::ROWS;
use super::suite::Suite;
use crate::support::client::Client;
use crate::support::key_server::{KeyServer, Reply, set};
use crate::support::stage::Stage;
use crate::support::tokens::{Signer, seconds};

fn part(json: &Value) -> String {
    URL_SAFE_NO_PAD.encode(json.to_string())
}

/// A token with this header and these claims that was signed with a key that nobody trusts.
fn forged(header: &Value, claims: &Value) -> String {
    format!("{}.{}.{}", part(header), part(claims), URL_SAFE_NO_PAD.encode([7; 64]))
}

/// The good token with another header.
fn renamed(good: &str, header: &Value) -> String {
    let (_, rest) = good.split_once('.').expect("a token");
    format!("{}.{rest}", part(header))
}

/// Tokens that nobody signed.
fn unsigned(good: &str, elsewhere: &str) -> Vec<(&'static str, String)> {
    let mine = json!({"sub": "mallory"});
    let es = |more: Value| {
        let mut header = json!({"alg": "ES256", "kid": "good"});
        header.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
        header
    };
    let parts: Vec<&str> = good.split('.').collect();
    let signature = |bytes: &[u8]| format!("{}.{}.{}", parts[0], parts[1], URL_SAFE_NO_PAD.encode(bytes));
    let own = Signer::elliptic("good", 66);
    vec![
        ("a signature of zeros", signature(&[0; 64])),
        ("a signature of ones", signature(&[0xff; 64])),
        ("no signature", signature(&[])),
        ("a short signature", signature(&[1; 63])),
        (
            "a signature of another form",
            signature(&[&[0x30, 0x44, 2, 0x20][..], &[1; 32], &[2, 0x20], &[1; 32]].concat()),
        ),
        ("a signature of 40 KB", signature(&[1; 30_000])),
        ("another's signature", own.named(Some("good")).token("mallory")),
        ("its own key in the header", renamed(&own.token("mallory"), &es(json!({"jwk": own.jwk()})))),
        (
            "a URL of its own keys",
            renamed(&own.token("mallory"), &es(json!({"jku": elsewhere, "x5u": elsewhere}))),
        ),
        ("a certificate of its own", renamed(&own.token("mallory"), &es(json!({"x5c": ["MIIB"]})))),
        ("an extension", forged(&es(json!({"crit": ["b64"], "b64": false})), &mine)),
        ("compressed", forged(&es(json!({"zip": "DEF"})), &mine)),
        ("not signed at all", format!("{}.{}.", part(&json!({"alg": "none"})), parts[1])),
        ("not signed, in other letters", format!("{}.{}.", part(&json!({"alg": "nOnE"})), parts[1])),
        ("signed with nothing", forged(&json!({"alg": ""}), &mine)),
        ("an algorithm that is a list", forged(&json!({"alg": ["ES256"]}), &mine)),
        ("no algorithm", forged(&json!({"kid": "good"}), &mine)),
        ("a shared secret", Signer::secret(b"").named(Some("good")).token("mallory")),
        ("a path for a key", renamed(good, &json!({"alg": "ES256", "kid": "../../../../dev/null"}))),
        ("SQL for a key", renamed(good, &json!({"alg": "ES256", "kid": "' UNION SELECT 'x"}))),
        ("a key of a long name", renamed(good, &json!({"alg": "ES256", "kid": "x".repeat(20_000)}))),
        ("a key that is a number", renamed(good, &json!({"alg": "ES256", "kid": 1}))),
        ("a header that is a list", format!("{}.{}.{}", part(&json!(["ES256"])), parts[1], parts[2])),
        (
            "a header without an end",
            format!("{}.{}.{}", URL_SAFE_NO_PAD.encode("[".repeat(30_000)), parts[1], parts[2]),
        ),
        (
            "an algorithm twice",
            format!(
                "{}.{}.{}",
                URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256","alg":"none","kid":"good"}"#),
                parts[1],
                parts[2]
            ),
        ),
        (
            "other claims",
            format!("{}.{}.{}", parts[0], part(&json!({"sub": "mallory", "admin": true})), parts[2]),
        ),
        ("claims in another code", format!("{}.{}.{}", parts[0], STANDARD.encode([0xfb; 33]), parts[2])),
        ("padding", format!("{}.{}.{}", parts[0], parts[1], URL_SAFE.encode([1; 64]))),
        ("blanks", format!("{} .{}.{}", parts[0], parts[1], parts[2])),
        ("lines", good.replacen('.', ".\r\n", 1)),
        ("four parts", format!("{good}.x")),
        ("two tokens", format!("{good},{good}")),
        ("a scheme", format!("Bearer {good}")),
        ("nothing in three parts", "..".to_owned()),
    ]
}

/// Claims that were signed, and admit nobody or somebody else.
fn claims() -> Vec<(&'static str, Value)> {
    let with = |name: &str, value: Value| json!({"sub": "mallory", name: value});
    vec![
        ("nobody", json!({})),
        ("the bystander", json!({"sub": "bystander"})),
        ("other letters", json!({"sub": "Mallory"})),
        ("a blank more", json!({"sub": "mallory "})),
        ("a NUL more", json!({"sub": "mallory\0"})),
        ("a list of users", json!({"sub": ["mallory"]})),
        ("an object", json!({"sub": {"$ne": null}})),
        ("a user that is null", json!({"sub": null})),
        ("it has ended", with("exp", json!(seconds() - 1))),
        ("it ended before it began", with("exp", json!(-1e308))),
        ("it ends at a text", with("exp", json!("9999999999"))),
        ("it ends never", with("exp", json!(null))),
        ("it has not begun", with("nbf", json!(seconds() + 3_600))),
        ("it never begins", with("nbf", json!(1e308))),
        ("it began at a list", with("nbf", json!([0]))),
        ("it was issued at a text", with("iat", json!("now"))),
    ]
}

/// Keys that whoever publishes them has made up; tokens name each of them.
fn keys() -> Vec<(&'static str, Value)> {
    let encoded = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let ec = |x: &[u8], y: &[u8]| json!({"kty": "EC", "crv": "P-256", "x": encoded(x), "y": encoded(y)});
    let rsa = |n: &[u8], e: &[u8]| json!({"kty": "RSA", "n": encoded(n), "e": encoded(e)});
    let ed = |x: &[u8]| json!({"kty": "OKP", "crv": "Ed25519", "x": encoded(x)});
    let good = Signer::elliptic("k", 9).jwk();
    let with = |name: &str, value: Value| {
        let mut jwk = good.clone();
        jwk[name] = value;
        jwk
    };
    vec![
        ("a point that is not on the curve", ec(&[1; 32], &[1; 32])),
        ("the point nought", ec(&[0; 32], &[0; 32])),
        ("a point beyond the field", ec(&[0xff; 32], &[0xff; 32])),
        ("half a point", json!({"kty": "EC", "crv": "P-256", "x": encoded(&[1; 32])})),
        (
            "a point of another curve",
            json!({"kty": "EC", "crv": "P-384", "x": encoded(&[1; 32]), "y": encoded(&[1; 32])}),
        ),
        ("coordinates that are numbers", json!({"kty": "EC", "crv": "P-256", "x": 1, "y": 2})),
        ("a point of ones on Edwards' curve", ed(&[0xff; 32])),
        ("a point of small order", ed(&[0; 32])),
        ("a short point of Edwards' curve", ed(&[1; 31])),
        ("a long point of Edwards' curve", ed(&[1; 33])),
        ("a point of a byte", ed(&[1])),
        ("a modulus of ones", rsa(&[0xff; 256], &[1, 0, 1])),
        ("an even modulus", rsa(&[0xfe; 256], &[1, 0, 1])),
        ("a modulus of zeros", rsa(&[0; 256], &[1, 0, 1])),
        ("an exponent of one", rsa(&[0xff; 256], &[1])),
        ("an exponent of nought", rsa(&[0xff; 256], &[0])),
        ("an even exponent", rsa(&[0xff; 256], &[2])),
        ("an exponent as long as the modulus", rsa(&[0xff; 512], &[0xff; 512])),
        ("a modulus of 64 KB", rsa(&vec![0xff; 64 << 10], &[1, 0, 1])),
        ("a short modulus", rsa(&[0xff; 64], &[1, 0, 1])),
        ("a shared secret", json!({"kty": "oct", "k": encoded(b"everybody knows")})),
        ("a private key", with("d", json!(encoded(&[1; 32])))),
        ("a key to encrypt with", with("use", json!("enc"))),
        ("a key for another algorithm", with("alg", json!("HS256"))),
        ("a type that is a list", with("kty", json!(["EC"]))),
        ("a type that nobody knows", with("kty", json!("__proto__"))),
        ("a deep key", with("x", (0..100).fold(json!(1), |inner, _| json!([inner])))),
    ]
}

/// Somebody who says that he is mallory, with a token.
fn with_token(suite: &Suite, token: &str) -> Client {
    let mut client = suite.stage.client();
    client.user = Some("mallory".into());
    client.token = Some(token.to_owned());
    client
}

/// A server that trusts the keys of a URL, with a bystander who has a token.
fn guarded(keys: &KeyServer, good: &Signer) -> Suite {
    let settings = [
        ("AUTH_JWKS_URL", &*keys.url()),
        ("AUTH_REVALIDATE_INTERVAL_SECONDS", "-1"),
        ("AUTH_RETRANSFORM_INTERVAL_SECONDS", "0"),
    ];
    let stage = Stage::prepared(ROWS, &settings);
    let mut bystander = stage.client();
    bystander.user = Some("bystander".into());
    bystander.token = Some(good.token("bystander"));
    Suite::around(stage, bystander)
}

fn is_refused(suite: &Suite, token: &str, name: &str) {
    let error = with_token(suite, token).until_refused();
    assert_eq!(error["kind"], "AuthInvalidated", "{name}: {error}");
    let message = error["message"].as_str().unwrap_or_default();
    assert!(message.len() < 300, "{name}: {message}");
}

#[test]
fn tokens() {
    let good = Signer::elliptic("good", 1);
    let elsewhere = KeyServer::start(&[&Signer::elliptic("good", 66)]);
    let keys = KeyServer::start(&[&good]);
    let mut suite = guarded(&keys, &good);
    let token = good.token("mallory");
    for (name, token) in unsigned(&token, &elsewhere.url()) {
        suite.input(name, |suite| is_refused(suite, &token, name));
    }
    for (name, claims) in claims() {
        suite.input(name, |suite| is_refused(suite, &good.sign(&claims), name));
    }
    for (name, algorithm) in [("another hash", Algorithm::ES384), ("another kind", Algorithm::PS256)] {
        let header = json!({"alg": format!("{algorithm:?}"), "kid": "good"});
        suite.input(name, |suite| is_refused(suite, &renamed(&token, &header), name));
    }
    suite.input("a token that is good", |suite| {
        let mut client = with_token(suite, &token);
        client.connect(&[]);
        client.round_trip();
    });
    suite.input("no token after a good one", |suite| {
        let mut client = with_token(suite, &token);
        client.connect(&[]);
        client.send(json!(["updateAuth", {"auth": ""}]));
        assert_eq!(client.until_error()["kind"], "Unauthorized");
    });
    suite.input("a token that is longer than any", |suite| {
        let mut client = with_token(suite, &token);
        client.connect(&[]);
        client.send(json!(["updateAuth", {"auth": "x".repeat(9 << 20)}]));
        assert_eq!(client.until_error()["kind"], "AuthInvalidated");
    });
    suite.input("the bystander's token for another user", |suite| {
        is_refused(suite, &good.token("bystander"), "stolen")
    });
    assert!(elsewhere.asked().is_empty(), "whom a token names is not asked");
    let asked = keys.asked().len();
    assert!(asked < 5, "keys that nobody has are looked for {asked} times");
    suite.finish();
}

#[test]
fn sets_of_keys() {
    let good = Signer::elliptic("good", 1);
    let published = KeyServer::start(&[]);
    let listed = keys().into_iter().enumerate().map(|(n, (_, mut jwk))| {
        jwk["kid"] = json!(format!("k{n}"));
        jwk
    });
    let listed: Vec<Value> = listed.chain([good.jwk()]).collect();
    published.reply(Reply::Document(set(&listed)));
    let mut suite = guarded(&published, &good);
    let signers = [
        Signer::elliptic("k", 9),
        Signer::edwards("k", 9),
        Signer::rsa("k"),
        Signer::secret(b"everybody knows"),
    ];
    for (n, (name, _)) in keys().into_iter().enumerate() {
        suite.input(name, |suite| {
            for signer in &signers {
                is_refused(suite, &signer.named(Some(&format!("k{n}"))).token("mallory"), name);
            }
        });
    }
    suite.finish();
}
