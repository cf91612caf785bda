//! Tokens of connections (`docs/spec/view-syncer.md` §11).
//!
//! With a key configured a token is a JWT and is verified here; without one it is opaque
//! and only the app's endpoints can tell whether it is good.

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use serde::Deserialize;

use crate::config::{Auth, JwtKey};
use crate::protocol::error::{Kind, ProtocolError};

#[derive(Deserialize)]
struct Claims {
    sub: Option<String>,
}

/// Admits a token, or says why not. `endpoints`: both the query and the mutate endpoint are
/// configured, so an opaque token has somebody who can judge it (ruling 11).
pub fn admit(
    auth: &Auth,
    endpoints: bool,
    token: Option<&str>,
    user_id: Option<&str>,
) -> Result<(), ProtocolError> {
    let Some(token) = token.filter(|t| !t.is_empty()) else { return Ok(()) };
    let Some(user_id) = user_id else {
        return Err(ProtocolError::new(Kind::Unauthorized, "a token needs a userID beside it"));
    };
    match &auth.key {
        Some(key) => verify(auth, key, token, user_id),
        None if endpoints => Ok(()),
        None => Err(ProtocolError::new(
            Kind::AuthInvalidated,
            "a token was given, but nothing can judge it: set both ZERO_QUERY_URL and ZERO_MUTATE_URL, or one \
             of ZERO_AUTH_SECRET and ZERO_AUTH_JWK",
        )),
    }
}

fn verify(auth: &Auth, key: &JwtKey, token: &str, user_id: &str) -> Result<(), ProtocolError> {
    let invalid =
        |why: String| ProtocolError::new(Kind::AuthInvalidated, format!("the token is not valid: {why}"));
    let header = jsonwebtoken::decode_header(token).map_err(|e| invalid(e.to_string()))?;
    let (key, allowed) = match key {
        JwtKey::Secret(secret) => (
            DecodingKey::from_secret(secret.expose().as_bytes()),
            vec![Algorithm::HS256, Algorithm::HS384, Algorithm::HS512],
        ),
        JwtKey::Jwk(jwk) => {
            let jwk: Jwk = serde_json::from_str(jwk.expose())
                .map_err(|e| invalid(format!("ZERO_AUTH_JWK is not a JWK: {e}")))?;
            (DecodingKey::from_jwk(&jwk).map_err(|e| invalid(e.to_string()))?, vec![header.alg])
        }
        JwtKey::JwksUrl(_) => {
            return Err(invalid(
                "ZERO_AUTH_JWKS_URL is not supported by this version; use ZERO_AUTH_JWK".into(),
            ));
        }
    };
    let mut validation = Validation::new(header.alg);
    validation.algorithms = allowed;
    // As the reference: claims are checked when they are there.
    validation.required_spec_claims.clear();
    validation.leeway = 0;
    validation.validate_nbf = true;
    validation.validate_aud = auth.audience.is_some();
    if let Some(audience) = &auth.audience {
        validation.set_audience(&[audience]);
    }
    if let Some(issuer) = &auth.issuer {
        validation.set_issuer(&[issuer]);
    }
    let claims = decode::<Claims>(token, &key, &validation).map_err(|e| invalid(e.to_string()))?.claims;
    if claims.sub.as_deref() != Some(user_id) {
        return Err(invalid("its subject is not the connection's userID".to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;
    use jsonwebtoken::{EncodingKey, Header, encode};

    fn auth(key: Option<JwtKey>) -> Auth {
        Auth { key, issuer: None, audience: None, revalidate_interval: None, retransform_interval: None }
    }

    fn token(claims: serde_json::Value) -> String {
        encode(&Header::default(), &claims, &EncodingKey::from_secret(b"s")).unwrap()
    }

    #[test]
    fn only_a_token_of_the_user_signed_with_the_key_is_admitted() {
        let auth = auth(Some(JwtKey::Secret(Secret::new("s"))));
        let check = |token: &str, user| admit(&auth, false, Some(token), user).map_err(|e| e.kind);
        assert_eq!(check(&token(serde_json::json!({"sub": "u"})), Some("u")), Ok(()));
        assert_eq!(check(&token(serde_json::json!({"sub": "v"})), Some("u")), Err(Kind::AuthInvalidated));
        assert_eq!(
            check(&token(serde_json::json!({"sub": "u", "exp": 1})), Some("u")),
            Err(Kind::AuthInvalidated)
        );
        assert_eq!(check("x.y.z", Some("u")), Err(Kind::AuthInvalidated));
        assert_eq!(check(&token(serde_json::json!({"sub": "u"})), None), Err(Kind::Unauthorized));
    }

    #[test]
    fn an_opaque_token_needs_somebody_who_can_judge_it() {
        let auth = auth(None);
        assert_eq!(admit(&auth, true, Some("t"), Some("u")), Ok(()));
        assert_eq!(admit(&auth, false, Some("t"), Some("u")).unwrap_err().kind, Kind::AuthInvalidated);
        assert_eq!(admit(&auth, false, None, None), Ok(()));
    }
}
