//! What a connection brings along to the app's endpoints: identity, headers, overrides
//! (`docs/spec/view-syncer.md` §7).

use std::collections::BTreeMap;

use crate::config::Endpoint;

/// Headers of our own requests, which nothing from outside may override.
const FIXED: [&str; 8] = [
    "content-type",
    "x-api-key",
    "authorization",
    "cookie",
    "origin",
    "host",
    "content-length",
    "connection",
];

/// Captured once, when the connection opens; the token may change later.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Context {
    /// Token, forwarded as it is.
    pub token: Option<String>,
    /// `Cookie` of the upgrade request.
    pub cookie: Option<String>,
    /// `Origin` of the upgrade request.
    pub origin: Option<String>,
    /// All headers of the upgrade request, names in lower case.
    pub request_headers: Vec<(String, String)>,
    /// Override of the URL, from the client.
    pub url: Option<String>,
    /// Headers that the client asks to add.
    pub client_headers: BTreeMap<String, String>,
}

impl Context {
    /// Headers of a request to this endpoint.
    pub fn headers(&self, endpoint: &Endpoint) -> Vec<(String, String)> {
        let mut out: Vec<(String, String)> = Vec::new();
        let allowed = |list: &[String], name: &str| {
            let name = name.to_ascii_lowercase();
            !FIXED.contains(&name.as_str()) && list.contains(&name)
        };
        for (name, value) in &self.client_headers {
            if allowed(&endpoint.allowed_client_headers, name) {
                set(&mut out, name, value);
            }
        }
        let forwarded = |(name, _): &&(String, String)| allowed(&endpoint.allowed_request_headers, name);
        for (name, _) in self.request_headers.iter().filter(forwarded) {
            let values = self.request_headers.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str());
            set(&mut out, name, &values.collect::<Vec<_>>().join(", "));
        }
        set(&mut out, "content-type", "application/json");
        if let Some(key) = &endpoint.api_key {
            set(&mut out, "x-api-key", key.expose());
        }
        if let Some(token) = &self.token {
            set(&mut out, "authorization", &format!("Bearer {token}"));
        }
        if let Some(cookie) = self.cookie.as_ref().filter(|_| endpoint.forward_cookies) {
            set(&mut out, "cookie", cookie);
        }
        if let Some(origin) = &self.origin {
            set(&mut out, "origin", origin);
        }
        out
    }
}

fn set(headers: &mut Vec<(String, String)>, name: &str, value: &str) {
    let name = name.to_ascii_lowercase();
    headers.retain(|(n, _)| *n != name);
    headers.push((name, value.to_owned()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_allowed_is_forwarded() {
        let context = Context {
            token: Some("t".into()),
            cookie: Some("a=1".into()),
            origin: Some("https://app".into()),
            request_headers: vec![("x-forwarded-for".into(), "1".into()), ("x-secret".into(), "2".into())],
            client_headers: [
                ("X-Tenant".to_owned(), "7".to_owned()),
                ("Authorization".into(), "evil".into()),
            ]
            .into(),
            ..Context::default()
        };
        let mut endpoint = Endpoint::default();
        let names = |e: &Endpoint| context.headers(e).into_iter().map(|(n, _)| n).collect::<Vec<_>>();
        assert_eq!(names(&endpoint), ["content-type", "authorization", "origin"]);
        endpoint.forward_cookies = true;
        endpoint.allowed_client_headers = vec!["x-tenant".into(), "authorization".into()];
        endpoint.allowed_request_headers = vec!["x-forwarded-for".into()];
        assert_eq!(
            names(&endpoint),
            ["x-tenant", "x-forwarded-for", "content-type", "authorization", "cookie", "origin"]
        );
        assert!(context.headers(&endpoint).contains(&("authorization".into(), "Bearer t".into())));
    }
}
