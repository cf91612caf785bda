//! The upgrade request: path, parameters, `Sec-WebSocket-Protocol`
//! (`docs/spec/sync-protocol.md` §2, §3).

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::problem::problem;

/// Oldest protocol version served.
pub const MIN_PROTOCOL_VERSION: u32 = 30;
/// Newest protocol version served.
pub const PROTOCOL_VERSION: u32 = 52;

/// Longest client, group, connection and user id accepted, in bytes. Clients make ids of
/// 18 to 40 characters; user ids are the app's.
pub const MAX_ID: usize = 512;

/// What a client says when it connects.
#[derive(Debug, Clone, PartialEq)]
pub struct ConnectRequest {
    /// Protocol version in the path.
    pub version: f64,
    /// Tab.
    pub client_id: String,
    /// Group of tabs that share one store.
    pub group_id: String,
    /// User, if logged in.
    pub user_id: Option<String>,
    /// Cookie that the tab has; `None`: nothing.
    pub base_cookie: Option<String>,
    /// Id of this connection.
    pub wsid: String,
    /// Browser profile.
    pub profile_id: Option<String>,
    /// Token, if one was given.
    pub auth_token: Option<String>,
    /// The first message, when it fitted into the header: JSON text.
    pub init_connection: Option<String>,
}

impl ConnectRequest {
    /// The version if it is one that this server speaks; else why not.
    pub fn protocol_version(&self) -> Result<u32, String> {
        let version = self.version;
        if version.fract() == 0.0
            && version >= MIN_PROTOCOL_VERSION as f64
            && version <= PROTOCOL_VERSION as f64
        {
            return Ok(version as u32);
        }
        let side = if version < MIN_PROTOCOL_VERSION as f64 { "client" } else { "server" };
        Err(format!(
            "the client speaks protocol version {version}, this server versions {MIN_PROTOCOL_VERSION} to \
             {PROTOCOL_VERSION}: the {side} must be updated"
        ))
    }
}

/// Reads target and protocol header. Errors are the reason of a close with code 1002.
pub fn parse(target: &str, protocol_header: Option<&str>) -> Result<ConnectRequest, String> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let version = parse_path(path)?;
    let parameters = Parameters::parse(query);
    let header = protocol_header.ok_or("Error: missing Sec-WebSocket-Protocol header")?;
    let header = decode_protocol(header)?;
    integer(parameters.required("ts")?, "ts")?;
    integer(parameters.required("lmid")?, "lmid")?;
    Ok(ConnectRequest {
        version,
        client_id: parameters.id("clientID")?,
        group_id: parameters.id("clientGroupID")?,
        user_id: parameters.optional_id("userID")?,
        base_cookie: parameters.get("baseCookie"),
        wsid: parameters.optional_id("wsid")?.unwrap_or_default(),
        profile_id: parameters.optional_id("profileID")?,
        auth_token: header.auth_token.filter(|t| !t.is_empty()),
        init_connection: header.init_connection_message.map(|m| m.get().to_owned()),
    })
}

/// `(/base)?/sync/v<N>/<action>`.
fn parse_path(path: &str) -> Result<f64, String> {
    let invalid = || format!("Error: Invalid URL: {path}");
    let segments: Vec<&str> = path.strip_prefix('/').ok_or_else(invalid)?.split('/').collect();
    let plain =
        |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_~ %".contains(&b));
    if !segments.iter().all(|s| plain(s)) {
        return Err(invalid());
    }
    let rest = match segments.len() {
        3 => &segments[..],
        4 => &segments[1..],
        _ => return Err(invalid()),
    };
    let version = rest[1].strip_prefix('v').ok_or_else(invalid)?;
    if rest[0] != "sync" {
        return Err(format!("Error: {} is not served on this port", rest[0]));
    }
    version.parse().map_err(|_| format!("Error: Invalid version: {path}"))
}

struct Parameters(Vec<(String, String)>);

impl Parameters {
    fn parse(query: &str) -> Parameters {
        let pairs = url::form_urlencoded::parse(query.as_bytes());
        Parameters(pairs.map(|(k, v)| (k.into_owned(), v.into_owned())).collect())
    }

    /// An empty value counts as missing.
    fn get(&self, name: &str) -> Option<String> {
        let found = self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
        found.filter(|v| !v.is_empty())
    }

    fn required(&self, name: &str) -> Result<String, String> {
        self.get(name).ok_or_else(|| format!("Error: invalid querystring - missing {name}"))
    }

    fn id(&self, name: &str) -> Result<String, String> {
        bounded(self.required(name)?, name)
    }

    fn optional_id(&self, name: &str) -> Result<Option<String>, String> {
        self.get(name).map(|v| bounded(v, name)).transpose()
    }
}

fn bounded(value: String, name: &str) -> Result<String, String> {
    if value.len() > MAX_ID {
        return Err(format!("Error: invalid querystring - {name} is longer than {MAX_ID} bytes"));
    }
    Ok(value)
}

/// As JavaScript's `parseInt`: a leading integer, the rest ignored.
fn integer(value: String, name: &str) -> Result<(), String> {
    let digits = value.trim_start().trim_start_matches(['+', '-']);
    if digits.starts_with(|c: char| c.is_ascii_digit()) {
        return Ok(());
    }
    Err(format!("Error: invalid querystring parameter {name}, got: {value:?}"))
}

#[derive(Deserialize)]
struct ProtocolHeader {
    #[serde(rename = "initConnectionMessage")]
    init_connection_message: Option<Box<RawValue>>,
    #[serde(rename = "authToken")]
    auth_token: Option<String>,
}

/// Percent-decoding, then lenient base64, then UTF-8 with replacement, then JSON.
fn decode_protocol(header: &str) -> Result<ProtocolHeader, String> {
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &alphabet::STANDARD,
        GeneralPurposeConfig::new()
            .with_decode_padding_mode(DecodePaddingMode::Indifferent)
            .with_decode_allow_trailing_bits(true),
    );
    let mut encoded: Vec<u8> = percent_decode_str(header).collect();
    encoded.retain(|b| !b.is_ascii_whitespace());
    let bytes =
        LENIENT.decode(encoded).map_err(|e| format!("Error: Sec-WebSocket-Protocol is not base64: {e}"))?;
    serde_json::from_str(&String::from_utf8_lossy(&bytes))
        .map_err(|e| format!("Error: Sec-WebSocket-Protocol is not the expected JSON: {}", problem(&e)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUERY: &str = "clientID=c&clientGroupID=g&ts=1234.5999&lmid=0&baseCookie=&wsid=w";

    #[test]
    fn a_browser_request_is_read() {
        let header = "eyJhdXRoVG9rZW4iOiJ0b2sifQ%3D%3D";
        let request = parse(&format!("/sync/v51/connect?{QUERY}"), Some(header)).unwrap();
        assert_eq!(request.protocol_version(), Ok(51));
        assert_eq!(request.base_cookie, None);
        assert_eq!(request.auth_token.as_deref(), Some("tok"));
        assert_eq!(request.user_id, None);
        let request = parse(&format!("/base/sync/v30/connect?{QUERY}"), Some("e30%3D")).unwrap();
        assert_eq!(request.protocol_version(), Ok(30));
        assert!(request.init_connection.is_none());
    }

    #[test]
    fn malformed_requests_say_what_is_wrong() {
        let parse = |target: &str, header| parse(target, header).unwrap_err();
        let path = "/sync/v51/connect";
        assert!(parse("/a/b/sync/v51/connect", Some("e30")).contains("Invalid URL"));
        assert!(parse("/sync/v51/connect/", Some("e30")).contains("Invalid URL"));
        assert!(parse("/sync/vx/connect?x", Some("e30")).contains("Invalid version"));
        assert!(parse(path, Some("e30")).contains("missing ts"));
        assert!(parse(&format!("{path}?{QUERY}"), None).contains("Sec-WebSocket-Protocol"));
        assert!(parse(&format!("{path}?{QUERY}"), Some("!!")).contains("base64"));
        assert!(parse(&format!("{path}?clientID=c&clientGroupID=g&ts=x&lmid=0"), Some("e30")).contains("ts"));
        let long = "x".repeat(MAX_ID + 1);
        assert!(
            parse(&format!("{path}?clientID={long}&clientGroupID=g&ts=1&lmid=0"), Some("e30"))
                .contains("longer")
        );
    }

    #[test]
    fn versions_outside_the_range_are_refused_with_the_side_to_update() {
        let request = |v: &str| parse(&format!("/sync/v{v}/connect?{QUERY}"), Some("e30")).unwrap();
        assert!(request("29").protocol_version().unwrap_err().contains("client must"));
        assert_eq!(request("52").protocol_version(), Ok(52));
        assert!(request("53").protocol_version().unwrap_err().contains("server must"));
    }
}
