//! One of the app's own endpoints: which URLs may be called, and with what.

use std::fmt;
use std::sync::Arc;

use url::Url;
use urlpattern::quirks::{StringOrInit, process_construct_pattern_input};
use urlpattern::{UrlPattern, UrlPatternMatchInput, UrlPatternOptions};

use super::app::App;
use super::secret::Secret;

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

/// Why a URL is not called. The message is fit for the client that asked for it.
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
        let mut url = Url::parse(text).map_err(|_| UrlRefused::NotAUrl(text.to_owned()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(UrlRefused::NotAUrl(text.to_owned()));
        }
        if !self.urls.iter().any(|rule| rule.matches(&url)) {
            return Err(UrlRefused::NotAllowed(text.to_owned()));
        }
        for reserved in RESERVED {
            if url.query_pairs().any(|(name, _)| name == reserved) {
                return Err(UrlRefused::Reserved(text.to_owned(), reserved));
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
        let wrong = |error: urlpattern::Error| format!("is not a URL or URL pattern ({error})");
        let text_or_init = StringOrInit::String(text.to_owned());
        let mut init = process_construct_pattern_input(text_or_init, None).map_err(wrong)?;
        init.search = None;
        init.hash = None;
        let pattern = UrlPattern::parse(init, UrlPatternOptions::default()).map_err(wrong)?;
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

impl fmt::Debug for UrlRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.text)
    }
}
