//! Upgrade requests and cookies.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kelvin::model::lexi;
use kelvin::protocol::connect::{MAX_ID, parse};
use kelvin::protocol::cookie::Cookie;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use proptest::prelude::*;

use super::engine::fuzz;
use super::mutate::text;

const TARGETS: [&str; 3] = [
    "/sync/v51/connect?clientID=c&clientGroupID=g&ts=1234.5999&lmid=0&baseCookie=00%3A01&wsid=w&userID=u&profileID=p",
    "/base/sync/v30/connect?clientID=a+b&clientGroupID=%C3%A9&ts=-1&lmid=+7",
    "/sync/v5.1/connect?",
];
const HEADERS: [&str; 3] = [
    "e30%3D",
    "eyJhdXRoVG9rZW4iOiJ0b2sifQ%3D%3D",
    "eyJpbml0Q29ubmVjdGlvbk1lc3NhZ2UiOlsiaW5pdENvbm5lY3Rpb24iLHt9XX0",
];

#[test]
fn upgrades_of_any_bytes_are_taken_or_refused() {
    let words: Vec<&[u8]> = vec![b"%", b"&", b"=", b"%00", b"%ff", b"/", b"?", b"NaN", b"1e309"];
    fuzz((text(&TARGETS, words.clone()), prop::option::of(text(&HEADERS, words))), |(target, header)| {
        match parse(&target, header.as_deref()) {
            Ok(request) => {
                let ids = [
                    Some(&request.client_id),
                    Some(&request.group_id),
                    request.user_id.as_ref(),
                    request.profile_id.as_ref(),
                ];
                prop_assert!(ids.into_iter().flatten().all(|id| !id.is_empty() && id.len() <= MAX_ID));
                prop_assert!(request.wsid.len() <= MAX_ID);
                prop_assert!(request.protocol_version().is_err() || request.version.fract() == 0.0);
            }
            Err(why) => prop_assert!(why.starts_with("Error: ")),
        }
        Ok(())
    });
}

#[test]
fn what_a_client_says_arrives() {
    let id = ".{1,30}";
    let token = prop::option::of("[!-~]{1,40}");
    fuzz((id, id, prop::option::of(id), token, 30u32..53), |(client, group, user, token, version)| {
        let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let mut target = format!(
            "/sync/v{version}/connect?clientID={}&clientGroupID={}&ts=1.5&lmid=0",
            encode(&client),
            encode(&group)
        );
        if let Some(user) = &user {
            target.push_str(&format!("&userID={}", encode(user)));
        }
        let header = serde_json::json!({"authToken": token}).to_string();
        let request = parse(&target, Some(&encode(&STANDARD.encode(header))));
        prop_assert!(request.is_ok(), "{request:?}");
        let request = request.expect("it was taken");
        prop_assert_eq!((request.client_id, request.group_id, request.user_id), (client, group, user));
        prop_assert_eq!((request.auth_token, request.version), (token, f64::from(version)));
        Ok(())
    });
}

#[test]
fn cookies_are_read_as_they_are_written() {
    let words: Vec<&[u8]> = vec![b":", b".", b"0", b"z", b"00", b"c3w5e11264sgsf"];
    let seeds = ["00", "00:01", "4l6hww:03", "21ab.01:02", "c3w5e11264sgsf:c3w5e11264sgsf", "c3w5e11264sgsg"];
    fuzz((text(&seeds, words.clone()), text(&seeds, words)), |(one, other)| {
        let (Some(a), Some(b)) = (Cookie::parse(&one), Cookie::parse(&other)) else { return Ok(()) };
        prop_assert_eq!(Cookie::parse(&a.to_string()), Some(a));
        // Clients compare them as texts.
        let is_plain = |text: &str| !text.contains('.');
        if is_plain(&one) && is_plain(&other) && a != b {
            prop_assert_eq!(a.to_string().cmp(&b.to_string()), a.cmp(&b));
        }
        prop_assert_eq!(lexi::decode(&lexi::encode(a.major)), Some(a.major));
        Ok(())
    });
}
