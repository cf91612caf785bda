//! A key that tokens are verified with, and the algorithms that it admits.
//!
//! Which algorithms a key admits follows from the key alone, never from a token: a public key
//! whose bytes are known to everybody must not be taken for a shared secret.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::{Map, Value};

use super::signed::{Signed, algorithm_of};

/// Fewest bits of an RSA key. Shorter ones can be broken; the reference refuses them, too.
const MIN_RSA_BITS: usize = 2048;

/// Most bits of an RSA key: verifying takes the core's time, and longer ones are not made.
const MAX_RSA_BITS: usize = 4096;

const HMAC: [Algorithm; 3] = [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];
const RSA: [Algorithm; 6] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

/// One key.
#[derive(Debug, Clone)]
pub struct Key {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    material: DecodingKey,
}

/// Why a JWK cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyError {
    /// It is not a JSON object, or a member is missing or malformed.
    Malformed,
    /// Its type or curve is not known here.
    UnknownType,
    /// It is not for verifying signatures.
    OtherUse,
    /// It names an algorithm that does not go with its type.
    OtherAlgorithm,
    /// It holds what only the signer may know.
    Private,
    /// An RSA key of a length that is not accepted.
    Length,
}

impl std::fmt::Display for KeyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            KeyError::Malformed => "is not a JSON Web Key",
            KeyError::UnknownType => {
                "is of a type that is not supported (RSA, EC with P-256 or P-384, OKP with Ed25519, oct)"
            }
            KeyError::OtherUse => "is not for verifying signatures (\"use\" or \"key_ops\")",
            KeyError::OtherAlgorithm => "names an algorithm (\"alg\") that does not go with its type",
            KeyError::Private => "is a private key",
            KeyError::Length => "is an RSA key of less than 2048 or more than 4096 bits",
        })
    }
}

impl std::error::Error for KeyError {}

impl Key {
    /// A shared secret, as its UTF-8 bytes.
    pub fn secret(text: &str) -> Key {
        Key { id: None, algorithms: HMAC.to_vec(), material: DecodingKey::from_secret(text.as_bytes()) }
    }

    /// A JWK of any type.
    pub fn from_jwk(jwk: &Value) -> Result<Key, KeyError> {
        let jwk = jwk.as_object().ok_or(KeyError::Malformed)?;
        if jwk.contains_key("d") {
            return Err(KeyError::Private);
        }
        if !is_for_verifying(jwk) {
            return Err(KeyError::OtherUse);
        }
        let (mut algorithms, material) = match text(jwk, "kty") {
            Some("RSA") => rsa(jwk)?,
            Some("EC") => elliptic(jwk)?,
            Some("OKP") => edwards(jwk)?,
            Some("oct") => (HMAC.to_vec(), DecodingKey::from_secret(&bytes(jwk, "k")?)),
            Some(_) => return Err(KeyError::UnknownType),
            None => return Err(KeyError::Malformed),
        };
        if let Some(named) = text(jwk, "alg") {
            algorithms.retain(|algorithm| algorithm_of(named) == Some(*algorithm));
        }
        if algorithms.is_empty() {
            return Err(KeyError::OtherAlgorithm);
        }
        let key = Key { id: text(jwk, "kid").map(str::to_owned), algorithms, material };
        // What the verifier cannot stand shows here, and not when somebody brings a token.
        match key.algorithms.iter().all(|algorithm| key.verify("AAAA", b"", *algorithm).is_some()) {
            true => Ok(key),
            false => Err(KeyError::Malformed),
        }
    }

    /// A JWK that everybody may know, as sets of keys hold them.
    pub fn from_public_jwk(jwk: &Value) -> Result<Key, KeyError> {
        match text(jwk.as_object().ok_or(KeyError::Malformed)?, "kty") {
            // Whoever can read the set could sign with it.
            Some("oct") => Err(KeyError::Private),
            _ => Key::from_jwk(jwk),
        }
    }

    /// Its id, if it has one.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Whether tokens signed with this algorithm may be verified with it.
    pub fn admits(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }

    /// Whether a token was signed with it, and with an algorithm that it admits.
    pub fn has_signed(&self, token: &Signed) -> bool {
        self.admits(token.algorithm)
            && self.verify(token.signature, token.message, token.algorithm).unwrap_or(false)
    }

    /// `None`: the verifier panicked. The bytes of keys and signatures come from outside, and they go through several
    /// libraries.
    fn verify(&self, signature: &str, message: &[u8], algorithm: Algorithm) -> Option<bool> {
        let verify = || jsonwebtoken::crypto::verify(signature, message, &self.material, algorithm);
        let verified = std::panic::catch_unwind(std::panic::AssertUnwindSafe(verify)).ok()?;
        Some(verified.unwrap_or(false))
    }
}

/// As the reference: members that are there restrict, others do not count.
fn is_for_verifying(jwk: &Map<String, Value>) -> bool {
    let verifies = |operations: &Vec<Value>| operations.iter().any(|o| o == "verify");
    text(jwk, "use").is_none_or(|purpose| purpose == "sig")
        && jwk.get("key_ops").and_then(Value::as_array).is_none_or(verifies)
}

fn rsa(jwk: &Map<String, Value>) -> Result<(Vec<Algorithm>, DecodingKey), KeyError> {
    let (modulus, exponent) = (bytes(jwk, "n")?, bytes(jwk, "e")?);
    let first = modulus.iter().position(|byte| *byte != 0).ok_or(KeyError::Malformed)?;
    let bits = (modulus.len() - first) * 8 - modulus[first].leading_zeros() as usize;
    if !(MIN_RSA_BITS..=MAX_RSA_BITS).contains(&bits) {
        return Err(KeyError::Length);
    }
    Ok((RSA.to_vec(), DecodingKey::from_rsa_raw_components(&modulus[first..], &exponent)))
}

fn elliptic(jwk: &Map<String, Value>) -> Result<(Vec<Algorithm>, DecodingKey), KeyError> {
    let (algorithm, size) = match text(jwk, "crv") {
        Some("P-256") => (Algorithm::ES256, 32),
        Some("P-384") => (Algorithm::ES384, 48),
        Some(_) => return Err(KeyError::UnknownType),
        None => return Err(KeyError::Malformed),
    };
    let (x, y) = (bytes(jwk, "x")?, bytes(jwk, "y")?);
    if (x.len(), y.len()) != (size, size) {
        return Err(KeyError::Malformed);
    }
    let point = [&[UNCOMPRESSED][..], &x, &y].concat();
    Ok((vec![algorithm], DecodingKey::from_ec_der(&point)))
}

/// First byte of a point whose both coordinates follow.
const UNCOMPRESSED: u8 = 4;

/// Bytes of a point of Ed25519.
const EDWARDS_BYTES: usize = 32;

fn edwards(jwk: &Map<String, Value>) -> Result<(Vec<Algorithm>, DecodingKey), KeyError> {
    match text(jwk, "crv") {
        Some("Ed25519") => {
            let point = bytes(jwk, "x")?;
            // The verifier takes the first 32 bytes, whether they are there or not.
            if point.len() != EDWARDS_BYTES {
                return Err(KeyError::Malformed);
            }
            Ok((vec![Algorithm::EdDSA], DecodingKey::from_ed_der(&point)))
        }
        Some(_) => Err(KeyError::UnknownType),
        None => Err(KeyError::Malformed),
    }
}

fn text<'a>(jwk: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    jwk.get(name).and_then(Value::as_str)
}

fn bytes(jwk: &Map<String, Value>, name: &str) -> Result<Vec<u8>, KeyError> {
    let decoded = text(jwk, name).and_then(|text| URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok());
    decoded.filter(|bytes| !bytes.is_empty()).ok_or(KeyError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn admitted(jwk: Value) -> Result<Vec<Algorithm>, KeyError> {
        Key::from_jwk(&jwk).map(|key| key.algorithms)
    }

    fn rsa_of(bytes: usize) -> Value {
        json!({"kty": "RSA", "n": URL_SAFE_NO_PAD.encode(vec![0xff; bytes]), "e": "AQAB"})
    }

    fn with(mut jwk: Value, name: &str, value: Value) -> Value {
        jwk[name] = value;
        jwk
    }

    #[test]
    fn a_key_admits_the_algorithms_of_its_type_only() {
        let coordinate = |size: usize| URL_SAFE_NO_PAD.encode(vec![1; size]);
        let curve = |name: &str, size| json!({"kty": "EC", "crv": name, "x": coordinate(size), "y": coordinate(size)});
        assert_eq!(admitted(rsa_of(256)), Ok(RSA.to_vec()));
        assert_eq!(admitted(curve("P-256", 32)), Ok(vec![Algorithm::ES256]));
        assert_eq!(admitted(curve("P-384", 48)), Ok(vec![Algorithm::ES384]));
        assert_eq!(admitted(curve("P-256", 48)), Err(KeyError::Malformed));
        assert_eq!(admitted(curve("P-521", 66)), Err(KeyError::UnknownType));
        assert_eq!(admitted(json!({"kty": "oct", "k": "AAAA"})), Ok(HMAC.to_vec()));
        let edwards = json!({"kty": "OKP", "crv": "Ed25519", "x": coordinate(32)});
        assert_eq!(admitted(edwards.clone()), Ok(vec![Algorithm::EdDSA]));
        assert_eq!(admitted(with(edwards, "crv", json!("X25519"))), Err(KeyError::UnknownType));
        assert_eq!(admitted(with(rsa_of(256), "alg", json!("PS384"))), Ok(vec![Algorithm::PS384]));
        for other in ["HS256", "ES256", "none", "RSA-OAEP"] {
            assert_eq!(admitted(with(rsa_of(256), "alg", json!(other))), Err(KeyError::OtherAlgorithm));
        }
        assert_eq!(algorithm_of("none"), None);
    }

    #[test]
    fn keys_of_any_content_are_refused_or_verify_nothing() {
        let edwards =
            |bytes: &[u8]| json!({"kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(bytes)});
        for length in [1, 31, 33, 64] {
            assert_eq!(admitted(edwards(&vec![1; length])), Err(KeyError::Malformed), "{length} bytes");
        }
        let curve = |name: &str, x: Vec<u8>, y: Vec<u8>| {
            let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
            json!({"kty": "EC", "crv": name, "x": x, "y": y})
        };
        let rsa = |n: Vec<u8>, e: Vec<u8>| json!({"kty": "RSA", "n": URL_SAFE_NO_PAD.encode(n), "e": URL_SAFE_NO_PAD.encode(e)});
        let mut keys = vec![
            edwards(&[0; 32]),
            edwards(&[0xff; 32]),
            curve("P-256", vec![0; 32], vec![0; 32]),
            curve("P-256", vec![0xff; 32], vec![0xff; 32]),
            curve("P-384", vec![0xff; 48], vec![1; 48]),
        ];
        let mut even = vec![0xff; 256];
        even[255] = 0xfe;
        for modulus in [vec![0xff; 256], even, [vec![0x80], vec![0; 255]].concat()] {
            for exponent in
                [vec![0], vec![1], vec![2], vec![3], vec![0xff; 5], vec![0xff; 256], vec![0xff; 4_096]]
            {
                keys.push(rsa(modulus.clone(), exponent));
            }
        }
        let message = format!("{}.e30", URL_SAFE_NO_PAD.encode(r#"{"alg":"X"}"#));
        for jwk in keys {
            let Ok(key) = Key::from_jwk(&jwk) else { continue };
            for signature in [vec![], vec![0; 64], vec![0xff; 64], vec![0; 96], vec![0; 256], vec![0xff; 512]]
            {
                let signature = URL_SAFE_NO_PAD.encode(signature);
                for algorithm in &key.algorithms {
                    assert_eq!(key.verify(&signature, message.as_bytes(), *algorithm), Some(false), "{jwk}");
                }
            }
        }
    }

    #[test]
    fn keys_for_something_else_are_not_used() {
        assert_eq!(admitted(with(rsa_of(256), "use", json!("enc"))), Err(KeyError::OtherUse));
        assert_eq!(admitted(with(rsa_of(256), "key_ops", json!(["wrapKey"]))), Err(KeyError::OtherUse));
        assert!(admitted(with(rsa_of(256), "key_ops", json!(["verify"]))).is_ok());
        assert_eq!(admitted(with(rsa_of(256), "d", json!("AQAB"))), Err(KeyError::Private));
        assert_eq!(admitted(rsa_of(255)), Err(KeyError::Length));
        assert_eq!(admitted(rsa_of(513)), Err(KeyError::Length));
        assert_eq!(admitted(json!([])), Err(KeyError::Malformed));
        assert_eq!(admitted(json!({"kty": "RSA", "n": "!", "e": "AQAB"})), Err(KeyError::Malformed));
        let shared = json!({"kty": "oct", "k": "AAAA"});
        assert_eq!(Key::from_public_jwk(&shared).err(), Some(KeyError::Private), "everybody could sign");
    }
}
