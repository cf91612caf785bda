//! Tokens, and sets of keys.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use kelvin::auth::claims::Expected;
use kelvin::auth::key::Key;
use kelvin::auth::key_set::KeySet;
use kelvin::auth::signed::Signed;
use kelvin::auth::token::verify;
use proptest::prelude::*;
use serde_json::json;

use super::engine::fuzz;
use super::mutate::{bytes, text, value};

const SECRET: &str = "a secret that is long enough for everybody";
const NOW: u64 = 1_000;

fn token(claims: &serde_json::Value) -> String {
    encode(&Header::new(Algorithm::HS256), claims, &EncodingKey::from_secret(SECRET.as_bytes()))
        .expect("a token")
}

/// Only what was signed is admitted, and only whoever is named.
#[test]
fn tokens_that_were_changed_admit_nobody() {
    let good = [
        token(&json!({"sub": "u"})),
        token(&json!({"sub": "u", "exp": 2_000, "iat": 7.5})),
        token(&json!({"sub": "v"})),
    ];
    let foreign = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ1In0.";
    let seeds = [&*good[0], &*good[1], &*good[2], foreign];
    let words: Vec<&[u8]> = vec![b".", b"=", b"eyJhbGciOiJub25lIn0", b"eyJzdWIiOiJ1In0", b" "];
    let key = Key::secret(SECRET);
    let expected = Expected { subject: "u", ..Expected::default() };
    fuzz(text(&seeds, words), |text| {
        let Ok(signed) = Signed::parse(&text) else { return Ok(()) };
        let _ = signed.claims();
        if verify(&text, &signed, &key, &expected, NOW).is_ok() {
            prop_assert!(good[..2].contains(&text), "it was not signed: {text}");
        }
        Ok(())
    });
}

const SETS: [&str; 4] = [
    r#"{"keys":[{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0","kid":"a","alg":"ES256","use":"sig"}]}"#,
    r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","kid":"b","key_ops":["verify"]},{"kty":"oct","k":"AAAA","kid":"c"}]}"#,
    r#"{"keys":[]}"#,
    r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"AAAA","kid":"b"}]}"#,
];

/// Whatever is listed, looking for the key of a token and verifying with it ends, and admits nobody.
#[test]
fn keys_of_strangers_admit_nobody() {
    let header = |alg: &str, kid: &str| URL_SAFE_NO_PAD.encode(json!({"alg": alg, "kid": kid}).to_string());
    let tokens: Vec<String> = ["ES256", "EdDSA", "RS256", "HS256"]
        .iter()
        .flat_map(|alg| {
            ["a", "b", "c"].map(|kid| format!("{}.eyJzdWIiOiJ1In0.{}", header(alg, kid), "AAAA".repeat(16)))
        })
        .collect();
    let expected = Expected { subject: "u", ..Expected::default() };
    fuzz(value(&SETS), |document| {
        let mut keys = KeySet::default();
        let _ = keys.fetched(document.to_string().as_bytes(), 0.0);
        for token in &tokens {
            let signed = Signed::parse(token).expect("a token");
            let Ok(key) = keys.pick(&signed) else { continue };
            prop_assert!(verify(token, &signed, &key, &expected, NOW).is_err(), "admitted by {document}");
        }
        Ok(())
    });
}

/// Those that can be used are not more than are listed, and a set that is refused changes nothing.
#[test]
fn sets_of_keys_are_taken_or_refused() {
    fuzz(value(&SETS), |document| {
        let text = document.to_string();
        let mut keys = KeySet::default();
        match keys.fetched(text.as_bytes(), 0.0) {
            Ok((listed, usable)) => {
                prop_assert!(usable <= listed && keys.has_keys());
                prop_assert_eq!(document["keys"].as_array().map(Vec::len), Some(listed));
            }
            Err(_) => prop_assert!(!keys.has_keys()),
        }
        Ok(())
    });
    let seeds = SETS.iter().map(|set| set.as_bytes().to_vec()).collect();
    fuzz(bytes(seeds, vec![b"{\"keys\":[", b"]}", b"\\u0000"]), |bytes| {
        let _ = KeySet::default().fetched(&bytes, 0.0);
        Ok(())
    });
}
