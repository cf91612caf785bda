//! Signers of tokens, with keys that were made for these tests.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

/// An RSA key of 2048 bits: it takes seconds to make one.
const RSA: &[&str] = &[
    "MIIEowIBAAKCAQEAiOhcQBDn8RHjJre1P7lVH3FsfgXDiLAdXhFDdsi/Hg/6M2khWE92n6ttr0NIQJcPB/cXj49MePHZ0GAmezUz",
    "+hS+9YTY83gKWXtwDO+OKITRi4KpjwGMacWTFQyT0zDIG+U00KRtEOHqYt8F+fuIG3SFDC6leHrAHi2tCuAndykw1yhQKbpVyGmS",
    "k+5Qbxoh/LL55GIMzKGKrFW3Xk1oGnzBcNjOciKTud8+YGuiXojBXlvB5CWmiU7yhI3R8n94T9+DhTBXubUa6NKNNpMt3hlTXqyV",
    "68mcUAdsAWqjLft4YfDR3lW8jz/G8AtTRcv244g/D97IfD5sXFzaFqTAQQIDAQABAoIBAAJ9XNE3/0POHfD3gKxFsBG9V2MawQGw",
    "+1H13CHNLAzLp8Dm+itmGPySE3wyz3MyzdTsVWI27f6dZVHGIdpZrzJusRg0hxIKnnHJFVmJ+9HOF90bp0XH2hEzkxO/qrjdOTXv",
    "/TayOsmjDv/uBC/HhXlRrTiAvlNTXwbdd/ILtqsg6yDToFHjM+L6ptxrWEsCL/AyIJ1baJ+Lzydp04enLyR09KA35fA+AEdV1F3W",
    "kNhM8wvXkjKf9Ge3Jac6GEpeXHI1ommmO33mcqItlZ/8jN4BoOqMETdsoPARLYPsxjEoPPsdoeLxIZKd8WWyX8M9Xo+sjtyZbjKH",
    "qdlRddypvy0CgYEAwMv4DuULzzxoSfbEFpVqhFKvV63vPFJNmtkH1zzw0anjbZdRPERmLIT4ZkMG5STtCELuRG/kTQT0sTzxOIR7",
    "OhcSJd3SNOwVax4ublPC/vwUCwiX+09IwN2mbp/LXAgwN5YDR7hlpqBsGpAxoSZmzHwkOMF116QkB7Ez9qAnWH0CgYEAtcoGiMs1",
    "GUCMV2bmzgKoS1TO1uhenY5ZQH0esPrrkCykMWcPTxVHlUxsR/7h7y1HEKc1IdwEyyCskEgZ9JEJxzUafRdD7IOK6lns9lngVJ2q",
    "2C9M+WA1JVsMWMZOpihhbaxnzuRj4jheYKIhKU5p/NnXdciZKMvRWfZc4pna1hUCgYEAhtHbnGbVVEz0zMwwIW7I9tFvZkvuYOtY",
    "83DTR9OIv8Uike9f0loubPFrVu+GMdUZoE5Vmiv4pVdS2WI5eQFDvsKFYU92AKYa8DZB18rhMDgMuA6BYS73PE+DZBaAOdJMDYLs",
    "tkmfY98I2aZ93igheNtS5RF8G5jfzTVAljU2bm0CgYA88mKGcjp3IODsXJ986f8qYmCGRJmUESlzKX+krjtTtuPFfFvxk5zQPTMA",
    "YD+3RGLS/nwdwfoJcAbqyIGLMSUqGG+tCKPJI8DrGQMNBMzlEYc5u4H/CXZH8+KL0NCFfHxNnMOg5YlnSqa5lyGvC48VKqPF5V8U",
    "AmFJ3AMAJbzskQKBgDGrRztJiS28voWbEeKU6dMBrPfapp45IEoxDVIlCmUPCYfQcTFMdOZYQ1BodXublJvzOt3SazXYb52DFBF+",
    "T6DdzuLTKuCQJOhufsoRgP0cUgtQVJU8388yW//NVdvK43HBbXnRx839PoNMpjUJis9bVxdhOmMGhM48VwpdTxFO",
];

/// What comes before the secret number in the files of keys (PKCS 8).
const EDWARDS: &[u8] = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
const P256: &[u8] =
    b"\x30\x41\x02\x01\x00\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\
    \x03\x01\x07\x04\x27\x30\x25\x02\x01\x01\x04\x20";

/// Somebody who signs tokens.
#[derive(Clone)]
pub struct Signer {
    key: EncodingKey,
    pub algorithm: Algorithm,
    /// Id of the key, in its JWK and in tokens.
    pub id: Option<String>,
}

impl Signer {
    /// With a shared secret.
    pub fn secret(secret: &[u8]) -> Signer {
        Signer { key: EncodingKey::from_secret(secret), algorithm: Algorithm::HS256, id: None }
    }

    /// With an RSA key: always the same.
    pub fn rsa(id: &str) -> Signer {
        let der = STANDARD.decode(RSA.concat()).expect("it is base64");
        Signer { key: EncodingKey::from_rsa_der(&der), algorithm: Algorithm::RS256, id: Some(id.into()) }
    }

    /// With a key of curve P-256.
    pub fn elliptic(id: &str, number: u8) -> Signer {
        let der = [P256, &[number; 32]].concat();
        Signer { key: EncodingKey::from_ec_der(&der), algorithm: Algorithm::ES256, id: Some(id.into()) }
    }

    /// With a key of curve Ed25519.
    pub fn edwards(id: &str, number: u8) -> Signer {
        let der = [EDWARDS, &[number; 32]].concat();
        Signer { key: EncodingKey::from_ed_der(&der), algorithm: Algorithm::EdDSA, id: Some(id.into()) }
    }

    /// The same key with another algorithm.
    pub fn with(&self, algorithm: Algorithm) -> Signer {
        Signer { algorithm, ..self.clone() }
    }

    /// The same key; tokens name another one, or none.
    pub fn named(&self, id: Option<&str>) -> Signer {
        Signer { id: id.map(str::to_owned), ..self.clone() }
    }

    /// The public key, without its algorithm.
    pub fn jwk(&self) -> Value {
        let jwk = Jwk::from_encoding_key(&self.key, self.algorithm).expect("a key");
        let mut jwk = serde_json::to_value(jwk).expect("JSON");
        let jwk_members = jwk.as_object_mut().expect("an object");
        jwk_members.remove("alg");
        if let Some(id) = &self.id {
            jwk_members.insert("kid".into(), json!(id));
        }
        jwk
    }

    /// A token with these claims.
    pub fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: self.id.clone(), ..Header::new(self.algorithm) };
        encode(&header, claims, &self.key).expect("it can be signed")
    }

    /// A token of a user that is good for an hour.
    pub fn token(&self, user: &str) -> String {
        self.sign(&json!({"sub": user, "exp": seconds() + 3600}))
    }
}

/// Seconds since 1970.
pub fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}
