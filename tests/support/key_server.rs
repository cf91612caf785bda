//! Whoever publishes the keys that tokens are signed with: a URL with a JWK set.

use std::io::Write;
use std::net::TcpStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use super::http;
use super::ports::listen;
use super::tokens::Signer;

/// What a request for the keys gets.
#[derive(Debug, Clone)]
pub enum Reply {
    /// A document.
    Document(String),
    /// The same after a while.
    Slow(Duration, String),
    /// A status without a document.
    Status(u16),
    /// Go there.
    Redirect(String),
    /// The beginning of an answer, and then nothing.
    Half,
}

struct State {
    reply: Reply,
    /// Paths that were asked for.
    asked: Vec<String>,
}

/// The server. Its threads end with the process.
pub struct KeyServer {
    pub port: u16,
    state: Arc<Mutex<State>>,
}

/// A JWK set with these keys.
pub fn set(keys: &[Value]) -> String {
    json!({"keys": keys}).to_string()
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl KeyServer {
    /// Starts it with the keys of these signers.
    pub fn start(signers: &[&Signer]) -> KeyServer {
        let listener = listen();
        let port = listener.local_addr().expect("it is bound").port();
        let state = State { reply: Reply::Status(404), asked: Vec::new() };
        let server = KeyServer { port, state: Arc::new(Mutex::new(state)) };
        server.publish(signers);
        let serving = server.state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = serving.clone();
                std::thread::spawn(move || serve(&state, stream));
            }
        });
        server
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/keys", self.port)
    }

    /// Has the keys of these signers and no others from now on.
    pub fn publish(&self, signers: &[&Signer]) {
        let keys: Vec<Value> = signers.iter().map(|s| s.jwk()).collect();
        self.reply(Reply::Document(set(&keys)));
    }

    /// What requests get from now on.
    pub fn reply(&self, reply: Reply) {
        lock(&self.state).reply = reply;
    }

    /// Paths that were asked for so far.
    pub fn asked(&self) -> Vec<String> {
        lock(&self.state).asked.clone()
    }
}

fn serve(state: &Mutex<State>, mut stream: TcpStream) {
    let mut input = Vec::new();
    while let Ok(Some(request)) = http::read(&mut stream, &mut input) {
        let reply = {
            let mut state = lock(state);
            state.asked.push(request.target);
            state.reply.clone()
        };
        let (head, body) = match reply {
            Reply::Document(text) => ("200 OK".to_owned(), text),
            Reply::Slow(time, text) => {
                std::thread::sleep(time);
                ("200 OK".to_owned(), text)
            }
            Reply::Status(status) => (format!("{status} x"), String::new()),
            Reply::Redirect(to) => (format!("302 x\r\nLocation: {to}"), String::new()),
            Reply::Half => {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{");
                continue;
            }
        };
        let answer = format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}
