//! The keys that a URL lists, and when they have to be fetched anew.
//!
//! Decides only: the server fetches. Times are milliseconds of one clock.

use std::rc::Rc;

use serde_json::Value;

use super::error::TokenError;
use super::key::Key;
use super::signed::Signed;

/// How long keys are used before they are fetched anew: a key that was withdrawn is refused
/// after that. As the reference.
pub const MAX_AGE: f64 = 600_000.0;

/// Time between fetches that tokens cause by naming no key of the set. Anybody can make such
/// tokens, without being able to sign them.
pub const COOL_DOWN: f64 = 30_000.0;

/// Time after a fetch that failed before the next one.
pub const FAILURE_PAUSE: f64 = 5_000.0;

/// Most keys that a set may have: each token is compared with all of them.
pub const MAX_KEYS: usize = 256;

/// The keys of one URL.
pub struct KeySet {
    keys: Option<Vec<Rc<Key>>>,
    fetched_at: f64,
    fetching: bool,
    /// No fetch before: the last one failed.
    retry_at: f64,
    /// No fetch before because of tokens that name no key.
    search_at: f64,
}

/// What to do about a token.
pub enum Choice {
    /// Verify it with this key.
    Key(Rc<Key>),
    /// Fetch the set, or wait for the fetch that is under way, and pick then.
    Fetch,
}

/// Why a document is no set of keys that can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetError {
    /// It is not an object with a list of keys.
    Malformed,
    /// It lists more than [`MAX_KEYS`].
    TooMany,
}

impl std::fmt::Display for SetError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            SetError::Malformed => f.write_str("the answer is not a JSON Web Key Set"),
            SetError::TooMany => write!(f, "the set has more than {MAX_KEYS} keys"),
        }
    }
}

impl std::error::Error for SetError {}

impl Default for KeySet {
    fn default() -> KeySet {
        KeySet { keys: None, fetched_at: 0.0, fetching: false, retry_at: 0.0, search_at: 0.0 }
    }
}

impl KeySet {
    /// Finds the key of a token, or says that the set has to be fetched first.
    pub fn find(&mut self, token: &Signed, now: f64) -> Result<Choice, TokenError> {
        let is_due = self.keys.is_none() || now - self.fetched_at >= MAX_AGE;
        if is_due && self.may_wait(now) {
            return Ok(Choice::Fetch);
        }
        match self.pick(token) {
            Err(TokenError::NoKey) if self.fetching => Ok(Choice::Fetch),
            Err(TokenError::NoKey) if now >= self.search_at && self.may_wait(now) => {
                self.search_at = now + COOL_DOWN;
                Ok(Choice::Fetch)
            }
            picked => picked.map(Choice::Key),
        }
    }

    fn may_wait(&self, now: f64) -> bool {
        self.fetching || now >= self.retry_at
    }

    /// Finds the key of a token among those that are there. A token that names none is
    /// verified only if there is no choice.
    pub fn pick(&self, token: &Signed) -> Result<Rc<Key>, TokenError> {
        let keys = self.keys.as_ref().ok_or(TokenError::NoKeys)?;
        let fits = |key: &&Rc<Key>| {
            key.admits(token.algorithm) && token.key_id.as_deref().is_none_or(|id| key.id() == Some(id))
        };
        let mut fitting = keys.iter().filter(fits);
        match (fitting.next(), fitting.next()) {
            (Some(only), None) => Ok(only.clone()),
            (Some(_), Some(_)) => Err(TokenError::Ambiguous),
            (None, _) => Err(TokenError::NoKey),
        }
    }

    /// A fetch is under way from now on; `false`: one was already.
    pub fn begin(&mut self) -> bool {
        !std::mem::replace(&mut self.fetching, true)
    }

    /// Takes what was fetched. Returns how many keys it lists, and how many of them can be used.
    pub fn fetched(&mut self, document: &[u8], now: f64) -> Result<(usize, usize), SetError> {
        match read(document) {
            Ok((listed, keys)) => {
                let usable = keys.len();
                self.fetching = false;
                self.fetched_at = now;
                self.keys = Some(keys);
                Ok((listed, usable))
            }
            Err(error) => {
                self.failed(now);
                Err(error)
            }
        }
    }

    /// The fetch failed. Keys that are there go on being used.
    pub fn failed(&mut self, now: f64) {
        self.fetching = false;
        self.retry_at = now + FAILURE_PAUSE;
    }

    /// Whether there are keys.
    pub fn has_keys(&self) -> bool {
        self.keys.is_some()
    }
}

/// Reads a set. Keys that cannot be used are left out: sets hold keys for other purposes, too.
fn read(document: &[u8]) -> Result<(usize, Vec<Rc<Key>>), SetError> {
    let document: Value = serde_json::from_slice(document).map_err(|_| SetError::Malformed)?;
    let listed = document.get("keys").and_then(Value::as_array).ok_or(SetError::Malformed)?;
    if !listed.iter().all(Value::is_object) {
        return Err(SetError::Malformed);
    }
    if listed.len() > MAX_KEYS {
        return Err(SetError::TooMany);
    }
    let keys = listed.iter().filter_map(|jwk| Key::from_public_jwk(jwk).ok()).map(Rc::new).collect();
    Ok((listed.len(), keys))
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::json;

    fn edwards(id: &str) -> Value {
        json!({"kty": "OKP", "crv": "Ed25519", "kid": id, "x": URL_SAFE_NO_PAD.encode([1; 32])})
    }

    fn set(keys: &[Value]) -> Vec<u8> {
        json!({"keys": keys}).to_string().into_bytes()
    }

    fn token(algorithm: &str, id: Option<&str>) -> String {
        let mut header = json!({"alg": algorithm});
        if let Some(id) = id {
            header["kid"] = json!(id);
        }
        format!("{}.e30.AAAA", URL_SAFE_NO_PAD.encode(header.to_string()))
    }

    /// The id of the key that is found, or `fetch`.
    fn found(keys: &mut KeySet, id: Option<&str>, now: f64) -> Result<String, TokenError> {
        let token = token("EdDSA", id);
        Ok(match keys.find(&Signed::parse(&token)?, now)? {
            Choice::Key(key) => key.id().unwrap_or_default().to_owned(),
            Choice::Fetch => "fetch".to_owned(),
        })
    }

    fn fetch(keys: &mut KeySet, ids: &[&str], now: f64) {
        assert!(keys.begin());
        let listed: Vec<Value> = ids.iter().map(|id| edwards(id)).collect();
        keys.fetched(&set(&listed), now).expect("a set");
    }

    #[test]
    fn keys_are_fetched_when_they_are_needed_and_when_they_are_old() {
        let mut keys = KeySet::default();
        assert_eq!(found(&mut keys, Some("a"), 0.0), Ok("fetch".into()));
        fetch(&mut keys, &["a"], 10.0);
        assert_eq!(found(&mut keys, Some("a"), 10.0), Ok("a".into()));
        assert_eq!(found(&mut keys, Some("a"), 9.0 + MAX_AGE), Ok("a".into()));
        assert_eq!(found(&mut keys, Some("a"), 10.0 + MAX_AGE), Ok("fetch".into()));
    }

    #[test]
    fn unknown_ids_cause_one_fetch_within_the_cool_down() {
        let mut keys = KeySet::default();
        fetch(&mut keys, &["a"], 0.0);
        assert_eq!(found(&mut keys, Some("b"), 1.0), Ok("fetch".into()));
        assert!(keys.begin());
        assert_eq!(found(&mut keys, Some("c"), 2.0), Ok("fetch".into()), "waits for what is under way");
        assert_eq!(found(&mut keys, Some("a"), 2.0), Ok("a".into()), "a known key need not wait");
        keys.fetched(&set(&[edwards("b")]), 3.0).expect("a set");
        assert_eq!(found(&mut keys, Some("b"), 3.0), Ok("b".into()));
        assert_eq!(found(&mut keys, Some("a"), 3.0), Err(TokenError::NoKey), "it was withdrawn");
        assert_eq!(found(&mut keys, Some("d"), COOL_DOWN), Err(TokenError::NoKey));
        assert_eq!(found(&mut keys, Some("d"), 1.0 + COOL_DOWN), Ok("fetch".into()));
    }

    #[test]
    fn old_keys_are_used_on_when_a_fetch_fails() {
        let mut keys = KeySet::default();
        assert!(keys.begin());
        keys.failed(0.0);
        assert_eq!(found(&mut keys, Some("a"), 1.0), Err(TokenError::NoKeys));
        assert_eq!(found(&mut keys, Some("a"), FAILURE_PAUSE), Ok("fetch".into()));
        fetch(&mut keys, &["a"], FAILURE_PAUSE);
        let old = FAILURE_PAUSE + MAX_AGE;
        assert_eq!(found(&mut keys, Some("a"), old), Ok("fetch".into()));
        for document in ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[1]}"#] {
            assert!(keys.begin());
            assert_eq!(keys.fetched(document.as_bytes(), old), Err(SetError::Malformed), "{document}");
        }
        assert_eq!(found(&mut keys, Some("a"), old), Ok("a".into()));
        assert_eq!(found(&mut keys, Some("b"), old), Err(TokenError::NoKey), "not fetched at once again");
        assert_eq!(found(&mut keys, Some("a"), old + FAILURE_PAUSE), Ok("fetch".into()));
        let many = vec![edwards("a"); MAX_KEYS + 1];
        assert_eq!(keys.fetched(&set(&many), old), Err(SetError::TooMany));
    }

    #[test]
    fn a_token_without_an_id_is_verified_only_if_there_is_no_choice() {
        let mut keys = KeySet::default();
        let unusable = json!({"kty": "OKP", "crv": "X25519", "x": "AAAA"});
        assert!(keys.begin());
        assert_eq!(keys.fetched(&set(&[edwards("a"), unusable]), 0.0), Ok((2, 1)));
        assert_eq!(found(&mut keys, None, 0.0), Ok("a".into()));
        fetch(&mut keys, &["a", "b"], 0.0);
        assert_eq!(found(&mut keys, None, 0.0), Err(TokenError::Ambiguous));
        assert_eq!(found(&mut keys, Some("b"), 0.0), Ok("b".into()));
        let hmac = token("HS256", Some("a"));
        let hmac = Signed::parse(&hmac).expect("a token");
        assert_eq!(keys.pick(&hmac).err(), Some(TokenError::NoKey), "no public key is a secret");
        fetch(&mut keys, &["a", "a"], 0.0);
        assert_eq!(found(&mut keys, Some("a"), 0.0), Err(TokenError::Ambiguous));
    }
}
