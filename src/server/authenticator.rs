//! Who may come in: verifies tokens, and fetches the keys for it where a URL lists them.
//!
//! Waits only where a fetch is needed. All who need it at the same time wait for one.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use kelvin_io::channel::{Receiver, bounded};
use kelvin_io::executor::{now, spawn};
use kelvin_io::http_client::HttpClient;
use url::Url;

use super::warnings::Warnings;
use crate::auth::claims::Expected;
use crate::auth::error::TokenError;
use crate::auth::key::Key;
use crate::auth::key_set::{Choice, KeySet};
use crate::auth::signed::Signed;
use crate::auth::token::{Token, verify};
use crate::config::{Config, JwtKey};
use crate::core::warning::Warning;
use crate::protocol::error::{Kind, ProtocolError};

/// Longest wait for a set of keys. As the reference: clients give up after ten seconds.
const FETCH_TIME: Duration = Duration::from_secs(5);

/// Most bytes of a set of keys. One of a hundred RSA keys with certificates has half of it.
const MAX_DOCUMENT: usize = 512 << 10;

/// What is said of a token that neither the settings nor the app can judge.
const NO_JUDGE: &str = "a token was given, but nothing can judge it: set both ZERO_QUERY_URL and ZERO_MUTATE_URL, or one \
                        of ZERO_AUTH_SECRET, ZERO_AUTH_JWK and ZERO_AUTH_JWKS_URL";

/// The way in to one core.
pub struct Authenticator {
    config: Arc<Config>,
    warnings: Rc<Warnings>,
    keys: Keys,
}

enum Keys {
    /// Tokens are opaque.
    None,
    One(Box<Key>),
    Listed(Rc<Listed>),
}

/// Keys that a URL lists.
struct Listed {
    url: Url,
    client: HttpClient,
    set: RefCell<KeySet>,
    /// Closed when the fetch that is under way has ended.
    ended: RefCell<Option<Receiver<()>>>,
    started: Instant,
}

impl Authenticator {
    /// By the settings.
    pub fn new(config: Arc<Config>, warnings: Rc<Warnings>) -> Authenticator {
        let keys = match &config.auth.key {
            None => Keys::None,
            Some(JwtKey::Secret(secret)) => Keys::One(Box::new(Key::secret(secret.expose()))),
            Some(JwtKey::Jwk(key)) => Keys::One(key.clone()),
            Some(JwtKey::JwksUrl(url)) => Keys::Listed(Rc::new(Listed::new(url.clone()))),
        };
        Authenticator { config, warnings, keys }
    }

    /// Admits a token, or says why not. An opaque one needs both endpoints of the app, so that
    /// somebody can judge it (ruling 11).
    pub async fn admit(
        &self,
        token: Option<&str>,
        user_id: Option<&str>,
    ) -> Result<Option<Token>, ProtocolError> {
        let Some(token) = token.filter(|t| !t.is_empty()) else { return Ok(None) };
        let Some(user_id) = user_id else {
            return Err(ProtocolError::new(Kind::Unauthorized, "a token needs a userID beside it"));
        };
        let has_endpoints = !self.config.query.urls.is_empty() && !self.config.mutate.urls.is_empty();
        match &self.keys {
            Keys::None if has_endpoints => Ok(Some(Token::opaque(token))),
            Keys::None => {
                // No client can help it: all that show a token are turned away.
                self.warnings.warn(Warning::Token, format_args!("{NO_JUDGE}"));
                Err(ProtocolError::new(Kind::AuthInvalidated, NO_JUDGE))
            }
            keys => Ok(Some(self.verify(keys, token, user_id).await?)),
        }
    }

    async fn verify(&self, keys: &Keys, token: &str, user_id: &str) -> Result<Token, TokenError> {
        let signed = Signed::parse(token)?;
        let auth = &self.config.auth;
        let expected =
            Expected { subject: user_id, issuer: auth.issuer.as_deref(), audience: auth.audience.as_deref() };
        let seconds = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        match keys {
            Keys::None => Err(TokenError::NoKeys),
            Keys::One(key) => verify(token, &signed, key, &expected, seconds()),
            Keys::Listed(listed) => {
                let key = listed.find(&signed).await?;
                verify(token, &signed, &key, &expected, seconds())
            }
        }
    }
}

impl Listed {
    fn new(url: Url) -> Listed {
        Listed {
            url,
            client: HttpClient::default(),
            set: RefCell::default(),
            ended: RefCell::default(),
            started: now(),
        }
    }

    /// Milliseconds of the clock of the set.
    fn clock(&self) -> f64 {
        now().saturating_duration_since(self.started).as_secs_f64() * 1000.0
    }

    async fn find(self: &Rc<Self>, token: &Signed<'_>) -> Result<Rc<Key>, TokenError> {
        let choice = self.set.borrow_mut().find(token, self.clock())?;
        match choice {
            Choice::Key(key) => Ok(key),
            Choice::Fetch => {
                self.fetch().await;
                self.set.borrow().pick(token)
            }
        }
    }

    /// Waits for a fetch: for the one that is under way, or for a new one. It has a task of its
    /// own: whoever caused it may go.
    async fn fetch(self: &Rc<Self>) {
        if self.set.borrow_mut().begin() {
            let (end, ended) = bounded(1);
            *self.ended.borrow_mut() = Some(ended);
            let listed = self.clone();
            spawn(async move {
                listed.fetch_now().await;
                end.close();
            })
            .detach();
        }
        let ended = self.ended.borrow().clone();
        if let Some(ended) = ended {
            let _ = ended.recv().await;
        }
    }

    async fn fetch_now(&self) {
        let outcome = match self.client.get(&self.url, MAX_DOCUMENT, FETCH_TIME).await {
            Ok(answer) if answer.status == 200 => {
                self.set.borrow_mut().fetched(&answer.body, self.clock()).map_err(|e| e.to_string())
            }
            Ok(answer) => Err(format!("the answer has status {}", answer.status)),
            Err(error) => Err(error.to_string()),
        };
        // The path may hold a secret of the app's.
        let host = self.url.host_str().unwrap_or_default();
        match outcome {
            Ok((listed, 0)) => crate::warn!(
                host = host;
                "the keys of ZERO_AUTH_JWKS_URL were fetched, but none of {listed} can be used: no token is admitted"
            ),
            Ok((listed, usable)) if usable == listed => {
                crate::info!(host = host, keys = usable; "the keys of ZERO_AUTH_JWKS_URL were fetched");
            }
            Ok((listed, usable)) => crate::info!(
                host = host, keys = usable;
                "the keys of ZERO_AUTH_JWKS_URL were fetched; {} others cannot be used", listed - usable
            ),
            Err(why) => {
                let mut set = self.set.borrow_mut();
                set.failed(self.clock());
                let meanwhile =
                    if set.has_keys() { "those from before are used on" } else { "no token is admitted" };
                crate::warn!(host = host; "the keys of ZERO_AUTH_JWKS_URL were not fetched, {meanwhile}: {why}");
            }
        }
    }
}
