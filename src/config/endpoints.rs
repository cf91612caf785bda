//! The app's endpoints from their options and the older names of these.

use super::endpoint::{Endpoint, UrlRule, without_secrets};
use super::error::ConfigError;
use super::option::Opt;
use super::table::{api, legacy};
use super::values::Values;
use crate::auth::secret::Secret;

/// The options of one endpoint under one family of names.
struct Names {
    url: &'static Opt,
    api_key: &'static Opt,
    forward_cookies: &'static Opt,
    client_headers: Option<&'static Opt>,
    request_headers: Option<&'static Opt>,
}

static QUERY: Names = Names {
    url: &api::QUERY_URL,
    api_key: &api::QUERY_API_KEY,
    forward_cookies: &api::QUERY_FORWARD_COOKIES,
    client_headers: Some(&api::QUERY_ALLOWED_CLIENT_HEADERS),
    request_headers: Some(&api::QUERY_ALLOWED_REQUEST_HEADERS),
};
static GET_QUERIES: Names = Names {
    url: &api::GET_QUERIES_URL,
    api_key: &api::GET_QUERIES_API_KEY,
    forward_cookies: &api::GET_QUERIES_FORWARD_COOKIES,
    client_headers: Some(&api::GET_QUERIES_ALLOWED_CLIENT_HEADERS),
    request_headers: Some(&api::GET_QUERIES_ALLOWED_REQUEST_HEADERS),
};
static PULL: Names = Names {
    url: &legacy::PULL_URL,
    api_key: &legacy::PULL_API_KEY,
    forward_cookies: &legacy::PULL_FORWARD_COOKIES,
    client_headers: None,
    request_headers: None,
};
static MUTATE: Names = Names {
    url: &api::MUTATE_URL,
    api_key: &api::MUTATE_API_KEY,
    forward_cookies: &api::MUTATE_FORWARD_COOKIES,
    client_headers: Some(&api::MUTATE_ALLOWED_CLIENT_HEADERS),
    request_headers: Some(&api::MUTATE_ALLOWED_REQUEST_HEADERS),
};
static PUSH: Names = Names {
    url: &api::PUSH_URL,
    api_key: &api::PUSH_API_KEY,
    forward_cookies: &api::PUSH_FORWARD_COOKIES,
    client_headers: Some(&api::PUSH_ALLOWED_CLIENT_HEADERS),
    request_headers: Some(&api::PUSH_ALLOWED_REQUEST_HEADERS),
};

/// The query endpoint. An older family is used only when its URL is set and no newer one's is; what it
/// leaves out is then taken from the newer names.
pub fn query(values: &Values) -> Result<Endpoint, ConfigError> {
    let has_url = |names: &Names| values.given(names.url).is_some();
    let families: &[&Names] = match (has_url(&QUERY), has_url(&GET_QUERIES), has_url(&PULL)) {
        (false, true, _) => &[&GET_QUERIES, &QUERY],
        (false, false, true) => &[&PULL, &QUERY],
        _ => &[&QUERY],
    };
    endpoint(values, families, families[0].url)
}

/// The mutate endpoint. Each option falls back to its older name, but of two URLs the older one wins:
/// so it is in the reference, and a deployment that sets both relies on it.
pub fn mutate(values: &mut Values) -> Result<Endpoint, ConfigError> {
    let both = values.given(PUSH.url).is_some() && values.given(MUTATE.url).is_some();
    if both && values.list(PUSH.url) != values.list(MUTATE.url) {
        let (push, mutate) = (values.name(PUSH.url), values.name(MUTATE.url));
        values
            .warnings
            .push(format!("{push} and {mutate} differ. {push} is used; remove it to use {mutate}."));
    }
    let url = if values.given(PUSH.url).is_some() { PUSH.url } else { MUTATE.url };
    endpoint(values, &[&MUTATE, &PUSH], url)
}

/// Each option is taken from the first of `families` in which the user gave it.
fn endpoint(values: &Values, families: &[&Names], url: &Opt) -> Result<Endpoint, ConfigError> {
    let first = |pick: &dyn Fn(&Names) -> Option<&'static Opt>| {
        let mut opts = families.iter().filter_map(|names| pick(names));
        opts.find(|opt| values.given(opt).is_some())
    };
    let headers = |opt: Option<&'static Opt>| -> Vec<String> {
        let names = opt.and_then(|opt| values.list(opt)).unwrap_or_default();
        names.iter().map(|name| name.to_ascii_lowercase()).collect()
    };
    Ok(Endpoint {
        urls: rules(values, url)?,
        api_key: first(&|names| Some(names.api_key)).and_then(|opt| values.text(opt)).map(Secret::new),
        forward_cookies: first(&|names| Some(names.forward_cookies))
            .and_then(|opt| values.boolean(opt))
            .unwrap_or_default(),
        allowed_client_headers: headers(first(&|names| names.client_headers)),
        allowed_request_headers: headers(first(&|names| names.request_headers)),
    })
}

fn rules(values: &Values, opt: &Opt) -> Result<Vec<UrlRule>, ConfigError> {
    let texts = values.list(opt).unwrap_or_default();
    let compile = |text: &String| {
        UrlRule::compile(text).map_err(|problem| {
            let remedy = "Give whole URLs such as https://example.com/api/query; parts may be wildcards (*).";
            values.bad(opt, &without_secrets(text), &problem, remedy)
        })
    };
    texts.iter().map(compile).collect()
}
