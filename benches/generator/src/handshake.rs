//! Opening a connection as a stock client does: the URL, the upgrade request with
//! `initConnection` in its subprotocol, and the check of the answer.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::{SocketAddr, ToSocketAddrs};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use tungstenite::handshake::client::generate_key;
use tungstenite::handshake::derive_accept_key;

use super::error::BenchError;
use super::query::{Query, client_schema};

/// The protocol that the current release of the stock client speaks.
const PROTOCOL_VERSION: u32 = 51;
/// Longest subprotocol that a stock client puts into the header, in characters; above it
/// `initConnection` is the first message instead.
const HEADER_MAX: usize = 8192;

/// Where a server is.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its address.
    pub address: SocketAddr,
    /// Host and port as they go into the Host header.
    pub host: String,
    /// Path before `/sync/...`, without a slash at its end.
    pub base: String,
}

impl Target {
    /// Understands `ws://host:port[/base]`; `http` means the same. Only plain connections:
    /// the load is for a server on this machine.
    pub fn parse(text: &str) -> Result<Target, BenchError> {
        let bad = |why: String| BenchError::Usage(format!("--url {text}: {why}"));
        let url = url::Url::parse(text).map_err(|e| bad(e.to_string()))?;
        if !matches!(url.scheme(), "ws" | "http") {
            return Err(bad("only ws:// and http:// are possible".to_owned()));
        }
        let host = url.host_str().unwrap_or_default().to_owned();
        let port = url.port_or_known_default().unwrap_or(80);
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let address = (bare, port).to_socket_addrs().map_err(|e| bad(e.to_string()))?.next();
        Ok(Target {
            address: address.ok_or_else(|| bad("no address".to_owned()))?,
            host: format!("{host}:{port}"),
            base: url.path().trim_end_matches('/').to_owned(),
        })
    }
}

/// A random id of 18 base-36 characters, like those of clients and groups.
pub fn random_id() -> String {
    let mut out = String::with_capacity(18);
    while out.len() < 18 {
        // Each RandomState has other keys: a random number without a crate for it.
        let mut n = RandomState::new().build_hasher().finish();
        for _ in 0..9 {
            out.push(char::from(b"abcdefghijklmnopqrstuvwxyz0123456789"[(n % 36) as usize]));
            n /= 36;
        }
    }
    out
}

/// Who a client is, as long as its tab lives.
#[derive(Clone, Debug)]
pub struct Identity {
    client: String,
    group: String,
    profile: String,
}

impl Identity {
    /// A new client in a group of its own.
    pub fn fresh() -> Identity {
        Identity { client: random_id(), group: random_id(), profile: format!("p{}", random_id()) }
    }
}

/// What a client has when it connects.
#[derive(Clone, Copy, Debug)]
pub enum Opening<'a> {
    /// Nothing; it wants these queries.
    First(&'a [Query]),
    /// All that belongs to this cookie. The server knows what it wants.
    Again(&'a str),
}

/// The upgrade of one connection: what to send, and what must come back.
pub struct Upgrade {
    /// The request.
    pub request: Vec<u8>,
    /// `initConnection` where it did not fit into the header: send it after `connected`.
    pub first_message: Option<String>,
    accept: String,
    protocol: String,
}

/// The upgrade request of a client.
pub fn upgrade(target: &Target, identity: &Identity, opening: Opening<'_>) -> Upgrade {
    let Identity { client, group, profile } = identity;
    let (init, cookie) = match opening {
        Opening::First(queries) => {
            let puts: Vec<Value> = queries.iter().map(Query::put).collect();
            let schema = client_schema();
            (json!({"desiredQueriesPatch": puts, "clientSchema": schema, "activeClients": [client]}), "")
        }
        // The schema goes with an empty cookie only.
        Opening::Again(cookie) => (json!({"desiredQueriesPatch": [], "activeClients": [client]}), cookie),
    };
    let init = json!(["initConnection", init]);
    let cookie = utf8_percent_encode(cookie, NON_ALPHANUMERIC);
    let mut protocol = subprotocol(&json!({ "initConnectionMessage": init }));
    let mut first_message = None;
    if protocol.len() > HEADER_MAX {
        protocol = subprotocol(&json!({}));
        let mut init = init;
        if let Some(body) = init[1].as_object_mut() {
            body.remove("activeClients");
        }
        first_message = Some(init.to_string());
    }
    let key = generate_key();
    let request = format!(
        "GET {}/sync/v{PROTOCOL_VERSION}/connect?clientID={client}&clientGroupID={group}&baseCookie={cookie}\
         &ts=1.5&lmid=0&wsid={}&profileID={profile} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: {protocol}\r\n\r\n",
        target.base,
        random_id(),
        target.host,
    );
    Upgrade {
        request: request.into_bytes(),
        first_message,
        accept: derive_accept_key(key.as_bytes()),
        protocol,
    }
}

fn subprotocol(message: &Value) -> String {
    // encodeURIComponent leaves letters and digits; of base64's other characters it escapes all.
    utf8_percent_encode(&STANDARD.encode(message.to_string()), NON_ALPHANUMERIC).to_string()
}

impl Upgrade {
    /// Checks the head of the answer (up to the empty line).
    pub fn check(&self, head: &str) -> Result<(), String> {
        let status = head.lines().next().unwrap_or_default();
        if status.split(' ').nth(1) != Some("101") {
            return Err(format!("the upgrade was answered with {status:?}"));
        }
        let header = |name: &str| {
            head.lines().skip(1).filter_map(|l| l.split_once(':')).find(|(n, _)| n.eq_ignore_ascii_case(name))
        };
        let value = |name| header(name).map(|(_, v)| v.trim()).unwrap_or_default();
        if value("Sec-WebSocket-Accept") != self.accept {
            return Err("Sec-WebSocket-Accept is wrong".to_owned());
        }
        if value("Sec-WebSocket-Protocol") != self.protocol {
            return Err("Sec-WebSocket-Protocol was not echoed: browsers would refuse".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        let t = Target::parse("ws://127.0.0.1:4848").unwrap();
        assert_eq!((t.host.as_str(), t.base.as_str()), ("127.0.0.1:4848", ""));
        assert_eq!(Target::parse("http://127.0.0.1:1/app/").unwrap().base, "/app");
        assert!(Target::parse("https://127.0.0.1").is_err());
        assert!(Target::parse("127.0.0.1").is_err());
    }

    #[test]
    fn ids_differ_and_have_the_form_of_client_ids() {
        let (a, b) = (random_id(), random_id());
        assert_ne!(a, b);
        assert!(a.len() == 18 && a.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()));
    }

    #[test]
    fn the_subprotocol_is_encoded_as_browsers_do() {
        assert_eq!(subprotocol(&json!({})), "e30%3D");
        assert_eq!(subprotocol(&json!({"authToken": "tok"})), "eyJhdXRoVG9rZW4iOiJ0b2sifQ%3D%3D");
    }

    #[test]
    fn a_long_first_message_is_sent_later() {
        let target = Target::parse("ws://127.0.0.1:4848").unwrap();
        let first = |queries: &[Query]| upgrade(&target, &Identity::fresh(), Opening::First(queries));
        assert!(first(&[Query::recent(1)]).first_message.is_none());
        let many: Vec<Query> = (0..200).map(Query::board).collect();
        let later = first(&many);
        assert!(later.request.len() < 1024);
        let message: Value = serde_json::from_str(&later.first_message.unwrap()).unwrap();
        assert_eq!(message[1]["desiredQueriesPatch"].as_array().unwrap().len(), 200);
        assert!(message[1].get("activeClients").is_none());
    }

    #[test]
    fn who_comes_back_is_the_same_and_names_its_cookie_and_nothing_that_the_server_knows() {
        let target = Target::parse("ws://127.0.0.1:4848").unwrap();
        let identity = Identity::fresh();
        let text = |opening| String::from_utf8(upgrade(&target, &identity, opening).request).unwrap();
        let part = |text: &str, name: &str| {
            let from = text.find(&format!("{name}=")).unwrap();
            text[from..].split(['&', ' ']).next().unwrap().to_owned()
        };
        let (first, again) = (text(Opening::First(&[Query::recent(1)])), text(Opening::Again("4l1tc8:0b")));
        for name in ["clientID", "clientGroupID", "profileID"] {
            assert_eq!(part(&first, name), part(&again, name));
        }
        assert_ne!(part(&first, "wsid"), part(&again, "wsid"));
        assert_eq!(part(&first, "baseCookie"), "baseCookie=");
        assert_eq!(part(&again, "baseCookie"), "baseCookie=4l1tc8%3A0b");
        let message =
            json!(["initConnection", {"desiredQueriesPatch": [], "activeClients": [identity.client]}]);
        assert!(again.contains(&subprotocol(&json!({ "initConnectionMessage": message }))));
    }

    #[test]
    fn answers() {
        let target = Target::parse("ws://127.0.0.1:4848").unwrap();
        let up = upgrade(&target, &Identity::fresh(), Opening::First(&[]));
        let good = format!(
            "HTTP/1.1 101 Switching Protocols\r\nsec-websocket-accept: {}\r\nSec-WebSocket-Protocol: {}\r\n\r\n",
            up.accept, up.protocol
        );
        assert_eq!(up.check(&good), Ok(()));
        assert!(up.check("HTTP/1.1 503 no\r\n\r\n").is_err());
        assert!(up.check(&good.replace(&up.accept, "x")).is_err());
        assert!(up.check(&good.replace(&up.protocol, "x")).is_err());
    }
}
