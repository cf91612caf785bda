//! A JSON web token in its three parts, before anybody believes it.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};

use super::error::TokenError;

/// Most bytes of a token that is verified. Browsers cannot send longer ones when they connect, and
/// every byte takes the core's time before it is known to be worth it.
pub const MAX_TOKEN: usize = 64 << 10;

/// A token whose signature is still to be verified.
pub struct Signed<'a> {
    /// Algorithm that its header names.
    pub algorithm: Algorithm,
    /// Id of the key that it says it was signed with.
    pub key_id: Option<String>,
    /// What was signed.
    pub message: &'a [u8],
    /// The signature, encoded.
    pub signature: &'a str,
    claims: &'a str,
}

impl<'a> Signed<'a> {
    /// Takes a token apart.
    pub fn parse(token: &'a str) -> Result<Signed<'a>, TokenError> {
        if token.len() > MAX_TOKEN {
            return Err(TokenError::TooLong);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, claims) = message.split_once('.').ok_or(TokenError::Malformed)?;
        if claims.contains('.') {
            return Err(TokenError::Malformed);
        }
        let header = object(header)?;
        // Extensions that change what a token means; none is known here.
        if header.contains_key("crit") {
            return Err(TokenError::Extension);
        }
        let name = header.get("alg").and_then(Value::as_str).ok_or(TokenError::Malformed)?;
        Ok(Signed {
            algorithm: algorithm_of(name).ok_or(TokenError::Algorithm)?,
            key_id: header.get("kid").and_then(Value::as_str).map(str::to_owned),
            message: message.as_bytes(),
            signature,
            claims,
        })
    }

    /// What it claims. Of no worth before the signature was verified.
    pub fn claims(&self) -> Result<Map<String, Value>, TokenError> {
        object(self.claims)
    }
}

fn object(part: &str) -> Result<Map<String, Value>, TokenError> {
    let json = URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed)?;
    serde_json::from_slice(&json).map_err(|_| TokenError::Malformed)
}

/// The algorithm of a name as tokens and keys spell it; `None` for all others, `none` first.
pub fn algorithm_of(name: &str) -> Option<Algorithm> {
    match name {
        "Ed25519" => Some(Algorithm::EdDSA),
        _ => name.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(header: &str) -> Result<Algorithm, TokenError> {
        let token = format!("{}.e30.AAAA", URL_SAFE_NO_PAD.encode(header));
        Signed::parse(&token).map(|signed| signed.algorithm)
    }

    #[test]
    fn tokens_that_are_not_signed_are_not_taken_apart() {
        assert_eq!(parsed(r#"{"alg":"RS256","kid":"k","typ":"JWT","x":[1]}"#), Ok(Algorithm::RS256));
        for unsigned in ["none", "None", "NONE", "", "hs256", "dir"] {
            assert_eq!(
                parsed(&format!(r#"{{"alg":"{unsigned}"}}"#)),
                Err(TokenError::Algorithm),
                "{unsigned}"
            );
        }
        assert_eq!(parsed(r#"{"alg":1}"#), Err(TokenError::Malformed));
        assert_eq!(parsed(r#"{"alg":"RS256","crit":["b64"],"b64":false}"#), Err(TokenError::Extension));
        for malformed in ["", "x", "a.b", "e30.e30", "a.b.c.d", "e30.e30.x.y", "!.!.!"] {
            assert_eq!(Signed::parse(malformed).err(), Some(TokenError::Malformed), "{malformed}");
        }
        assert_eq!(Signed::parse(&"x".repeat(MAX_TOKEN + 1)).err(), Some(TokenError::TooLong));
    }
}
