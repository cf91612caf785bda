//! What a token must claim (`docs/spec/view-syncer.md` §11.1).

use serde_json::{Map, Value};

use super::error::TokenError;

/// What tokens must claim.
#[derive(Debug, Clone, Copy, Default)]
pub struct Expected<'a> {
    /// `sub`.
    pub subject: &'a str,
    /// `iss`, if it is looked at.
    pub issuer: Option<&'a str>,
    /// `aud`, or one of it, if it is looked at.
    pub audience: Option<&'a str>,
}

/// Checks the claims of a token whose signature was verified; `now`: whole seconds since 1970.
/// Returns when it was issued, if it says so.
pub fn check(claims: &Map<String, Value>, expected: &Expected, now: u64) -> Result<Option<f64>, TokenError> {
    let is = |name: &str, wanted: &str| claims.get(name).is_some_and(|value| value == wanted);
    if expected.issuer.is_some_and(|issuer| !is("iss", issuer)) {
        return Err(TokenError::Issuer);
    }
    if !is("sub", expected.subject) {
        return Err(TokenError::Subject);
    }
    let for_us = |audience| match claims.get("aud") {
        Some(Value::Array(several)) => several.iter().any(|one| one == audience),
        _ => is("aud", audience),
    };
    if expected.audience.is_some_and(|audience| !for_us(audience)) {
        return Err(TokenError::Audience);
    }
    let issued_at = number(claims, "iat")?;
    if number(claims, "nbf")?.is_some_and(|from| from > now as f64) {
        return Err(TokenError::TooEarly);
    }
    if number(claims, "exp")?.is_some_and(|until| until <= now as f64) {
        return Err(TokenError::Expired);
    }
    Ok(issued_at)
}

fn number(claims: &Map<String, Value>, name: &'static str) -> Result<Option<f64>, TokenError> {
    let number = |value: &Value| value.as_f64().ok_or(TokenError::NoNumber(name));
    claims.get(name).map(number).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NOW: u64 = 1_000;

    fn checked(
        claims: Value,
        issuer: Option<&str>,
        audience: Option<&str>,
    ) -> Result<Option<f64>, TokenError> {
        let expected = Expected { subject: "u", issuer, audience };
        check(claims.as_object().expect("an object"), &expected, NOW)
    }

    #[test]
    fn times_are_kept_to_the_second() {
        let at = |name: &str, value: Value| checked(json!({"sub": "u", name: value}), None, None);
        assert_eq!(at("exp", json!(NOW + 1)), Ok(None));
        assert_eq!(at("exp", json!(NOW)), Err(TokenError::Expired));
        assert_eq!(at("nbf", json!(NOW)), Ok(None));
        assert_eq!(at("nbf", json!(NOW + 1)), Err(TokenError::TooEarly));
        assert_eq!(at("iat", json!(7.5)), Ok(Some(7.5)));
        for name in ["exp", "nbf", "iat"] {
            for value in [json!("2000"), json!(null)] {
                assert_eq!(at(name, value), Err(TokenError::NoNumber(name)));
            }
        }
    }

    #[test]
    fn what_is_configured_has_to_be_claimed() {
        let is = |claims: Value| checked(claims, Some("i"), Some("a"));
        assert_eq!(is(json!({"sub": "u", "iss": "i", "aud": "a"})), Ok(None));
        assert_eq!(is(json!({"sub": "u", "iss": "i", "aud": ["b", "a"]})), Ok(None));
        assert_eq!(is(json!({"sub": "u", "aud": "a"})), Err(TokenError::Issuer));
        assert_eq!(is(json!({"sub": "u", "iss": ["i"], "aud": "a"})), Err(TokenError::Issuer));
        assert_eq!(is(json!({"sub": "u", "iss": "i"})), Err(TokenError::Audience));
        assert_eq!(is(json!({"sub": "u", "iss": "i", "aud": ["b"]})), Err(TokenError::Audience));
        assert_eq!(is(json!({"iss": "i", "aud": "a"})), Err(TokenError::Subject));
        assert_eq!(checked(json!({"sub": "v"}), None, None), Err(TokenError::Subject));
        assert_eq!(checked(json!({"sub": "u", "iss": 1, "aud": 2}), None, None), Ok(None));
    }
}
