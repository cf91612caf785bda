//! A server that answers every upgrade and sends canned pokes: what is left is the cost of
//! the generator.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use tungstenite::handshake::derive_accept_key;

use super::error::BenchError;
use super::frame::server_frame;
use super::message::{MARKER_DIGITS, MARKER_TEXT};

/// Longest upgrade request, in bytes.
const HEAD_MAX: usize = 64 << 10;
/// A first byte of a frame: a whole text message.
const WHOLE_TEXT: u8 = 0x81;

/// A null server that listens.
pub struct NullServer {
    listener: TcpListener,
}

impl NullServer {
    /// Listens on a free port of this machine.
    pub fn bind() -> Result<NullServer, BenchError> {
        Ok(NullServer { listener: TcpListener::bind(("127.0.0.1", 0))? })
    }

    /// Where.
    pub fn address(&self) -> Result<SocketAddr, BenchError> {
        Ok(self.listener.local_addr()?)
    }

    /// Accepts so many clients, then sends `rounds` pokes to all of them, so many rounds per
    /// second. Gives the sockets back: they stay open until the last poke has been read.
    pub fn serve(&self, clients: usize, rounds: u64, rate: f64) -> Result<Vec<TcpStream>, BenchError> {
        let mut sockets = Vec::with_capacity(clients);
        for _ in 0..clients {
            let (mut socket, _) = self.listener.accept()?;
            accept(&mut socket)?;
            sockets.push(socket);
        }
        let begun = Instant::now();
        for round in 1..=rounds {
            let due = Duration::from_secs_f64(round as f64 / rate);
            std::thread::sleep(due.saturating_sub(begun.elapsed()));
            let poke = poke(round);
            for socket in &mut sockets {
                socket.write_all(&poke)?;
            }
        }
        Ok(sockets)
    }
}

/// Answers the upgrade of one client.
pub fn accept(socket: &mut TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let mut head = Vec::new();
    let mut buffer = [0; 4096];
    while memchr::memmem::find(&head, b"\r\n\r\n").is_none() {
        let n = socket.read(&mut buffer)?;
        if n == 0 || head.len() > HEAD_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "no upgrade request"));
        }
        head.extend_from_slice(&buffer[..n]);
    }
    let text = String::from_utf8_lossy(&head);
    let header = |name: &str| {
        let found = text.lines().filter_map(|l| l.split_once(": ")).find(|(n, _)| *n == name);
        found.map(|(_, v)| v).unwrap_or_default()
    };
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\nSec-WebSocket-Protocol: {}\r\n\r\n",
        derive_accept_key(header("Sec-WebSocket-Key").as_bytes()),
        header("Sec-WebSocket-Protocol"),
    );
    let mut out = answer.into_bytes();
    server_frame(&mut out, WHOLE_TEXT, br#"["connected",{"wsid":"w","timestamp":1}]"#);
    socket.write_all(&out)
}

/// A poke of one row, in three frames and one buffer, as a server would send it.
fn poke(round: u64) -> Vec<u8> {
    let row = format!(
        r#"{{"op":"put","tableName":"issues","value":{{"id":"i0099999","project_id":"p999","num":100,"title":"{MARKER_TEXT}{round:0width$}","status":"open","priority":2,"creator_id":"u1","rev":{round},"created_at":1735789599999,"updated_at":1748736000000}}}}"#,
        width = MARKER_DIGITS
    );
    let mut out = Vec::new();
    for message in [
        format!(r#"["pokeStart",{{"pokeID":"{round}","baseCookie":"{}"}}]"#, round - 1),
        format!(r#"["pokePart",{{"pokeID":"{round}","rowsPatch":[{row}]}}]"#),
        format!(r#"["pokeEnd",{{"pokeID":"{round}","cookie":"{round}"}}]"#),
    ] {
        server_frame(&mut out, WHOLE_TEXT, message.as_bytes());
    }
    out
}
