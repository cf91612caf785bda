//! The token of a connection: how one is admitted, and what may take its place
//! (`docs/spec/view-syncer.md` §11.2).
//!
//! With a key configured a token is a JWT and is verified here; without one it is opaque
//! and only the app's endpoints can tell whether it is good.

use super::claims::{self, Expected};
use super::error::TokenError;
use super::key::Key;
use super::signed::Signed;
use crate::auth::secret::Secret;
use crate::protocol::error::{Kind, ProtocolError};

/// A token that was admitted.
#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    raw: Secret,
    kind: TokenKind,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum TokenKind {
    Opaque,
    /// Seconds since 1970 at which it was issued, if it says so.
    Jwt(Option<f64>),
}

impl Token {
    /// A token that the app will judge.
    pub fn opaque(raw: &str) -> Token {
        Token { raw: Secret::new(raw), kind: TokenKind::Opaque }
    }

    /// Whether it was verified here: it says who its bearer is.
    pub fn is_verified(&self) -> bool {
        matches!(self.kind, TokenKind::Jwt(_))
    }

    /// What the app's endpoints are sent.
    pub fn expose(&self) -> &str {
        self.raw.expose()
    }
}

/// Verifies a token with its key; `now`: whole seconds since 1970.
pub fn verify(
    raw: &str,
    signed: &Signed,
    key: &Key,
    expected: &Expected,
    now: u64,
) -> Result<Token, TokenError> {
    if !key.admits(signed.algorithm) {
        return Err(TokenError::OtherAlgorithm);
    }
    if !key.has_signed(signed) {
        return Err(TokenError::Signature);
    }
    let issued_at = claims::check(&signed.claims()?, expected, now)?;
    Ok(Token { raw: Secret::new(raw), kind: TokenKind::Jwt(issued_at) })
}

/// What becomes of a connection's token when it brings another one, or none. `None`: it keeps
/// the one that it has, and nothing follows from it.
pub fn succeed(previous: Option<&Token>, next: Option<Token>) -> Result<Option<Token>, ProtocolError> {
    let refused = |why: &str| Err(ProtocolError::new(Kind::Unauthorized, why));
    let (Some(previous), Some(next)) = (previous, &next) else {
        return match (previous, next) {
            (Some(_), None) => refused("a token cannot be replaced by none"),
            (_, next) => Ok(next),
        };
    };
    if previous.raw == next.raw {
        return Ok(None);
    }
    match (previous.kind, next.kind) {
        (TokenKind::Opaque, TokenKind::Opaque) | (TokenKind::Jwt(None), TokenKind::Jwt(_)) => {
            Ok(Some(next.clone()))
        }
        (TokenKind::Jwt(Some(_)), TokenKind::Jwt(None)) => {
            refused("the token does not say when it was issued (iat), and the one before does")
        }
        // Two requests of a client may have crossed: the older token must not win.
        (TokenKind::Jwt(Some(old)), TokenKind::Jwt(Some(new))) => Ok((new > old).then(|| next.clone())),
        _ => refused("the kind of a token cannot change"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
    use serde_json::{Value, json};

    fn signed_with(algorithm: Algorithm, secret: &[u8], claims: &Value) -> String {
        encode(&Header::new(algorithm), claims, &EncodingKey::from_secret(secret)).unwrap()
    }

    fn verified(raw: &str, key: &Key) -> Result<Token, TokenError> {
        let expected = Expected { subject: "u", ..Expected::default() };
        verify(raw, &Signed::parse(raw)?, key, &expected, 1_000)
    }

    #[test]
    fn only_a_token_that_was_signed_with_the_key_is_admitted() {
        let claims = json!({"sub": "u"});
        let key = Key::secret("s");
        for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
            assert!(verified(&signed_with(algorithm, b"s", &claims), &key).is_ok());
        }
        let other = signed_with(Algorithm::HS256, b"t", &claims);
        assert_eq!(verified(&other, &key), Err(TokenError::Signature));
        let good = signed_with(Algorithm::HS256, b"s", &claims);
        let (head, signature) = good.rsplit_once('.').unwrap();
        let foreign = signed_with(Algorithm::HS256, b"s", &json!({"sub": "u", "admin": true}));
        let (_, foreign) = foreign.rsplit_once('.').unwrap();
        assert_eq!(verified(&format!("{head}.{foreign}"), &key), Err(TokenError::Signature));
        assert_eq!(verified(&format!("{head}."), &key), Err(TokenError::Signature));
        assert!(verified(&format!("{head}.{signature}"), &key).is_ok());
        let narrow = Key::from_jwk(&json!({"kty": "oct", "k": "cw", "alg": "HS512"})).unwrap();
        assert_eq!(verified(&good, &narrow), Err(TokenError::OtherAlgorithm));
        assert!(verified(&signed_with(Algorithm::HS512, b"s", &claims), &narrow).is_ok());
    }

    #[test]
    fn a_public_key_is_no_secret() {
        // Everybody knows these bytes, and may sign with them.
        let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
        let key = Key::from_jwk(&json!({"kty": "OKP", "crv": "Ed25519", "x": x})).unwrap();
        for secret in [
            x.as_bytes(),
            &base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, x).unwrap(),
        ] {
            let forged = signed_with(Algorithm::HS256, secret, &json!({"sub": "u"}));
            assert_eq!(verified(&forged, &key), Err(TokenError::OtherAlgorithm));
        }
    }

    fn jwt(raw: &str, issued_at: Option<f64>) -> Token {
        Token { raw: Secret::new(raw), kind: TokenKind::Jwt(issued_at) }
    }

    #[test]
    fn what_may_take_the_place_of_a_token() {
        let kind = |previous: Option<Token>, next: Option<Token>| {
            succeed(previous.as_ref(), next).map(|t| t.map(|t| t.expose().to_owned())).map_err(|e| e.kind)
        };
        let (a, b) = (Token::opaque("a"), Token::opaque("b"));
        assert_eq!(kind(None, None), Ok(None));
        assert_eq!(kind(Some(a.clone()), None), Err(Kind::Unauthorized));
        assert_eq!(kind(None, Some(b.clone())), Ok(Some("b".into())));
        assert_eq!(kind(Some(a.clone()), Some(b.clone())), Ok(Some("b".into())));
        assert_eq!(kind(Some(a.clone()), Some(a.clone())), Ok(None));
        assert_eq!(kind(Some(jwt("a", Some(1.0))), Some(jwt("b", Some(2.0)))), Ok(Some("b".into())));
        assert_eq!(kind(Some(jwt("a", Some(2.0))), Some(jwt("b", Some(2.0)))), Ok(None), "as old");
        assert_eq!(kind(Some(jwt("a", Some(2.0))), Some(jwt("b", Some(1.0)))), Ok(None), "older");
        assert_eq!(kind(Some(jwt("a", None)), Some(jwt("b", None))), Ok(Some("b".into())));
        assert_eq!(kind(Some(jwt("a", None)), Some(jwt("b", Some(1.0)))), Ok(Some("b".into())));
        assert_eq!(kind(Some(jwt("a", Some(1.0))), Some(jwt("b", None))), Err(Kind::Unauthorized));
        assert_eq!(kind(Some(a), Some(jwt("b", None))), Err(Kind::Unauthorized));
        assert_eq!(kind(Some(jwt("a", None)), Some(b)), Err(Kind::Unauthorized));
    }

    #[test]
    fn a_token_is_not_printed() {
        assert!(!format!("{:?}", Token::opaque("abc")).contains("abc"));
    }
}
