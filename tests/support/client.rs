//! A client that is as strict as the stock one, over a blocking socket.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use tungstenite::client::ClientRequestBuilder;
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Message, WebSocket};

use super::app::{Query, schema};
use super::server::Server;
use super::store::{Poke, Store};

mod waiting;

/// Default wait for something that must come.
pub const WAIT: Duration = Duration::from_secs(40);

/// As the stock client: silence after which it sends a ping, and wait for the pong.
const PING_AFTER: Duration = Duration::from_secs(5);
const PONG_WITHIN: Duration = Duration::from_secs(5);

/// Time in which a poke that must not come would have come.
const QUIET: Duration = Duration::from_millis(300);

/// How long one attempt to read blocks.
const POLL: Duration = Duration::from_millis(20);

/// What came from the server.
#[derive(Debug, Clone)]
pub enum Event {
    Connected(Value),
    Poke(Box<Poke>),
    Pong,
    Error(Value),
    TransformError(Vec<Value>),
    DeleteClients(Vec<String>),
    Other(Value),
    /// With the code of the close frame; `Some(1006)` if there was none.
    Closed(Option<u16>, String),
}

/// A tab: its identity, what it holds, and its connection if it has one.
pub struct Client {
    pub id: String,
    pub group: String,
    pub user: Option<String>,
    pub token: Option<String>,
    pub version: u32,
    /// Further headers of the upgrade request.
    pub headers: Vec<(String, String)>,
    /// Further fields of `initConnection`.
    pub init: Value,
    pub store: Store,
    /// Pokes of the present connection.
    pub pokes: Vec<Poke>,
    /// Entries of `transformError` on the present connection.
    pub refused: Vec<Value>,
    /// Ids in `deleteClients` on the present connection.
    pub deleted: Vec<String>,
    /// The error that came instead of `connected`.
    pub refusal: Option<Value>,
    pub wsid: String,
    port: u16,
    socket: Option<WebSocket<TcpStream>>,
    last_poke: Instant,
    pinged: Option<Instant>,
    /// Longest time from a ping to its pong.
    pub slowest_pong: Duration,
    next_mutation: u64,
    /// Messages that were sent on all connections, and their bytes.
    pub sent: (u64, u64),
    /// Bytes of frames that were received on all connections; of messages alone.
    pub received: u64,
}

fn unique(what: &str) -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    format!("{what}{}", NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// Bytes of the header of a frame.
fn frame_head(payload: usize) -> u64 {
    [2, 4, 10][usize::from(payload > 125) + usize::from(payload > 65_535)]
}

/// The value of `Sec-WebSocket-Protocol`.
pub fn protocol(init: Option<&Value>, token: Option<&str>) -> String {
    let mut header = json!({});
    if let Some(init) = init {
        header["initConnectionMessage"] = json!(["initConnection", init]);
    }
    if let Some(token) = token {
        header["authToken"] = json!(token);
    }
    utf8_percent_encode(&STANDARD.encode(header.to_string()), NON_ALPHANUMERIC).to_string()
}

/// Opens a WebSocket, whatever is behind it.
pub fn upgrade(
    port: u16,
    target: &str,
    protocol: Option<&str>,
    headers: &[(String, String)],
) -> Result<WebSocket<TcpStream>, String> {
    let uri = format!("ws://127.0.0.1:{port}{target}").parse().map_err(|e| format!("{target}: {e}"))?;
    let mut request = ClientRequestBuilder::new(uri);
    if let Some(protocol) = protocol {
        request = request.with_sub_protocol(protocol);
    }
    for (name, value) in headers {
        request = request.with_header(name, value);
    }
    let stream = TcpStream::connect(("127.0.0.1", port)).map_err(|e| e.to_string())?;
    stream.set_nodelay(true).map_err(|e| e.to_string())?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).map_err(|e| e.to_string())?;
    stream.set_write_timeout(Some(WAIT)).map_err(|e| e.to_string())?;
    let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
    let (mut socket, _) =
        tungstenite::client::client_with_config(request, stream, Some(config)).map_err(|e| e.to_string())?;
    socket.get_mut().set_read_timeout(Some(POLL)).map_err(|e| e.to_string())?;
    Ok(socket)
}

impl Client {
    /// A tab that holds nothing, in a group of its own.
    pub fn new(server: &Server) -> Client {
        Client::in_group(server, &unique("group"))
    }

    /// A tab that holds nothing.
    pub fn in_group(server: &Server, group: &str) -> Client {
        Client {
            id: unique("client"),
            group: group.to_owned(),
            user: None,
            token: None,
            version: 51,
            headers: Vec::new(),
            init: json!({}),
            store: Store::default(),
            pokes: Vec::new(),
            refused: Vec::new(),
            deleted: Vec::new(),
            refusal: None,
            wsid: String::new(),
            port: server.port,
            socket: None,
            last_poke: Instant::now(),
            pinged: None,
            slowest_pong: Duration::ZERO,
            next_mutation: 1,
            sent: (0, 0),
            received: 0,
        }
    }

    /// Another tab of the group, which holds what this one does.
    pub fn sibling(&self) -> Client {
        let mut store = self.store.clone();
        store.disconnected();
        Client {
            id: unique("client"),
            group: self.group.clone(),
            user: self.user.clone(),
            token: self.token.clone(),
            headers: self.headers.clone(),
            init: self.init.clone(),
            store,
            pokes: Vec::new(),
            refused: Vec::new(),
            deleted: Vec::new(),
            refusal: None,
            wsid: String::new(),
            socket: None,
            next_mutation: 1,
            sent: (0, 0),
            received: 0,
            ..*self
        }
    }

    /// The same tab, which connects by way of another port.
    pub fn through(self, port: u16) -> Client {
        Client { port, ..self }
    }

    /// Path and parameters, as a stock client makes them.
    pub fn target(&self) -> String {
        let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let mut target = format!(
            "/sync/v{}/connect?clientID={}&clientGroupID={}&profileID=p1&baseCookie={}&ts=1234.5999&lmid=0&wsid={}",
            self.version,
            encode(&self.id),
            encode(&self.group),
            encode(self.store.cookie.as_deref().unwrap_or_default()),
            self.wsid,
        );
        if let Some(user) = &self.user {
            target.push_str(&format!("&userID={}", encode(user)));
        }
        target
    }

    /// Body of `initConnection` with these queries.
    pub fn init_body(&self, patch: Vec<Value>) -> Value {
        let mut body = json!({"desiredQueriesPatch": patch});
        if self.store.cookie.is_none() {
            body["clientSchema"] = schema();
        }
        if let (Some(body), Some(more)) = (body.as_object_mut(), self.init.as_object()) {
            body.extend(more.clone());
        }
        body
    }

    /// Connects with `initConnection` in the header and waits for `connected`.
    pub fn connect(&mut self, queries: &[Query]) {
        let init = self.init_body(queries.iter().map(Query::put).collect());
        self.open(Some(&init));
        self.until_connected();
    }

    /// Opens the socket, with or without `initConnection` in the header.
    pub fn open(&mut self, init: Option<&Value>) {
        self.try_open(init).unwrap_or_else(|e| panic!("{e}"));
    }

    /// The same with a server that may not be there.
    pub fn try_open(&mut self, init: Option<&Value>) -> Result<(), String> {
        self.wsid = unique("ws");
        let header = protocol(init, self.token.as_deref());
        let target = self.target();
        self.try_open_raw(&target, Some(&header))
    }

    /// Opens the socket with any target and header.
    pub fn open_raw(&mut self, target: &str, header: Option<&str>) {
        self.try_open_raw(target, header).unwrap_or_else(|e| panic!("{e}"));
    }

    fn try_open_raw(&mut self, target: &str, header: Option<&str>) -> Result<(), String> {
        let socket =
            upgrade(self.port, target, header, &self.headers).map_err(|e| format!("{target}: {e}"))?;
        self.socket = Some(socket);
        self.store.disconnected();
        self.pokes.clear();
        self.refused.clear();
        self.deleted.clear();
        self.refusal = None;
        self.last_poke = Instant::now();
        self.pinged = None;
        Ok(())
    }

    /// Waits for `connected`, which must be the first message. An error instead of it is for
    /// [`Client::until_error`].
    pub fn until_connected(&mut self) {
        match self.next(WAIT) {
            Some(Event::Error(error)) => self.refusal = Some(error),
            Some(Event::Connected(body)) => {
                assert_eq!(body["wsid"], json!(self.wsid));
                assert!(body["timestamp"].is_u64(), "{body}");
            }
            other => panic!("{}: the first message is {other:?}", self.id),
        }
    }

    /// Sends `initConnection` as a message.
    pub fn send_init(&mut self, queries: &[Query]) {
        let body = self.init_body(queries.iter().map(Query::put).collect());
        self.send(json!(["initConnection", body]));
    }

    /// Sends `changeDesiredQueries`.
    pub fn change(&mut self, patch: Vec<Value>) {
        self.send(json!(["changeDesiredQueries", {"desiredQueriesPatch": patch}]));
    }

    /// A mutation with the tab's next number.
    pub fn mutation(&mut self, name: &str, arg: Value) -> Value {
        let id = self.next_mutation;
        self.next_mutation += 1;
        json!({"type": "custom", "id": id, "clientID": self.id, "name": name, "args": [arg],
               "timestamp": 1.5})
    }

    /// Sends mutations; returns the number of the last one.
    pub fn push(&mut self, mutations: Vec<Value>) -> u64 {
        let last = mutations.last().and_then(|m| m["id"].as_u64()).unwrap_or(0);
        self.send(self.push_message(mutations));
        last
    }

    /// The message that sends mutations.
    pub fn push_message(&self, mutations: Vec<Value>) -> Value {
        json!(["push", {"clientGroupID": self.group, "mutations": mutations, "pushVersion": 1,
                        "timestamp": 1, "requestID": unique("request")}])
    }

    /// Makes one mutation and sends it.
    pub fn mutate(&mut self, name: &str, arg: Value) -> u64 {
        let mutation = self.mutation(name, arg);
        self.push(vec![mutation])
    }

    pub fn send(&mut self, message: Value) {
        self.send_text(message.to_string());
    }

    pub fn send_text(&mut self, text: String) {
        self.sent = (self.sent.0 + 1, self.sent.1 + text.len() as u64);
        let sent = self.socket.as_mut().expect("connected").send(Message::text(text));
        sent.unwrap_or_else(|e| panic!("{}: sending failed: {e}", self.id));
    }

    /// Sends to a server that may not be there any more: reading tells.
    pub fn try_send(&mut self, message: Value) {
        let text = message.to_string();
        self.sent = (self.sent.0 + 1, self.sent.1 + text.len() as u64);
        let _ = self.socket.as_mut().expect("connected").send(Message::text(text));
    }

    /// The socket itself, for what no client does.
    pub fn raw(&mut self) -> &mut TcpStream {
        self.socket.as_mut().expect("connected").get_mut()
    }

    /// Drops the connection without a word.
    pub fn vanish(&mut self) {
        self.socket = None;
        self.store.disconnected();
    }

    /// Closes the connection as `zero.close()` does and waits for the server's answer.
    pub fn close(&mut self) {
        let socket = self.socket.as_mut().expect("connected");
        socket.close(None).expect("a close can be sent");
        while self.next(WAIT).expect("the server answers a close").is_not_closed() {}
    }

    pub fn is_connected(&self) -> bool {
        self.socket.is_some()
    }

    /// The next event; `None` if there is none within the time. Applies pokes, sends pings
    /// when a stock client would, and fails when a stock client would fail.
    pub fn next(&mut self, limit: Duration) -> Option<Event> {
        let deadline = Instant::now() + limit;
        loop {
            let socket = self.socket.as_mut().unwrap_or_else(|| panic!("{} is not connected", self.id));
            match socket.read() {
                Ok(Message::Text(text)) => {
                    let text = text.as_str().to_owned();
                    self.received += frame_head(text.len()) + text.len() as u64;
                    if let Some(event) = self.take(&text) {
                        return Some(event);
                    }
                    // A long poke is no reason to keep the test waiting.
                    if Instant::now() >= deadline {
                        return None;
                    }
                }
                Ok(Message::Close(frame)) => {
                    let _ = socket.flush();
                    self.vanish();
                    let code = frame.as_ref().map(|f| f.code.into());
                    let reason = frame.map(|f| f.reason.as_str().to_owned()).unwrap_or_default();
                    return Some(Event::Closed(code, reason));
                }
                Ok(Message::Binary(chunk)) => {
                    self.received += frame_head(chunk.len()) + chunk.len() as u64;
                    self.last_poke = Instant::now();
                    let taken = match self.version {
                        ..52 => Err("a binary message before version 52".to_owned()),
                        _ => self.store.take_chunk(&chunk),
                    };
                    taken.unwrap_or_else(|why| panic!("{} of {}: {why}", self.id, self.group));
                    if Instant::now() >= deadline {
                        return None;
                    }
                }
                Ok(_) => {}
                Err(tungstenite::Error::Io(e))
                    if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    self.keep_alive();
                    if Instant::now() >= deadline {
                        return None;
                    }
                }
                Err(e) => {
                    self.vanish();
                    return Some(Event::Closed(Some(1006), e.to_string()));
                }
            }
        }
    }

    /// The same for a client that never asks whether the server is there.
    pub fn next_without_pings(&mut self, limit: Duration) -> Option<Event> {
        let deadline = Instant::now() + limit;
        loop {
            self.last_poke = Instant::now();
            let event = self.next(POLL);
            if event.is_some() || Instant::now() >= deadline {
                return event;
            }
        }
    }

    /// Called when nothing is there to be read.
    fn keep_alive(&mut self) {
        match self.pinged {
            Some(at) if at.elapsed() > PONG_WITHIN => {
                panic!("{}: no pong for {:?}: a stock client would have left", self.id, at.elapsed());
            }
            None if self.last_poke.elapsed() > PING_AFTER => self.ping(),
            _ => {}
        }
    }

    /// Sends a ping.
    pub fn ping(&mut self) {
        self.pinged = Some(Instant::now());
        // If the connection is over, reading tells why.
        let text = r#"["ping",{}]"#;
        self.sent = (self.sent.0 + 1, self.sent.1 + text.len() as u64);
        let _ = self.socket.as_mut().expect("connected").send(Message::text(text));
    }

    fn take(&mut self, text: &str) -> Option<Event> {
        let message: Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"));
        let body = &message[1];
        let strings = |list: &Value| {
            list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        match message[0].as_str() {
            Some("connected") => Some(Event::Connected(body.clone())),
            Some(kind @ ("pokeStart" | "pokePart" | "pokeEnd")) => {
                self.last_poke = Instant::now();
                assert!(
                    kind != "pokePart" || self.version < 52,
                    "{}: a part as text, from version 52 on",
                    self.id
                );
                let poke = match self.version {
                    ..52 => self.store.take(kind, body),
                    _ => self.store.take_with_chunks(kind, body),
                };
                let poke = poke.unwrap_or_else(|why| panic!("{} of {}: {why}", self.id, self.group))?;
                self.pokes.push(poke.clone());
                Some(Event::Poke(Box::new(poke)))
            }
            Some("pong") => {
                if let Some(at) = self.pinged.take() {
                    self.slowest_pong = self.slowest_pong.max(at.elapsed());
                    self.last_poke = Instant::now();
                }
                Some(Event::Pong)
            }
            Some("error") => {
                // Without it a client takes any error for an unexpected one.
                assert!(body["origin"].is_string(), "an error without origin: {body}");
                assert!(body["kind"].is_string() && body["message"].is_string(), "{body}");
                Some(Event::Error(body.clone()))
            }
            Some("transformError") => {
                let errors = body.as_array().cloned().unwrap_or_default();
                self.refused.extend(errors.clone());
                Some(Event::TransformError(errors))
            }
            Some("deleteClients") => {
                let ids: Vec<String> = strings(&body["clientIDs"]);
                self.deleted.extend(ids.clone());
                Some(Event::DeleteClients(ids))
            }
            _ => Some(Event::Other(message)),
        }
    }
}

impl Event {
    fn is_not_closed(&self) -> bool {
        !matches!(self, Event::Closed(..))
    }
}
