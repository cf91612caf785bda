//! Patterns of URLs, and the URLs that clients ask for.

use kelvin::config::{App, Endpoint, UrlRule};
use proptest::prelude::*;
use proptest::sample::select;
use url::Url;

use super::engine::fuzz;
use super::mutate::text;

const PATTERNS: [&str; 6] = [
    "https://app.example.com/api/zero/query",
    "https://*.example.com/api/:version/query",
    "http://localhost:3000/query?x=1#y",
    "https://example.com/(a|b)/{c}?",
    "http://[::1]:80/query/*",
    "https://*/",
];

const ASKED: [&str; 6] = [
    "https://app.example.com/api/zero/query",
    "https://app.example.com@evil.example/api/zero/query",
    "https://app.example.com:443/api/zero/../zero/query?a=b#c",
    "https://evil.example/?https://app.example.com/api/zero/query",
    "HTTPS:\\\\app.example.com\\api\\zero\\query",
    "https://app.example.com.evil.example/api/zero/query",
];

fn app() -> App {
    App { id: "zero".to_owned(), publications: Vec::new(), shard_num: 0 }
}

fn words() -> Vec<&'static [u8]> {
    vec![b"*", b":", b"/", b"(", b")", b"{", b"}", b"?", b"\\", b"@", b"..", b"%2e", b"\xe3\x80\x82"]
}

#[test]
fn patterns_of_any_bytes_are_compiled_or_refused() {
    fuzz((text(&PATTERNS, words()), select(ASKED.to_vec())), |(pattern, asked)| {
        match UrlRule::compile(&pattern) {
            Ok(rule) => {
                let endpoint = Endpoint { urls: vec![rule], ..Endpoint::default() };
                let _ = endpoint.allows(asked);
            }
            Err(why) => prop_assert!(!why.is_empty()),
        }
        Ok(())
    });
}

/// Whatever a client asks for, nothing but the one place is called that the settings name.
#[test]
fn only_what_is_configured_is_called() {
    let rule = UrlRule::compile(PATTERNS[0]).expect("a URL");
    let endpoint = Endpoint { urls: vec![rule], ..Endpoint::default() };
    fuzz(text(&ASKED, words()), |asked| {
        let Ok(target) = endpoint.target(Some(&asked), &app()) else { return Ok(()) };
        let home = Url::parse(PATTERNS[0]).expect("a URL");
        prop_assert_eq!(
            (target.scheme(), target.host_str(), target.port(), target.path()),
            (home.scheme(), home.host_str(), home.port(), home.path()),
            "{}",
            asked
        );
        for ours in ["schema", "appID"] {
            prop_assert_eq!(target.query_pairs().filter(|(name, _)| name == ours).count(), 1, "{}", asked);
        }
        Ok(())
    });
}
