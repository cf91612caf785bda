//! One of the app's own endpoints: which URLs may be called, and with what.

use std::fmt;
use std::panic::catch_unwind;
use std::sync::Arc;

use url::Url;
use urlpattern::quirks::{StringOrInit, process_construct_pattern_input};
use urlpattern::{UrlPattern, UrlPatternMatchInput, UrlPatternOptions};

use super::app::App;
use crate::auth::secret::Secret;

/// Query parameters that Kelvin adds to every call, so that a URL must not have them.
const RESERVED: [&str; 2] = ["schema", "appID"];

/// The query or the mutate endpoint (`docs/spec/view-syncer.md`, calls of the app's endpoints).
#[derive(Clone, Debug, Default)]
pub struct Endpoint {
    /// The configured URLs and patterns; empty when the endpoint is not configured.
    pub urls: Vec<UrlRule>,
    /// For the header `X-Api-Key`.
    pub api_key: Option<Secret>,
    /// Whether the `Cookie` header of the connection request is forwarded.
    pub forward_cookies: bool,
    /// Names, in lower case, of the headers that the client app may add.
    pub allowed_client_headers: Vec<String>,
    /// Names, in lower case, of the headers of the connection request that are forwarded.
    pub allowed_request_headers: Vec<String>,
}

/// A URL, or what was given for one, without what may be secret: user and password, query and fragment. Cut by hand:
/// it may be a pattern, or no URL at all.
pub fn without_secrets(text: &str) -> String {
    let text = text.split(['?', '#']).next().unwrap_or_default();
    let begin = match text.find("//") {
        Some(at) if at == 0 || text[..at].ends_with(':') => at + 2,
        _ => 0,
    };
    let (scheme, rest) = text.split_at(begin);
    let (authority, path) = rest.split_at(rest.find(['/', '\\']).unwrap_or(rest.len()));
    let host = authority.rsplit('@').next().unwrap_or_default();
    format!("{scheme}{host}{path}")
}

/// Why a URL is not called. The URLs here are [`without_secrets`], so that the message is fit for clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UrlRefused {
    /// It is no URL, or not an http one.
    NotAUrl(String),
    /// It matches none of the configured entries.
    NotAllowed(String),
    /// It has a query parameter that is Kelvin's to set: this one.
    Reserved(String, &'static str),
    /// Neither the client nor the configuration names a URL.
    NotConfigured,
}

impl Endpoint {
    /// The first configured entry, used when a client names no URL.
    pub fn default_url(&self) -> Option<&str> {
        self.urls.first().map(|rule| rule.text.as_str())
    }

    /// Whether `url` matches one of the entries. What follows `?` or `#` does not matter.
    pub fn allows(&self, url: &str) -> bool {
        Url::parse(url).is_ok_and(|url| self.urls.iter().any(|rule| rule.matches(&url)))
    }

    /// Whether the configuration has the URL to call as it is, and not by a pattern. `asked`: by the client.
    pub fn lists(&self, asked: Option<&str>) -> bool {
        let asked = asked.filter(|text| !text.is_empty());
        asked.is_none_or(|text| self.urls.iter().any(|rule| rule.text == text))
    }

    /// The URL to call: `asked` by the client, or the default, with `schema` and `appID` added.
    pub fn target(&self, asked: Option<&str>, app: &App) -> Result<Url, UrlRefused> {
        let asked = asked.filter(|text| !text.is_empty());
        let text = asked.or(self.default_url()).ok_or(UrlRefused::NotConfigured)?;
        let mut url = Url::parse(text).map_err(|_| UrlRefused::NotAUrl(without_secrets(text)))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(UrlRefused::NotAUrl(without_secrets(text)));
        }
        if !self.urls.iter().any(|rule| rule.matches(&url)) {
            return Err(UrlRefused::NotAllowed(without_secrets(text)));
        }
        for reserved in RESERVED {
            if url.query_pairs().any(|(name, _)| name == reserved) {
                return Err(UrlRefused::Reserved(without_secrets(text), reserved));
            }
        }
        url.query_pairs_mut().append_pair("schema", &app.shard_schema()).append_pair("appID", &app.id);
        Ok(url)
    }
}

impl fmt::Display for UrlRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UrlRefused::NotAUrl(url) => write!(f, "\"{url}\" is not an http or https URL"),
            UrlRefused::NotAllowed(url) => {
                write!(f, "URL \"{url}\" is not allowed by the ZERO_MUTATE_URL/ZERO_QUERY_URL configuration")
            }
            UrlRefused::Reserved(url, name) => {
                write!(f, "The URL \"{url}\" has the query parameter \"{name}\", which is reserved")
            }
            UrlRefused::NotConfigured => f.write_str("no URL is configured for this endpoint"),
        }
    }
}

impl std::error::Error for UrlRefused {}

/// One entry of the allow-list: a URL, or a pattern of the web's URLPattern.
#[derive(Clone)]
pub struct UrlRule {
    text: String,
    pattern: Arc<UrlPattern>,
}

impl UrlRule {
    /// Compiles `text`. The error says what is wrong with it.
    pub fn compile(text: &str) -> Result<UrlRule, String> {
        // The crate panics on some that are none, such as `:)`; nothing of it outlives the call.
        let parsed = catch_unwind(|| parse(text));
        let pattern = parsed.unwrap_or_else(|_| Err("is not a URL or URL pattern".to_owned()))?;
        Ok(UrlRule { text: text.to_owned(), pattern: Arc::new(pattern) })
    }

    /// The entry as it was configured.
    pub fn text(&self) -> &str {
        &self.text
    }

    fn matches(&self, url: &Url) -> bool {
        self.pattern.test(UrlPatternMatchInput::Url(url.clone())).unwrap_or(false)
    }
}

fn parse(text: &str) -> Result<UrlPattern, String> {
    let wrong = |error: urlpattern::Error| format!("is not a URL or URL pattern ({error})");
    let mut init =
        process_construct_pattern_input(StringOrInit::String(text.to_owned()), None).map_err(wrong)?;
    init.search = None;
    init.hash = None;
    UrlPattern::parse(init, UrlPatternOptions::default()).map_err(wrong)
}

impl fmt::Debug for UrlRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", without_secrets(&self.text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_form_of_printing_shows_what_is_secret_in_a_url() {
        let secret = "https://hunter2:hunter2@app.example.com:8443/api/query?key=hunter2#hunter2";
        let rule = UrlRule::compile(secret).unwrap();
        assert_eq!(format!("{rule:?}"), "\"https://app.example.com:8443/api/query\"");
        let endpoint = Endpoint { urls: vec![rule], ..Endpoint::default() };
        assert!(!format!("{endpoint:?}").contains("hunter2"));
        let app = App { id: "zero".into(), publications: Vec::new(), shard_num: 0 };
        for asked in [
            "https://hunter2@other.example.com/?hunter2",
            "ftp://hunter2:a@b@app/x?hunter2",
            "//hunter2@x?hunter2",
            "hunter2@x",
            "https://a:hunter2@app.example.com:8443/api/query?schema=hunter2",
        ] {
            let refused = endpoint.target(Some(asked), &app).unwrap_err();
            assert!(!format!("{refused} {refused:?}").contains("hunter2"), "{refused:?}");
        }
        assert_eq!(without_secrets("https://*.example.com/api/*?x"), "https://*.example.com/api/*");
    }
}
